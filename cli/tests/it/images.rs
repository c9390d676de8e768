//! `nephron info` and `nephron resample`.

use std::path::Path;

use nephron::io::nifti;
use nephron::volume::{Affine, Volume, Voxels};
use tempfile::tempdir;

use crate::support;
use crate::support::nifti_file::NiftiFile;

fn value(volume: &Volume, [i, j, k]: [usize; 3]) -> f32 {
    volume.voxels().value((k * volume.shape()[1] + j) * volume.shape()[2] + i)
}

/// `nephron info --json` on a big-endian file with a scale and only a qform.
#[test]
fn info_says_what_an_image_is() {
    let folder = tempdir().expect("a folder");
    let file = NiftiFile {
        big_endian: true,
        datatype: 512,
        voxels: [1u16, 2, 3, 4, 5, 6].map(u16::to_be_bytes).concat(),
        codes: [1, 0],
        quatern: [0.0, 0.0, 1.0],
        scale: [0.5, 1.0],
        ..NiftiFile::new(&[1, 2, 3])
    };
    let path = file.write(folder.path(), "a.nii.gz");
    let run = |json: &[&str]| {
        let mut command = support::nephron();
        let output = command.arg("info").arg(&path).args(json).output().expect("the command runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let info: serde_json::Value = serde_json::from_str(&run(&["--json"])).expect("one JSON object");
    let want = serde_json::json!({
        "file": path, "format": "NIfTI-1", "shape": [1, 2, 3], "spacing_mm": [1.0, 2.0, 3.0], "orientation": "LPS",
        "dtype": "uint16", "loaded_as": "f32", "geometry": "qform", "sform_code": 0, "qform_code": 1,
        "slope": 0.5, "inter": 1.0, "minimum": 1.5, "maximum": 4.0, "not_finite": 0, "extensions": [],
        "affine": [[-1.0, 0.0, 0.0, 0.0], [0.0, -2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]], "warnings": [],
    });
    assert_eq!(info, want);
    let text = run(&[]);
    for needle in ["1 x 2 x 3", "LPS", "uint16", "qform", "slope 0.5", "1.5 to 4"] {
        assert!(text.contains(needle), "{text} lacks {needle}");
    }
}

/// `nephron info` on a format without sform and qform.
#[test]
fn info_names_the_format_of_the_file() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("a.nrrd");
    let header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 1 2 3\nencoding: raw\nspacings: 1 2 3\n\n";
    std::fs::write(&path, [header.as_bytes(), &[1, 2, 3, 4, 5, 6]].concat()).expect("written");
    let text = path.display().to_string();
    let (_, json, _) = support::run(&["info", &text, "--json"]);
    let info: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    let found = ["format", "geometry", "sform_code", "dtype", "orientation"].map(|key| info[key].clone());
    let want = serde_json::json!(["NRRD", "header", null, "uint8", "LPS"]);
    assert_eq!(serde_json::Value::from(found.to_vec()), want);
    let (_, plain, _) = support::run(&["info", &text]);
    assert!(plain.contains("NRRD") && !plain.contains("NIfTI") && !plain.contains("sform"), "{plain}");
}

/// `nephron resample` resamples masks and images, keeps their codes, and exits with 2 for a wrong call.
#[test]
fn the_resample_verb() {
    let folder = tempdir().expect("a folder");
    let out = folder.path().join("out.nii.gz");
    let ct = NiftiFile { codes: [0, 4], ..NiftiFile::new(&[6, 5, 4]) }.write(folder.path(), "ct.nii");
    let mask = NiftiFile { datatype: 512, ..NiftiFile::new(&[6, 5, 4]) }.write(folder.path(), "mask.nii");
    let run = |input: &Path, arguments: &[&str]| {
        let mut command = support::nephron();
        command.args(["resample", "--device", "cpu", "--json"]).arg(input).arg(&out).args(arguments);
        let output = command.output().expect("the command runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = run(&ct, &["--spacing", "2,2,1.5"]);
    assert_eq!(code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(report["shape"], serde_json::json!([3, 5, 8]));
    assert_eq!(report["spacing_mm"], serde_json::json!([2.0, 2.0, 1.5]));
    let image = nifti::read(&out).expect("the result");
    assert_eq!((image.volume.shape(), image.header.geometry.sform_code), ([8, 5, 3], 4));
    // Voxel n has the value n = i + 6 j + 30 k, also at the new centre (1, 2, 3.5).
    let centre = |k| value(&image.volume, [1, 2, k]);
    assert_eq!((centre(3) + centre(4)) / 2.0, 59.5);

    // Writing over an input is refused; a copy of the reference is none.
    assert_eq!(run(&mask, &["--like", out.to_str().expect("a name"), "--interp", "nearest"]).0, Some(2));
    let reference = folder.path().join("reference.nii");
    std::fs::copy(&out, &reference).expect("copied");
    assert_eq!(run(&mask, &["--like", reference.to_str().expect("a name"), "--interp", "nearest"]).0, Some(0));
    let image = nifti::read(&out).expect("the result");
    assert_eq!(image.volume.shape(), [8, 5, 3]);
    assert!(matches!(image.volume.voxels(), Voxels::I16(_)), "whole numbers stay whole numbers");

    std::fs::remove_file(&out).expect("the result");
    for wrong in [&[][..], &["--spacing", "1,2"], &["--spacing", "1,0,1"], &["--spacing", "1,1,1", "--like", "x.nii"]] {
        assert_eq!(run(&ct, wrong).0, Some(2), "{wrong:?}");
    }
    assert_eq!(run(&ct, &["--like", "missing.nii"]).0, Some(1));
    assert!(!out.exists());
}

/// CT that is stored as integers, here unsigned with an offset as some scanners do, stays integers.
#[test]
fn interpolated_ct_keeps_its_integers() {
    let folder = tempdir().expect("a folder");
    let stored: Vec<u16> = (0..64).map(|i| 1000 + i * 3).collect();
    let file = NiftiFile {
        datatype: 512,
        voxels: stored.iter().flat_map(|v| v.to_le_bytes()).collect(),
        scale: [1.0, -1024.0],
        ..NiftiFile::new(&[4, 4, 4])
    };
    let ct = file.write(folder.path(), "ct.nii");
    // A slope that makes fractions of the values.
    NiftiFile { scale: [0.5, 0.0], ..file }.write(folder.path(), "halves.nii");
    std::fs::write(folder.path().join("t.json"), r#"{"fixed_to_moving_ras": [[1,0,0,0.25],[0,1,0,0],[0,0,1,0]]}"#)
        .expect("written");
    let step = nifti::read(&ct).expect("CT").volume.affine().0[0][0];
    let run = |arguments: &[&str]| {
        let output = support::nephron().current_dir(folder.path()).args(arguments).args(["--device", "cpu"]).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["warp", "ct.nii", "halves.nii", "--transform", "t.json", "--like", "ct.nii", "-o", "moved"]);
    run(&["resample", "ct.nii", "copy.nii", "--like", "ct.nii"]);
    let [moved, copy, halved] = ["moved/ct.nii", "copy.nii", "moved/halves.nii"]
        .map(|name| nifti::read(folder.path().join(name)).expect("an image").volume);
    let Voxels::I16(values) = moved.voxels() else { panic!("{:?}", moved.voxels().dtype()) };
    // Between two voxels of a row the value rises by 3.
    let between = |i: usize| f64::from(stored[i]) - 1024.0 + 3.0 * 0.25 / step;
    assert_eq!(values[5..7], [5, 6].map(|i| between(i).round() as i16));
    assert_ne!(between(5).fract(), 0.0);
    assert!(
        matches!(copy.voxels(), Voxels::I16(v) if v.iter().zip(&stored).all(|(v, s)| i32::from(*v) == i32::from(*s) - 1024))
    );
    assert!(matches!(halved.voxels(), Voxels::F32(_)));
    // Neither keeps the scale of the file it came from.
    assert_eq!(
        nifti::read(folder.path().join("moved/ct.nii")).expect("an image").header.scale.unwrap_or((1.0, 0.0)),
        (1.0, 0.0)
    );
}

#[test]
fn label_maps_that_are_interpolated_and_values_that_are_not_finite_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let write = |name: &str, voxels: Voxels| {
        let volume = Volume::new([4, 4, 4], voxels, Affine::IDENTITY).expect("a volume");
        nifti::write(folder.path().join(name), &nifti::Image::new(volume)).expect("written");
    };
    write("labels.nii", Voxels::I16((0..64).map(|i| i16::from(i > 20) * 3).collect::<Vec<_>>().into()));
    write("ct.nii", Voxels::I16((0..64).map(|i| i * 7 - 200).collect::<Vec<_>>().into()));
    write("nan.nii", Voxels::F32((0..64).map(|i| if i == 9 { f32::NAN } else { 1.0 }).collect::<Vec<_>>().into()));
    std::fs::write(at("t.json"), r#"{"fixed_to_moving_ras": [[1,0,0,0.3],[0,1,0,0],[0,0,1,0]]}"#).expect("written");
    let run = |arguments: &[&str]| {
        let output = support::nephron().args(arguments).args(["--device", "cpu"]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = "looks like a label map";
    for (input, interp, warned) in
        [("labels.nii", "linear", true), ("labels.nii", "nearest", false), ("ct.nii", "linear", false)]
    {
        let (code, errors) =
            run(&["resample", &at(input), &at("out.nii"), "--spacing", "0.7,0.7,0.7", "--interp", interp]);
        assert!(code == Some(0) && errors.contains(said) == warned, "{input} {interp}: {errors}");
        let call = [
            "warp",
            &at(input),
            "--transform",
            &at("t.json"),
            "--like",
            &at(input),
            "-o",
            &at("w"),
            "--interp",
            interp,
        ];
        let (code, errors) = run(&call);
        assert!(code == Some(0) && errors.contains(said) == warned, "{input} {interp}: {errors}");
    }
    for interp in ["linear", "cubic"] {
        let call = [
            "warp",
            &at("nan.nii"),
            "--transform",
            &at("t.json"),
            "--like",
            &at("ct.nii"),
            "-o",
            &at("w"),
            "--interp",
            interp,
        ];
        let (code, errors) = run(&call);
        assert!(
            code == Some(1) && errors.contains("1 of 64 voxels are NaN or infinite") && errors.contains("nan.nii"),
            "{errors}"
        );
    }
    // Of several images one fails and the others are written.
    std::fs::write(at("broken.nii"), "no image").expect("written");
    let call = [
        "warp",
        &at("ct.nii"),
        &at("broken.nii"),
        "--transform",
        &at("t.json"),
        "--like",
        &at("ct.nii"),
        "-o",
        &at("two"),
    ];
    let (code, errors) = run(&call);
    assert!(code == Some(1) && errors.contains("broken.nii") && errors.contains("1 of 2 images failed"), "{errors}");
    assert!(folder.path().join("two/ct.nii").is_file());
    let (code, errors) = run(&["resample", &at("ct.nii"), &at("ct.nii"), "--spacing", "2,2,2"]);
    assert!(code == Some(2) && errors.contains("is an input"), "{errors}");
}
