//! Model folders as users have them: training results, the folders above them, exported archives.

use std::path::{Path, PathBuf};

use nephron::io::nifti;
use nephron::volume::{Affine, Volume, Voxels};
use rand::Rng;
use serde_json::Value;

use crate::support::{self, rng, zip_file};

fn golden(file: &str) -> PathBuf {
    support::root().join("tests/golden/unet").join(file)
}

/// A folder of training results with these checkpoints, whose paths begin with a fold.
fn results(folder: &Path, checkpoints: &[&str]) {
    std::fs::create_dir_all(folder).expect("a folder");
    for name in ["plans.json", "dataset.json"] {
        std::fs::copy(golden(name), folder.join(name)).expect("copied");
    }
    for checkpoint in checkpoints {
        let file = folder.join(checkpoint);
        std::fs::create_dir_all(file.parent().expect("a fold")).expect("a folder");
        std::fs::copy(golden("checkpoint_final.pth"), file).expect("copied");
    }
}

fn scan(path: &Path) {
    let mut rng = rng();
    let values: Vec<i16> = (0..6 * 12 * 14).map(|_| rng.random_range(-100i32..400) as i16).collect();
    let affine = Affine([[-1.5, 0.0, 0.0, 90.5], [0.0, -1.5, 0.0, 120.25], [0.0, 0.0, 3.0, -700.0]]);
    let volume = Volume::new([6, 12, 14], Voxels::I16(values.into()), affine).expect("a volume");
    nifti::write(path, &nifti::Image::new(volume)).expect("written");
}

/// The exit code, the JSON and standard error of `segment`.
fn segment(model: &Path, image: &Path, out: &Path, more: &[&str]) -> (Option<i32>, Value, String) {
    let paths = ["--model", &model.to_string_lossy(), "-o", &out.to_string_lossy(), &image.to_string_lossy()]
        .map(str::to_owned);
    let arguments: Vec<&str> =
        ["segment", "--json"].into_iter().chain(more.iter().copied()).chain(paths.iter().map(String::as_str)).collect();
    let (code, stdout, stderr) = support::run(&arguments);
    let json = stdout.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).expect("json"));
    (code, json, stderr)
}

fn labels(out: &Path) -> Vec<u8> {
    nifti::read_labels(out.join("x_mask.nii"))
        .or_else(|_| nifti::read_labels(out.join("x_mask.nii.gz")))
        .expect("a mask")
        .labels
        .labels()
        .to_vec()
}

#[test]
fn what_a_model_folder_does_not_have_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let above = folder.path().join("Dataset900_X");
    let model = above.join("nnUNetTrainer__nnUNetPlans__3d_fullres");
    results(&model, &["fold_0/checkpoint_best.pth", "fold_1/checkpoint_best.pth"]);
    let (image, out) = (folder.path().join("x.nii"), folder.path().join("out"));
    scan(&image);
    let run = |model: &Path, more: &[&str]| segment(model, &image, &out, more);
    let (code, _, stderr) = run(&model, &[]);
    assert!(code == Some(1) && stderr.contains("checkpoint_best.pth and no checkpoint_final.pth"), "{stderr}");
    let (code, _, stderr) = run(&model, &["--checkpoint", "best", "--folds", "0,7"]);
    assert!(code == Some(2) && stderr.contains("some of 0, 1") && stderr.contains("found 7"), "{stderr}");
    // The folder above, which holds one model, will do, and so does the folder above that.
    for place in [above.as_path(), folder.path()] {
        let (code, report, stderr) = run(place, &["--checkpoint", "best", "--folds", "1"]);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!((&report["folds"], &report["configuration"]), (&1.into(), &"3d_fullres".into()));
    }
    results(&above.join("nnUNetTrainer__nnUNetPlans__2d"), &[]);
    let (code, _, stderr) = run(&above, &[]);
    assert!(code == Some(1) && stderr.contains("several models") && stderr.lines().count() == 1, "{stderr}");
    assert!(stderr.contains("--configuration 2d, or --configuration 3d_fullres"), "{stderr}");
    let (code, report, stderr) = run(&above, &["--checkpoint", "best", "--configuration", "3d_fullres"]);
    assert!(code == Some(0) && report["configuration"] == "3d_fullres", "{stderr}");
    let (code, _, stderr) = run(&above, &["--configuration", "3d_lowres"]);
    assert!(code == Some(2) && stderr.contains("one of 2d, 3d_fullres, found 3d_lowres"), "{stderr}");
    results(&above.join("other__nnUNetPlans__3d_fullres"), &[]);
    let (code, _, stderr) = run(&above, &["--configuration", "3d_fullres"]);
    assert!(code == Some(1) && stderr.contains("give the folder of one: nnUNetTrainer__"), "{stderr}");
    results(&folder.path().join("Dataset901_Y/nnUNetTrainer__nnUNetPlans__2d"), &[]);
    let (code, _, stderr) = run(folder.path(), &[]);
    assert!(code == Some(1) && stderr.contains("several data sets") && stderr.contains("Dataset901_Y"), "{stderr}");
}

