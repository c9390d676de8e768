//! Data sets of patients' folders.

use std::ops::ControlFlow;
use std::path::Path;

use nephron::Device;
use nephron::models::ImageReader;
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::Phase;
use nephron::training::data::{Fingerprint, Plan, PlanFiles, PlannerOptions, Preparation, RawDataset};

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

/// The voxels of a MetaImage lie in a file beside its header: where they change, the case is prepared again.
#[test]
fn voxels_beside_a_header_belong_to_a_prepared_case() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (folder.path().join("data"), folder.path().join("prepared"));
    let options =
        PhantomOptions { phases: vec![Phase::Portal], spacing: [12.0, 12.0, 15.0], ..PhantomOptions::default() };
    let patient = data.join("p");
    let phantom = generate(&options).expect("a phantom");
    phantom.write(&patient).expect("written");
    std::fs::remove_file(patient.join("portal.nii.gz")).expect("removed");
    let image = &phantom.phases[0].image;
    // MetaImage counts x, y, z in LPS.
    let ([d, h, w], a) = (image.shape(), image.affine().0);
    let header = format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = -1 0 0 0 -1 0 0 0 1\n\
         Offset = {} {} {}\nElementSpacing = 12 12 15\nDimSize = {w} {h} {d}\nElementType = MET_SHORT\n\
         ElementDataFile = portal.raw\n",
        -a[0][3], -a[1][3], a[2][3]
    );
    std::fs::write(patient.join("portal.mhd"), header).expect("written");
    let write = |add: i16| {
        let values = (0..d * h * w).map(|i| (i % 97) as i16 + add);
        std::fs::write(patient.join("portal.raw"), values.flat_map(i16::to_le_bytes).collect::<Vec<_>>())
            .expect("written");
    };
    write(0);
    let dataset = RawDataset::open(&data).expect("a data set");
    let go_on = &mut |_: usize, _: usize| ControlFlow::Continue(());
    let fingerprint = Fingerprint::of(&dataset, dataset.reader().orientation(), go_on).expect("a fingerprint");
    let plan = Plan::new(&fingerprint, 3, &PlannerOptions::default()).expect("a plan");
    let plan = PlanFiles::new(&dataset, &fingerprint, &plan).plan("3d_fullres").expect("a plan");
    let preparation =
        Preparation { dataset: &dataset, plan: &plan, identity: "a plan", folder: &out, device: &Device::Cpu };
    let cases: Vec<_> = dataset.cases().iter().collect();
    let mut prepare = || {
        let (samples, identity) = preparation.run(&cases, &mut |_| (), go_on).expect("cases");
        let whole = samples[0].window(samples[0].shape.map(|size| 0..size)).expect("all voxels");
        (whole.image.to_vec(), identity)
    };
    let (image, identity) = prepare();
    write(3);
    let (changed, differs) = prepare();
    assert_ne!(identity, differs);
    assert_ne!(image, changed);
}
