//! `nephron register`: its files and its errors.

use std::path::Path;

use nephron::io::{nifti, npy};
use nephron::registration::transform;
use nephron::volume::{Affine, Volume, Voxels};

use crate::kidneys::{grid, kidneys, motion, scan};
use crate::support;

fn nephron(arguments: &[&str]) -> (i32, String, String) {
    let output = support::nephron().args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("it exits"), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_writes_its_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a name").to_owned();
    let plan = grid([30, 36, 48], [4.0, 4.0, 5.0]);
    let other = grid([28, 40, 44], [-4.5, 4.0, 5.0]);
    let back = motion(6.0, 0.97, [10.0, -6.0, 4.0]).inverse().expect("a motion");
    let fixed = scan(&plan, &Affine::IDENTITY, kidneys);
    let moving = scan(&other, &back, kidneys);
    let Voxels::U8(labels) = moving.voxels() else { panic!("a mask") };
    let ct: Vec<i16> = labels.iter().map(|l| i16::from(*l) * 100 - 50).collect();
    let ct = Volume::new(moving.shape(), Voxels::I16(ct.into()), moving.affine()).expect("a volume");
    for (name, volume) in [("fixed.nii.gz", &fixed), ("moving.nii.gz", &moving), ("ct.nii", &ct)] {
        nifti::write(path(name), &nifti::Image::new(volume.clone())).expect("a file");
    }
    let call = [
        "register",
        "--device",
        "cpu",
        "--json",
        "--fixed",
        &path("fixed.nii.gz"),
        "--moving",
        &path("moving.nii.gz"),
        "--image",
        &path("ct.nii"),
        "-o",
        &path("out"),
    ];
    let (code, out, err) = nephron(&call);
    assert_eq!(code, 0, "{err}");
    let printed: serde_json::Value = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
    let read = |name: &str| std::fs::read_to_string(folder.path().join("out").join(name)).expect("a file");
    let result: serde_json::Value = serde_json::from_str(&read("result.json")).expect("JSON");
    assert_eq!(printed, result);
    let kidney = |when: &str| result[when]["kidney"]["soft"].as_f64().expect("a number");
    assert!(kidney("identity") < kidney("centre_of_mass") && kidney("centre_of_mass") < kidney("aligned"), "{result}");
    assert!(result["iterations"].as_u64().is_some_and(|n| n > 0) && result["converged"] == true, "{result}");
    let file: serde_json::Value = serde_json::from_str(&read("transform.json")).expect("JSON");
    assert_eq!(file["theta"], result["theta"]);
    assert!(read("transform.tfm").contains("AffineTransform_double_3_3"));

    let warped = nifti::read_labels(folder.path().join("out/moving.nii.gz")).expect("the mask").labels;
    assert_eq!(warped.shape(), fixed.shape());
    let image = nifti::read(folder.path().join("out/ct.nii")).expect("the image").volume;
    assert_eq!(image.shape(), fixed.shape());
    let fixed = fixed.to_labels().expect("a mask");
    let (mask, want) = (warped.labels(), fixed.labels());
    let same = mask.iter().zip(want.iter()).filter(|(a, b)| (**a > 0) == (**b > 0)).count();
    assert!(same as f64 > 0.99 * want.len() as f64, "{same} of {}", want.len());
    let values = image.voxels().to_f32();
    assert!(values.iter().all(|v| (-50.001..=150.001).contains(v)), "the values of the image, or between them");
    let mean = |inside: bool| {
        let chosen: Vec<f32> =
            values.iter().zip(mask.iter()).filter(|(_, l)| (**l > 0) == inside).map(|p| *p.0).collect();
        chosen.iter().sum::<f32>() / chosen.len() as f32
    };
    assert!(mean(true) > 40.0 && mean(false) < -45.0, "the image moved with the mask: {} {}", mean(true), mean(false));
}

