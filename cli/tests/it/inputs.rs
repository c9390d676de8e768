//! Inputs that are wrong in ways of their own: pipes, text that a terminal would obey, tables and results with columns too many, paths
//! that leave a folder, sizes that no memory holds. Each is one line that names the file.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nephron::io::nifti::{self, Image};
use nephron::volume::{Affine, Volume, Voxels};
use serde_json::{Value, json};

use crate::diagnose::model;
use crate::support::{self, nephron, run};

/// The one line of an error with exit code 1.
#[track_caller]
fn refused(call: &[&str], parts: &[&str]) -> String {
    let (code, printed, errors) = run(call);
    assert!(code == Some(1) && printed.is_empty() && errors.lines().count() == 1, "{code:?} {call:?}: {errors}");
    assert!(!errors.trim_end().contains(char::is_control) && errors.chars().count() < 1500, "{errors:?}");
    assert!(parts.iter().all(|part| errors.contains(part)), "{parts:?}: {errors}");
    errors
}

/// A folder and the paths of files in it, as text.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
        self.at(name)
    }

    fn image(&self, name: &str, shape: [usize; 3], spacing: f64) -> String {
        let step = [0, 1, 2].map(|a| std::array::from_fn(|b| if a == b { spacing } else { 0.0 }));
        let values = (0..shape.iter().product::<usize>()).map(|i| (i % 700) as i16).collect::<Vec<_>>();
        let volume = Volume::new(shape, Voxels::I16(values.into()), Affine(step)).expect("a volume");
        nifti::write(self.at(name), &Image::new(volume)).expect("written");
        self.at(name)
    }

    /// The golden segmentation model with changed plans.
    fn model(&self, change: impl FnOnce(&mut Value)) -> String {
        let golden = support::root().join("tests/golden/unet");
        let read = |name: &str| fs::read(golden.join(name)).expect("a golden file");
        let mut plans: Value = serde_json::from_slice(&read("plans.json")).expect("JSON");
        change(&mut plans);
        self.write("model/plans.json", plans.to_string());
        self.write("model/dataset.json", read("dataset.json"));
        self.write("model/weights.safetensors", read("weights.safetensors"));
        self.at("model")
    }
}

#[test]
fn a_result_has_a_probability_for_each_class_and_each_class_once() {
    let folder = Folder::new();
    let (truth, out) = (folder.write("t.csv", "case,truth\na,AML\nb,ccRCC\n"), folder.at("o"));
    let results = folder.at("r");
    let result = |classes: Value, probabilities: Value| {
        json!({"schema_version": 2, "classes": classes, "lesions": [], "specks": {"count": 0, "volume_ml": 0.0},
            "together": false, "lesion": 1, "not_classified": null,
            "classification": {"probabilities": probabilities, "decision": "AML", "images": [], "crops": [], "models": 1}})
    };
    let call = |a: Value, b: Value| {
        folder.write("r/a/result.json", a.to_string());
        folder.write("r/b/result.json", b.to_string());
        run(&["evaluate", "classification", "--results", &results, "--truth", &truth, "-o", &out, "--bootstrap", "5"])
    };
    let two = json!(["AML", "ccRCC"]);
    let (code, _, errors) = call(result(two.clone(), json!([0.75, 0.25])), result(two.clone(), json!([0.5, 0.5])));
    assert_eq!(code, Some(0), "{errors}");
    for (classes, probabilities, part) in [
        (two.clone(), json!([1.0]), "b/result.json: expected 2 probabilities, one for each class, found 1"),
        (
            two.clone(),
            json!([0.6, 0.4, 0.9, 7.0]),
            "b/result.json: expected 2 probabilities, one for each class, found 4",
        ),
        (two.clone(), json!([0.6, 7.0]), "b/result.json: ccRCC: expected a probability between 0 and 1, found '7'"),
    ] {
        let (code, _, errors) = call(result(two.clone(), json!([0.5, 0.5])), result(classes, probabilities));
        assert!(code == Some(1) && errors.contains(part) && errors.lines().count() == 1, "{errors}");
    }
    let twice = result(json!(["AML", "AML"]), json!([0.5, 0.5]));
    let (code, _, errors) = call(twice.clone(), twice);
    assert!(
        code == Some(1) && errors.contains("a/result.json: expected each class once, found 'AML' twice"),
        "{errors}"
    );
}

#[test]
fn a_column_of_a_table_occurs_once() {
    let folder = Folder::new();
    let out = folder.at("o");
    for (head, name) in [("case,A,A,truth", "A"), ("case,A,a,truth", "a"), ("case,A,B,truth,Truth", "Truth")] {
        let row = if head.ends_with("Truth") { "x,0.5,0.5,A,A" } else { "x,0.5,0.5,A" };
        let scores = folder.write("s.csv", format!("{head}\n{row}\n"));
        let part = format!("s.csv: expected each column once, found '{name}' twice");
        refused(&["evaluate", "classification", "--scores", &scores, "-o", &out], &[&part]);
    }
}

