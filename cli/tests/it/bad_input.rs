//! Files that are missing, damaged or nonsense: each is an error of one line that names the file and what is wrong. Nothing panics,
//! no partial file is written, and no header causes an allocation that its file cannot fill.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nephron::io::{nifti, npy, weights::Weights};
use rand::Rng;
use tempfile::tempdir;

use crate::support;
use crate::support::nifti_file::{NiftiFile, gzip};
use crate::support::rng;

/// The message of `nifti::read`, checked to be one line that names the file.
fn refusal(path: &Path) -> String {
    let message = nifti::read_ct(path).map(|_| ()).expect_err(&path.display().to_string()).to_string();
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    assert!(message.contains(name.trim_end_matches(".nii")) && !message.contains('\n'), "{message}");
    message
}

fn assert_refused(path: &Path, needles: &[&str]) {
    let message = refusal(path);
    assert!(needles.iter().all(|needle| message.contains(needle)), "{message} lacks one of {needles:?}");
}

#[test]
fn files_that_are_no_images() {
    let folder = tempdir().expect("a folder");
    let at = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a test file");
        path
    };
    assert_refused(&folder.path().join("missing.nii.gz"), &["no such file"]);
    assert_refused(folder.path(), &["folder"]);
    assert_refused(&at("empty.nii", b""), &["not a NIfTI file"]);
    assert_refused(&at("text.nii", "hello ".repeat(100).as_bytes()), &["not a NIfTI file"]);
    assert_refused(&at("text.nii.gz", &gzip(b"hello")), &["not a NIfTI file"]);
    // What a PACS exports: a preamble of 128 bytes and the magic.
    let dicom = [&[0; 128][..], b"DICM", &[0; 400]].concat();
    assert_refused(&at("0001.dcm", &dicom), &["is a DICOM file", "dcm2niix"]);
    assert_refused(&at("stub.nii", &NiftiFile::new(&[2, 2, 2]).bytes()[..200]), &["cut short", "header"]);
    let analyze = NiftiFile { magic: vec![], ..NiftiFile::new(&[2, 2, 2]) };
    assert_refused(&analyze.write(folder.path(), "analyze.nii"), &["magic", "ANALYZE"]);
}

#[test]
fn streams_that_are_cut_or_damaged() {
    let folder = tempdir().expect("a folder");
    let whole = gzip(&NiftiFile::new(&[20, 20, 20]).bytes());
    for keep in [20, whole.len() / 2, whole.len() - 4] {
        let path = folder.path().join("cut.nii.gz");
        std::fs::write(&path, &whole[..keep]).expect("a test file");
        assert_refused(&path, &["cut"]);
    }
    let mut wrong_sum = whole.clone();
    let at = wrong_sum.len() - 8;
    wrong_sum[at] ^= 1;
    let path = folder.path().join("sum.nii.gz");
    std::fs::write(&path, wrong_sum).expect("a test file");
    assert_refused(&path, &["damaged"]);
    let mut file = NiftiFile::new(&[20, 20, 20]);
    file.voxels.truncate(100);
    assert_refused(&file.write(folder.path(), "few.nii"), &["20 x 20 x 20", "16000 bytes", "100 bytes"]);
    assert_refused(&file.write(folder.path(), "few.nii.gz"), &["cut short", "after 0 of 8000 voxels"]);
}