#[test]
fn the_command_refuses_wrong_calls() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a name").to_owned();
    let mask = scan(&grid([10, 11, 12], [14.0, 8.0, 10.0]), &Affine::IDENTITY, kidneys);
    nifti::write(path("a.nii"), &nifti::Image::new(mask)).expect("a file");
    let (a, out) = (path("a.nii"), path("out"));
    let expect = |arguments: &[&str], code: i32, part: &str| {
        let (found, _, err) = nephron(&[&["register", "--device", "cpu"], arguments].concat());
        assert!(found == code && err.contains(part), "{arguments:?}: {found} {err}");
        assert!(!Path::new(&out).join("result.json").exists());
    };
    expect(&["--fixed", &a, "--moving", &a, "--image", &a, "-o", &out], 2, "would both be written");
    expect(&["--fixed", &a, "--moving", &a, "-o", &path("")], 2, "is an input");
    expect(&["--fixed", &a, "--moving", &a, "-o", &out, "--learning-rate", "0"], 2, "above 0");
    expect(&["--fixed", &a, "--moving", &a, "-o", &out, "--resolution", "tiny"], 2, "millimetres or full");
    expect(&["--fixed", &a, "--moving", &path("none.nii"), "-o", &out], 1, "none.nii");
    expect(&["--fixed", &a, "--moving", &a, "-o", &a], 1, "a.nii");
}

