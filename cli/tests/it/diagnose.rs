//! The whole pipeline with given masks: lesions, pictures, hashes, two phases, guessed phases.

use std::path::Path;

use nephron::io::{hash_files, nifti};
use nephron::models::resnet::{ResNetConfig, seeded_weights};
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::Phase;
use nephron::volume::{Affine, Volume, Voxels};
use serde_json::Value;

use crate::support::nifti_file::gzip;
use crate::support::{checkpoint_file, run};

/// Two ResNet-18 as checkpoints of PyTorch, which are an ensemble.
pub(crate) fn model(folder: &Path) {
    let folder = folder.join("classification");
    std::fs::create_dir_all(&folder).expect("a folder");
    for seed in 0..2 {
        let drawn =
            seeded_weights(&ResNetConfig { depth: 18, width: 64, classes: 5, fusion: true }, seed).expect("weights");
        let values: Vec<_> = drawn.names().map(|name| (name, drawn.get(name).expect("a tensor"))).collect();
        let tensors: Vec<(&str, &[usize], &[f32])> =
            values.iter().map(|(name, (shape, data))| (*name, shape.as_slice(), data.as_slice())).collect();
        checkpoint_file::write(&folder.join(format!("{seed}.pth")), &tensors);
    }
    let config = r#"{"depth": 18, "input_size": 48, "weights": ["0.pth", "1.pth"]}"#;
    std::fs::write(folder.join("config.json"), config).expect("written");
}

/// A phantom with its masks, and with a second, small tumour in the other kidney.
pub(crate) fn patient(folder: &Path) {
    let options = PhantomOptions { seed: 4, spacing: [4.0, 4.0, 6.0], ..PhantomOptions::default() };
    generate(&options).expect("a patient").write(folder).expect("written");
    for phase in Phase::ALL {
        let path = folder.join(format!("{phase}_mask.nii.gz"));
        let image = nifti::read_labels(&path).expect("a mask");
        let (mut labels, [_, h, w]) = (image.labels.labels().to_vec(), image.labels.shape());
        let mean_x = |label: u8| {
            let xs: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == label).map(|i| i % w).collect();
            xs.iter().sum::<usize>() / xs.len()
        };
        let left = mean_x(2) > w / 2;
        let other: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == 1 && (i % w < w / 2) == left).collect();
        let mean = |of: &dyn Fn(usize) -> usize| other.iter().map(|&i| of(i)).sum::<usize>() / other.len();
        let middle = (mean(&|i| i / (h * w)) * h + mean(&|i| i / w % h)) * w + mean(&|i| i % w);
        for dz in 0..2 {
            for dy in 0..3 {
                labels[middle + (dz * h + dy) * w..][..3].fill(2);
            }
        }
        let changed = image.labels.with_labels(labels).expect("a mask");
        nifti::write(&path, &image.with_volume(changed)).expect("written");
    }
}

fn result(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("result.json")).expect("a result")).expect("JSON")
}

