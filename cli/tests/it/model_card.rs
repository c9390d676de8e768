//! Model cards and converted models, as a user meets them.

use nephron::io::nifti;
use serde_json::Value;

use crate::support::{self, rng};
use crate::tiny_models::{Tiny, scan, write};

#[test]
fn a_card_is_shown_on_every_scan() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, image) = (folder.path().join("model"), folder.path().join("x.nii.gz"));
    write(&model, &Tiny::default());
    let card = r#"{"trained_on": "tests\u001b[31m only", "licence": "CC0", "notes": "Not for\nreal scans."}"#;
    std::fs::write(model.join("model.json"), card).expect("written");
    nifti::write(&image, &nifti::Image::new(scan(&mut rng()))).expect("written");
    let text = |path: &std::path::Path| path.display().to_string();
    let out = folder.path().join("out");
    let (model_text, imported, image, out) = (text(&model), text(&folder.path().join("new")), text(&image), text(&out));
    let segment = |model: &str| {
        let (code, stdout, stderr) = support::run(&["segment", "--json", "--model", model, "-o", &out, &image]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.contains("trained on: tests [31m only") && stderr.contains("licence: CC0"), "{stderr}");
        assert!(stderr.contains("the model says: Not for real scans.") && !stderr.contains('\u{1b}'), "{stderr}");
        let report: Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("json");
        assert_eq!(report["models"][0]["card"]["notes"], "Not for real scans.");
        let warnings = report["files"][0]["warnings"].as_array().expect("warnings").clone();
        assert!(warnings.contains(&"the model says: Not for real scans.".into()), "{warnings:?}");
        nifti::read_labels(folder.path().join("out/x_mask.nii.gz")).expect("a mask").labels.labels().to_vec()
    };
    let want = segment(&model_text);
    let (code, stdout, stderr) = support::run(&["import", "nnunet", "--json", &model_text, "-o", &imported]);
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("json");
    assert_eq!((&report["configuration"], &report["card"]["licence"]), (&"3d_fullres".into(), &"CC0".into()));
    assert!(segment(&imported) == want);
    let (code, _, stderr) = support::run(&["import", "nnunet", &model_text, "-o", &imported]);
    assert!(code == Some(1) && stderr.contains("is there already") && stderr.lines().count() == 1, "{stderr}");
    let (code, _, stderr) = support::run(&["import", "nnunet", &model_text, "-o", &imported, "--folds", "3"]);
    assert!(code == Some(2) && stderr.contains("some of 0, found 3"), "{stderr}");
    std::fs::write(model.join("model.json"), "{\"notes\": 5}").expect("written");
    let (code, _, stderr) = support::run(&["segment", "--model", &model_text, "-o", &out, &image]);
    assert!(code == Some(1) && stderr.contains("is no model card") && stderr.lines().count() == 1, "{stderr}");
}
