//! `nephron segment`.

use std::path::{Path, PathBuf};

use nephron::io::nifti;
use nephron::pipeline::{ModelOptions, Precision, Segmenter};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{DType, Device, Error};
use rand::Rng;

use crate::support::{self, rng};

fn golden(file: &str) -> PathBuf {
    support::root().join("tests/golden").join(file)
}

/// Spacing in mm along (z, y, x); ITK's usual axes.
fn scan(shape: [usize; 3], values: Vec<i16>, [z, y, x]: [f64; 3]) -> Volume {
    let affine = Affine([[-x, 0.0, 0.0, 90.5], [0.0, -y, 0.0, 120.25], [0.0, 0.0, z, -700.0]]);
    Volume::new(shape, Voxels::I16(values.into()), affine).expect("a volume")
}

fn noise(shape: [usize; 3], spacing: [f64; 3]) -> Volume {
    let mut rng = rng();
    let values = (0..shape.iter().product()).map(|_| rng.random_range(-100i32..400) as i16).collect();
    scan(shape, values, spacing)
}

/// A model folder as users have it: the golden network in `segmentation`, as two folds.
fn model_folder(root: &Path) -> PathBuf {
    let folder = root.join("model/segmentation");
    std::fs::create_dir_all(&folder).expect("folder");
    for name in ["plans.json", "dataset.json"] {
        std::fs::copy(golden("unet").join(name), folder.join(name)).expect("copied");
    }
    for fold in 0..2 {
        let weights = folder.join(format!("fold_{fold}.safetensors"));
        std::fs::copy(golden("unet/weights.safetensors"), weights).expect("copied");
    }
    root.join("model")
}

fn nephron(arguments: &[&str], paths: &[&Path]) -> (i32, String, String) {
    let output = support::nephron().args(arguments).args(paths).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn the_verb_writes_masks_and_says_what_it_did() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, out) = (model_folder(folder.path()), folder.path().join("out/deep"));
    let image = folder.path().join("case.1.nii.gz");
    nifti::write(&image, &nifti::Image::new(noise([6, 12, 14], [3.0, 1.5, 1.5]))).expect("written");
    let base = ["--device", "cpu", "--json", "segment", "--probabilities"];
    let paths: [&Path; 5] = [Path::new("--model"), &model, Path::new("-o"), &out, &image];
    let (code, stdout, stderr) = nephron(&base, &paths);
    assert_eq!(code, 0, "{stderr}");
    let report: serde_json::Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("json");
    assert_eq!((&report["folds"], &report["precision"]), (&2.into(), &"f32".into()));
    let file = &report["files"][0];
    let mask = out.join("case.1_mask.nii.gz");
    assert_eq!(file["mask"].as_str(), mask.to_str());
    let mask = nifti::read(mask).expect("the mask");
    let original = nifti::read(&image).expect("the image");
    assert_eq!((mask.volume.shape(), mask.volume.affine()), (original.volume.shape(), original.volume.affine()));
    assert_eq!(mask.volume.voxels().dtype(), DType::U8);
    let kidney = mask.volume.voxels().to_f32().iter().filter(|v| **v == 1.0).count() as f64 * 3.0 * 1.5 * 1.5 / 1000.0;
    let said = file["volumes_ml"]["kidney"].as_f64().expect("a volume");
    assert!((said - kidney).abs() < 1e-6 * (1.0 + kidney), "{said} {kidney}");
    let share = nifti::read(out.join("case.1_tumour_probability.nii.gz")).expect("probabilities");
    assert_eq!(share.volume.voxels().dtype(), DType::F32);
    for part in ["read", "preprocess", "network", "export", "write"] {
        assert!(file["seconds"][part].as_f64().is_some_and(|s| s >= 0.0), "{part} in {file}");
    }
}

#[test]
fn the_verb_refuses_in_one_line() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, out) = (model_folder(folder.path()), folder.path().join("out"));
    let image = folder.path().join("a.nii");
    let twin = folder.path().join("a.nii.gz");
    let scan = noise([2, 4, 4], [3.0, 1.5, 1.5]);
    let mut values = scan.voxels().to_f32();
    values[3] = f32::INFINITY;
    let broken = scan.with_voxels(Voxels::F32(values.into())).expect("a volume");
    nifti::write(&image, &nifti::Image::new(broken)).expect("written");
    let run = |extra: &[&str], images: &[&Path]| {
        let arguments = [&["--device", "cpu", "segment"], extra].concat();
        let paths: Vec<&Path> =
            [Path::new("--model"), &model, Path::new("-o"), &out].into_iter().chain(images.iter().copied()).collect();
        let (code, stdout, stderr) = nephron(&arguments, &paths);
        assert!(stdout.is_empty(), "{stdout}");
        (code, stderr)
    };
    let (code, message) = run(&[], &[&image]);
    assert!(
        code == 1 && message.contains("a.nii") && message.contains("inf") && message.lines().count() == 1,
        "{message}"
    );
    assert!(!out.join("a_mask.nii.gz").exists());
    let (code, message) = run(&[], &[&image, &twin]);
    assert!(code == 2 && message.contains("a_mask.nii.gz"), "{message}");
    assert_eq!(run(&["--step", "0"], &[&image]).0, 2);
    assert_eq!(run(&["--memory-budget", "much"], &[&image]).0, 2);
    assert_eq!(run(&[], &[]).0, 2);
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).expect("folder");
    let error =
        Segmenter::load(&empty, &ModelOptions::default(), Precision::Single, &Device::Cpu).expect_err("no model there");
    assert!(matches!(error, Error::File { .. }) && error.to_string().contains("plans.json"), "{error}");
}

#[test]
fn a_folder_is_segmented_in_parts_and_continued_and_a_broken_image_costs_itself() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, out, images) = (model_folder(folder.path()), folder.path().join("out"), folder.path().join("images"));
    std::fs::create_dir(&images).expect("a folder");
    let image = nifti::Image::new(noise([6, 12, 14], [3.0, 1.5, 1.5]));
    for name in ["a", "c", "d_1"] {
        nifti::write(images.join(format!("{name}_0000.nii.gz")), &image).expect("written");
    }
    std::fs::write(images.join("b_0000.nii.gz"), "no image").expect("written");
    std::fs::write(images.join("readme.txt"), "no image either").expect("written");
    let paths: [&Path; 6] = [Path::new("--model"), &model, Path::new("-o"), &out, Path::new("-i"), &images];
    let run = |more: &[&str]| nephron(&[&["--device", "cpu", "--json", "segment"], more].concat(), &paths);
    let masks = || {
        let entries = std::fs::read_dir(&out).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
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
    assert!(code == 1 && stderr.contains("1 of 3 images failed"), "{stderr}");
    assert_eq!(masks(), ["a.nii.gz", "c.nii.gz", "d_1.nii.gz"]);
    let report: serde_json::Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("json");
    assert_eq!(report["files"].as_array().map(Vec::len), Some(2));
    assert_eq!(std::fs::metadata(out.join("d_1.nii.gz")).expect("a mask").modified().expect("a time"), before);
    let (code, _, stderr) = run(&["--num-parts", "2", "--part-id", "2"]);
    assert!(code == 2 && stderr.contains("--part-id: expected 0 to 1, found 2"), "{stderr}");
}