#[test]
fn hashes_are_those_of_the_standard() {
    let folder = tempfile::tempdir().expect("a folder");
    let [abc, long] = ["abc", "long"].map(|name| folder.path().join(name));
    std::fs::write(&abc, "abc").expect("written");
    std::fs::write(&long, vec![b'a'; 1_000_000]).expect("written");
    let hashed = hash_files(&[abc, long]).expect("hashed");
    // The examples of FIPS 180-4.
    assert_eq!(hashed[0].sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(hashed[1].sha256, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert!(hash_files(&[folder.path().join("none")]).expect_err("missing").to_string().contains("none"));
}

#[test]
fn every_lesion_is_reported_shown_and_traceable() {
    let folder = tempfile::tempdir().expect("a folder");
    let (patients, models, out) = (folder.path().join("p"), folder.path().join("m"), folder.path().join("out"));
    patient(&patients);
    model(&models);
    let at = |name: &str| patients.join(format!("{name}.nii.gz")).display().to_string();
    let [p, a, d, n] = ["portal", "arterial", "delayed", "non-contrast"].map(at);
    let (m, o) = (models.display().to_string(), out.display().to_string());
    let scans = ["--portal", &p, "--arterial", &a, "--delayed", &d, "--non-contrast", &n];
    let base =
        [&["diagnose", "--masks", "--model", &m, "-o", &o, "--lesion", "all", "--margin", "4mm"], &scans[..]].concat();
    let (code, text, errors) = run(&[&base[..], &["--thresholds", "0.07,0.34,0.44,0.24,0.38"]].concat());
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.contains("lesion 1:") && text.contains("lesion 2:"), "{text}");
    let found = result(&out);
    assert_eq!((&found["schema_version"], &found["together"]), (&2.into(), &false.into()));
    let lesions = found["lesions"].as_array().expect("lesions");
    assert_eq!(lesions.len(), 2);
    let volume = |i: usize| lesions[i]["volume_ml"].as_f64().expect("a volume");
    // The second lesion has 18 voxels of 96 mm3 in each mask.
    assert!(volume(0) > volume(1) && (0.8..3.0).contains(&volume(1)), "{} {}", volume(0), volume(1));
    for lesion in lesions {
        let classification = &lesion["classification"];
        // The thresholds of the command line decide.
        let thresholds = [0.07, 0.34, 0.44, 0.24, 0.38];
        let scores: Vec<f64> =
            classification["probabilities"].as_array().expect("five").iter().filter_map(Value::as_f64).collect();
        let highest = |classes: Vec<usize>| classes.into_iter().max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        let above = highest((0..5).filter(|&c| scores[c] > thresholds[c]).collect());
        let decided = above.or_else(|| highest((0..5).collect())).expect("a class");
        assert_eq!(classification["decision"], found["classes"][decided], "{scores:?}");
        assert_eq!(classification["images"].as_array().expect("images").len(), 3);
        assert_eq!((&classification["models"], lesion["phases"].as_array().map(Vec::len)), (&2.into(), Some(4)));
        let sum: f64 = classification["probabilities"].as_array().expect("five").iter().filter_map(Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        for picture in ["images", "crops"].iter().flat_map(|list| classification[list].as_array().expect("a list")) {
            let file = out.join(picture["picture"].as_str().expect("a path"));
            let size = image::image_dimensions(&file).expect("a picture");
            assert!(size.0 >= 4 * 48 && size.1 >= 48, "{size:?}");
        }
        for phase in lesion["phases"].as_array().expect("phases") {
            let [axial, any] = ["maximum_2d_diameter_mm", "maximum_3d_diameter_mm"]
                .map(|key| phase[key].as_f64().expect("a diameter"));
            assert!(axial > 5.0 && any >= axial, "{phase}");
        }
    }
    assert_eq!(found["classification"], lesions[0]["classification"]);
    // Slices are those of each scan's own file.
    for crop in lesions[0]["classification"]["crops"].as_array().expect("crops") {
        let phase = crop["phase"].as_str().expect("a phase");
        let mask = nifti::read_labels(patients.join(format!("{phase}_mask.nii.gz"))).expect("a mask").labels;
        let number = |key: &str| crop["scan_slice"][key].as_f64().expect("a number");
        let ([_, h, w], index) = (mask.shape(), number("index") as usize);
        let area = mask.labels()[index * h * w..][..h * w].iter().filter(|label| **label == 2).count() as f64;
        let own = crop["area"].as_f64().expect("an area");
        // The reference was only cut; in the other phases neighbouring slices are near.
        let is_right = if phase == "portal" { area == own } else { (area - own).abs() < 0.5 * own };
        assert!(is_right, "{phase}: {area} voxels on slice {index}, {own} in the crop");
        let [.., z] = mask.affine().apply([0.0, 0.0, index as f64]);
        assert!((number("position_mm") - z).abs() < 1e-6 && number("itk_snap") == number("index") + 1.0, "{crop}");
        assert_eq!(crop["scan_slice"]["axis"], "k");
    }
    for phase in found["phases"].as_array().expect("phases") {
        assert_eq!(phase["picture_slices"].as_array().map(Vec::len), phase["pictures"].as_array().map(Vec::len));
        let aligned = nifti::read(out.join(phase["aligned"].as_str().expect("a path"))).expect("an image");
        assert!(matches!(aligned.volume.voxels(), Voxels::I16(_)), "CT stays int16");
    }
    let page = std::fs::read_to_string(out.join("report.html")).expect("a report");
    // Every picture is part of the page: the overlays of each phase, and of two lesions three images and four crops.
    let overlays: usize =
        found["phases"].as_array().expect("phases").iter().map(|p| p["pictures"].as_array().map_or(0, Vec::len)).sum();
    let pictures = page.matches("<img src=\"data:image/png;base64,").count();
    assert_eq!((pictures, page.matches("<img ").count()), (overlays + 2 * (3 + 4), overlays + 2 * (3 + 4)));
    assert!(page.contains("2 lesions, the largest on the ") && page.contains(" mm in any direction, "), "a summary");
    let slice = &lesions[0]["classification"]["crops"][2]["scan_slice"];
    assert!(page.contains(&format!("slice {} of the scan from 0 ({} in ITK-SNAP", slice["index"], slice["itk_snap"])));
    // The page says whose it is, how it was made, and leads to the files.
    let date = found["date"].as_str().expect("a date");
    let weights_hash = found["models"]["classification"][0]["sha256"].as_str().expect("a hash");
    for part in [
        "<h1>Kidney tumour report: out</h1>",
        date,
        &weights_hash[..12],
        "<td>cpu</td>",
        "href=\"./aligned/arterial.tfm\"",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // The result contains the files and weights with their hashes.
    let weights = found["models"]["classification"].as_array().expect("weights");
    let files = ["0.pth", "1.pth", "config.json"].map(|name| models.join("classification").join(name));
    let expected = hash_files(&files).expect("hashed");
    assert_eq!(*weights, serde_json::to_value(expected).expect("JSON").as_array().expect("two").clone());
    for phase in found["phases"].as_array().expect("phases") {
        let files = phase["files"].as_array().expect("files");
        assert!(
            files.len() == 2 && files.iter().all(|f| f["sha256"].as_str().is_some_and(|h| h.len() == 64)),
            "{phase}"
        );
        assert!(phase["tumour_diameter"]["maximum_2d_diameter_mm"].as_f64().expect("a diameter") > 10.0);
    }
    for stage in ["segment", "align", "classify", "write", "total"] {
        assert!(found["seconds"][stage].as_f64().is_some_and(|s| s >= 0.0), "{stage}");
    }
    // The probabilities are the mean over the images.
    let images = lesions[0]["classification"]["images"].as_array().expect("images");
    for class in 0..5 {
        let mean = images.iter().map(|i| i["probabilities"][class].as_f64().expect("a number")).sum::<f64>() / 3.0;
        let all = lesions[0]["classification"]["probabilities"][class].as_f64().expect("a number");
        assert!((mean - all).abs() < 1e-6);
    }

    // `classify` on the aligned phases gives the same result.
    let aligned =
        |phase: &str| ["", "_mask"].map(|end| out.join(format!("aligned/{phase}{end}.nii.gz")).display().to_string());
    let pairs = ["portal", "arterial", "delayed", "non-contrast"].map(aligned);
    let again = folder.path().join("again");
    let o = again.display().to_string();
    let mut call = vec!["classify", "--model", &m, "-o", &o, "--lesion", "2", "--margin", "4mm"];
    for (flag, pair) in ["--portal", "--arterial", "--delayed", "--non-contrast"].iter().zip(&pairs) {
        call.extend([*flag, pair[0].as_str(), pair[1].as_str()]);
    }
    let (code, _, errors) = run(&call);
    assert_eq!(code, Some(0), "{errors}");
    let second = result(&again);
    assert_eq!(second["classification"]["probabilities"], lesions[1]["classification"]["probabilities"]);
    assert!(again.join(second["classification"]["images"][0]["picture"].as_str().expect("a path")).is_file());
    let crops = |result: &Value| -> Vec<[Vec<u64>; 2]> {
        let ends =
            |crop: &Value, key: &str| crop[key].as_array().expect("two").iter().filter_map(Value::as_u64).collect();
        let crops = result["crops"].as_array().expect("crops");
        crops.iter().map(|crop| ["rows", "columns"].map(|key| ends(crop, key))).collect()
    };
    assert_eq!(crops(&second["classification"]), crops(&lesions[1]["classification"]));

    // Without a margin the rectangle is one voxel of 4 mm smaller on each side, inside the image. Pictures of lesions of an earlier run
    // are removed.
    std::fs::write(again.join("pictures/lesion9_portal.png"), "").expect("written");
    let margin = call.iter().position(|a| *a == "--margin").expect("there");
    let plain = [&call[..margin], &call[margin + 2..]].concat();
    let (code, _, errors) = run(&plain);
    assert_eq!(code, Some(0), "{errors}");
    assert!(!again.join("pictures/lesion9_portal.png").exists() && again.join("pictures/lesion2_portal.png").is_file());
    let tight = result(&again);
    for (grown, tight) in crops(&second["classification"]).iter().zip(crops(&tight["classification"])) {
        for axis in 0..2 {
            assert_eq!([grown[axis][0] + 1, grown[axis][1] - 1], *tight[axis], "{grown:?} {tight:?}");
        }
    }
    // Thresholds that only the least likely class exceeds change the decision, and nothing else.
    let scores: Vec<f64> =
        tight["classification"]["probabilities"].as_array().expect("five").iter().filter_map(Value::as_f64).collect();
    let [least, most] = [1.0, -1.0]
        .map(|sign: f64| (0..5).min_by(|a, b| (sign * scores[*a]).total_cmp(&(sign * scores[*b]))).expect("a class"));
    assert_eq!(tight["classification"]["decision"], tight["classes"][most]);
    let thresholds: Vec<_> = (0..5).map(|class| if class == least { "0" } else { "1" }).collect();
    let (code, _, errors) = run(&[&plain[..], &["--thresholds", &thresholds.join(",")]].concat());
    assert_eq!(code, Some(0), "{errors}");
    let turned = result(&again);
    assert_eq!(turned["classification"]["decision"], turned["classes"][least]);
    assert_eq!(turned["classification"]["probabilities"], tight["classification"]["probabilities"]);

    let number = plain.iter().position(|a| *a == "--lesion").expect("there") + 1;
    let mut missing = plain.clone();
    missing[number] = "7";
    let (code, said, errors) = run(&missing);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(said.matches("there is no lesion 7: 2 found").count(), 1, "{said}");
    let mut all = plain.clone();
    all[number] = "together";
    let (code, said, errors) = run(&all);
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.starts_with("all tumour voxels together:"), "{said}");
    let found = result(&again);
    assert_eq!((&found["together"], found["lesions"].as_array().map(Vec::len)), (&true.into(), Some(1)));
    assert!(found["warnings"].is_array());

    // An ensemble of ten models: seven times the first and three times the second.
    let mut answer = |weights: &[&str]| {
        let config = serde_json::json!({"depth": 18, "input_size": 48, "weights": weights});
        std::fs::write(models.join("classification/config.json"), config.to_string()).expect("written");
        let (code, text, errors) = run(&[&call[..], &["--json"]].concat());
        assert_eq!(code, Some(0), "{errors}");
        let report: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(report["classification"]["models"], weights.len());
        let list = report["classification"]["probabilities"].as_array().expect("five");
        list.iter().map(|p| p.as_f64().expect("a number")).collect::<Vec<_>>()
    };
    let ten: Vec<&str> = (0..10).map(|i| if i % 3 == 1 { "1.pth" } else { "0.pth" }).collect();
    let [first, second, all] = [&["0.pth"][..], &["1.pth"], &ten].map(&mut answer);
    for ((a, b), mean) in first.iter().zip(&second).zip(&all) {
        assert!((0.7 * a + 0.3 * b - mean).abs() < 1e-6, "{a} {b} {mean}");
    }
    assert_ne!(first, second);

    for (wrong, needle) in [
        (["--thresholds", "0.1,0.2"], "expected 5 numbers"),
        (["--margin", "wide"], "millimetres below 10000 such as 5mm, found \"wide\""),
        (["--lesion", "0"], "a number from 1"),
    ] {
        let base = [&["diagnose", "--masks", "--model", &m, "-o", &o], &scans[..]].concat();
        let (code, _, errors) = run(&[&base[..], &wrong].concat());
        assert!(code == Some(2) && errors.contains(needle) && errors.lines().count() == 1, "{code:?} {errors}");
    }
}

#[test]
fn two_phases_are_aligned_and_not_classified_and_phases_are_guessed_when_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (patients, out) = (folder.path().join("p"), folder.path().join("out"));
    patient(&patients);
    let named = folder.path().join("named");
    std::fs::create_dir(&named).expect("a folder");
    for (phase, name) in [(Phase::NonContrast, "CT-7_native"), (Phase::Portal, "CT-9 portal-venous")] {
        for end in ["", "_mask"] {
            let from = patients.join(format!("{phase}{end}.nii.gz"));
            std::fs::copy(from, named.join(format!("{name}{end}.nii.gz"))).expect("copied");
        }
    }
    std::fs::write(named.join("topogram.nii.gz"), "").expect("written");
    let text = |path: &Path| path.display().to_string();
    let (no_model, named_text, o) = (text(folder.path()), text(&named), text(&out));
    let base = ["diagnose", "--masks", "--model", &no_model, "-o", &o];
    // Two phases with masks need no model, and options of the classification are not used. Warnings of a mask are kept.
    let mask = named.join("CT-7_native_mask.nii.gz");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*std::fs::read(&mask).expect("a mask")), &mut bytes)
        .expect("unpacked");
    // The sign of the voxel size along i, pixdim[1].
    bytes[83] ^= 0x80;
    std::fs::write(&mask, gzip(&bytes)).expect("written");
    let two = ["diagnose", "--masks", "-o", &o, "--guess-phases", &named_text, "--margin", "2"];
    let (code, said, errors) = run(&two);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(said.matches("classification needs three or four phases, 2 given").count(), 1, "{said}");
    assert!(errors.contains("warning: --margin not used: nothing is classified"), "{errors}");
    let (code, _, errors) = run(&["diagnose", "-o", &o, "--guess-phases", &named_text]);
    assert!(code == Some(2) && errors.contains("--model: expected a model folder"), "{errors}");
    let (code, said, errors) = run(&[&base[..], &["--guess-phases", &named_text]].concat());
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.contains("classification needs three or four phases, 2 given"), "{said}");
    assert!(!errors.contains("not used"), "{errors}");
    assert!(errors.contains("topogram.nii.gz: its name indicates no phase"), "{errors}");
    let found = result(&out);
    assert!(
        found["classification"].is_null() && found["not_classified"].as_str().is_some_and(|r| r.contains("2 given"))
    );
    assert_eq!(found["reference"], "portal");
    let phases = found["phases"].as_array().expect("phases");
    assert_eq!(phases.iter().map(|p| p["phase"].as_str()).collect::<Vec<_>>(), [Some("non-contrast"), Some("portal")]);
    assert!(phases[0]["registration"]["aligned"]["kidney"]["hard"].as_f64().expect("Dice") > 0.7);
    assert!(found["lesions"].as_array().is_some_and(|l| !l.is_empty()));
    let warnings = found["warnings"].to_string();
    assert!(warnings.contains("guessed from the name") && warnings.contains("CT-7_native"), "{warnings}");
    assert!(warnings.contains("non-contrast phase: mask: the voxel size along axis 1 is -"), "{warnings}");
    assert!(out.join("aligned/non-contrast.nii.gz").is_file() && out.join("report.html").is_file());
    // Three phases without a classification model give all but a subtype, and the reason.
    let scan = |phase: &str| text(&patients.join(format!("{phase}.nii.gz")));
    let [p, a, d] = ["portal", "arterial", "delayed"].map(scan);
    let (code, _, errors) = run(&[&base[..], &["--portal", &p, "--arterial", &a, "--delayed", &d]].concat());
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(result(&out)["not_classified"], "no classification model was loaded");
    let (code, _, errors) = run(&[&base[..], &["--portal", &p]].concat());
    assert_eq!(code, Some(0), "{errors}");
    let alone = result(&out);
    assert_eq!(alone["not_classified"], "classification needs three or four phases, 1 given");
    assert_eq!((&alone["reference"], &alone["phases"][0]["registration"]), (&"portal".into(), &Value::Null));
    assert!(out.join("report.html").is_file() && out.join("masks/portal_mask.nii.gz").is_file());
    // Two files of one phase are an error.
    std::fs::copy(&p, named.join("CT-11 pv.nii.gz")).expect("copied");
    let (code, _, errors) = run(&[&base[..], &["--guess-phases", &named_text]].concat());
    assert!(code == Some(2) && errors.contains("one portal phase, found two"), "{errors}");
}

