//! `nephron train classification`.

use std::path::Path;

use nephron::io::nifti;
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::{Phase, Subtype};
use serde_json::{Value, json};

use crate::support;

/// A phantom in three phases and large voxels.
fn write_patient(folder: &Path, seed: u64, subtype: Subtype) {
    let phases = vec![Phase::Arterial, Phase::Portal, Phase::Delayed];
    let options =
        PhantomOptions { seed, subtype: Some(subtype), phases, spacing: [6.0, 6.0, 8.0], ..PhantomOptions::default() };
    generate(&options).expect("a patient").write(folder).expect("written");
}

/// A network of few weights on small images.
const SMALL: [[&str; 2]; 7] = [
    ["--fold", "all"],
    ["--depth", "18"],
    ["--width", "4"],
    ["--image-size", "32"],
    ["--batch-size", "2"],
    ["--epochs", "3"],
    ["--validate-every", "0"],
];

struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn new(patients: &[(u64, Subtype)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (seed, subtype) in patients {
            write_patient(&folder.path().join(format!("data/p{seed}")), *seed, *subtype);
        }
        Self { folder }
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn call(&self, model: &str, more: &[&str]) -> (Option<i32>, String, String) {
        let (data, model) = (self.at("data"), self.at(model));
        let call = ["train", "classification", &data, "-o", &model];
        // What is given takes the place of the usual.
        let small = SMALL.iter().filter(|[name, _]| !more.contains(name)).flatten().copied();
        support::run(&call.into_iter().chain(small).chain(more.iter().copied()).collect::<Vec<_>>())
    }

    fn train(&self, model: &str, more: &[&str]) -> String {
        let (code, stdout, stderr) = self.call(model, more);
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    }

    /// The one line of a refusal.
    fn refused(&self, model: &str, code: i32, more: &[&str], parts: &[&str]) {
        let (found, _, stderr) = self.call(model, more);
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("warning:")).collect();
        assert!(found == Some(code) && lines.len() == 1, "{more:?}: {found:?} {stderr}");
        assert!(parts.iter().all(|part| lines[0].contains(part)), "{more:?}: {stderr}");
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.at(name)).expect("a file")
    }
}

fn last(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON")
}

#[test]
fn a_training_is_interrupted_resumed_and_diagnoses() {
    let setup = Setup::new(&[(1, Subtype::ClearCell), (2, Subtype::Papillary), (3, Subtype::Angiomyolipoma)]);
    let whole = last(&setup.train("whole", &["--json"]));
    assert_eq!((&whole["finished"], &whole["steps"], &whole["images"]), (&json!(true), &json!(6), &json!(3)));
    let validation = |epoch: usize| whole["epochs"][epoch]["validation"].clone();
    assert_eq!((validation(0), validation(1)), (Value::Null, Value::Null));
    let found = validation(2);
    assert!(["accuracy", "auc"].iter().all(|key| (0.0..=1.0).contains(&found[*key].as_f64().expect("a number"))));

    // In three pieces the same weights, bit for bit.
    let stopped = last(&setup.train("parts", &["--json", "--time-limit", "0s"]));
    assert_eq!((&stopped["finished"], &stopped["steps"]), (&json!(false), &json!(1)));
    setup.refused("parts", 1, &[], &["checkpoint.safetensors", "interrupted"]);
    setup.refused("parts", 1, &["--resume", "--seed", "1"], &["\"seed\":0", "\"seed\":1"]);
    setup.refused("parts", 1, &["--resume", "--margin", "5mm"], &["its data are"]);
    let stdout = setup.train("parts", &["--resume", "--time-limit", "0s", "--loaders", "1"]);
    assert!(stdout.starts_with("epoch 1: loss ") && stdout.contains("interrupted after 2 steps"), "{stdout}");
    let stdout = setup.train("parts", &["--resume"]);
    assert!(stdout.contains("epoch 3: ") && stdout.contains(", accuracy "), "{stdout}");
    let weights = "classification/fold_all.safetensors";
    assert!(setup.bytes(&format!("whole/{weights}")) == setup.bytes(&format!("parts/{weights}")));
    setup.refused("parts", 1, &["--resume"], &["fold_all.safetensors", "already"]);
    let training = "parts/training/classification/fold_all";
    let log = String::from_utf8(setup.bytes(&format!("{training}/log.csv"))).expect("UTF-8");
    assert!(log.starts_with("epoch,learning_rate,loss,validation_loss,accuracy,auc,") && log.lines().count() == 4);
    assert!(setup.bytes(&format!("{training}/log.svg")).starts_with(b"<svg"));
    assert!(!Path::new(&setup.at(&format!("{training}/checkpoint.safetensors"))).exists());
    let card: Value = serde_json::from_slice(&setup.bytes("parts/classification/model.json")).expect("JSON");
    let text = card.to_string();
    assert!(text.contains("3 patients of data: 1 AML, 1 pRCC, 1 ccRCC") && text.contains("not for clinical use"));

    // The folder is a classifier: it classifies by a network of that width on images of that size.
    let (cohort, model, out) = (setup.at("data"), setup.at("parts"), setup.at("out"));
    let call = ["diagnose", "--cohort", &cohort, "--masks", "--model", &model, "-o", &out, "--json"];
    let (code, stdout, stderr) = support::run(&call);
    assert_eq!(code, Some(0), "{stderr}");
    let results = last(&stdout);
    let warnings = results["patients"][0]["warnings"].to_string();
    assert!(
        warnings.contains("classification: the model says: trained by its user, not for clinical use"),
        "{warnings}"
    );
    let right = results["patients"].as_array().expect("patients").iter().zip(["ccRCC", "pRCC", "AML"]);
    let right = right.filter(|(patient, subtype)| patient["classification"]["decision"] == json!(subtype)).count();
    let accuracy = found["accuracy"].as_f64().expect("a number");
    assert!((accuracy - right as f64 / 3.0).abs() < 1e-9, "{accuracy}: {results}");

    // A classifier of another network or fold is told apart, and a fine-tuning begins with these weights.
    let other = ["--fold", "0"];
    setup.refused("parts", 2, &other, &["at least 5", "found 3"]);
    let weights = setup.at(&format!("parts/{weights}"));
    setup.train("tuned", &["--weights", &weights, "--time-limit", "0s"]);
    setup.refused("wide", 1, &["--weights", &weights, "--width", "8"], &["fold_all.safetensors", "[8, 3, 7, 7]"]);
}

