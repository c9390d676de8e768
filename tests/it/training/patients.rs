//! Data sets of patients' folders.

use std::path::Path;

use nephron::models::ImageReader;
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::Phase;
use nephron::training::data::RawDataset;

/// Two patients of two phases and one of one.
fn write_patients(folder: &Path) {
    for (seed, phases) in [(1, &Phase::ALL[1..3]), (2, &Phase::ALL[2..]), (3, &Phase::ALL[..1])] {
        let options =
            PhantomOptions { seed, phases: phases.to_vec(), spacing: [12.0, 12.0, 15.0], ..Default::default() };
        let patient = folder.join(format!("patient_{seed}"));
        generate(&options).expect("a phantom").write(&patient).expect("written");
    }
}

/// The message of a data set that is refused.
fn refusal(folder: &Path) -> String {
    RawDataset::open(folder).expect_err("refused").to_string()
}

#[test]
fn every_phase_of_every_patient_is_a_case() {
    let folder = tempfile::tempdir().expect("a folder");
    write_patients(folder.path());
    std::fs::create_dir(folder.path().join(".hidden")).expect("a folder");
    let dataset = RawDataset::open(folder.path()).expect("a data set");
    let names: Vec<&str> = dataset.cases().iter().map(|case| case.name.as_str()).collect();
    let of = |patient: usize, phases: [&str; 2]| phases.map(|phase| format!("patient_{patient}_{phase}"));
    let [first, second] = [of(1, ["arterial", "portal"]), of(2, ["portal", "delayed"])];
    // By name.
    let expected = [&first[0], &first[1], &second[1], &second[0]];
    assert_eq!(names[..4], expected.map(String::as_str));
    assert_eq!(names[4..], ["patient_3_non-contrast"]);
    assert_eq!((dataset.reader(), dataset.labels().outputs()), (ImageReader::ReorientedByNibabel, 3));
    for case in dataset.cases() {
        let read = dataset.read(case).expect("a case");
        assert!(case.name.starts_with(&case.patient) && read.labels.counts()[2] > 0, "{}", case.name);
    }
    // Three patients are too few for five folds, however many phases they have.
    let message = dataset.split(Some(0)).expect_err("too few").to_string();
    assert!(message.contains("at least 5") && message.contains('3'), "{message}");
    assert_eq!(dataset.split(None).expect("all").train.len(), 5);
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let message = refusal(folder.path());
    assert!(message.contains("dataset.json") && message.contains("found neither"), "{message}");
    write_patients(folder.path());
    let first = folder.path().join("patient_1");
    let mask = first.join("portal_mask.nii.gz");
    std::fs::rename(&mask, first.join("elsewhere.nii.gz")).expect("renamed");
    let message = refusal(folder.path());
    assert!(message.contains("portal.nii.gz") && message.contains("portal_mask.nii.gz"), "{message}");
    std::fs::rename(first.join("elsewhere.nii.gz"), &mask).expect("renamed");
    std::fs::copy(first.join("portal.nii.gz"), first.join("portal.nii")).expect("copied");
    let message = refusal(folder.path());
    assert!(message.contains("portal.nii.gz") && message.contains("portal.nii: "), "{message}");
    std::fs::remove_file(first.join("portal.nii")).expect("removed");
    // A folder of something else is passed over, and the voxels of a pair are no image of their own.
    std::fs::create_dir(folder.path().join("notes")).expect("a folder");
    std::fs::write(first.join("portal.img"), "voxels").expect("written");
    let dataset = RawDataset::open(folder.path()).expect("a data set");
    assert_eq!(dataset.cases().len(), 5);
    let [warning] = dataset.warnings() else { panic!("expected one warning, found {:?}", dataset.warnings()) };
    assert!(warning.contains("notes") && warning.contains("non-contrast, arterial, portal, delayed"), "{warning}");
}
