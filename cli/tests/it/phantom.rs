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

/// A cohort is what `diagnose --cohort` takes: folders with scans named after their phases, and a table with the columns case and truth.
#[test]
fn a_cohort_has_a_folder_for_each_seed_and_a_table() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let nephron = |args: &[&str]| {
        let mut command = support::nephron();
        command.arg("phantom").arg(dir.path()).args(["--spacing", "12,12,15"]).args(args).output().expect("it starts")
    };
    let done = nephron(&["--cohort", "6", "--seed", "40"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let table = std::fs::read_to_string(dir.path().join("truth.csv")).expect("a table");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 7);
    assert_eq!(rows[0][..4], ["case", "truth", "seed", "phases"]);
    assert_eq!(rows[1][..3], ["p00040", "oncocytoma", "40"]);
    assert_eq!(rows[5][..3], ["p00044", "ccRCC", "44"]);
    for row in &rows[1..] {
        let folder = dir.path().join(row[0]);
        let scans = ["N", "A", "P", "D"].into_iter().zip(["non-contrast", "arterial", "portal", "delayed"]);
        for (letter, name) in scans {
            assert_eq!(folder.join(format!("{name}.nii.gz")).is_file(), row[3].contains(letter), "{row:?}");
            assert_eq!(folder.join(format!("{name}_mask.nii.gz")).is_file(), row[3].contains(letter), "{row:?}");
        }
        assert!((2..=4).contains(&row[3].len()), "{row:?}");
        assert!(folder.join("truth.json").is_file());
    }
    // The patient of a seed does not depend on the others, and the options that are given hold for every patient.
    let first = std::fs::read(dir.path().join("p00041/truth.json")).expect("written");
    assert!(nephron(&["--cohort", "1", "--seed", "41"]).status.success());
    assert_eq!(std::fs::read(dir.path().join("p00041/truth.json")).expect("written"), first);
    let external =
        ["--cohort", "2", "--seed", "60", "--scanner", "external", "--subtypes", "external", "--phases", "P"];
    assert!(nephron(&external).status.success());
    let table = std::fs::read_to_string(dir.path().join("truth.csv")).expect("a table");
    assert!(table.lines().skip(1).all(|line| line.contains(",P,") && line.contains("RCC,")), "{table}");
    // Simulated readers, whose table goes with the cohort that it is of.
    assert!(nephron(&["--cohort", "3", "--seed", "40", "--readers", "2"]).status.success());
    let table = std::fs::read_to_string(dir.path().join("readers.csv")).expect("a table");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["case", "reader", "first", "second"]);
    assert_eq!(rows.len(), 1 + 3 * 2);
    assert_eq!((rows[1][0], rows[1][1], rows[2][1], rows[3][0]), ("p00040", "reader 1", "reader 2", "p00041"));
    assert!(rows[1..].iter().all(|row| row[2].parse::<nephron::phase::Subtype>().is_ok() && row[2] != row[3]));
    assert!(nephron(&["--cohort", "1", "--seed", "40"]).status.success());
    assert!(!dir.path().join("readers.csv").exists());
    let largest = u64::MAX.to_string();
    for wrong in [
        &["--subtypes", "external"][..],
        &["--readers", "6"],
        &["--cohort", "0"],
        &["--cohort", "2", "--seed", &largest],
    ] {
        assert_eq!(nephron(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
