//! Of several images `segment` reads the next one and writes the last one while another is computed.

use std::path::Path;

use nephron::io::nifti;
use serde_json::Value;

use crate::segment::{model_folder, nephron, noise};

/// Whether images overlap, or with a budget are processed one after another, their files, messages and records are the same.
#[test]
fn images_that_overlap_give_what_images_in_turn_give() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, images) = (model_folder(folder.path()), folder.path().join("images"));
    std::fs::create_dir(&images).expect("a folder");
    for (i, name) in ["a", "b", "d", "e", "f"].into_iter().enumerate() {
        let scan = nifti::Image::new(noise([6 + i, 12, 14], [3.0, 1.5, 1.5 + 0.1 * i as f64]));
        nifti::write(images.join(format!("{name}_0000.nii.gz")), &scan).expect("written");
    }
    // Fails where it is read, and another before it.
    std::fs::write(images.join("c_0000.nii.gz"), "no image").expect("written");
    std::fs::copy(images.join("a_0000.nii.gz"), images.join("g_0001.nii.gz")).expect("copied");
    // Fails where it is computed: a voxel is no number.
    let mut values = vec![1.0f32; 6 * 12 * 14];
    values[7] = f32::NAN;
    let broken = noise([6, 12, 14], [3.0, 1.5, 1.5]).with_voxels(nephron::volume::Voxels::F32(values.into()));
    nifti::write(images.join("da_0000.nii.gz"), &nifti::Image::new(broken.expect("a volume"))).expect("written");

    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let paths: [&Path; 6] = [Path::new("--model"), &model, Path::new("-o"), &out, Path::new("-i"), &images];
        let (code, said, errors) = nephron(&[&["segment", "--device", "cpu", "--preview"], more].concat(), &paths);
        assert!(code == 1 && errors.contains("3 of 8 images failed"), "{errors}");
        let plain = |text: &str| text.replace(out.to_str().expect("a name"), "OUT");
        // Times are in the lines that tell the number of tiles.
        let lines: Vec<String> = said.lines().filter(|line| !line.contains(" tiles; ")).map(plain).collect();
        let record = std::fs::read_to_string(out.join("segment.json")).expect("a record");
        let mut record: Value = serde_json::from_str(&plain(&record)).expect("JSON");
        record["host_memory_peak_bytes"] = Value::Null;
        for file in record["files"].as_array_mut().expect("files") {
            file["seconds"] = Value::Null;
        }
        (lines, plain(&errors), record, plain(&std::fs::read_to_string(out.join("segment.csv")).expect("a table")))
    };
    let in_turn = run("in_turn", &["--memory-budget", "1000GB"]);
    let cases = |key: &str, name: &str| -> Vec<String> {
        let all = in_turn.2[key].as_array().expect("a list");
        all.iter().map(|entry| entry[name].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(cases("files", "case"), ["a", "b", "d", "e", "f"]);
    assert_eq!(cases("failed", "input"), ["c", "da", "g"]);
    for _ in 0..3 {
        assert_eq!(run("overlapped", &[]), in_turn);
        for name in ["a", "b", "d", "e", "f"] {
            for file in [format!("{name}.nii.gz"), format!("{name}_preview.png")] {
                let [one, other] = ["in_turn", "overlapped"]
                    .map(|out| std::fs::read(folder.path().join(out).join(&file)).expect("a file"));
                assert!(one == other, "{file}");
            }
        }
    }
}
