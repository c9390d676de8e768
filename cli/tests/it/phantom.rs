//! `nephron phantom`.

use crate::support;

#[test]
fn the_verb_writes_a_patient_and_refuses_wrong_calls() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let nephron = |args: &[&str]| {
        let mut command = support::nephron();
        command.arg("phantom").arg(dir.path().join("p")).args(args).output().expect("the binary starts")
    };
    let done = nephron(&["--seed", "4", "--subtype", "aml", "--phases", "P,arterial", "--spacing", "8,8,10", "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).expect("UTF-8");
    let result: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(result["truth"]["subtype"], "AML");
    assert_eq!(result["files"].as_array().map(Vec::len), Some(5));
    assert!(dir.path().join("p/arterial_mask.nii.gz").is_file());
    for wrong in [&["--phases", "P,P"][..], &["--spacing", "1,2"], &["--spacing", "0,1,1"], &["--subtype", "x"]] {
        assert_eq!(nephron(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