#[test]
fn changed_data_is_not_resumed() {
    let setup = Setup::new(&[(1, Subtype::ClearCell), (2, Subtype::Papillary)]);
    setup.train("model", &["--time-limit", "0s"]);
    // The kept crops serve again.
    let crops = "model/training/classification/crops/p2.safetensors";
    let before = setup.bytes(crops);
    setup.train("model", &["--time-limit", "0s", "--resume"]);
    assert!(setup.bytes(crops) == before);
    write_patient(&setup.folder.path().join("data/p2"), 9, Subtype::Papillary);
    setup.refused("model", 1, &["--resume"], &["checkpoint.safetensors", "its data are"]);
    assert!(setup.bytes(crops) != before);
    let truth = setup.folder.path().join("data/p1/truth.json");
    let text = std::fs::read_to_string(&truth).expect("a file").replace("ccRCC", "AML");
    std::fs::write(&truth, text).expect("written");
    setup.refused("model", 1, &["--resume"], &["checkpoint.safetensors", "its data are"]);
}

#[test]
fn a_patient_without_a_tumour_is_left_out_by_name() {
    let setup = Setup::new(&[(1, Subtype::ClearCell), (2, Subtype::Papillary), (3, Subtype::Angiomyolipoma)]);
    let mask = setup.folder.path().join("data/p2/portal_mask.nii.gz");
    let image = nifti::read_labels(&mask).expect("a mask");
    let without: Vec<u8> = image.labels.labels().iter().map(|l| (*l).min(1)).collect();
    let healthy = image.labels.with_labels(without).expect("a mask");
    nifti::write(&mask, &image.with_volume(healthy)).expect("written");
    let (code, stdout, stderr) = setup.call("model", &["--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let told = stderr.lines().filter(|line| line.contains("left out")).collect::<Vec<_>>();
    assert!(
        told.len() == 1 && told[0].starts_with("warning: patient p2: expected a tumour in every phase"),
        "{stderr}"
    );
    let found = last(&stdout);
    assert!(found["left_out"].as_array().expect("a list").len() == 1 && found["images"] == json!(2), "{stdout}");
    let card = String::from_utf8(setup.bytes("model/classification/model.json")).expect("UTF-8");
    assert!(card.contains("2 patients of data: 1 AML, 1 ccRCC"), "{card}");
}

#[test]
fn a_classifier_of_all_tumours_together_says_so() {
    let setup = Setup::new(&[(1, Subtype::ClearCell), (2, Subtype::Papillary), (3, Subtype::Angiomyolipoma)]);
    setup.train("model", &["--lesion", "together", "--epochs", "1"]);
    let config = String::from_utf8(setup.bytes("model/classification/config.json")).expect("UTF-8");
    assert!(config.contains("\"lesion\": \"together\""), "{config}");
    let (cohort, model, out) = (setup.at("data"), setup.at("model"), setup.at("out"));
    let diagnose = |more: &[&str]| {
        let call = ["diagnose", "--cohort", &cohort, "--masks", "--model", &model, "-o", &out, "--json"];
        let (code, stdout, stderr) = support::run(&call.into_iter().chain(more.iter().copied()).collect::<Vec<_>>());
        assert_eq!(code, Some(0), "{stderr}");
        last(&stdout)["patients"][0].clone()
    };
    let found = diagnose(&[]);
    assert_eq!((&found["together"], &found["options"]["lesion"]), (&json!(true), &json!("together")));
    assert_eq!(diagnose(&["--lesion", "largest"])["together"], json!(false));
    // No training is of a lesion's number.
    let path = setup.folder.path().join("model/classification/config.json");
    std::fs::write(&path, config.replace("\"together\"", "\"2\"")).expect("written");
    let (code, _, stderr) = support::run(&["diagnose", "--cohort", &cohort, "--masks", "--model", &model, "-o", &out]);
    assert!(code == Some(1) && stderr.contains("largest or together") && stderr.contains('2'), "{stderr}");
}

#[test]
fn a_training_that_diverges_names_the_batch() {
    let setup = Setup::new(&[(1, Subtype::ClearCell), (2, Subtype::Papillary)]);
    let parts = ["training: the ", " of batch ", "patients p", "expected a finite number", "checkpoint"];
    setup.refused("model", 1, &["--learning-rate", "1e30", "--epochs", "20"], &parts);
    assert!(!setup.folder.path().join("model/classification/fold_all.safetensors").exists());
}

#[test]
fn wrong_data_and_calls_are_refused_in_one_line() {
    let setup = Setup::new(&[(1, Subtype::ClearCell), (2, Subtype::ClearCell)]);
    let data = setup.folder.path().join("data");
    let refused = |code: i32, more: &[&str], parts: &[&str]| {
        setup.refused("model", code, more, parts);
        let model = setup.folder.path().join("model");
        assert!(!model.join("classification").exists() && !model.join("training").exists(), "{more:?}");
    };
    refused(1, &[], &["two subtypes", "ccRCC"]);
    // A table comes before the patients' own files.
    let table = |text: &str| std::fs::write(data.join("subtypes.csv"), text).expect("written");
    table("patient,subtype\np1,AML\n");
    refused(1, &[], &["subtypes.csv", "p2"]);
    table("patient,subtype\np1,AML\np2,glioma\n");
    refused(1, &[], &["subtypes.csv", "row 2", "glioma", "pRCC"]);
    table("patient,subtype\np1,AML\np1,AML\n");
    refused(1, &[], &["row 2", "p1 twice"]);
    table("name,subtype\np1,AML\n");
    refused(1, &[], &["'patient'", "name, subtype"]);
    table("patient,subtype\np1,AML\np2,pRCC\n");
    refused(1, &["--subtypes", "/nowhere/s.csv"], &["/nowhere/s.csv"]);
    refused(1, &["--weights", "/nowhere/w.pth"], &["/nowhere/w.pth"]);
    refused(2, &["--depth", "20"], &["18, 34, 50, 101 or 152", "'20'"]);
    refused(2, &["--image-size", "16"], &["32..=4096", "16"]);
    refused(2, &["--width", "0"], &["1..=1024", "0"]);
    refused(2, &["--lesion", "2"], &["largest or together", "'2'"]);
    refused(2, &["--learning-rate", "0"], &["above 0", "'0'"]);

    // No tumour in one phase: named when the patient is prepared.
    let mask = data.join("p2/portal_mask.nii.gz");
    let image = nifti::read_labels(&mask).expect("a mask");
    let without: Vec<u8> = image.labels.labels().iter().map(|l| (*l).min(1)).collect();
    let healthy = image.labels.with_labels(without).expect("a mask");
    nifti::write(&mask, &image.with_volume(healthy)).expect("written");
    // Without it a single subtype is left.
    setup.refused("model", 1, &[], &["patient p2", "expected a tumour in every phase", "two subtypes"]);
    std::fs::remove_file(&mask).expect("removed");
    setup.refused("model", 1, &[], &["patient p2", "portal_mask.nii.gz"]);
    std::fs::remove_file(data.join("p2/portal.nii.gz")).expect("removed");
    setup.refused("model", 2, &[], &["patient p2", "three or four phases", "2 given"]);
    std::fs::remove_file(data.join("subtypes.csv")).expect("removed");
    std::fs::remove_file(data.join("p1/truth.json")).expect("removed");
    setup.refused("model", 1, &[], &["p1", "truth.json", "subtypes.csv"]);
}
