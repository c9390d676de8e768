//! Ensembles, cascades and postprocessing, as a user calls them.

use std::path::{Path, PathBuf};

use nephron::io::nifti;
use nephron::volume::Volume;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::support::{self, rng};
use crate::tiny_models::{Tiny, scan, write};

struct Case {
    folder: tempfile::TempDir,
    image: PathBuf,
}

fn case() -> Case {
    case_of(&mut rng())
}

fn case_of(rng: &mut ChaCha8Rng) -> Case {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("x_0000.nii.gz");
    nifti::write(&image, &nifti::Image::new(scan(rng))).expect("written");
    Case { folder, image }
}

impl Case {
    fn model(&self, name: &str, tiny: &Tiny) -> PathBuf {
        let place = self.folder.path().join(name);
        write(&place, tiny);
        place
    }

    /// The exit code, the JSON and standard error of `segment` to the folder `out`.
    fn segment(&self, models: &[&Path], more: &[&str]) -> (Option<i32>, Value, String) {
        let mut arguments = vec!["segment".to_owned(), "--json".into(), self.image.display().to_string()];
        for model in models {
            arguments.extend(["--model".into(), model.display().to_string()]);
        }
        arguments.extend(["-o".into(), self.out().display().to_string()]);
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        let (code, stdout, stderr) = support::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let json = stdout.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).expect("json"));
        (code, json, stderr)
    }

    fn labels(&self) -> Vec<u8> {
        nifti::read_labels(self.out().join("x_0000_mask.nii.gz")).expect("a mask").labels.labels().to_vec()
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }
}

#[test]
fn several_models_are_averaged() {
    let case = case();
    let a = case.model("a", &Tiny::default());
    let b = case.model("b", &Tiny { configuration: "3d_lowres", seed: 2, ..Tiny::default() });
    let mask = |models: &[&Path]| {
        let (code, report, stderr) = case.segment(models, &[]);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(report["models"].as_array().map(Vec::len), Some(models.len()));
        case.labels()
    };
    let (first, second, both) = (mask(&[&a]), mask(&[&b]), mask(&[&a, &b]));
    assert!(mask(&[&a, &a]) == first && both != first && both != second);
    let (code, report, stderr) =
        case.segment(&[&a, &b], &["--configuration", "3d_fullres", "--configuration", "3d_lowres"]);
    assert!(code == Some(0) && case.labels() == both, "{stderr}");
    assert_eq!(report["models"][1]["configuration"], "3d_lowres");
    let three = ["2d", "2d", "2d"].iter().flat_map(|name| ["--configuration", *name]).collect::<Vec<_>>();
    let (code, _, stderr) = case.segment(&[&a, &b], &three);
    assert!(code == Some(2) && stderr.contains("one for each of 2 models, found 3"), "{stderr}");
    let other = case.model("c", &Tiny { labels: json!({"background": 0, "kidney": 1, "cyst": 2}), ..Tiny::default() });
    let (code, _, stderr) = case.segment(&[&a, &other], &[]);
    assert!(code == Some(2) && stderr.contains("labels of model 2") && stderr.lines().count() == 1, "{stderr}");
    let (code, _, stderr) = case.segment(&[&a, &b], &["--postprocessing", "auto"]);
    assert!(code == Some(2) && stderr.contains("give the postprocessing.pkl of the ensemble"), "{stderr}");
}

