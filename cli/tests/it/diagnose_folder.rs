//! A result folder that is used again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::diagnose::{model, patient};
use crate::support::{nephron, run};

/// Every file below a folder, relative to it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).expect("below it").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// A run with four phases and three lesions, then one with two phases into the same folder: it contains the files of a fresh folder and
/// those that the user has put there.
#[test]
fn a_smaller_run_leaves_nothing_of_an_earlier_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (patients, models) = (folder.path().join("p"), folder.path().join("m"));
    patient(&patients);
    model(&models);
    let text = |path: &Path| path.display().to_string();
    let scan = |phase: &str| text(&patients.join(format!("{phase}.nii.gz")));
    let [p, a, d, n] = ["portal", "arterial", "delayed", "non-contrast"].map(scan);
    let m = text(&models);
    let call = |out: &Path, scans: &[&str]| {
        let o = text(out);
        let base = ["diagnose", "--masks", "--model", &m, "-o", &o, "--lesion", "all"];
        let (code, _, errors) = run(&[&base[..], scans].concat());
        assert_eq!(code, Some(0), "{errors}");
    };
    let (used, fresh) = (folder.path().join("used"), folder.path().join("fresh"));
    call(&used, &["--portal", &p, "--arterial", &a, "--delayed", &d, "--non-contrast", &n]);
    std::fs::write(used.join("notes.txt"), "mine").expect("written");
    let before = files_below(&used);
    assert!(before.contains(&"aligned/delayed.tfm".into()) && before.contains(&"pictures/lesion1_delayed.png".into()));
    let two = ["--portal", p.as_str(), "--arterial", a.as_str()];
    call(&used, &two);
    call(&fresh, &two);
    let mut want = files_below(&fresh);
    want.push("notes.txt".into());
    want.sort();
    assert_eq!(files_below(&used), want);
    // A scan of this run may be a file that an earlier run has written.
    let [input, mask] = ["", "_mask"].map(|end| used.join(format!("aligned/delayed{end}.nii.gz")));
    std::fs::copy(&d, &input).expect("copied");
    std::fs::copy(patients.join("delayed_mask.nii.gz"), &mask).expect("copied");
    call(&used, &["--portal", &text(&used.join("aligned/delayed.nii.gz")), "--arterial", &a]);
    assert!(input.is_file() && mask.is_file() && !used.join("aligned/delayed.tfm").exists());
}

/// `nephron diagnose | head -1`: a closed standard output is not a failure, and nothing panics.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let (patients, out) = (folder.path().join("p"), folder.path().join("out"));
    patient(&patients);
    let mut command = nephron();
    command.args(["diagnose", "--device", "cpu", "--masks", "-o"]).arg(&out);
    for phase in ["portal", "arterial"] {
        command.arg(format!("--{phase}")).arg(patients.join(format!("{phase}.nii.gz")));
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("panicked"), "{:?} {errors}", output.status);
    assert!(out.join("result.json").is_file());
}