#[test]
fn an_exported_archive_gives_the_masks_of_its_folder() {
    let folder = tempfile::tempdir().expect("folder");
    let above = folder.path().join("results");
    let model = above.join("Dataset900_X/nnUNetTrainer__nnUNetPlans__3d_fullres");
    results(&model, &["fold_0/checkpoint_final.pth", "fold_all/checkpoint_final.pth"]);
    std::fs::write(model.join("fold_0/progress.png"), "a picture").expect("written");
    let (image, zip) = (folder.path().join("x.nii.gz"), folder.path().join("model.zip"));
    scan(&image);
    std::fs::write(&zip, zip_file::of_folder(&above)).expect("written");
    let run = |model: &Path, more: &[&str]| {
        let out = folder.path().join("out");
        let (code, report, stderr) = segment(model, &image, &out, more);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(report["folds"], 1);
        labels(&out)
    };
    let want = run(&model, &[]);
    assert!(want.iter().any(|label| *label != want[0]));
    // nnU-Net would have mirrored along the axes that its checkpoint names.
    let mirrored = |more: &[&str]| segment(&model, &image, &folder.path().join("out"), more);
    let (_, report, stderr) = mirrored(&[]);
    assert!(stderr.contains("mirroring is off; by default nnU-Net mirrors this model along z, y, x"), "{stderr}");
    assert_eq!((&report["models"][0]["mirroring_allowed"], &report["mirroring"]), (&"z,y,x".into(), &false.into()));
    let (_, report, stderr) = mirrored(&["--tta"]);
    assert!(!stderr.contains("mirroring is off") && report["mirroring"] == true, "{stderr}");
    assert!(run(&zip, &[]) == want && run(&zip, &["--folds", "all"]) == want);
    assert!(run(&zip, &["--configuration", "3d_fullres"]) == want);
    // Nothing is left of it on disk.
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 4);

    let refused = |bytes: Vec<u8>, more: &[&str]| {
        let zip = folder.path().join("broken.zip");
        std::fs::write(&zip, bytes).expect("written");
        let (code, _, stderr) = segment(&zip, &image, &folder.path().join("none"), more);
        assert!(code != Some(0) && stderr.lines().count() == 1 && stderr.contains("broken.zip"), "{stderr}");
        stderr
    };
    assert!(refused(b"PK".to_vec(), &[]).contains("not a whole zip archive"));
    assert!(
        refused(zip_file::of_files([("../plans.json", b"{}".as_slice())]), &[]).contains("path inside the archive")
    );
    assert!(refused(zip_file::of_files([("readme.txt", b"hello".as_slice())]), &[]).contains("has no plans.json"));
    let mut bytes = zip_file::of_folder(&above);
    assert!(refused(bytes.clone(), &["--folds", "3"]).contains("some of 0, all"));
    let at = bytes.len() / 3;
    bytes[at..at + 200].iter_mut().for_each(|b| *b ^= 0x55);
    refused(bytes, &[]);
}

#[test]
fn fold_all_is_a_model_of_its_own() {
    let folder = tempfile::tempdir().expect("folder");
    let model = folder.path().join("nnUNetTrainer__nnUNetPlans__3d_fullres");
    results(&model, &["fold_all/checkpoint_final.pth"]);
    let (image, out) = (folder.path().join("x.nii.gz"), folder.path().join("out"));
    scan(&image);
    let (code, report, stderr) = segment(&model, &image, &out, &[]);
    assert!(code == Some(0) && report["folds"] == 1, "{stderr}");
    let want = labels(&out);
    // Where there are numbered folds it is used only when it is asked for.
    results(&model, &["fold_0/checkpoint_final.pth"]);
    let (code, report, stderr) = segment(&model, &image, &out, &["--folds", "all"]);
    assert!(code == Some(0) && report["folds"] == 1, "{stderr}");
    assert!(labels(&out) == want);
}
