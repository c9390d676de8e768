//! `nephron train segmentation`.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use nephron::io::nifti::{self, Image};
use nephron::volume::{Affine, Volume, Voxels};
use rand::Rng;
use serde_json::{Value, json};

use crate::support;

/// A data set of two phantoms in two phases, in large voxels.
fn write_dataset(folder: &Path) {
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    for part in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(folder.join(part)).expect("a folder");
    }
    for seed in ["1", "2"] {
        let patient = folder.join(format!("patient_{seed}"));
        let call = ["phantom", &text(&patient), "--seed", seed, "--phases", "P,D", "--spacing", "8,8,10"];
        let (code, _, stderr) = support::run(&call);
        assert_eq!(code, Some(0), "{stderr}");
        for phase in ["portal", "delayed"] {
            let moved = |from: String, to: String| {
                std::fs::rename(patient.join(from), folder.join(to)).expect("a file of the phantom");
            };
            moved(format!("{phase}.nii.gz"), format!("imagesTr/p{seed}_{phase}_0000.nii.gz"));
            moved(format!("{phase}_mask.nii.gz"), format!("labelsTr/p{seed}_{phase}.nii.gz"));
        }
    }
    let dataset = json!({
        "channel_names": { "0": "CT" },
        "labels": { "background": 0, "kidney": 1, "tumour": 2 },
        "numTraining": 4,
        "file_ending": ".nii.gz",
    });
    std::fs::write(folder.join("dataset.json"), dataset.to_string()).expect("written");
}

/// A network of few features and short epochs.
fn small(features: &str) -> Vec<&str> {
    let words = "--fold all --patch 8,16,16 --batch 2 --epochs 2 --iterations 2 --validate-every 0 --features";
    words.split(' ').chain([features]).collect()
}

/// The exit code and the one line of a refusal.
fn refused(call: &[&str]) -> (Option<i32>, String) {
    let (code, _, stderr) = support::run(call);
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("warning:")).collect();
    assert_eq!(lines.len(), 1, "one line for {call:?}: {stderr}");
    (code, lines[0].to_owned())
}

