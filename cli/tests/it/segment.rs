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

pub fn noise(shape: [usize; 3], spacing: [f64; 3]) -> Volume {
    let mut rng = rng();
    let values = (0..shape.iter().product()).map(|_| rng.random_range(-100i32..400) as i16).collect();
    scan(shape, values, spacing)
}

/// A model folder as users have it: the golden network in `segmentation`, as two folds.
pub fn model_folder(root: &Path) -> PathBuf {
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

pub fn nephron(arguments: &[&str], paths: &[&Path]) -> (i32, String, String) {
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
    let base = ["segment", "--device", "cpu", "--json", "--probabilities"];
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

/// The probabilities of nnU-Net's npz: the background's in front, the others as the NIfTI files have them.
#[test]
fn all_probabilities_are_saved_as_nnunet_does() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, out) = (model_folder(folder.path()), folder.path().join("out"));
    let image = folder.path().join("a.nii.gz");
    nifti::write(&image, &nifti::Image::new(noise([6, 12, 14], [3.0, 1.5, 1.5]))).expect("written");
    let run = |options: &[&str]| {
        let base = [&["segment", "--device", "cpu", "--json"], options].concat();
        let paths: [&Path; 5] = [Path::new("--model"), &model, Path::new("-o"), &out, &image];
        let (code, stdout, stderr) = nephron(&base, &paths);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str::<serde_json::Value>(stdout.lines().last().expect("a line")).expect("json")
    };
    let report = run(&["--save-probabilities", "--probabilities"]);
    let file = out.join("a.npz");
    assert_eq!(report["files"][0]["npz"].as_str(), file.to_str());
    let archive = nephron::io::Archive::open(&file).expect("an archive");
    let array = folder.path().join("a.npy");
    std::fs::write(&array, archive.read("probabilities.npy", 1 << 20).expect("the array")).expect("written");
    let (shape, values) = nephron::io::npy::read_f32(&array).expect("an array");
    assert_eq!(shape, [3, 6, 12, 14]);
    let voxels = 6 * 12 * 14;
    for (output, label) in [(1, "kidney"), (2, "tumour")] {
        let share = nifti::read(out.join(format!("a_{label}_probability.nii.gz"))).expect("probabilities");
        assert_eq!(share.volume.voxels().to_f32(), values[output * voxels..(output + 1) * voxels], "{label}");
    }
    let mask = nifti::read_labels(out.join("a_mask.nii.gz")).expect("the mask").labels;
    for (voxel, label) in mask.labels().iter().enumerate() {
        let of = |output: usize| values[output * voxels + voxel];
        assert!((of(0) + of(1) + of(2) - 1.0).abs() < 1e-6, "they sum to 1");
        assert!((0..3).all(|output| of(output) <= of(usize::from(*label))), "the mask has the largest");
    }
    // Alone it writes no NIfTI of probabilities, and without it what is there goes.
    let report = run(&["--save-probabilities"]);
    assert!(report["files"][0]["probabilities"].as_object().expect("files").is_empty());
    assert!(file.is_file() && !out.join("a_kidney_probability.nii.gz").exists());
    assert!(run(&[])["files"][0]["npz"].is_null() && !file.exists());
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
        let arguments = [&["segment", "--device", "cpu"], extra].concat();
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
fn images_that_the_model_does_not_know_are_warned_of() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, out) = (model_folder(folder.path()), folder.path().join("out"));
    let told = |voxels: Volume| {
        let image = folder.path().join("case.nii.gz");
        nifti::write(&image, &nifti::Image::new(voxels)).expect("written");
        let paths: [&Path; 5] = [Path::new("--model"), &model, Path::new("-o"), &out, &image];
        let (code, _, stderr) = nephron(&["segment", "--device", "cpu"], &paths);
        assert_eq!(code, 0, "{stderr}");
        let odd = stderr.lines().filter(|line| line.starts_with("warning:") && line.contains("may mean nothing"));
        odd.map(str::to_owned).collect::<Vec<_>>()
    };
    let (shape, spacing) = ([6, 12, 14], [3.0, 1.5, 1.5]);
    assert!(told(noise(shape, spacing)).is_empty());
    // Values of 0 to 1, and Hounsfield units with 1024 added.
    let values = |low: i16, high: i16| (0..1008).map(|i| if i % 3 == 0 { low } else { high }).collect::<Vec<_>>();
    for (low, high) in [(0, 1), (24, 1400), (-900, -500)] {
        let lines = told(scan(shape, values(low, high), spacing));
        assert!(lines.len() == 1 && lines[0].contains(&format!("{low} to {high}")), "{lines:?}");
    }
    let lines = told(noise([6, 120, 140], [3.0, 0.15, 0.15]));
    assert!(lines.len() == 1 && lines[0].contains("3.00 x 0.15 x 0.15 mm"), "{lines:?}");
}

#[test]
fn sums_in_half_precision_give_the_same_labels_but_for_ties() {
    let folder = tempfile::tempdir().expect("folder");
    let model = model_folder(folder.path());
    let image = folder.path().join("case.nii.gz");
    nifti::write(&image, &nifti::Image::new(noise([9, 40, 36], [3.0, 1.5, 1.5]))).expect("written");
    let labels = |sums: &str| {
        let out = folder.path().join(sums);
        let paths: [&Path; 5] = [Path::new("--model"), &model, Path::new("-o"), &out, &image];
        let (code, stdout, stderr) = nephron(&["segment", "--device", "cpu", "--json", "--sums", sums], &paths);
        assert_eq!(code, 0, "{stderr}");
        let report: serde_json::Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("json");
        assert_eq!(report["sums"], sums);
        let bytes = report["files"][0]["working_set_bytes"].as_u64().expect("bytes");
        (nifti::read_labels(out.join("case_mask.nii.gz")).expect("a mask").labels.labels().to_vec(), bytes)
    };
    let ((single, whole), (half, less)) = (labels("f32"), labels("f16"));
    let differing = single.iter().zip(&half).filter(|(a, b)| a != b).count();
    // 11 bits of a mean of logits decide between classes that are closer than that in few voxels of noise.
    assert!(
        differing * 100 <= single.len() && less < whole,
        "{differing} of {}, {less} and {whole} bytes",
        single.len()
    );
}
