//! `nephron segment -i DIR`: parts, runs that are continued, and what is written beside the masks.

use std::path::Path;

use nephron::io::nifti;
use serde_json::Value;

use crate::segment::{model_folder, nephron, noise};

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn a_folder_is_segmented_in_parts_and_continued_and_a_broken_image_costs_itself() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, out, images) = (model_folder(folder.path()), folder.path().join("out"), folder.path().join("images"));
    std::fs::create_dir(&images).expect("a folder");
    let scan = nifti::Image::new(noise([6, 12, 14], [3.0, 1.5, 1.5]));
    for name in ["a", "c", "d_1"] {
        nifti::write(images.join(format!("{name}_0000.nii.gz")), &scan).expect("written");
    }
    std::fs::write(images.join("b_0000.nii.gz"), "no image").expect("written");
    std::fs::write(images.join("readme.txt"), "no image either").expect("written");
    let paths: [&Path; 6] = [Path::new("--model"), &model, Path::new("-o"), &out, Path::new("-i"), &images];
    let run = |more: &[&str]| nephron(&[&["segment", "--device", "cpu", "--json"], more].concat(), &paths);
    let masks = || {
        let mut names = names(&out);
        names.retain(|name| name.ends_with(".nii.gz"));
        names
    };
    // Every second image from the second one on: b, which is broken, and d_1.
    let (code, stdout, stderr) = run(&["--num-parts", "2", "--part-id", "1"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("1 of 2 images failed") && stderr.contains("b_0000.nii.gz"), "{stderr}");
    assert_eq!(masks(), ["d_1.nii.gz"]);
    let report: serde_json::Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("json");
    assert_eq!(
        (report["files"].as_array().map(Vec::len), report["failed"].as_array().map(Vec::len)),
        (Some(1), Some(1))
    );
    let before = std::fs::metadata(out.join("d_1.nii.gz")).expect("a mask").modified().expect("a time");
    let (code, stdout, stderr) = run(&["--continue"]);
    assert!(code == 1 && stderr.contains("1 of 4 images failed"), "{stderr}");
    assert_eq!(masks(), ["a.nii.gz", "c.nii.gz", "d_1.nii.gz"]);
    let report: serde_json::Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("json");
    assert_eq!(report["files"].as_array().map(Vec::len), Some(3), "that of the first run included");
    assert_eq!(std::fs::metadata(out.join("d_1.nii.gz")).expect("a mask").modified().expect("a time"), before);
    let (code, _, stderr) = run(&["--num-parts", "2", "--part-id", "2"]);
    assert!(code == 2 && stderr.contains("--part-id: expected 0 to 1, found 2"), "{stderr}");
}

