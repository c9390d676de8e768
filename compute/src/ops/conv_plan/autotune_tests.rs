//! Timing chooses among the planner's candidates, and what it found is read back only where it still means the same.

use super::*;
use crate::device::Gpu;
use crate::device::test_gpus::computing_gpus;
use crate::ops::conv_problem::{Conv3dParams, Conv3dProblem, ConvTranspose3dParams, ConvTranspose3dProblem};
use crate::ops::conv_transpose3d::gpu::{ConvTranspose3dHandles, Placement};
use crate::ops::conv3d::gpu::Conv3dHandles;
use crate::tensor::DType;

#[test]
fn the_fastest_convolution_is_kept_and_read_back_for_the_same_device_alone() {
    for gpu in computing_gpus() {
        let params = Conv3dParams { padding: [1; 3], ..Conv3dParams::default() };
        let problem = Conv3dProblem::new([1, 4, 4, 5, 6], [8, 4, 3, 3, 3], params).expect("shapes that fit");
        check(&gpu, &problem, &|[x, w, y], plan| {
            let buffers = Conv3dHandles { x, w, b: None, residual: None, y };
            gpu.run(|client| client.conv3d_planned(DType::F32, buffers, 1.0, &problem, plan))
        });
    }
}

#[test]
fn the_fastest_transposed_convolution_is_kept_too() {
    for gpu in computing_gpus() {
        let params = ConvTranspose3dParams { stride: [2; 3], padding: [0; 3] };
        let problem = ConvTranspose3dProblem::new([1, 8, 4, 5, 6], [8, 4, 2, 2, 2], params).expect("shapes that fit");
        check(&gpu, &problem, &|[x, w, y], plan| {
            let (buffers, placement) = (ConvTranspose3dHandles { x, w, b: None, y }, Placement::alone(&problem));
            gpu.run(|client| client.conv_transpose3d_planned(DType::F32, buffers, placement, &problem, plan))
        });
    }
}

fn check<C: Convolution>(gpu: &Gpu, problem: &C, launch: LaunchOn<'_, C::Plan>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("deeper").join("convolutions.json");
    let caps = DeviceCaps::of(gpu, DType::F32);
    let candidates = likely(problem, &caps);
    let known = |plan: &C::Plan| candidates.contains(plan);
    let tuned = || tuned_plan(gpu, problem, &caps, Some(&file), launch).expect("a plan");
    let first = tuned();
    assert!(known(&first), "{first}");
    let (identity, key) = (gpu.identity().to_owned(), problem.key(&caps));
    let mut found = read(&file);
    assert_eq!(found[&identity][&key], first.to_string());

    // Another plan in its place is believed: the file decides.
    let other = candidates.iter().find(|p| **p != first).expect("two candidates");
    found.entry(identity.clone()).or_default().insert(key.clone(), other.to_string());
    write(&file, &found).expect("written");
    assert!(tuned() == *other);

    // A text that no candidate has is not believed; the problem is timed anew. Nor is that of another device, or a damaged
    // file.
    found.entry(identity.clone()).or_default().insert(key, "halo of an older version".into());
    write(&file, &found).expect("written");
    assert!(known(&tuned()));
    let plans = found.remove(&identity).expect("this device");
    found.insert("another device".into(), plans);
    write(&file, &found).expect("written");
    assert!(known(&tuned()));
    assert_eq!(read(&file).len(), 2);
    std::fs::write(&file, "{").expect("written");
    assert!(known(&tuned()));
    assert_eq!(read(&file).len(), 1);
}
