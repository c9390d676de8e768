//! `nephron evaluate` over cohorts.

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::support;

/// 40 cases of three classes, two readers.
fn write_cohort(folder: &Path) {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (mut scores, mut truth) = ("case,aml,ccRCC,pRCC\n".to_owned(), "case,truth\n".to_owned());
    let mut readers = "case,reader,first,second\n".to_owned();
    for case in 0..40 {
        let class = case % 3;
        let mut row: [f64; 3] =
            std::array::from_fn(|i| rng.random_range(0.05..1.0) + if i == class { 0.4 } else { 0.0 });
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
        scores += &format!("p{case},{},{},{}\n", row[0], row[1], row[2]);
        truth += &format!("p{case},{}\n", ["aml", "CCRCC", "2"][class]);
        readers += &format!("p{case},anna,{},pRCC\np{case},ben,{},\n", rng.random_range(0..3), class);
    }
    for (name, text) in [("scores.csv", scores), ("truth.csv", truth), ("readers.csv", readers)] {
        std::fs::write(folder.join(name), text).expect("written");
    }
}

fn evaluate(folder: &Path, options: &[&str]) -> (Option<i32>, String, String) {
    let at = |name: &str| folder.join(name).display().to_string();
    let call = ["evaluate", "classification", "--scores", &at("scores.csv"), "-o", &at("out")];
    let output = support::nephron().args(call).args(options).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_cohort_is_evaluated() {
    let folder = tempfile::tempdir().expect("a folder");
    write_cohort(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (truth, readers) = (at("truth.csv"), at("readers.csv"));
    let (code, text, errors) = evaluate(folder.path(), &["--truth", &truth, "--readers", &readers, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    let printed: Value = serde_json::from_str(text.trim()).expect("JSON");
    let written: Value =
        serde_json::from_slice(&std::fs::read(at("out/metrics.json")).expect("metrics")).expect("JSON");
    assert_eq!(printed, written);
    assert_eq!((written["cases"].as_u64(), written["schema_version"].as_u64()), (Some(40), Some(1)));
    for class in written["classes"].as_array().expect("classes") {
        let auc = class["auc"]["value"].as_f64().expect("an area");
        assert!(auc > 0.6 && class["auc"]["low"].as_f64() <= Some(auc), "{class}");
    }
    let [anna, ben] = [0, 1].map(|i| &written["readers"][i]);
    assert_eq!((ben["top_1_accuracy"].as_f64(), ben["name"].as_str()), (Some(1.0), Some("ben")));
    assert!(anna["top_2_accuracy"].as_f64() > anna["top_1_accuracy"].as_f64(), "{anna}");
    assert!(anna["p_accuracy"].as_f64() < Some(0.05), "{anna}");
    for name in ["roc.csv", "precision_recall.csv", "confusion.csv"] {
        assert!(std::fs::read_to_string(folder.path().join("out").join(name)).expect(name).lines().count() > 3);
    }
    // The tables have the figures of metrics.json.
    let table = |name: &str| -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(at(&format!("out/{name}.csv"))).expect("a table");
        text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
    };
    // To the last digits, which reading JSON may change.
    let rounded = |value: f64| (value * 1e12).round();
    let figure = |cell: &str| cell.parse::<f64>().ok().map(rounded);
    let number = |value: &Value| value.as_f64().map(rounded);
    let (overall, classes) = (table("overall"), table("classes"));
    assert_eq!(overall[1][0], "mean_auc");
    assert_eq!(figure(&overall[1][2]), number(&written["macro_auc"]["low"]));
    assert_eq!(figure(&overall[2][1]), number(&written["accuracy"]["value"]));
    for (row, class) in classes[1..].iter().zip(written["classes"].as_array().expect("classes")) {
        assert_eq!(Some(row[0].as_str()), class["name"].as_str());
        assert_eq!(figure(&row[2]), number(&class["auc"]["value"]));
        assert_eq!(figure(&row[7]), number(&class["specificity"]));
    }
    let (accuracy, by_class) = (table("reader_accuracy"), table("reader_classes"));
    assert_eq!((accuracy.len(), by_class.len()), (3, 7));
    assert_eq!(accuracy[2][..3], ["ben", "40", "1"]);
    assert_eq!(figure(&by_class[1][2]), number(&anna["classes"][0]["sensitivity"]));
    for name in ["roc", "precision_recall"] {
        let svg = std::fs::read_to_string(at(&format!("out/{name}.svg"))).expect("a picture");
        assert!(svg.contains("ccRCC: "), "the legend");
        let png = image::open(at(&format!("out/{name}.png"))).expect("a picture").into_rgb8();
        assert!(png.pixels().filter(|p| p.0 != [255; 3]).count() > 5000, "something is drawn");
    }
    // Thresholds change decisions, not areas.
    let (code, text, _) = evaluate(folder.path(), &["--truth", &truth, "--thresholds", "0,0.99,0.99", "--json"]);
    let other: Value = serde_json::from_str(text.trim()).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(other["macro_auc"], written["macro_auc"]);
    assert_eq!(other["classes"][0]["sensitivity"], 1.0);
    // Without readers, tables of earlier ones do not stay.
    assert!(!folder.path().join("out/reader_accuracy.csv").exists());
    assert!(!folder.path().join("out/reader_classes.csv").exists());
}

#[test]
fn cohorts_that_cannot_be_evaluated_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scores.csv");
    let truths = folder.path().join("truth.csv");
    let readers = folder.path().join("readers.csv");
    let refused = |scores: &str, truth: Option<&str>, reader: Option<&str>, parts: &[&str]| {
        std::fs::write(&path, scores).expect("written");
        let mut options: Vec<&str> = Vec::new();
        for (option, file, text) in [("--truth", &truths, truth), ("--readers", &readers, reader)] {
            if let Some(text) = text {
                std::fs::write(file, text).expect("written");
                options.extend([option, file.to_str().expect("UTF-8")]);
            }
        }
        let (code, _, errors) = evaluate(folder.path(), &options);
        assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}");
        assert!(parts.iter().all(|p| errors.contains(p)), "{errors}: expected {parts:?}");
        assert!(!folder.path().join("out").exists());
    };
    let good = "case,truth,a,b\n1,a,0.9,0.1\n2,b,0.5,0.5\n";
    refused("case,truth,a,b\n1,a,0.9,0.1\n2,a,0.5,0.5\n", None, None, &["two classes", "only a"]);
    refused("case,truth,a,b\n1,a,1.9,-0.9\n", None, None, &["row 1", "between 0 and 1", "'1.9'"]);
    refused("case,truth,a,b\n1,a,nan,0.5\n", None, None, &["between 0 and 1", "'nan'"]);
    refused("case,truth,a,b\n1,a,0.9,0.3\n", None, None, &["row 1", "add up to 1", "1.2"]);
    refused("case,truth,a,b\n1,c,0.9,0.1\n", None, None, &["one of a, b", "'c'"]);
    refused("case,truth,a,b\n1,a,0.9,0.1\n1,b,0.5,0.5\n", None, None, &["row 2", "case '1'", "row 1"]);
    refused("case,a,b\n1,0.9,0.1\n", None, None, &["column 'truth'", "--truth"]);
    refused("case,a,b\n1,0.9,0.1\n", Some("case,truth\n2,a\n"), None, &["truth.csv", "case '1'", "found none"]);
    refused("case,truth,a\n1,a,1\n", None, None, &["two classes or more"]);
    refused("case,truth,a,b\n1,a,0.9\n", None, None, &["CSV"]);
    refused(good, None, Some("case,reader,first\n7,anna,a\n"), &["readers.csv", "row 1", "'7'"]);
    refused(good, None, Some("case,reader,first\n1,anna,x\n"), &["one of a, b", "'x'"]);
    refused(good, None, Some("case,reader,first\n1,anna,a\n1,anna,b\n"), &["row 2", "anna", "already"]);
    refused(good, None, Some("case,who,first\n1,anna,a\n"), &["column 'reader'", "case, who, first"]);
}

#[test]
fn masks_are_evaluated() {
    use nephron::io::nifti;
    use nephron::volume::{Affine, Volume, Voxels};
    let folder = tempfile::tempdir().expect("a folder");
    let mut affine = Affine::IDENTITY;
    (affine.0[0][0], affine.0[1][1], affine.0[2][2]) = (2.0, 2.0, 3.0);
    let write = |name: &str, labels: &dyn Fn(usize, usize, usize) -> u8| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let voxels: Vec<u8> = (0..6 * 8 * 10).map(|i| labels(i / 80, i / 10 % 8, i % 10)).collect();
        let volume = Volume::new([6, 8, 10], Voxels::U8(voxels.into()), affine).expect("a mask");
        nifti::write(path, &nifti::Image::new(volume)).expect("written");
    };
    // A block of 4 x 4 x 4 voxels, of which the upper half along z is tumour, and the same block one voxel (2 mm) further along x.
    let block = |z: usize, y: usize, x: usize| {
        u8::from((1..5).contains(&z) && (2..6).contains(&y) && (3..7).contains(&x)) * (1 + u8::from(z > 2))
    };
    write("truth/portal_1.nii.gz", &block);
    write("found/portal_1.nii.gz", &|z, y, x| if x > 0 { block(z, y, x - 1) } else { 0 });
    write("truth/arterial_1.nii.gz", &block);
    write("found/arterial_1.nii.gz", &|z, y, x| block(z, y, x).min(1));
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (found, truth, csv) = (at("found"), at("truth"), at("cases.csv"));
    let run = |options: &[&str]| {
        let call = ["evaluate", "segmentation", "--masks", &found, "--truth", &truth];
        let output = support::nephron().args(call).args(options).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, text, errors) = run(&["--by-phase", "--csv", &csv, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    let table: Value = serde_json::from_str(text.trim()).expect("JSON");
    let line = |phase: &str, label: &str| {
        let lines = table["summary"].as_array().expect("lines");
        lines.iter().find(|l| l["phase"] == phase && l["label"] == label).expect("a line").clone()
    };
    let portal = line("portal", "kidney_with_tumour");
    assert_eq!(portal["dice"]["mean"], 0.75, "{portal}");
    assert_eq!((&portal["hausdorff_95_mm"]["mean"], &portal["volume_error"]["mean"]), (&2.0.into(), &0.0.into()));
    let healthy = line("arterial", "tumour");
    assert_eq!((&healthy["dice"]["mean"], &healthy["volume_error"]["mean"]), (&0.0.into(), &(-1.0).into()));
    assert_eq!((&healthy["without_distance"], &healthy["hausdorff_95_mm"]), (&1.into(), &Value::Null));
    assert_eq!(std::fs::read_to_string(&csv).expect("a table").lines().count(), 5);
    std::fs::remove_file(folder.path().join("found/portal_1.nii.gz")).expect("removed");
    let (code, _, errors) = run(&[]);
    assert!(code == Some(1) && errors.contains("portal_1") && errors.contains("found none"), "{errors}");
}

/// Labels on a grid of 3 x 4 x 5 voxels, written where they are asked for.
fn write_mask(path: &Path, labels: &dyn Fn(usize) -> u8) {
    use nephron::volume::{Affine, Volume, Voxels};
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let voxels: Vec<u8> = (0..60).map(labels).collect();
    let volume = Volume::new([3, 4, 5], Voxels::U8(voxels.into()), Affine::IDENTITY).expect("a mask");
    nephron::io::nifti::write(path, &nephron::io::nifti::Image::new(volume)).expect("written");
}

#[test]
fn missed_false_and_absent_structures_are_counted_apart_and_strange_labels_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, labels: &dyn Fn(usize) -> u8| write_mask(&folder.path().join(name), labels);
    let kidney = |i: usize| u8::from((20..40).contains(&i));
    let with = |label: u8| move |i: usize| if (25..30).contains(&i) { label } else { kidney(i) };
    // Missed, found where there is none, absent from both, and there in both.
    write("truth/a.nii.gz", &with(2));
    write("found/a_mask.nii.gz", &kidney);
    write("truth/b.nii.gz", &kidney);
    write("found/b_mask.nii.gz", &with(2));
    write("truth/c.nii.gz", &kidney);
    write("found/c.nii.gz", &kidney);
    write("truth/d.nii.gz", &with(2));
    write("found/d.nii.gz", &with(2));
    write("found/nobody.nii.gz", &kidney);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let run = |options: &[&str]| {
        let (found, truth) = (at("found"), at("truth"));
        let call = ["evaluate", "segmentation", "--masks", &found, "--truth", &truth, "--json"];
        let output = support::nephron().args(call).args(options).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let line = |text: &str, label: &str| {
        let table: Value = serde_json::from_str(text.trim()).expect("JSON");
        table["summary"].as_array().expect("lines").iter().find(|l| l["label"] == label).expect("a line").clone()
    };
    let (code, text, errors) = run(&[]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("nobody.nii.gz: there is no true mask"), "{errors}");
    let tumour = line(&text, "tumour");
    let counts = ["cases", "missed", "false_alarms", "both_empty", "without_distance"].map(|key| tumour[key].as_u64());
    assert_eq!(counts, [Some(4), Some(1), Some(1), Some(1), Some(3)], "{tumour}");
    // 0, 0 and 1 of the three cases with a tumour; 1 more where the absent one counts.
    assert!((tumour["dice"]["mean"].as_f64().expect("a mean") - 1.0 / 3.0).abs() < 1e-12, "{tumour}");
    assert_eq!(tumour["dice_empty_as_1"]["mean"], 0.5, "{tumour}");
    assert_eq!(tumour["hausdorff_95_mm"]["mean"], 0.0, "{tumour}");

    // Labels that are not compared are named; other labels are compared on request.
    write("truth/d.nii.gz", &with(7));
    let (code, _, errors) = run(&[]);
    assert!(code == Some(0) && errors.contains("d.nii.gz: label 7 (5 voxels)"), "{errors}");
    let (code, text, errors) = run(&["--label", "cyst=7", "--label", "all=1,2,7"]);
    assert!(
        code == Some(0) && line(&text, "cyst")["missed"] == 1 && line(&text, "all")["dice"]["mean"] == 1.0,
        "{errors}"
    );
    std::fs::write(at("dataset.json"), r#"{"labels": {"background": 0, "whole": [1, 2, 7], "tumor": 2}}"#)
        .expect("written");
    let (code, text, errors) = run(&["--dataset", &at("dataset.json")]);
    assert!(
        code == Some(0) && line(&text, "whole")["dice"]["mean"] == 1.0 && line(&text, "tumor")["missed"] == 1,
        "{errors}"
    );
    let (_, text, _) = run(&["--kits"]);
    assert_eq!(line(&text, "masses")["label"], "masses");
    assert_eq!(run(&["--kits", "--label", "a=1"]).0, Some(2));

    // A case that fails costs itself: the table of the others is whole.
    std::fs::write(at("found/c.nii.gz"), "no image").expect("written");
    let (code, text, errors) = run(&[]);
    assert!(code == Some(1) && errors.contains("c.nii.gz"), "{errors}");
    assert_eq!(line(&text, "kidney_with_tumour")["cases"], 3);
}

#[test]
fn rounded_probabilities_and_rare_classes_are_evaluated() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |text: &str| std::fs::write(folder.path().join("scores.csv"), text).expect("written");
    // Thirds to two digits: 0.99. Each class has one case: no resample has all three for long.
    write("case,a,b,c,truth\n1,0.33,0.33,0.33,a\n2,0.1,0.8,0.11,b\n3,0.2,0.2,0.6,c\n");
    let (code, _, errors) = evaluate(folder.path(), &["--bootstrap", "50"]);
    assert_eq!(code, Some(0), "{errors}");
    let names: Vec<String> = (0..10).map(|k| format!("k{k}")).collect();
    let row = |case: usize| {
        let scores: Vec<String> = (0..10).map(|k| if k == case { "0.55".into() } else { "0.05".into() }).collect();
        format!("{case},{},k{case}\n", scores.join(","))
    };
    write(&format!("case,{},truth\n{}", names.join(","), (0..10).map(row).collect::<String>()));
    let (code, _, errors) = evaluate(folder.path(), &["--bootstrap", "50"]);
    assert!(code == Some(0) && errors.contains("too rare to be drawn together"), "{errors}");
    let metrics: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out/metrics.json")).expect("a file")).expect("JSON");
    assert_eq!(metrics["macro_auc"]["value"], 1.0);
    write("case,a,b,truth\n1,0.3,0.2,a\n2,0.2,0.3,b\n");
    let (code, _, errors) = evaluate(folder.path(), &[]);
    assert!(code == Some(1) && errors.contains("add up to 1"), "{errors}");
}
