//! The command as a user calls it: exit codes, errors of one line on standard error, no partial files.

use std::path::Path;
use std::process::Output;

use nephron::io::nifti::{self, Image};
use nephron::volume::{Affine, Volume, Voxels};
use serde_json::Value;

use crate::support;

fn nephron(args: &[&str]) -> Output {
    support::nephron().args(args).output().expect("the program runs")
}

/// The exit code and the line of an error.
fn refused(args: &[&str]) -> (i32, String) {
    let output = nephron(args);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("warning:")).collect();
    assert_eq!(lines.len(), 1, "one line for {args:?}: {text}");
    (output.status.code().expect("an exit code"), lines[0].to_owned())
}

fn write(path: &Path, voxels: Voxels, affine: Affine) -> String {
    let volume = Volume::new([6, 6, 6], voxels, affine).expect("a volume");
    nifti::write(path, &Image::new(volume)).expect("a written image");
    path.display().to_string()
}

fn labels(label: impl Fn(usize) -> u8) -> Voxels {
    Voxels::U8((0..216).map(label).collect::<Vec<_>>().into())
}

#[test]
fn wrong_calls_exit_with_2_and_say_what_was_expected() {
    for (args, part) in [
        (&["op", "nosuch"][..], "expected one of conv3d"),
        (&["op", "conv3d"], "input 'x' is needed"),
        (&["op", "softmax", "--device", "gpu"], "auto, cpu, cuda[:n] or vulkan[:n]"),
        (&["op", "softmax", "--device", "cuda:x"], "whole number"),
        (&["resample", "a.nii", "b.nii"], "--spacing"),
        (&["resample", "a.nii", "b.nii", "--spacing", "0,1,1"], "above 0"),
        (&["diagnose", "--model", "m", "-o", "o"], "one to four phases, none given"),
        (&["nosuch"], "nosuch"),
        // Subcommands that compute on the CPU know no other device, and none of its options.
        (&["info", "a.nii", "--device", "cuda:99"], "expected cpu, or no --device"),
        (&["info", "a.nii", "--trace", "t.json"], "unexpected argument '--trace' found"),
        (&["evaluate", "registration", "r", "-v"], "see 'nephron evaluate registration --help'"),
        (&["--device", "cpu", "segment"], "see 'nephron --help'"),
    ] {
        let (code, line) = refused(args);
        assert!(code == 2 && line.contains(part), "{args:?}: {code} {line}");
    }
}

#[test]
fn failures_exit_with_1_name_the_file_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let empty = write(&at("empty.nii.gz"), labels(|_| 0), Affine::IDENTITY);
    let kidney = write(&at("kidney.nii.gz"), labels(|i| u8::from(i % 3 == 0)), Affine::IDENTITY);
    let mut moved = Affine::IDENTITY;
    moved.0[0][3] = 3.0;
    let elsewhere = write(&at("elsewhere.nii.gz"), labels(|i| u8::from(i % 2 == 0)), moved);
    let out = at("out").display().to_string();
    let two_phases = ["--arterial", &kidney, &kidney, "--delayed", &kidney, &kidney];
    let missing = at("missing.nii.gz").display().to_string();
    for (args, parts) in [
        (vec!["info", &missing], ["missing.nii.gz", "no such file"]),
        (vec!["segment", &kidney, "--model", &missing, "-o", &out], ["missing.nii.gz", "plans.json"]),
        (vec!["register", "--fixed", &empty, "--moving", &kidney, "-o", &out], ["empty.nii.gz", "label 1"]),
        (vec!["register", "--fixed", &kidney, "--moving", &missing, "-o", &out], ["missing.nii.gz", "no such file"]),
        (
            [&["classify", "--portal", &kidney, &elsewhere, "--model", &out], &two_phases[..]].concat(),
            ["elsewhere.nii.gz", "another grid"],
        ),
        (vec!["op", "leaky_relu", "--in", "x=nosuch.npy", "--out", "y=y.npy"], ["nosuch.npy", "no such file"]),
        (vec!["op", "softmax", "--device", "cuda:99"], ["cuda:99", ""]),
        // Errors of the system are in words.
        (
            vec!["warp", &kidney, "--transform", &missing, "--like", &kidney, "-o", &out],
            ["missing.nii.gz", "no such file"],
        ),
    ] {
        let (code, line) = refused(&args);
        assert!(code == 1 && parts.iter().all(|part| line.contains(part)), "{args:?}: {code} {line}");
    }
    assert!(!at("out").exists(), "a refused call makes no result folder");
}