#[test]
fn a_cascade_takes_its_first_stage_from_beside_it_or_a_folder() {
    let case = case();
    let low = case.model(
        "nnUNetTrainer__nnUNetPlans__3d_lowres",
        &Tiny { configuration: "3d_lowres", seed: 5, ..Tiny::default() },
    );
    let tiny = Tiny { configuration: "3d_cascade_fullres", seed: 6, ..Tiny::default() };
    let cascade = case.model("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres", &tiny);
    let (code, report, stderr) = case.segment(&[&cascade], &[]);
    assert!(code == Some(0) && report["model_files"].as_array().map(Vec::len) == Some(6), "{stderr}");
    let want = case.labels();
    // The dataset's folder, where --configuration chooses.
    let (code, _, stderr) = case.segment(&[case.folder.path()], &["--configuration", "3d_cascade_fullres"]);
    assert!(code == Some(0) && case.labels() == want, "{stderr}");
    let (code, _, stderr) = case.segment(&[&low], &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let masks = case.folder.path().join("masks");
    std::fs::create_dir(&masks).expect("a folder");
    let given = ["--previous-stage", &masks.display().to_string()].map(str::to_owned);
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    // As nnU-Net names masks: without the channel's number.
    std::fs::copy(case.out().join("x_0000_mask.nii.gz"), masks.join("x.nii.gz")).expect("copied");
    let (code, _, stderr) = case.segment(&[&cascade], &given);
    assert!(code == Some(0) && case.labels() == want, "{stderr}");
    let (code, _, stderr) = case.segment(&[&low], &given);
    assert!(code == Some(2) && stderr.contains("none, since 3d_lowres has no previous stage"), "{stderr}");
    // In an ensemble the cascades take it.
    let (code, _, stderr) = case.segment(&[&low, &cascade], &given);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, stderr) = case.segment(&[&low, &low], &given);
    assert!(code == Some(2) && stderr.contains("expected a cascade among the models"), "{stderr}");
    // Results would replace them.
    let (code, _, stderr) = case.segment(&[&cascade], &["--previous-stage", &case.out().display().to_string()]);
    assert!(code == Some(2) && stderr.contains("holds the masks of the previous stage"), "{stderr}");
    assert!(case.out().join("x_0000_mask.nii.gz").is_file());
    // A mask of another image is named.
    let mask = nifti::read(masks.join("x.nii.gz")).expect("a mask");
    let moved = nephron::volume::Affine(mask.volume.affine().0.map(|[a, b, c, t]| [a, b, c, t + 50.0]));
    let elsewhere = Volume::new(mask.volume.shape(), mask.volume.voxels().clone(), moved).expect("a volume");
    nifti::write(masks.join("x.nii.gz"), &nifti::Image::new(elsewhere)).expect("written");
    let (code, report, _) = case.segment(&[&cascade], &given);
    let error = report["failed"][0]["error"].as_str().expect("an error");
    assert!(
        code == Some(1) && error.contains("x.nii.gz: expected a mask of the previous stage on the grid"),
        "{error}"
    );
    nifti::write(masks.join("x_0000_mask.nii.gz"), &mask).expect("written");
    let (_, report, _) = case.segment(&[&cascade], &given);
    assert!(report["failed"][0]["error"].as_str().expect("an error").contains("has two masks"), "{report}");
    for name in ["x.nii.gz", "x_0000_mask.nii.gz"] {
        std::fs::rename(masks.join(name), masks.join(format!("other_{name}"))).expect("renamed");
    }
    let (code, report, _) = case.segment(&[&cascade], &given);
    let error = report["failed"][0]["error"].as_str().expect("an error");
    assert!(code == Some(1) && error.contains("no mask of the previous stage for x_0000"), "{error}");
}

#[test]
fn postprocessing_is_applied_when_it_is_asked_for() {
    // A scan whose mask has several components; that of another seed may have one alone.
    let case = case_of(&mut ChaCha8Rng::seed_from_u64(1));
    let model = case.model("model", &Tiny::default());
    let pickle = support::root().join("imaging/tests/golden/postprocessing.pkl");
    let (code, report, stderr) = case.segment(&[&model], &["--postprocessing", "auto"]);
    assert!(code == Some(0) && stderr.contains("has no postprocessing.pkl"), "{stderr}");
    assert_eq!(report["postprocessing"], Value::Null);
    let plain = case.labels();
    let place = model.join("crossval_results_folds_0_1_2_3_4");
    std::fs::create_dir(&place).expect("a folder");
    std::fs::copy(&pickle, place.join("postprocessing.pkl")).expect("copied");
    let (_, _, stderr) = case.segment(&[&model], &[]);
    assert!(stderr.contains("was found and is not applied (--postprocessing auto"), "{stderr}");
    assert!(case.labels() == plain);
    let (_, report, stderr) = case.segment(&[&model], &["--postprocessing", "auto"]);
    assert!(stderr.contains("postprocessing: "), "{stderr}");
    assert_eq!(report["postprocessing"]["steps"][0]["labels"], json!([1, 2]));
    let kept = case.labels();
    assert!(kept.iter().zip(&plain).all(|(kept, plain)| kept == plain || *plain > 0) && kept != plain);
    let file = pickle.display().to_string();
    let (code, _, stderr) = case.segment(&[&model, &model], &["--postprocessing", &file]);
    assert!(code == Some(0) && case.labels() == kept, "{stderr}");
    let evil = case.folder.path().join("evil.pkl");
    std::fs::write(&evil, b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueq\x01\x85R.").expect("written");
    let (code, _, stderr) = case.segment(&[&model], &["--postprocessing", &evil.display().to_string()]);
    assert!(code == Some(1) && stderr.contains("os.system") && stderr.contains("nothing was run"), "{stderr}");
}