#[test]
fn a_trillion_voxels_cost_nothing() {
    let folder = tempdir().expect("a folder");
    let start = Instant::now();
    for dim in [&[10_000, 10_000, 10_000][..], &[32_767, 32_767, 32_767], &[1 << 40, 1 << 40, 1 << 40]] {
        for name in ["huge.nii", "huge.nii.gz"] {
            let file = NiftiFile { voxels: vec![0; 1000], ..NiftiFile::new(&[2, 2, 2]) };
            let file = NiftiFile { dim: dim.to_vec(), ..file };
            let file = if dim[0] > 32_767 { file.version_2() } else { file };
            assert_refused(&file.write(folder.path(), name), &["voxels", &format!("{0} x {0} x {0}", dim[0])]);
        }
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn headers_that_make_no_image() {
    let folder = tempdir().expect("a folder");
    let good = NiftiFile::new(&[4, 3, 2]);
    let cases: Vec<(NiftiFile, &[&str])> = vec![
        (NiftiFile { dim: vec![4, 3, 2, 5], ..good.clone() }, &["4D", "4 x 3 x 2 x 5"]),
        (NiftiFile { dim: vec![4, 3, 2, 1, 3], ..good.clone() }, &["5D", "4 x 3 x 2 x 1 x 3"]),
        (NiftiFile { dim: vec![4, 0, 2], ..good.clone() }, &["axis 2", "length 0"]),
        (NiftiFile { dim: vec![4, 3, -2], ..good.clone() }, &["axis 3", "length -2"]),
        (NiftiFile { dim: vec![], ..good.clone() }, &["0 axes", "1 to 7"]),
        (NiftiFile { dim: vec![1; 9], ..good.clone() }, &["9 axes", "1 to 7"]),
        (NiftiFile { datatype: 32, ..good.clone() }, &["complex64"]),
        (NiftiFile { datatype: 128, ..good.clone() }, &["RGB"]),
        (NiftiFile { datatype: 1536, ..good.clone() }, &["float128"]),
        (NiftiFile { datatype: 77, ..good.clone() }, &["unknown", "77"]),
        (NiftiFile { codes: [1, 0], pixdim: [1.0, 0.0, 2.0, 3.0], ..good.clone() }, &["axis 1", "is 0 mm"]),
        (NiftiFile { codes: [0, 0], pixdim: [1.0, 1.0, 2.0, f64::NAN], ..good.clone() }, &["axis 3", "NaN"]),
        (
            NiftiFile { srow: [1.0, 2.0, 3.0, 0.0, 2.0, 4.0, 6.0, 0.0, 0.0, 0.0, 1.0, 0.0], ..good.clone() },
            &["singular"],
        ),
        (NiftiFile { srow: [0.0; 12], ..good.clone() }, &["singular"]),
        (NiftiFile { srow: [f64::INFINITY; 12], ..good.clone() }, &["finite"]),
        (NiftiFile { codes: [1, 0], quatern: [1.0, 1.0, 0.0], ..good.clone() }, &["qform", "longer than 1"]),
        (NiftiFile { codes: [1, 0], quatern: [f64::NAN; 3], ..good.clone() }, &["qform", "NaN"]),
        (NiftiFile { codes: [1, 0], qoffset: [f64::NAN; 3], ..good.clone() }, &["finite"]),
        (NiftiFile { vox_offset: 100.0, ..good.clone() }, &["vox_offset", "100"]),
        (NiftiFile { vox_offset: 1e12, ..good.clone() }, &["ends before its voxels"]),
        (NiftiFile { scale: [1.5, f64::INFINITY], ..good.clone() }, &["slope of 1.5", "inf"]),
    ];
    for (file, needles) in cases {
        for big_endian in [false, true] {
            // 9 axes are an error in the other byte order too.
            let file = NiftiFile { big_endian, ..file.clone() };
            assert_refused(&file.write(folder.path(), "odd.nii"), needles);
            assert_refused(&file.write(folder.path(), "odd.nii.gz"), needles);
        }
    }
    for offset in [f64::NAN, -352.0, 352.5, f64::INFINITY] {
        let mut bytes = good.bytes();
        bytes[108..112].copy_from_slice(&(offset as f32).to_le_bytes());
        let path = folder.path().join("offset.nii");
        std::fs::write(&path, bytes).expect("a test file");
        assert_refused(&path, &["vox_offset"]);
    }
}

#[test]
fn pairs_with_a_half_missing() {
    let folder = tempdir().expect("a folder");
    let pair = NiftiFile { magic: b"ni1\0".to_vec(), vox_offset: 0.0, ..NiftiFile::new(&[3, 2, 2]) };
    let header = folder.path().join("a.hdr");
    std::fs::write(&header, pair.header()).expect("a header");
    assert_refused(&header, &["a.img", "missing"]);
    std::fs::write(folder.path().join("a.img"), &pair.voxels[..5]).expect("voxels");
    assert_refused(&header, &["3 x 2 x 2", "5 bytes"]);
    std::fs::write(folder.path().join("b.img"), &pair.voxels).expect("voxels");
    assert_refused(&folder.path().join("b.img"), &["not a NIfTI file"]);
    std::fs::write(folder.path().join("c.nii"), pair.header()).expect("a header");
    assert_refused(&folder.path().join("c.nii"), &[".img"]);
}

#[test]
fn voxels_that_are_not_finite() {
    let folder = tempdir().expect("a folder");
    let voxels = [1.0, f32::NAN, 2.0, f32::INFINITY, 0.0, f32::NEG_INFINITY].map(f32::to_le_bytes).concat();
    let file = NiftiFile { datatype: 16, voxels, ..NiftiFile::new(&[1, 3, 2]) };
    let path = file.write(folder.path(), "nan.nii.gz");
    assert_refused(&path, &["3 of 6 voxels", "NaN", "[0, 1, 0]"]);
    assert_eq!(nifti::read(&path).expect("read alone accepts them").volume.not_finite(), 3);
}

/// A damaged header gives an error or an image, never a panic or a long run.
#[test]
fn headers_with_random_damage() {
    let folder = tempdir().expect("a folder");
    let mut rng = rng();
    let path = folder.path().join("damage.nii");
    let zipped = folder.path().join("damage.nii.gz");
    for round in 0..400 {
        let file = NiftiFile::new(&[5, 4, 3]);
        let file = if round % 2 == 0 { file } else { file.version_2() };
        let header = if round % 2 == 0 { 348 } else { 540 };
        let mut bytes = file.bytes();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(4..header);
            bytes[at] = rng.random();
        }
        let mut stream = gzip(&bytes);
        std::fs::write(&path, bytes).expect("a test file");
        let _ = nifti::read_ct(&path);
        let at = rng.random_range(2..stream.len());
        stream[at] = rng.random();
        std::fs::write(&zipped, stream).expect("a test file");
        let _ = nifti::read_labels(&zipped);
    }
}

#[test]
fn arrays_that_are_none() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("bad.npy");
    let array = |version: u8, dict: &str, data: &[u8]| {
        let length = (dict.len() as u32).to_le_bytes();
        let length = if version == 1 { &length[..2] } else { &length[..] };
        [b"\x93NUMPY", &[version, 0][..], length, dict.as_bytes(), data].concat()
    };
    let header =
        |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let f4 = |shape: &str| array(1, &header("'<f4'", shape), &[0; 16]);
    let nested = "(".repeat(9000);
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (b"".to_vec(), &["not an npy file"]),
        (b"hello, this is text".to_vec(), &["not an npy file"]),
        (array(9, &header("'<f4'", "(4,)"), &[0; 16]), &["format 9"]),
        (array(2, &" ".repeat(20_000), &[]), &["20000 bytes"]),
        (f4("(4,)")[..40].to_vec(), &["inside its header"]),
        (f4("(5,)"), &["[5]", "16 bytes"]),
        (f4("(99999999999, 99999999999, 99999999999)"), &["99999999999", "16 bytes"]),
        (f4("(4294967296, 4294967296, 4294967296)"), &["4294967296", "16 bytes"]),
        (f4("(99999999999999999999999999,)"), &["99999999999999999999999999"]),
        (f4("(-4,)"), &["-4"]),
        (f4("4"), &["shape"]),
        (f4(&nested), &["shape"]),
        (array(1, &header("'|O'", "(4,)"), &[0; 16]), &["|O", "not supported"]),
        (array(1, &header("'<c8'", "(2,)"), &[0; 16]), &["<c8", "not supported"]),
        (array(1, &header("'µ4'", "(2,)"), &[0; 16]), &["not supported"]),
        (array(1, &header("[('a', '<f4')]", "(4,)"), &[0; 16]), &["structured"]),
        (array(1, "{'descr': '<f4', 'shape': (4,)}\n", &[0; 16]), &["fortran_order"]),
        (array(1, "{'descr'", &[0; 16]), &["descr"]),
    ];
    for (bytes, needles) in cases {
        std::fs::write(&path, bytes).expect("a test file");
        let message = npy::read_f32(&path).map(|_| ()).expect_err("no array").to_string();
        let named = message.contains("bad.npy") && !message.contains('\n');
        assert!(named && needles.iter().all(|n| message.contains(n)), "{message} lacks one of {needles:?}");
    }
}