/// Colours, line breaks and 100,000 characters from each kind of file: [`refused`] checks the line.
#[test]
fn text_of_files_reaches_the_terminal_plain_and_short() {
    let folder = Folder::new();
    let (out, image) = (folder.at("o"), folder.image("a.nii", [3, 4, 5], 1.0));
    let evil = format!("\x1b[31m\u{9b}2J\u{202e}{}", "x".repeat(100_000));
    let evaluate = |scores: &str, truth: &str| {
        let scores = folder.write("s.csv", scores);
        let truth = folder.write("t.csv", truth);
        let call = ["evaluate", "classification", "--scores", &scores, "-o", &out];
        let truth = ["--truth", truth.as_str()];
        refused(&if scores.is_empty() { call.to_vec() } else { [&call[..], &truth].concat() }, &[".csv", "?[31m?2J?x"]);
    };
    evaluate(&format!("case,A,B\ny,{evil},0.5\n"), "case,truth\ny,A\n");
    evaluate("case,A,B\ny,0.5,0.5\n", &format!("case,truth\ny,{evil}\n"));
    evaluate(&format!("case,{evil},B\ny,0.5,0.5\n"), "case,truth\ny,C\n");
    evaluate(&format!("case,A,B\n{evil},0.5,0.5\n{evil},0.5,0.5\n"), &format!("case,truth\n{evil},A\n"));
    let header = |descr: &str, shape: &str| {
        let dict = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(dict.len() as u16).to_le_bytes()[..], dict.as_bytes()].concat()
    };
    let short = &evil[..3000];
    for (descr, shape) in [(format!("'{short}'"), "(1,)".to_owned()), ("'<f4'".to_owned(), format!("({short},)"))] {
        let array = format!("x={}", folder.write("x.npy", header(&descr, &shape)));
        refused(&["op", "leaky_relu", "--in", &array], &["x.npy", "?[31m"]);
    }
    let transform = folder.write("t.tfm", format!("#Insight Transform File V1.0\nTransform: {evil}\nParameters: 1\n"));
    refused(&["warp", &image, "--transform", &transform, "--like", &image, "-o", &out], &["t.tfm", "?[31m"]);
    let escaped = serde_json::to_string(&evil).expect("JSON");
    let transform = folder.write("t.json", format!("{{\"fixed_to_moving_ras\": {escaped}}}"));
    refused(&["warp", &image, "--transform", &transform, "--like", &image, "-o", &out], &["t.json"]);
    let model = folder.model(|plans| plans["configurations"][&evil] = json!({}));
    let segment = ["segment", &image, "-o", &out, "--model", &model];
    let (code, _, errors) = run(&[&segment[..], &["--configuration", "none"]].concat());
    assert!(code == Some(2) && errors.contains("?[31m") && errors.chars().count() < 1500, "{errors:?}");
    let model = folder.model(|plans| plans["transpose_forward"] = json!([evil]));
    refused(&["segment", &image, "-o", &out, "--model", &model], &["plans.json", "[31m?2J?x"]);
}

