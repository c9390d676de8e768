//! Timing chooses among the model's candidates, and what it found is read back only where it still means the same.

use super::*;
use crate::device::test_gpus::computing_gpus;
use crate::ops::conv3d::Conv3dParams;

#[test]
fn the_fastest_is_kept_and_read_back_for_the_same_device_alone() {
    for gpu in computing_gpus() {
        let params = Conv3dParams { padding: [1; 3], ..Conv3dParams::default() };
        let problem = Conv3dProblem::new([1, 4, 4, 5, 6], [8, 4, 3, 3, 3], params).expect("shapes that fit");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("deeper").join("conv3d.json");
        let facts = gpu.launches().conv_facts(DType::F32, problem.weight_shape()[1], false);
        let candidates = candidates(&problem, &facts);
        let tuned = || tuned_plan(&gpu, &problem, &facts, Some(&file)).expect("a plan");
        let first = tuned();
        assert!(candidates.contains(&first), "{first}");
        let (identity, shape) = (gpu.identity().to_owned(), shape(&problem, &facts));
        let mut found = read(&file);
        assert_eq!(found[&identity][&shape], first.to_string());

        // Another plan in its place is believed: the file is what is asked.
        let other = candidates.iter().find(|p| **p != first).expect("two candidates");
        found.entry(identity.clone()).or_default().insert(shape.clone(), other.to_string());
        write(&file, &found).expect("written");
        assert_eq!(tuned(), *other);

        // What no candidate says of itself is not; it is timed anew. Nor is another device's, or a damaged file.
        found.entry(identity.clone()).or_default().insert(shape.clone(), "halo of an older version".into());
        write(&file, &found).expect("written");
        assert!(candidates.contains(&tuned()));
        let shapes = found.remove(&identity).expect("this device");
        found.insert("another device".into(), shapes);
        write(&file, &found).expect("written");
        assert!(candidates.contains(&tuned()));
        assert_eq!(read(&file).len(), 2);
        std::fs::write(&file, "{").expect("written");
        assert!(candidates.contains(&tuned()));
        assert_eq!(read(&file).len(), 1);
    }
}
