//! A cohort of phantoms: `diagnose --cohort --masks`, then `evaluate classification` on its results.

use std::path::Path;

use nephron::io::nifti;
use nephron::io::weights;
use nephron::models::resnet::{ResNetConfig, seeded_weights};
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::{Phase, Subtype};
use nephron::volume::{Volume, Voxels};
use serde_json::Value;

use crate::support::run;

/// A model folder with a classification model only, with seeded weights.
fn classifier(folder: &Path) {
    let folder = folder.join("classification");
    std::fs::create_dir_all(&folder).expect("a folder");
    let drawn = seeded_weights(&ResNetConfig { depth: 50, width: 64, classes: 5, fusion: true }, 3).expect("weights");
    let values: Vec<_> = drawn.names().map(|name| (name, drawn.get(name).expect("a tensor"))).collect();
    let tensors: Vec<(&str, &[usize], &[f32])> =
        values.iter().map(|(name, (shape, data))| (*name, shape.as_slice(), data.as_slice())).collect();
    weights::write(folder.join("weights.safetensors"), &tensors).expect("written");
    let config = r#"{"depth": 50, "input_size": 64, "weights": ["weights.safetensors"]}"#;
    std::fs::write(folder.join("config.json"), config).expect("written");
}

#[test]
fn a_cohort_is_diagnosed_from_given_masks_and_evaluated() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    classifier(&folder.path().join("model"));
    let mut truth = "case,truth\n".to_owned();
    let subtypes = [Subtype::ClearCell, Subtype::Papillary, Subtype::ClearCell, Subtype::Oncocytoma];
    for (seed, subtype) in subtypes.into_iter().enumerate() {
        let options = PhantomOptions {
            seed: seed as u64,
            subtype: Some(subtype),
            spacing: [4.0, 4.0, 6.0],
            ..PhantomOptions::default()
        };
        let patient = generate(&options).expect("a patient");
        patient.write(folder.path().join(format!("patients/p{seed}"))).expect("written");
        truth += &format!("p{seed},{subtype}\n");
    }
    std::fs::write(at("truth.csv"), truth).expect("written");
    // The last patient has no tumour in one phase, which is a result and not a failure.
    let mask = folder.path().join("patients/p3/portal_mask.nii.gz");
    let image = nifti::read_labels(&mask).expect("a mask");
    let without: Vec<u8> = image.labels.labels().iter().map(|l| (*l).min(1)).collect();
    let healthy = image.labels.with_labels(without).expect("a mask");
    nifti::write(&mask, &image.with_volume(healthy)).expect("written");

    let (cohort, model, out) = (at("patients"), at("model"), at("out"));
    let (code, text, errors) =
        run(&["diagnose", "--cohort", &cohort, "--masks", "--model", &model, "-o", &out, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    let results: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(results["patients"].as_array().expect("results").len(), 4);
    for (i, result) in results["patients"].as_array().expect("results").iter().enumerate() {
        assert_eq!(result["classification"].is_null(), i == 3, "{i}");
        assert_eq!(result["seconds"]["segment"], 0.0, "nothing is segmented");
        let tumour = result["phases"][0]["tumour_ml"].as_f64().expect("a volume");
        assert!(tumour > 1.0, "{tumour}");
    }
    // The masks in the result are those that were given.
    let given = nifti::read_labels(folder.path().join("patients/p1/arterial_mask.nii.gz")).expect("a mask");
    let kept = nifti::read_labels(folder.path().join("out/p1/masks/arterial_mask.nii.gz")).expect("a mask");
    assert!(given.labels.labels() == kept.labels.labels());

    let (truth, figures) = (at("truth.csv"), at("figures"));
    let (code, text, errors) =
        run(&["evaluate", "classification", "--results", &out, "--truth", &truth, "-o", &figures, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("p3: lesion 1 was not found in the portal phase; left out"), "{errors}");
    let metrics: Value = serde_json::from_str(text.trim()).expect("JSON");
    assert_eq!(metrics["cases"], 3);
    assert_eq!(metrics["class_names"][4], "ccRCC");
    let (code, _, errors) = run(&["evaluate", "registration", &out]);
    assert_eq!(code, Some(0), "{errors}");

    // A setting of the model that was edited makes all of them again.
    let resumed = || {
        let (code, _, errors) =
            run(&["diagnose", "--cohort", &cohort, "--masks", "--model", &model, "-o", &out, "--continue"]);
        assert_eq!(code, Some(0), "{errors}");
        errors
    };
    assert!(resumed().contains("4 of 4 patients left out"));
    let config = folder.path().join("model/classification/config.json");
    let edited = std::fs::read_to_string(&config).expect("a file").replace("64", "48");
    std::fs::write(&config, edited).expect("written");
    assert!(!resumed().contains("left out"));

    // A patient that fails is named and does not affect the others.
    std::fs::write(folder.path().join("patients/p0/delayed.nii.gz"), "no image").expect("written");
    let (code, text, errors) = run(&["diagnose", "--cohort", &cohort, "--masks", "--model", &model, "-o", &out]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("p0") && errors.contains("1 of 4 patients failed"), "{errors}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let (code, _, errors) = run(&["diagnose", "--cohort", &model, "--masks", "--model", &model, "-o", &out]);
    assert!(code == Some(1) && errors.contains("expected a folder with scans for each patient"), "{errors}");
}

/// The voxels of an int16 image.
fn bytes(volume: &Volume) -> Vec<u8> {
    let Voxels::I16(values) = volume.voxels() else { panic!("int16") };
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A MetaImage header of a volume whose voxels are in `raw`; its name has the same length for all, so that headers of one grid may be equal.
fn metaimage(volume: &Volume, raw: &str) -> String {
    let ([d, h, w], affine, [x, y, z]) = (volume.shape(), volume.affine().0, volume.affine().spacing());
    let direction =
        |c: usize, s: f64| [-affine[0][c] / s, -affine[1][c] / s, affine[2][c] / s].map(|v| v.to_string()).join(" ");
    let matrix = [direction(0, x), direction(1, y), direction(2, z)].join(" ");
    let offset = [-affine[0][3], -affine[1][3], affine[2][3]].map(|v| v.to_string()).join(" ");
    format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = {matrix}\nOffset = {offset}\n\
         ElementSpacing = {x} {y} {z}\nDimSize = {w} {h} {d}\nElementType = MET_SHORT\nElementDataFile = {raw}\n"
    )
}

/// Two phases of a phantom, once packed and once not.
#[test]
fn stray_folders_short_patients_and_repeated_scans_cost_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).display().to_string();
    let options = PhantomOptions {
        phases: vec![Phase::Portal, Phase::Delayed],
        spacing: [4.0, 4.0, 6.0],
        ..PhantomOptions::default()
    };
    generate(&options).expect("a patient").write(at("patients/packed")).expect("written");
    for name in ["plain", "short", "twice", "logs"] {
        std::fs::create_dir_all(at("patients").join(name)).expect("a folder");
    }
    for (from, to) in
        [("portal", "portal"), ("portal_mask", "portal_mask"), ("delayed", "delayed"), ("delayed_mask", "delayed_mask")]
    {
        let packed = at("patients/packed").join(format!("{from}.nii.gz"));
        let image = nifti::read(&packed).expect("an image");
        nifti::write(at("patients/plain").join(format!("{to}.nii")), &image).expect("written");
        if from.starts_with("portal") {
            std::fs::copy(&packed, at("patients/short").join(format!("{to}.nii.gz"))).expect("copied");
            std::fs::copy(&packed, at("patients/twice").join(format!("{to}.nii.gz"))).expect("copied");
            let again = to.replace("portal", "delayed");
            std::fs::copy(&packed, at("patients/twice").join(format!("{again}.nii.gz"))).expect("copied");
        }
    }
    // Two MetaImages with the same header, each with voxels of its own; masks as this program writes them.
    for phase in ["portal", "delayed"] {
        let image = nifti::read(at("patients/packed").join(format!("{phase}.nii.gz"))).expect("an image");
        let (folder, raw) = (at("patients/meta"), at("patients/meta").join(format!("{phase}.raw")));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(&raw, bytes(&image.volume)).expect("written");
        std::fs::write(folder.join(format!("{phase}.mhd")), metaimage(&image.volume, &format!("{phase}.raw")))
            .expect("written");
        let mask = format!("{phase}_mask.nii.gz");
        std::fs::copy(at("patients/packed").join(&mask), folder.join(&mask)).expect("copied");
    }
    // Two files of one phase.
    std::fs::create_dir_all(at("patients/doubled")).expect("a folder");
    for name in ["portal.nii.gz", "portal_mask.nii.gz"] {
        std::fs::copy(at("patients/packed").join(name), at("patients/doubled").join(name)).expect("copied");
    }
    std::fs::copy(at("patients/plain/portal.nii"), at("patients/doubled/portal.nii")).expect("copied");
    let (cohort, out) = (text("patients"), text("out"));
    let (code, said, errors) = run(&["diagnose", "--cohort", &cohort, "--masks", "-o", &out, "--json"]);
    assert_eq!(code, Some(1), "{errors}");
    for part in [
        "logs: no patient",
        "twice",
        "are the same image",
        "expected one portal phase, found",
        "2 of 6 patients failed",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let results: Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    let [patients, failed] = ["patients", "failed"].map(|key| results[key].as_array().expect("a list"));
    assert_eq!((patients.len(), failed.len()), (4, 2), "{results}");
    assert!(failed[1]["input"].as_str().is_some_and(|name| name.ends_with("twice")), "{results}");
    let kidney = |name: &str| {
        let of =
            |p: &&Value| p["phases"][0]["files"][0]["file"].as_str().is_some_and(|f| f.contains(&format!("/{name}/")));
        patients.iter().find(of).expect("a patient")["phases"][0]["kidney_ml"].as_f64().expect("a volume")
    };
    assert!((kidney("meta") - kidney("packed")).abs() < 1e-6, "{results}");
    for (patient, done) in [("packed", true), ("plain", true), ("short", true), ("twice", false)] {
        assert_eq!(at("out").join(patient).join("result.json").exists(), done, "{patient}");
    }

    // The table and the page have every patient.
    let read = |name: &str| std::fs::read_to_string(at("out").join(name)).expect("a file");
    let table = read("summary.csv");
    assert_eq!(table.lines().count(), 7, "{table}");
    let row = |name: &str| table.lines().find(|line| line.starts_with(&format!("{name},"))).expect("a row").to_owned();
    assert!(row("short").contains("portal") && row("short").contains("1 given"), "{table}");
    assert!(row("twice").contains("failed: ") && row("plain").contains("2 given"), "{table}");
    let page = read("summary.html");
    assert!(page.contains("href=\"./plain/report.html\"") && !page.contains("./twice/report.html"), "{page}");

    // The summary of the results that are there is the same, the reasons of those that failed included.
    let (code, said, errors) = run(&["diagnose", "--cohort", &cohort, "-o", &out, "--summary", "--json"]);
    assert!(code == Some(1) && errors.contains("2 of 6 patients have no result"), "{errors}");
    assert!(errors.contains("are the same image"), "{errors}");
    let summary: Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&summary["patients"], &summary["failed"][1]["input"]), (&results["patients"], &failed[1]["input"]));
    let without_twice = |table: &str| {
        table
            .lines()
            .filter(|line| !(line.starts_with("twice,") || line.starts_with("doubled,")))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(without_twice(&read("summary.csv")), without_twice(&table));
    let (code, _, errors) = run(&["diagnose", "--portal", &cohort, "-o", &out, "--summary"]);
    assert!(code == Some(2) && errors.contains("--cohort"), "{errors}");

    // A run that is continued makes what is missing, and what was made of other inputs or by other options.
    let written = |name: &str| {
        std::fs::metadata(at("out").join(name).join("result.json")).expect("one").modified().expect("a time")
    };
    let resume = |more: &[&str]| {
        let base = ["diagnose", "--cohort", &cohort, "--masks", "-o", &out, "--continue"];
        let (code, _, errors) = run(&[&base[..], more].concat());
        assert_eq!(code, Some(1), "{errors}");
        errors
    };
    std::fs::remove_file(at("out/packed/result.json")).expect("removed");
    let mask = at("patients/short/portal_mask.nii.gz");
    let image = nifti::read_labels(&mask).expect("a mask");
    let healthy: Vec<u8> = image.labels.labels().iter().map(|l| (*l).min(1)).collect();
    let healthy = image.labels.with_labels(healthy).expect("a mask");
    nifti::write(&mask, &image.with_volume(healthy)).expect("written");
    let before = ["plain", "short"].map(written);
    assert!(resume(&[]).contains("2 of 6 patients left out"));
    assert_eq!([written("plain") == before[0], written("short") == before[1]], [true, false]);
    assert!(at("out/packed/result.json").exists() && read("summary.csv").lines().count() == 7);
    assert!(!resume(&["--lesion", "together"]).contains("left out"));

    // Headers of different scans may be the same; what counts is the voxels.
    let image = nifti::read(at("patients/packed/portal.nii.gz")).expect("an image");
    for (phase, first) in [("portal", 40u8), ("delayed", 41)] {
        let folder = at(phase);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut voxels = bytes(&image.volume);
        voxels[..2].copy_from_slice(&[first, 0]);
        std::fs::write(folder.join("ct.raw"), voxels).expect("written");
        std::fs::write(folder.join("ct.mhd"), metaimage(&image.volume, "ct.raw")).expect("written");
        std::fs::copy(at("patients/packed/portal_mask.nii.gz"), folder.join("ct_mask.nii.gz")).expect("copied");
    }
    let [portal, delayed] = ["portal/ct.mhd", "delayed/ct.mhd"].map(text);
    assert!(std::fs::read(&portal).expect("a header") == std::fs::read(&delayed).expect("a header"));
    let (code, _, errors) =
        run(&["diagnose", "--masks", "--portal", &portal, "--delayed", &delayed, "-o", &text("headers")]);
    assert_eq!(code, Some(0), "{errors}");

    // A run that fails takes the result of the earlier one with it, and one on its own output is refused.
    let one = |name: &str| text(&format!("patients/packed/{name}.nii.gz"));
    let call = |portal: &str, delayed: &str, out: &str| {
        run(&["diagnose", "--masks", "--portal", portal, "--delayed", delayed, "-o", out])
    };
    let packed = text("out/packed");
    let (code, _, errors) =
        call(&text("out/packed/aligned/portal.nii.gz"), &text("out/packed/aligned/delayed.nii.gz"), &packed);
    assert!(code == Some(2) && errors.contains("is an input"), "{errors}");
    assert!(at("out/packed/aligned/portal.nii.gz").exists() && at("out/packed/result.json").exists());
    std::fs::write(at("broken.nii.gz"), "no image").expect("written");
    let (code, _, errors) = call(&one("portal"), &text("broken.nii.gz"), &packed);
    assert!(code == Some(1) && errors.contains("broken.nii.gz"), "{errors}");
    assert!(!at("out/packed/result.json").exists() && !at("out/packed/report.html").exists());
}