#[test]
fn a_training_is_interrupted_resumed_and_segments() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (data, model, masks) = (text("data"), text("model"), text("masks"));
    write_dataset(Path::new(&data));
    let call = |features, more: &[&str]| {
        let words = ["train", "segmentation", &data, "-o", &model].into_iter();
        words.chain(small(features)).chain(more.iter().copied()).map(str::to_owned).collect::<Vec<_>>()
    };
    let train = |more: &[&str]| {
        let call = call("4", more);
        let (code, stdout, stderr) = support::run(&call.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    let wrong = |features, more: &[&str], parts: [&str; 2]| {
        let call = call(features, more);
        let (code, line) = refused(&call.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(code == Some(1) && parts.iter().all(|part| line.contains(part)), "{more:?}: {line}");
    };
    let json = |stdout: &str| -> Value { serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON") };

    let stopped = json(&train(&["--json", "--time-limit", "0s"]));
    assert_eq!((&stopped["finished"], &stopped["steps"]), (&json!(false), &json!(1)));
    assert_eq!((&stopped["weights"], &stopped["epochs"]), (&Value::Null, &json!([])));
    wrong("4", &[], ["checkpoint.safetensors", "interrupted"]);
    wrong("6", &["--resume"], ["plans.json", "another plan"]);
    wrong("4", &["--resume", "--seed", "1"], ["\"seed\":0", "\"seed\":1"]);
    // Without --json each epoch is a line, and the last line is the weights.
    let stdout = train(&["--resume", "--time-limit", "0s"]);
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("epoch 1: loss ") && !lines[0].contains("kidney"), "{stdout}");
    assert_eq!(lines[1..], ["interrupted after 2 steps: --resume goes on"], "{stdout}");
    let done = json(&train(&["--resume", "--json"]));
    assert_eq!((&done["finished"], &done["steps"]), (&json!(true), &json!(4)));
    assert_eq!(done["epochs"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&done["epochs"][0]["dice"], done["epochs"][1]["dice"].as_array().map(Vec::len)),
        (&Value::Null, Some(2))
    );
    let weights = done["weights"].as_str().expect("a path");
    assert!(weights.ends_with("fold_all.safetensors") && Path::new(weights).is_file(), "{weights}");
    let log = Path::new(&model).join("training/fold_all/log.csv");
    assert!(std::fs::read_to_string(log).expect("a table").contains("dice_kidney,dice_tumour"));
    wrong("4", &["--resume"], ["fold_all.safetensors", "already"]);

    // Another data set is not trained into this model.
    let path = Path::new(&data).join("dataset.json");
    let described = std::fs::read_to_string(&path).expect("dataset.json");
    std::fs::write(&path, described.replace("tumour", "cyst")).expect("written");
    wrong("4", &[], ["cyst", "tumour"]);
    std::fs::write(&path, described).expect("written");

    let image = format!("{data}/imagesTr/p1_portal_0000.nii.gz");
    let (code, _, stderr) = support::run(&["segment", &image, "--model", &model, "-o", &masks]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("not for clinical use"), "{stderr}");
    assert!(std::fs::read_dir(&masks).expect("masks").count() > 0);
}

/// A data set of four cases of 12^3 voxels with labels 0 and 1.
fn write_cubes(folder: &Path) {
    for part in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(folder.join(part)).expect("a folder");
    }
    for case in 0..4 {
        let label = |i: usize| u8::from(i % 12 > 6);
        write_cube(&folder.join(format!("labelsTr/c{case}.nii.gz")), 12, label);
        write_cube(&folder.join(format!("imagesTr/c{case}_0000.nii.gz")), 12, |i| 1 + 90 * label(i) + (i % 7) as u8);
    }
    let dataset = json!({ "channel_names": { "0": "CT" }, "labels": { "background": 0, "kidney": 1 } });
    std::fs::write(folder.join("dataset.json"), dataset.to_string()).expect("written");
}

fn write_cube(path: &Path, size: usize, value: impl Fn(usize) -> u8) {
    let voxels = Voxels::U8((0..size.pow(3)).map(value).collect::<Vec<_>>().into());
    let volume = Volume::new([size; 3], voxels, Affine::IDENTITY).expect("a volume");
    nifti::write(path, &Image::new(volume)).expect("written");
}

/// Killed with a signal that no program can catch, wherever that is: while it prepares, takes a step, or writes a checkpoint.
#[test]
fn killed_five_times_and_resumed_it_ends_in_the_same_weights() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let data = text("data");
    write_cubes(Path::new(&data));
    let command = |model: &str| {
        let mut command = support::nephron();
        let words = "--fold all --patch 8,16,16 --batch 2 --epochs 30 --iterations 2 --validate-every 10 --features 4 --device cpu --resume -q";
        command.args(["train", "segmentation", &data, "-o", &text(model)]).args(words.split(' '));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let started = Instant::now();
    assert!(command("whole").status().expect("it runs").success());
    let whole = started.elapsed();
    let mut rng = support::rng();
    let (mut killed, mut longest) = (0, whole.mul_f64(0.4));
    while killed < 5 {
        let mut child = command("parts").spawn().expect("it runs");
        std::thread::sleep(longest.mul_f64(rng.random_range(0.1..1.0)));
        if child.try_wait().expect("a child").is_some() {
            // It was quicker than the first: all over again, and killed sooner.
            std::fs::remove_dir_all(folder.path().join("parts")).expect("removed");
            (killed, longest) = (0, longest / 2);
            continue;
        }
        child.kill().expect("killed");
        child.wait().expect("it ends");
        killed += 1;
    }
    let weights = |model: &str| std::fs::read(folder.path().join(model).join("fold_all.safetensors"));
    // Killed behind its last step, it is done.
    if weights("parts").is_err() {
        assert!(command("parts").status().expect("it runs").success());
    }
    assert!(weights("whole").expect("weights") == weights("parts").expect("weights"), "after {killed} kills");
    let left = std::fs::read_dir(folder.path().join("parts")).expect("a folder").flatten();
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains("tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn wrong_calls_and_data_are_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (data, model) = (text("data"), text("model"));
    write_cubes(Path::new(&data));
    let refused = |code: i32, words: &[&str], parts: [&str; 2]| {
        let (found, line) = refused(&[&["train", "segmentation", &data, "-o", &model], words].concat());
        assert!(found == Some(code) && parts.iter().all(|part| line.contains(part)), "{words:?}: {found:?} {line}");
        assert!(!Path::new(&model).exists(), "{words:?} makes no folder");
    };
    // Four cases are too few for five folds.
    refused(2, &["--fold", "0"], ["at least 5", "found 4"]);
    refused(2, &["--fold", "x"], ["0, 1, ... or all", "'x'"]);
    refused(2, &["--fold", "7"], ["0 to 4, or all", "found 7"]);
    refused(2, &["--time-limit", "3 weeks"], ["45m", "'3 weeks'"]);
    refused(2, &["--time-limit=-3h"], ["45m", "-3h"]);
    refused(2, &["--patch", "8,8"], ["Z,Y,X", "'8,8'"]);
    refused(2, &["--patch", "8,8,0"], ["1 to 4096", "'8,8,0'"]);
    refused(2, &["--spacing", "1,1,nan"], ["above 0", "'1,1,nan'"]);
    refused(2, &["--memory", "0"], ["above 0", "'0'"]);
    refused(2, &["--epochs", "0"], ["1..=16777216", "0 is not"]);
    refused(2, &["--iterations", "99999999"], ["1..=16777216", "99999999"]);
    refused(2, &["--learning-rate", "inf"], ["above 0", "'inf'"]);
    refused(2, &["--batch", "0"], ["1..=4096", "0 is not"]);
    refused(2, &["--loaders", "0"], ["1..=256", "0 is not"]);
    refused(2, &["--plans", "p.json", "--batch", "2"], ["--plans", "--batch"]);
    refused(1, &["--plans", "/nowhere/p.json", "--fold", "all"], ["/nowhere/p.json", "no such file"]);
    refused(1, &["--fold", "all", "--configuration", "4d"], ["4d", "plans.json"]);

    let case = Path::new(&data).join("labelsTr/c2.nii.gz");
    write_cube(&case, 12, |i| 5 * u8::from(i == 7));
    refused(1, &["--fold", "all"], ["label 5 (1 voxels)", "expected 0 to 1"]);
    write_cube(&case, 10, |_| 1);
    refused(1, &["--fold", "all"], ["[12, 12, 12]", "[10, 10, 10]"]);
    std::fs::remove_file(Path::new(&data).join("imagesTr/c2_0000.nii.gz")).expect("removed");
    refused(1, &["--fold", "all"], ["c2_0000.nii.gz", "is missing"]);
    std::fs::remove_file(Path::new(&data).join("dataset.json")).expect("removed");
    refused(1, &["--fold", "all"], ["dataset.json", "no such file"]);
}