#[test]
fn the_record_says_what_was_done_and_only_a_like_run_continues_it() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, out, images) = (model_folder(folder.path()), folder.path().join("out"), folder.path().join("images"));
    std::fs::create_dir(&images).expect("a folder");
    let scan = nifti::Image::new(noise([6, 12, 14], [3.0, 1.5, 1.5]));
    for name in ["a", "b"] {
        nifti::write(images.join(format!("{name}_0000.nii.gz")), &scan).expect("written");
    }
    let paths: [&Path; 6] = [Path::new("--model"), &model, Path::new("-o"), &out, Path::new("-i"), &images];
    let run = |more: &[&str]| nephron(&[&["segment", "--device", "cpu"], more].concat(), &paths);
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("a file");
    let record = || serde_json::from_str::<Value>(&read("segment.json")).expect("JSON");

    let (code, stdout, stderr) = run(&["--probabilities"]);
    assert_eq!(code, 0, "{stderr}");
    let found = record();
    let first = &found["files"][0];
    assert_eq!((found["step"].as_f64(), found["probabilities"].as_bool()), (Some(0.5), Some(true)), "{found}");
    assert_eq!(found["model_files"][0]["sha256"].as_str().map(str::len), Some(64), "{found}");
    assert_eq!(first["sources"][0]["sha256"].as_str().map(str::len), Some(64), "{found}");
    // The figures are those of the mask, computed here from the file.
    let mask = nifti::read_labels(out.join("a.nii.gz")).expect("a mask").labels;
    let values = scan.volume.voxels().to_f32();
    for m in first["measurements"].as_array().expect("measurements") {
        let name = m["name"].as_str().expect("a name");
        let label = found["labels"].as_array().expect("labels").iter().find(|l| l["name"] == name).expect("a label");
        let label = label["value"].as_u64().expect("a value") as u8;
        let inside: Vec<f64> =
            mask.labels().iter().zip(&values).filter(|(l, _)| **l == label).map(|(_, v)| f64::from(*v)).collect();
        assert_eq!(m["voxels"].as_u64(), Some(inside.len() as u64), "{name}");
        let mean = inside.iter().sum::<f64>() / inside.len() as f64;
        assert_eq!(m["mean"].is_null(), inside.is_empty(), "{name}");
        assert!(inside.is_empty() || (m["mean"].as_f64().expect("a mean") - mean).abs() < 1e-6, "{m} {mean}");
        assert!(read("labels.txt").lines().any(|line| line.ends_with(&format!("\"{name}\""))), "{name}");
        assert!(read("labels.ctbl").lines().any(|line| line.starts_with(&format!("{label} {name} "))), "{name}");
        assert!(read("segment.csv").contains(&format!(",{name},{},", inside.len())), "{name}");
        assert!(stdout.contains(name), "{stdout}");
    }
    assert_eq!(read("segment.csv").lines().count(), 1 + 2 * first["measurements"].as_array().map_or(0, Vec::len));

    // A picture on request: as wide as the scan in millimetres, with the outlines' colours on it.
    let picture = folder.path().join("picture");
    let one = images.join("a_0000.nii.gz");
    let shown: [&Path; 5] = [Path::new("--model"), &model, Path::new("-o"), &picture, &one];
    assert_eq!(nephron(&["segment", "--device", "cpu", "--preview"], &shown).0, 0);
    let picture = image::open(picture.join("a_0000_preview.png")).expect("a picture").to_rgb8();
    assert_eq!((picture.width(), picture.height()), (640, 549));
    let coloured = picture.pixels().filter(|p| p.0 == [64, 224, 96] || p.0 == [255, 72, 56]).count();
    assert!(coloured > 100, "{coloured}");

    // Other options would mix masks of two kinds.
    let (code, _, stderr) = run(&["--continue", "--step", "1"]);
    assert!(code == 2 && stderr.contains("another --step, --probabilities"), "{stderr}");
    // A mask that was deleted is made again, as one that the record does not have.
    let all = names(&out);
    let written = std::fs::read(out.join("b.nii.gz")).expect("a mask");
    std::fs::remove_file(out.join("b.nii.gz")).expect("removed");
    assert_eq!(run(&["--continue", "--probabilities"]).0, 0);
    assert_eq!((std::fs::read(out.join("b.nii.gz")).expect("a mask"), names(&out)), (written, all));
    assert_eq!(record()["files"][1]["case"], "b");

    // An image that was replaced is segmented again; the others are left as they are.
    let before = std::fs::metadata(out.join("a.nii.gz")).expect("a mask").modified().expect("a time");
    nifti::write(images.join("b_0000.nii.gz"), &nifti::Image::new(noise([6, 12, 13], [3.0, 1.5, 1.5])))
        .expect("written");
    assert_eq!(run(&["--continue", "--probabilities"]).0, 0);
    assert_eq!(nifti::read(out.join("b.nii.gz")).expect("a mask").volume.shape(), [6, 12, 13]);
    assert_eq!(std::fs::metadata(out.join("a.nii.gz")).expect("a mask").modified().expect("a time"), before);
    // Plans that were edited are another model.
    let plans = model.join("segmentation/plans.json");
    let plans = if plans.is_file() { plans } else { model.join("plans.json") };
    let text = std::fs::read_to_string(&plans).expect("plans");
    std::fs::write(&plans, format!("{text} ")).expect("written");
    let (code, _, stderr) = run(&["--continue", "--probabilities"]);
    assert!(code == 2 && stderr.contains("plans.json or dataset.json"), "{stderr}");
    std::fs::write(&plans, text).expect("written");

    // A run without probabilities leaves none, and one that fails leaves no mask of the case.
    std::fs::write(images.join("b_0000.nii.gz"), "no image").expect("written");
    std::fs::write(images.join("c_0001.nii.gz"), "no first channel").expect("written");
    let (code, _, stderr) = run(&[]);
    assert!(code == 1 && stderr.contains("2 of 3 images failed") && stderr.contains("found 0001"), "{stderr}");
    assert_eq!(names(&out), ["a.nii.gz", "labels.ctbl", "labels.txt", "segment.csv", "segment.json"]);
    let found = record();
    assert_eq!(found["failed"][1]["input"], "c", "{found}");
}