/// Channels of `nephron register` and of `nephron op affine_dice`.
#[test]
fn the_commands_take_sets_of_labels() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let plan = grid([20, 24, 32], [6.0, 6.0, 8.0]);
    let organs = |p: [f64; 3]| [0, 9, 4][usize::from(kidneys(p))];
    let fixed = scan(&plan, &Affine::IDENTITY, organs);
    let moving = scan(&plan, &motion(4.0, 1.0, [9.0, 0.0, 3.0]).inverse().expect("a motion"), organs);
    for (name, volume) in [("fixed.nii.gz", &fixed), ("moving.nii.gz", &moving)] {
        nifti::write(path(name), &nifti::Image::new(volume.clone())).expect("a file");
    }
    let run = |arguments: &[&str]| {
        let output = support::nephron().args(arguments).args(["--device", "cpu"]).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (a, b, out) = (path("fixed.nii.gz"), path("moving.nii.gz"), path("out"));
    let register = ["register", "--json", "--fixed", &a, "--moving", &b, "-o", &out, "--channels"];
    let (code, out, err) = run(&[&register[..], &["4/4,9"]].concat());
    assert_eq!(code, Some(0), "{err}");
    let result: serde_json::Value = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
    assert_eq!(result["channels"][1]["labels"], serde_json::json!([4, 9]));
    assert_eq!(result["outcome"], "converged");
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let mean = (0..2).map(|c| number(&result["channels"][c]["dice"]) / 2.0).sum::<f64>();
    assert!((mean + number(&result["loss"])).abs() < 1e-12, "{result}");
    let kidney = |when: &str| number(&result[when]["kidney"]["soft"]);
    assert!(kidney("identity") < kidney("centre_of_mass") && kidney("centre_of_mass") < kidney("aligned"), "{result}");
    let plain: Vec<&str> = register.iter().copied().filter(|a| *a != "--json").collect();
    let (code, out, err) = run(&[&plain[..], &["4/4,9", "--transformation", "translation"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("channel 4: Dice 0.") && out.contains("channel 4,9: Dice 0."), "{out}");
    assert!(out.contains("all labels") && out.contains("converged after"), "{out}");
    let diverging = ["4/4,9", "--transformation", "translation", "--learning-rate", "1"];
    let (code, out, err) = run(&[&plain[..], &diverging].concat());
    assert!(code == Some(0) && out.contains("diverged after") && err.contains("diverged"), "{out} {err}");
    npy::write_u8(path("mask.npy"), &[2, 2, 2], &[1; 8]).expect("an array");
    let theta = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    npy::write_f32(path("theta.npy"), &[3, 4], &theta).expect("an array");
    let of = |name: &str, file: &str| format!("{name}={}", path(file));
    let [fixed, moving, theta] =
        [("fixed", "mask.npy"), ("moving", "mask.npy"), ("theta", "theta.npy")].map(|(name, file)| of(name, file));
    let op = ["op", "affine_dice", "--in", &fixed, "--in", &moving, "--in", &theta, "--attr"];
    let (code, _, err) = run(&[&op[..], &["channels=0"]].concat());
    assert!(
        code == Some(2) && err.contains("attribute 'channels' is '0'") && err.contains("1 to 255"),
        "{code:?} {err}"
    );
    let (code, _, err) = run(&[&op[..], &["channels=1"]].concat());
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = run(&[&register[..], &["4/0"]].concat());
    assert!(code == Some(2) && err.contains("1 to 255"), "{code:?} {err}");
    let (code, _, err) = run(&[&register[..], &["1/2"]].concat());
    assert!(code == Some(1) && err.contains("channels 1/2"), "{code:?} {err}");
}

/// The files of the transform: the class in them is that of the family, and a run leaves no file of an earlier one.
#[test]
fn transforms_are_written_in_the_formats_that_were_chosen() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let plan = grid([16, 20, 24], [8.0, 8.0, 9.0]);
    let (moved, back) = (motion(6.0, 1.0, [9.0, 0.0, 3.0]), motion(0.0, 1.0, [4.0, 0.0, 0.0]));
    for (name, map) in [("fixed.nii", Affine::IDENTITY), ("moving.nii", moved.inverse().expect("a motion"))] {
        nifti::write(at(name), &nifti::Image::new(scan(&plan, &map, kidneys))).expect("written");
    }
    let run = |arguments: &[&str]| {
        let (code, out, err) = nephron(&[arguments, &["--device", "cpu"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    };
    let (fixed, moving, out) = (at("fixed.nii"), at("moving.nii"), at("out"));
    let names = ["transform.tfm", "transform.mat"].map(|name| folder.path().join("out").join(name));
    let register = ["register", "--fixed", &fixed, "--moving", &moving, "-o", &out, "--max-iterations", "5"];
    for (format, family, class) in [
        ("tfm", "affine", "AffineTransform"),
        ("both", "rigid", "Euler3DTransform"),
        ("mat", "similarity", "Similarity3DTransform"),
        ("tfm", "translation", "TranslationTransform"),
    ] {
        run(&[&register[..], &["--transform-format", format, "--transformation", family]].concat());
        let json = transform::read(folder.path().join("out/transform.json")).expect("a transform");
        assert_eq!(names.each_ref().map(|path| path.is_file()), [format != "mat", format != "tfm"], "{format}");
        for path in names.iter().filter(|path| path.is_file()) {
            let bytes = std::fs::read(path).expect("a file");
            assert!(String::from_utf8_lossy(&bytes).contains(&format!("{class}_double_3_3")), "{format} {family}");
            let read = transform::read(path).expect("a transform");
            for (a, b) in read.0.as_flattened().iter().zip(json.0.as_flattened()) {
                assert!((a - b).abs() <= 1e-9, "{read:?}, expected {json:?}");
            }
        }
    }
    // `warp` writes what it applies: two transforms as a composite, or their inverse as one matrix.
    transform::write_itk(at("a.tfm"), &moved).expect("written");
    transform::write_itk(at("b.mat"), &back).expect("written");
    let (a, b) = (at("a.tfm"), at("b.mat"));
    let warp =
        ["warp", &moving, "--transform", &a, "--transform", &b, "--like", &fixed, "-o", &out, "--interp", "nearest"];
    let product = back.after(&moved);
    for (name, extra, want) in
        [("chain.tfm", vec![], product), ("chain.mat", vec!["--inverse"], product.inverse().expect("a motion"))]
    {
        let file = at(name);
        run(&[&warp[..], &["--save-transform", &file], &extra[..]].concat());
        let read = transform::read(&file).expect("a transform");
        for (a, b) in read.0.as_flattened().iter().zip(want.0.as_flattened()) {
            assert!((a - b).abs() <= 1e-12, "{name}: {read:?}, expected {want:?}");
        }
    }
    assert!(std::fs::read_to_string(at("chain.tfm")).expect("a file").contains("CompositeTransform_double_3_3"));
    for (file, part) in [(&a, "is an input"), (&at("c.h5"), ".tfm, .txt or .mat")] {
        let (code, _, err) = nephron(&[&warp[..], &["--device", "cpu", "--save-transform", file]].concat());
        assert!(code == 2 && err.contains(part), "{code} {err}");
    }
}

/// `register`, then `warp` with its transform and with the inverse, then `evaluate` over the results.
#[test]
fn the_commands_work_on_one_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let write = |name: &str, volume: &Volume| {
        nifti::write(at(name), &nifti::Image::new(volume.clone())).expect("written");
    };
    let fixed = scan(&grid([24, 30, 40], [5.0, 5.0, 6.0]), &Affine::IDENTITY, kidneys);
    let back = motion(6.0, 1.0, [9.0, 0.0, 3.0]).inverse().expect("a motion");
    let moving = scan(&grid([26, 32, 42], [4.6, 5.2, 6.0]), &back, kidneys);
    write("fixed.nii.gz", &fixed);
    write("moving.nii.gz", &moving);
    let run = |arguments: &[&str]| {
        let output = support::nephron().args(arguments).args(["--device", "cpu"]).output().expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (moved, case) = (at("moving.nii.gz"), at("cases/a"));
    let (code, text) = run(&["register", "--fixed", &at("fixed.nii.gz"), "--moving", &moved, "-o", &case]);
    assert_eq!(code, Some(0), "{text}");

    // The mask that `register` writes is bit for bit that of `warp` with either transform file.
    let (tfm, json) = (at("cases/a/transform.tfm"), at("cases/a/transform.json"));
    for (name, file) in [("by_tfm", &tfm), ("by_json", &json)] {
        let (code, text) = run(&[
            "warp",
            &moved,
            "--transform",
            file,
            "--like",
            &at("fixed.nii.gz"),
            "--interp",
            "nearest",
            "-o",
            &at(name),
        ]);
        assert_eq!(code, Some(0), "{text}");
        let [ours, its] = [at("cases/a/moving.nii.gz"), at(&format!("{name}/moving.nii.gz"))]
            .map(|p| nifti::read_labels(p).expect("a mask").labels);
        assert!(ours.labels() == its.labels(), "{name}");
    }
    // The transform followed by its inverse is the identity.
    let both = [
        "warp",
        &moved,
        "--transform",
        &tfm,
        "--inverse",
        "--like",
        &moved,
        "--interp",
        "nearest",
        "-o",
        &at("x"),
        "--json",
    ];
    let (code, text) = run(&both);
    assert_eq!(code, Some(0), "{text}");
    let result: serde_json::Value = serde_json::from_str(text.trim()).expect("JSON");
    let forward = transform::read(&tfm).expect("a transform");
    let rows: [[f64; 4]; 3] = serde_json::from_value(result["transform"].clone()).expect("a matrix");
    for (a, b) in forward.after(&Affine(rows)).0.as_flattened().iter().zip(Affine::IDENTITY.0.as_flattened()) {
        assert!((a - b).abs() < 1e-9, "{rows:?}");
    }

    let (code, text) = run(&["evaluate", "registration", &at("cases"), "--csv", &at("cases.csv"), "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let table: serde_json::Value = serde_json::from_str(text.trim()).expect("JSON");
    let result: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at("cases/a/result.json")).expect("a result")).expect("JSON");
    assert_eq!(table["summary"][0]["cases"], 1);
    assert_eq!(table["summary"][0]["kidney_with_tumour"][2]["mean"], result["aligned"]["kidney"]["hard"]);
    assert_eq!(table["summary"][0]["tumour"][1]["mean"], result["centre_of_mass"]["tumour"]["hard"]);
    let csv = std::fs::read_to_string(at("cases.csv")).expect("a table");
    assert_eq!(csv.lines().count(), 2, "{csv}");
    // A damaged result costs itself.
    std::fs::create_dir(at("cases/b")).expect("a folder");
    std::fs::write(at("cases/b/result.json"), "{").expect("written");
    let output =
        support::nephron().args(["evaluate", "registration", &at("cases"), "--json"]).output().expect("it runs");
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &table["summary"][0]["cases"]), (Some(1), &1.into()), "{table}");
    assert!(table["failed"][0]["input"].as_str().is_some_and(|path| path.ends_with("b/result.json")), "{table}");
    let (code, text) = run(&["evaluate", "registration", &at("by_tfm")]);
    assert!(code == Some(1) && text.contains("by_tfm") && text.contains("found none"), "{text}");
}