#[test]
fn weights_that_are_none() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("bad.safetensors");
    let tensors = |json: &str, data: &[u8]| [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat();
    let cases: [(Vec<u8>, &str); 7] = [
        (vec![], "safetensors"),
        (b"PK\x03\x04 a zip file of a pickle".to_vec(), "zip archive"),
        (u64::MAX.to_le_bytes().to_vec(), "safetensors"),
        (tensors("{\"a\":", &[]), "safetensors"),
        (tensors(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, &[0; 8]), "safetensors"),
        (
            tensors(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}"#, &[0; 16]),
            "safetensors",
        ),
        (tensors(r#"{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}"#, &[0; 4]), "F8_E4M3"),
    ];
    for (bytes, needle) in cases {
        std::fs::write(&path, bytes).expect("a test file");
        let message = Weights::read(&path).map(|_| ()).expect_err("no weights").to_string();
        assert!(message.contains("bad.safetensors") && message.contains(needle), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

/// The command prints one line to standard error, exits with 1, and writes nothing.
#[test]
fn the_command_refuses_in_one_line() {
    let folder = tempdir().expect("a folder");
    let bad = NiftiFile { dim: vec![4, 3, 2, 5], ..NiftiFile::new(&[4, 3, 2]) }.write(folder.path(), "bad.nii");
    let out = folder.path().join("out.nii.gz");
    for verb in ["info", "resample"] {
        let mut command = support::nephron();
        command.args([verb, "--device", "cpu"]).arg(&bad);
        if verb == "resample" {
            command.arg(&out).args(["--spacing", "1,1,1"]);
        }
        let output = command.output().expect("the command runs");
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("bad.nii") && text.contains("4D"), "{text}");
        assert!(output.stdout.is_empty() && !out.exists());
    }
}
