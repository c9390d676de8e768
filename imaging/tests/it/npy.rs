//! npy and npz arrays.

use std::io::Read;

use nephron_compute::Error;
use nephron_imaging::io::{npy, npz};
use tempfile::tempdir;

#[test]
fn npy_is_read_in_every_type_and_order() {
    let folder = tempdir().expect("a folder");
    let file = |descr: &str, fortran: &str, shape: &str, data: &[u8]| {
        let mut dict = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        dict.insert_str(dict.len() - 1, &" ".repeat((64 - (10 + dict.len()) % 64) % 64));
        let bytes = [b"\x93NUMPY\x01\x00", &(dict.len() as u16).to_le_bytes()[..], dict.as_bytes(), data].concat();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, bytes).expect("a test file");
        path
    };
    let read = |path| npy::read_f32(path).expect("a sound array");
    assert_eq!(
        read(file("<f4", "False", "(2,)", &[1f32, -2.5].map(f32::to_le_bytes).concat())),
        (vec![2], vec![1.0, -2.5])
    );
    assert_eq!(
        read(file(">f8", "False", "(1, 2)", &[0.5f64, 3.0].map(f64::to_be_bytes).concat())),
        (vec![1, 2], vec![0.5, 3.0])
    );
    assert_eq!(read(file("<f2", "False", "(2,)", &[0x00, 0x3c, 0x00, 0xc0])), (vec![2], vec![1.0, -2.0]));
    assert_eq!(read(file("|b1", "False", "(3,)", &[0, 1, 1])), (vec![3], vec![0.0, 1.0, 1.0]));
    assert_eq!(read(file(">i4", "False", "()", &(-7i32).to_be_bytes())), (vec![], vec![-7.0]));
    assert_eq!(read(file("<i8", "False", "(1,)", &9i64.to_le_bytes())), (vec![1], vec![9.0]));
    assert_eq!(read(file("<u2", "False", "(0, 3)", &[])), (vec![0, 3], vec![]));
    // In Fortran order, element (a, b, c) of shape (2, 3, 2) has the offset a + 2 b + 6 c.
    let want: Vec<f32> =
        (0..2).flat_map(|a| (0..3).flat_map(move |b| (0..2).map(move |c| (a + 2 * b + 6 * c) as f32))).collect();
    let data: Vec<u8> = (0..12).collect();
    assert_eq!(read(file("|u1", "True", "(2, 3, 2)", &data)), (vec![2, 3, 2], want));
    assert_eq!(npy::read_u8(file("<f4", "False", "(1,)", &255f32.to_le_bytes())).expect("labels").1, [255]);
    let message = npy::read_u8(file("<f4", "False", "(1,)", &1.5f32.to_le_bytes())).expect_err("1.5").to_string();
    assert!(message.contains("a.npy") && message.contains("1.5"), "{message}");
}

#[test]
fn npy_is_written_for_others() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("a.npy");
    let data: Vec<f32> = (0..24).map(|v| v as f32 / 3.0).collect();
    npy::write_f32(&path, &[2, 3, 4], &data).expect("written");
    let bytes = std::fs::read(&path).expect("the file");
    assert_eq!((bytes.len() - 4 * 24) % 64, 0, "the values are aligned");
    let file = npyz::NpyFile::new(&bytes[..]).expect("an npy file");
    assert_eq!((file.shape(), file.order()), (&[2u64, 3, 4][..], npyz::Order::C));
    assert_eq!(file.into_vec::<f32>().expect("f32"), data);
    assert_eq!(npy::read_f32(&path).expect("read back"), (vec![2, 3, 4], data));
    for shape in [&[][..], &[5], &[5, 1, 0]] {
        let data = vec![7u8; shape.iter().product()];
        npy::write_u8(&path, shape, &data).expect("written");
        let bytes = std::fs::read(&path).expect("the file");
        assert_eq!(npyz::NpyFile::new(&bytes[..]).expect("an npy file").into_vec::<u8>().expect("u8"), data);
        assert_eq!(npy::read_u8(&path).expect("read back"), (shape.to_vec(), data));
    }
    let message = npy::write_f32(&path, &[2, 2], &[0.0; 3]).expect_err("too few").to_string();
    assert!(message.contains("[2, 2]") && message.contains('3'), "{message}");
}

#[test]
fn npz_is_written_for_others() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("a.npz");
    let parts = [vec![0.25f32, -1.0, 3.5e-9], vec![7.0, f32::MAX, 0.0]];
    npz::write_f32(&path, "probabilities", &[2, 1, 3], parts.iter().map(Ok)).expect("written");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).expect("the file")).expect("a zip archive");
    assert_eq!(archive.len(), 1);
    let mut entry = archive.by_name("probabilities.npy").expect("named as NumPy does");
    assert_eq!(entry.compression(), zip::CompressionMethod::Deflated);
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).expect("whole");
    let file = npyz::NpyFile::new(&bytes[..]).expect("an npy file");
    assert_eq!((file.shape(), file.order()), (&[2u64, 1, 3][..], npyz::Order::C));
    assert_eq!(file.into_vec::<f32>().expect("f32"), parts.concat());
}

#[test]
fn an_npz_that_cannot_be_whole_is_not_written() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("a.npz");
    let part = vec![1.0f32; 3];
    let message = npz::write_f32(&path, "x", &[2, 2], [Ok(&part)]).expect_err("too few").to_string();
    assert!(message.contains("[2, 2]") && message.contains("found 3"), "{message}");
    let failing = [Ok(&part), Err(Error::Data("the second part".into()))];
    let message = npz::write_f32(&path, "x", &[2, 3], failing).expect_err("fails").to_string();
    assert_eq!(message, "the second part");
    let huge = [usize::MAX, 2];
    let message = npz::write_f32(&path, "x", &huge, [Ok(&part)]).expect_err("uncountable").to_string();
    assert!(message.contains(&usize::MAX.to_string()), "{message}");
    assert!(std::fs::read_dir(folder.path()).expect("a folder").next().is_none(), "nothing is left");
}