#[test]
fn devices_and_info_speak_json() {
    let output = nephron(&["devices", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("json");
    let backends: Vec<&str> = report.as_array().expect("a list").iter().filter_map(|b| b["backend"].as_str()).collect();
    assert_eq!(backends, ["cpu", "cuda", "vulkan"]);
    for backend in report.as_array().expect("a list") {
        let found = backend["adapters"].as_array().is_some_and(|a| !a.is_empty());
        assert!(found || backend["missing"].as_str().is_some_and(|m| !m.is_empty()), "{backend}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(&folder.path().join("a.nii.gz"), labels(|_| 1), Affine::IDENTITY);
    let output = nephron(&["info", &path, "--json"]);
    let info: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(info["shape"], serde_json::json!([6, 6, 6]), "{info}");
}

#[test]
fn the_choice_of_a_convolution_is_said_and_can_be_overridden() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    nephron::io::npy::write_f32(at("x"), &[1, 4, 2, 3, 4], &[1.0; 96]).expect("an array");
    nephron::io::npy::write_f32(at("w"), &[2, 4, 1, 1, 1], &[1.0; 8]).expect("an array");
    let (x, w, y) = (format!("x={}", at("x")), format!("w={}", at("w")), format!("y={}", at("y.npy")));
    let computing = |d: &&nephron::Device| **d != nephron::Device::Cpu && !crate::support::compiles_only(d);
    for device in crate::support::devices().iter().filter(computing) {
        let run = |wish: &str| {
            let arguments = ["op", "conv3d", "-v", "--device", &device.name(), "--in", &x, "--in", &w, "--out", &y];
            let program = support::nephron().args(arguments).env("NEPHRON_CONV", wish).output();
            let output = program.expect("the program runs");
            (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
        };
        for (wish, chosen) in
            [("", "direct"), ("direct", "direct"), ("register_blocked", "register_blocked 64 x 32 x 16")]
        {
            let (code, text) = run(wish);
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains(&format!("(24 x 2 x 4): {chosen}")), "{wish}: {text}");
        }
        let (code, text) = run("fast");
        assert!(
            code == Some(2) && text.contains("NEPHRON_CONV: expected one of naive, direct") && text.contains("'fast'"),
            "{text}"
        );
    }
}

#[test]
#[cfg(unix)]
fn a_reader_that_went_away_is_no_failure() {
    let mut child = support::nephron()
        .arg("devices")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_wrong_attribute_is_a_wrong_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.npy");
    nephron::io::npy::write_f32(&file, &[1, 1, 2, 2, 2], &[0.0; 8]).expect("an array");
    let input = format!("x={}", file.display());
    let (code, line) = refused(&["op", "instance_norm", "--in", &input, "--attr", "eps=-1", "--device", "cpu"]);
    assert!(code == 2 && line.contains("eps") && line.contains("-1"), "{code}: {line}");
}

/// Runs `warp` on two images with the identity and `stdout` as standard output. Returns the exit code, standard error, and whether
/// both results exist.
#[cfg(target_os = "linux")]
fn warp_two(stdout: impl FnOnce(&mut std::process::Command) -> std::process::Child) -> (Option<i32>, String, bool) {
    use nephron::volume::{Affine, Volume, Voxels};
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let volume = Volume::new([3, 4, 5], Voxels::U8(vec![1; 60].into()), Affine::IDENTITY).expect("a volume");
    for name in ["a.nii", "b.nii"] {
        nephron::io::nifti::write(at(name), &nephron::io::nifti::Image::new(volume.clone())).expect("written");
    }
    nephron::registration::transform::write_itk(at("t.tfm"), &Affine::IDENTITY).expect("written");
    let mut command = support::nephron();
    command.args(["warp", "--device", "cpu"]).args([at("a.nii"), at("b.nii")]).arg("--transform").arg(at("t.tfm"));
    command.arg("--like").arg(at("a.nii")).args(["--interp", "nearest", "-o"]).arg(at("out"));
    let output = stdout(&mut command).wait_with_output().expect("the program ends");
    let written = ["a.nii", "b.nii"].iter().all(|name| at("out").join(name).is_file());
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), written)
}

#[test]
#[cfg(target_os = "linux")]
fn a_standard_output_that_fails_costs_no_result() {
    use std::process::Stdio;
    let (code, errors, written) = warp_two(|command| {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        drop(child.stdout.take());
        child
    });
    assert_eq!((code, errors.as_str(), written), (Some(0), "", true), "the reader went away");
    let (code, errors, written) = warp_two(|command| {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device that is full");
        command.stdout(full).stderr(Stdio::piped()).spawn().expect("the program starts")
    });
    assert!(errors.starts_with("error: standard output: ") && errors.lines().count() == 1, "{errors}");
    assert_eq!((code, written), (Some(1), true));
}

#[test]
fn a_call_from_another_program_returns_its_error() {
    let error = nephron_cli::run_from(["nephron", "op", "no_such_op"]).expect_err("a wrong call");
    assert!(matches!(error, nephron_cli::error::Error::Usage(_)) && error.exit_code() == 2, "{error:?}");
    let error = nephron_cli::run_from(["nephron", "info", "/nowhere/at/all.nii"]).expect_err("no such file");
    assert_eq!(error.exit_code(), 1);
    let nephron_cli::error::Error::Library(error) = error else { panic!("{error:?}") };
    assert_eq!(error.io_error().map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
}

/// Completions and manual pages name every subcommand and option that the help does.
#[test]
fn completions_and_manual_pages_are_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, script, errors) = support::run(&["completions", "bash"]);
    assert_eq!(code, Some(0), "{errors}");
    let pages = folder.path().join("pages");
    let (code, names, errors) = support::run(&["man", "-o", pages.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{errors}");
    let read = |name: &str| std::fs::read_to_string(pages.join(name)).expect("a page");
    for verb in ["segment", "register", "diagnose", "evaluate", "man"] {
        assert!(script.contains(verb) && names.contains(&format!("nephron-{verb}.1")), "{verb}: {names}");
        assert!(read("nephron.1").contains(verb), "{verb}");
    }
    assert!(script.contains("--memory-budget") && read("nephron-segment.1").contains("memory\\-budget"), "{script}");
    assert!(read("nephron-evaluate-segmentation.1").contains("truth"));
    assert_eq!(support::run(&["completions", "dos"]).0, Some(2));
}
