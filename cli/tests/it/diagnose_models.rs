//! `diagnose` with ensembles, cascades and the other options of a segmentation: its masks are those of `segment`.

use std::path::{Path, PathBuf};

use nephron::io::nifti;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::support::{self, run};
use crate::tiny_models::{Tiny, scan, write};

/// A folder with a portal phase and models.
struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        let case = Self(tempfile::tempdir().expect("a folder"));
        // A scan whose mask has several components, as the test of the postprocessing needs.
        let image = nifti::Image::new(scan(&mut ChaCha8Rng::seed_from_u64(1)));
        std::fs::create_dir_all(case.0.path().join("patients/p1")).expect("a folder");
        nifti::write(case.path("patients/p1/portal.nii.gz"), &image).expect("written");
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn model(&self, name: &str, tiny: &Tiny) -> String {
        write(&self.path(name), tiny);
        self.at(name)
    }

    /// The mask of `segment` with these models and options.
    fn segmented(&self, models: &[&str], more: &[&str]) -> Vec<u8> {
        let (image, out) = (self.at("patients/p1/portal.nii.gz"), self.at("segmented"));
        let mut call = vec!["segment", &image, "-o", &out];
        models.iter().for_each(|model| call.extend(["--model", *model]));
        let (code, _, errors) = run(&[&call[..], more].concat());
        assert_eq!(code, Some(0), "{errors}");
        labels(&self.path("segmented/portal_mask.nii.gz"))
    }

    /// The mask and the result of `diagnose`.
    fn diagnosed(&self, options: &[&str]) -> (Vec<u8>, Value) {
        let (image, out) = (self.at("patients/p1/portal.nii.gz"), self.at("diagnosed"));
        let (code, _, errors) = run(&[&["diagnose", "--portal", &image, "-o", &out][..], options].concat());
        assert_eq!(code, Some(0), "{errors}");
        let result = std::fs::read(self.path("diagnosed/result.json")).expect("a result");
        (labels(&self.path("diagnosed/masks/portal_mask.nii.gz")), serde_json::from_slice(&result).expect("JSON"))
    }
}

fn labels(mask: &Path) -> Vec<u8> {
    nifti::read_labels(mask).expect("a mask").labels.labels().to_vec()
}

#[test]
fn models_and_options_are_those_of_segment() {
    let case = Case::new();
    let a = case.model("a", &Tiny::default());
    let b = case.model("b", &Tiny { configuration: "3d_lowres", seed: 2, ..Tiny::default() });
    let want = case.segmented(&[&a, &b], &["--step", "1", "--precision", "single", "--folds", "0"]);
    // The folder of the models is replaced.
    let (mask, result) = case.diagnosed(&[
        "--model",
        "nowhere",
        "--segmentation",
        &a,
        "--segmentation",
        &b,
        "--step",
        "1",
        "--precision",
        "single",
        "--folds",
        "0",
    ]);
    assert!(mask == want && want != case.segmented(&[&a], &[]));
    let how = &result["options"]["segmentation"];
    let model =
        |configuration: &str| json!({"configuration": configuration, "folds": ["0"], "mirroring_allowed": "z,y,x"});
    assert_eq!(how["models"], json!([model("3d_fullres"), model("3d_lowres")]));
    assert_eq!((&how["step"], &how["precision"], &how["postprocessing"]), (&json!(1.0), &json!("f32"), &Value::Null));
    assert_eq!(result["models"]["segmentation"].as_array().map(Vec::len), Some(6));

    let steps = support::root().join("imaging/tests/golden/postprocessing.pkl").display().to_string();
    let plain = case.segmented(&[&a], &[]);
    let want = case.segmented(&[&a], &["--postprocessing", &steps]);
    let (mask, result) = case.diagnosed(&["--model", &a, "--postprocessing", &steps]);
    assert!(mask == want && want != plain, "the postprocessing was applied");
    assert_eq!(result["options"]["segmentation"]["postprocessing"]["steps"][0]["labels"], json!([1, 2]));

    let (image, out) = (case.at("patients/p1/portal.nii.gz"), case.at("refused"));
    for (wrong, needle) in [
        (vec!["--masks", "--step", "1"], "cannot be used with"),
        (vec!["--masks", "--segmentation", &a], "cannot be used with"),
        (vec!["--model", &a, "--folds", "7"], "found 7"),
        (vec!["--model", &a, "--configuration", "2d"], "2d"),
        (vec!["--model", &a, "--previous-stage", &b], "3d_fullres has no previous stage"),
        (vec![], "--model: expected a model folder"),
    ] {
        let (code, _, errors) = run(&[&["diagnose", "--portal", &image, "-o", &out][..], &wrong].concat());
        assert!(code == Some(2) && errors.contains(needle) && errors.lines().count() == 1, "{wrong:?}: {errors}");
    }
}

#[test]
fn a_cascade_runs_in_both_ways_and_is_continued_with_the_same_options() {
    let case = Case::new();
    let low = Tiny { configuration: "3d_lowres", seed: 5, ..Tiny::default() };
    let low = case.model("model/segmentation/nnUNetTrainer__nnUNetPlans__3d_lowres", &low);
    let full = Tiny { configuration: "3d_cascade_fullres", seed: 6, ..Tiny::default() };
    let cascade = case.model("model/segmentation/nnUNetTrainer__nnUNetPlans__3d_cascade_fullres", &full);
    let want = case.segmented(&[&cascade], &[]);
    let model = case.at("model");
    let (mask, result) = case.diagnosed(&["--model", &model, "--configuration", "3d_cascade_fullres"]);
    assert!(mask == want);
    // The files of both stages.
    assert_eq!(result["models"]["segmentation"].as_array().map(Vec::len), Some(6));

    // The masks of the first stage, by the name of the scan, and in a cohort by the patient's too.
    let first = case.segmented(&[&low], &[]);
    let masks = case.path("masks");
    std::fs::create_dir(&masks).expect("a folder");
    for name in ["portal.nii.gz", "p1_portal.nii.gz"] {
        std::fs::copy(case.path("segmented/portal_mask.nii.gz"), masks.join(name)).expect("copied");
    }
    let masks = case.at("masks");
    let given = ["--segmentation", &cascade, "--previous-stage", &masks];
    let (mask, result) = case.diagnosed(&given);
    assert!(mask == want && mask != first);
    assert_eq!(result["options"]["segmentation"]["previous_masks"], json!(masks));
    let files = result["phases"][0]["files"].to_string();
    assert!(files.contains("portal.nii.gz") && files.contains("masks/"), "{files}");

    let (patients, out) = (case.at("patients"), case.at("results"));
    let cohort = |more: &[&str]| {
        let call = ["diagnose", "--cohort", &patients, "-o", &out, "--continue"];
        let (code, _, errors) = run(&[&call[..], &given, more].concat());
        assert_eq!(code, Some(0), "{errors}");
        errors.contains("1 of 1 patients left out")
    };
    assert_eq!([cohort(&[]), cohort(&[])], [false, true]);
    assert!(labels(&case.path("results/p1/masks/portal_mask.nii.gz")) == want);
    assert_eq!([cohort(&["--step", "1"]), cohort(&["--step", "1"]), cohort(&[])], [false, true, false]);
    // Another mask of the first stage makes another result.
    let name = case.path("masks/p1_portal.nii.gz");
    let image = nifti::read_labels(&name).expect("a mask");
    let empty = image.labels.with_labels(vec![0; first.len()]).expect("a mask");
    nifti::write(&name, &image.with_volume(empty)).expect("written");
    assert_eq!([cohort(&[]), cohort(&[])], [false, true]);
}