#[test]
fn phases_are_guessed_from_whole_words() {
    for (name, want) in [
        ("patient7_arterial", Some(Phase::Arterial)),
        ("12 ART 1.0", Some(Phase::Arterial)),
        ("case-N", Some(Phase::NonContrast)),
        ("Non-Contrast_5mm", Some(Phase::NonContrast)),
        ("non contrast", Some(Phase::NonContrast)),
        ("abdomen_portal_venous", Some(Phase::Portal)),
        ("ct_d", Some(Phase::Delayed)),
        ("heart", None),
        ("a_scan", None),
        ("nephrographic", None),
        ("", None),
        ("kidney_3D", None),
        ("CT_12a", None),
        ("scan 2d", None),
        ("p7", None),
        ("CT_12_a", Some(Phase::Arterial)),
        ("case_P_0000", Some(Phase::Portal)),
        ("CT12_art2", Some(Phase::Arterial)),
        ("1venous", Some(Phase::Portal)),
    ] {
        assert_eq!(Phase::guess(name).expect(name), want, "{name}");
    }
    let message = Phase::guess("late_arterial").expect_err("two").to_string();
    assert!(message.contains("arterial, delayed"), "{message}");
}

/// Five tumours in three phases.
#[test]
fn classify_says_where_the_others_are_and_leaves_nothing_old() {
    let folder = tempfile::tempdir().expect("a folder");
    let (models, out) = (folder.path().join("m"), folder.path().join("out"));
    model(&models);
    let [d, h, w] = [8, 40, 60];
    let mut labels = vec![0u8; d * h * w];
    for (n, z) in (0..5).flat_map(|n| (2..6).map(move |z| (n, z))) {
        for y in 10..16 + n {
            labels[(z * h + y) * w + 10 * n + 4..][..6].fill(2);
        }
    }
    let values: Vec<i16> = (0..d * h * w).map(|i| (i * 31 % 400) as i16 - 50).collect();
    let write = |name: &str, voxels: Voxels| {
        let path = folder.path().join(name);
        let volume = Volume::new([d, h, w], voxels, Affine::IDENTITY).expect("a volume");
        nifti::write(&path, &nifti::Image::new(volume)).expect("written");
        path.display().to_string()
    };
    let (image, mask) = (write("i.nii.gz", Voxels::I16(values.into())), write("m.nii.gz", Voxels::U8(labels.into())));
    let (m, o) = (models.display().to_string(), out.display().to_string());
    let mut call = vec!["classify", "--model", &m];
    ["--portal", "--arterial", "--delayed"].iter().for_each(|flag| call.extend([*flag, &image, &mask]));
    let (code, said, errors) = run(&call);
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.contains("2 smaller ones") && said.contains("--json") && !said.contains("result.json"), "{said}");
    let kept = [&call[..], &["-o", &o]].concat();
    let (code, said, errors) = run(&kept);
    assert!(code == Some(0) && said.contains("are in result.json"), "{said} {errors}");
    assert!(out.join("result.json").is_file());
    // A run that fails leaves no result of an earlier run.
    std::fs::remove_dir_all(out.join("pictures")).expect("removed");
    std::fs::write(out.join("pictures"), "no folder").expect("written");
    let (code, _, errors) = run(&kept);
    assert!(code == Some(1) && errors.contains("pictures"), "{errors}");
    assert!(!out.join("result.json").exists());
}

#[test]
#[cfg(target_os = "linux")]
fn paths_that_are_no_text_are_written_nearly() {
    use std::os::unix::ffi::OsStrExt;
    let file = Path::new(std::ffi::OsStr::from_bytes(b"scan\xff.nii")).to_path_buf();
    let source = nephron::io::SourceFile { file, sha256: String::new() };
    let text = serde_json::to_string(&source).expect("JSON");
    assert!(text.contains("scan\u{fffd}.nii"), "{text}");
}