/// Whether a command ends by itself within ten seconds.
fn ends(mut command: Command) -> Output {
    use std::process::Stdio;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let started = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if started.elapsed() > Duration::from_secs(10) {
            child.kill().expect("killed");
            panic!("{command:?} waits for ever");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it ended")
}

#[test]
#[cfg(target_os = "linux")]
fn a_named_pipe_without_a_writer_is_refused_and_one_of_the_shell_is_read() {
    let folder = Folder::new();
    let (out, image) = (folder.at("o"), folder.image("a.nii", [3, 4, 5], 1.0));
    for name in ["pipe.tfm", "pipe.csv", "r/result.json", "m/plans.json", "c/classification/config.json", "pipe.json"] {
        let path = folder.at(name);
        fs::create_dir_all(Path::new(&path).parent().expect("a folder")).expect("made");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
    }
    let [tfm, csv, json, results] = ["pipe.tfm", "pipe.csv", "pipe.json", "r"].map(|name| folder.at(name));
    folder.write("truth.csv", "case,truth\nr,A\n");
    let truth = folder.at("truth.csv");
    let masks = folder.at("masks");
    folder.image("masks.nii", [1, 1, 1], 1.0);
    fs::create_dir_all(&masks).expect("a folder");
    let calls: [&[&str]; 7] = [
        &["warp", &image, "--transform", &tfm, "--like", &image, "-o", &out],
        &["warp", &image, "--transform", &json, "--like", &image, "-o", &out],
        &["evaluate", "classification", "--scores", &csv, "-o", &out],
        &["evaluate", "classification", "--results", &results, "--truth", &truth, "-o", &out],
        &["evaluate", "registration", &results],
        &["evaluate", "segmentation", "--masks", &masks, "--truth", &masks, "--dataset", &json],
        &["evaluate", "classification", "--scores", "/dev/zero", "-o", &out],
    ];
    for call in calls {
        let mut command = nephron();
        command.args(call);
        let output = ends(command);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains("is not a regular file"), "{call:?}: {text}");
    }
    let transform = folder.at("t.tfm");
    nephron::registration::transform::write_itk(&transform, &Affine::IDENTITY).expect("written");
    let mut command = Command::new("bash");
    let program = nephron();
    command.args(["-c", "\"$0\" warp --device cpu \"$1\" --transform <(cat \"$2\") --like \"$1\" -o \"$3\""]);
    command.arg(program.get_program()).args([&image, &transform, &out]);
    let output = ends(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_model_reads_files_of_its_own_folder_only() {
    let folder = Folder::new();
    model(folder.0.path());
    let image = folder.image("a.nii", [3, 4, 5], 1.0);
    let model = folder.at("");
    let pair = |phase: &'static str| [phase, image.as_str(), image.as_str()];
    let phases = [pair("--portal"), pair("--arterial"), pair("--delayed")].concat();
    for outside in ["/etc/passwd", "../a.nii", "b/../../a.nii", "", "..", "0\n.pth"] {
        let weights = json!({"depth": 18, "input_size": 48, "weights": [outside]});
        folder.write("classification/config.json", weights.to_string());
        let call = [&["classify", "--model", &model][..], &phases].concat();
        refused(&call, &["config.json: weights: expected paths of files in the model's folder"]);
    }
}

#[test]
fn a_message_names_the_image_and_what_was_done_to_it() {
    let folder = Folder::new();
    let (out, image) = (folder.at("o"), folder.image("near.nii", [3, 4, 5], 1.0));
    let far = folder.write(
        "far.tfm",
        "#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\nParameters: 1 0 0 0 1 0 0 0 1 1e9 0 0\nFixedParameters: 0 0 0\n",
    );
    for interpolation in ["linear", "nearest", "soft"] {
        let call = ["warp", &image, "--transform", &far, "--like", &image, "-o", &out, "--interp", interpolation];
        let (code, _, errors) = run(&call);
        let last = errors.lines().last().unwrap_or_default();
        assert!(
            code == Some(1) && last.contains("near.nii by ") && last.contains("far.tfm"),
            "{interpolation}: {errors}"
        );
    }
    let wide = folder.image("wide.nii", [3, 4, 5], 5000.0);
    let target = folder.at("small.nii");
    refused(&["resample", &wide, &target, "--spacing", "0.01,0.01,0.01"], &["wide.nii", "spacing"]);
    let model = folder.model(|_| {});
    let huge = folder.image("huge.nii", [3, 4, 5], 1e17);
    let (code, _, errors) = run(&["segment", &huge, "--model", &model, "-o", &out]);
    let last = errors.lines().last().unwrap_or_default();
    assert!(code == Some(1) && last.contains("huge.nii: "), "{errors}");
}

#[test]
fn a_tile_that_no_memory_holds_is_refused_by_its_key() {
    let folder = Folder::new();
    let (out, image) = (folder.at("o"), folder.image("a.nii", [3, 4, 5], 1.0));
    for patch in [[4096, 4096, 4096], [1024, 1024, 1024]] {
        let model = folder.model(|plans| {
            for (_, configuration) in plans["configurations"].as_object_mut().expect("an object") {
                if configuration.get("patch_size").is_some() {
                    configuration["patch_size"] = json!(patch);
                }
            }
        });
        refused(&["segment", &image, "-o", &out, "--model", &model], &["plans.json", "patch_size", "would take", "GB"]);
    }
}

/// Under a bound of the address space, a run succeeds or says in one line that memory is missing; it is never aborted.
#[test]
#[cfg(target_os = "linux")]
fn too_little_memory_is_an_error() {
    let folder = Folder::new();
    // 60 MB as f32.
    let image = folder.image("large.nii", [150, 320, 320], 1.0);
    let model = folder.model(|_| {});
    let program = nephron();
    let limited = |kib: usize, call: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v \"$0\"; exec \"$@\"", &kib.to_string()]).arg(program.get_program());
        command.args(call).args(crate::support::on_cpu(call)).env("RUST_BACKTRACE", "0");
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let info = |kib: usize| limited(kib, &["devices"]).0 == Some(0);
    let base = (1..).map(|n| n * 20_000).find(|kib| info(*kib)).expect("enough to start");
    let [out, masks] = ["out.nii", "masks"].map(|name| folder.at(name));
    let calls: [&[&str]; 3] = [
        &["resample", &image, &out, "--spacing", "1,1,1.1"],
        &["resample", &image, &out, "--spacing", "1,1,1.1", "--interp", "cubic"],
        &["segment", &image, "--model", &model, "-o", &masks],
    ];
    for call in calls {
        let mut refused = 0;
        for more in (20_000..400_000).step_by(40_000) {
            let (code, errors) = limited(base + more, call);
            match code {
                Some(0) => break,
                Some(1) => {
                    let last = errors.lines().last().unwrap_or_default();
                    assert!(last.contains("memory") && !errors.contains("panicked"), "{more}: {errors}");
                    refused += 1;
                }
                other => panic!("{other:?} with {more} KiB more than to start: {call:?}: {errors}"),
            }
        }
        assert!(refused > 1, "{call:?}: the bound was never felt");
    }
}
