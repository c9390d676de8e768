//! NIfTI compared with a second reader, the nifti crate, where that is correct; and header extensions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::nifti::{InMemNiftiObject, NiftiObject, RandomAccessNiftiVolume, ReaderOptions};
use nephron_imaging::io::nifti::{self, Extension, Image};
use nephron_imaging::volume::{Affine, Grid, Volume, Voxels};
use rand::Rng;
use tempfile::tempdir;

use crate::support::nifti_file::{NiftiFile, gzip};
use crate::support::rng;

/// Codes of every integer and float type and the bytes of an element.
const TYPES: [(i16, usize); 10] =
    [(2, 1), (256, 1), (4, 2), (512, 2), (8, 4), (768, 4), (1024, 8), (1280, 8), (16, 4), (64, 8)];

fn ordered(mut bytes: Vec<u8>, big: bool) -> Vec<u8> {
    if big {
        bytes.reverse();
    }
    bytes
}

/// Random elements that f64 represents exactly.
fn voxels(code: i16, size: usize, big: bool, count: usize) -> Vec<u8> {
    let mut rng = rng();
    let element = |_| {
        let bytes = match code {
            16 => rng.random_range(-1000.0f32..1000.0).to_le_bytes().to_vec(),
            64 => rng.random_range(-1000.0f64..1000.0).to_le_bytes().to_vec(),
            1024 => rng.random_range(-(1i64 << 40)..1 << 40).to_le_bytes().to_vec(),
            1280 => rng.random_range(0u64..1 << 40).to_le_bytes().to_vec(),
            _ => (0..size).map(|_| rng.random()).collect(),
        };
        ordered(bytes, big)
    };
    (0..count).flat_map(element).collect()
}

fn peer(path: &Path) -> InMemNiftiObject {
    ReaderOptions::new().read_file(path).expect("a NIfTI-1 file")
}

/// Every type, both orders of bytes, with and without a scale, in one file (plain and zipped) and as a pair.
#[test]
fn a_second_reader_sees_the_same() {
    let folder = tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let dim = [4u16, 3, 2];
    for (code, size) in TYPES {
        for big in [false, true] {
            for scale in [[0.0, 0.0], [1.0, 0.0], [0.25, -3.0], [-2.0, 1024.0]] {
                let voxels = voxels(code, size, big, 24);
                let new = NiftiFile::new(&[4, 3, 2]);
                let file = NiftiFile { datatype: code, big_endian: big, scale, voxels, ..new };
                let pair = NiftiFile { magic: b"ni1\0".to_vec(), vox_offset: 0.0, ..file.clone() };
                std::fs::write(at("pair.hdr"), pair.header()).expect("a header");
                std::fs::write(at("pair.img"), &pair.voxels).expect("voxels");
                let paths = [file.write(folder.path(), "a.nii"), file.write(folder.path(), "a.nii.gz"), at("pair.hdr")];
                for path in paths {
                    let (ours, its) = (nifti::read(&path).expect("a sound file"), peer(&path));
                    let (header, values) = (its.header(), ours.volume.voxels().to_f32());
                    assert_eq!(ours.header.byte_order == nephron_imaging::io::numbers::ByteOrder::Big, big);
                    assert_eq!(header.dim().expect("axes"), dim);
                    let affine = ours.volume.affine().0.map(|row| row.map(|v| v as f32));
                    assert_eq!(affine, [header.srow_x, header.srow_y, header.srow_z]);
                    for (n, ours) in values.iter().enumerate() {
                        let (i, j, k) = (n as u16 % 4, n as u16 / 4 % 3, n as u16 / 12);
                        // Like nephron, it converts to f64 first and scales in f64.
                        let want = its.volume().get_f64(&[i, j, k]).expect("a voxel");
                        assert_eq!(*ours, want as f32, "code {code}, big {big}, {scale:?}, {}", path.display());
                    }
                }
            }
        }
    }
}

/// Files that nephron writes, in every type that it writes.
#[test]
fn a_second_reader_sees_what_was_written() {
    let folder = tempdir().expect("a folder");
    let affine = Affine([[-1.5, 0.0, 0.0, 10.0], [0.0, 0.0, 2.5, -20.0], [0.0, -0.5, 0.0, 30.0]]);
    for voxels in [
        Voxels::U8((0..24).map(|v| v * 10).collect::<Vec<u8>>().into()),
        Voxels::I16((0..24).map(|v| v * 900 - 9000).collect::<Vec<i16>>().into()),
        Voxels::F32((0..24).map(|v| v as f32 / 7.0).collect::<Vec<f32>>().into()),
    ] {
        for name in ["a.nii", "a.nii.gz"] {
            let path = folder.path().join(name);
            let volume = Volume::new([2, 3, 4], voxels.clone(), affine).expect("a volume");
            nifti::write(&path, &Image::new(volume)).expect("written");
            let its = peer(&path);
            assert_eq!(
                (its.header().srow_y, its.header().dim().expect("axes")),
                ([0.0, 0.0, 2.5, -20.0], &[4, 3, 2][..])
            );
            for n in 0..24u16 {
                let got = its.volume().get_f32(&[n % 4, n / 4 % 3, n / 12]).expect("a voxel");
                assert_eq!(got, voxels.value(n.into()));
            }
        }
    }
}

/// `file` with extensions of the given sizes between its header and its voxels.
fn extended(mut file: NiftiFile, extensions: &[(i32, i32, &[u8])], room: usize) -> (NiftiFile, Vec<u8>) {
    let mut bytes = vec![1, 0, 0, 0];
    for (size, code, data) in extensions {
        bytes.extend(ordered(size.to_le_bytes().to_vec(), file.big_endian));
        bytes.extend(ordered(code.to_le_bytes().to_vec(), file.big_endian));
        bytes.extend_from_slice(data);
    }
    bytes.resize(bytes.len() + room, 0);
    if file.big_endian {
        file.voxels.chunks_exact_mut(2).for_each(|word| word.reverse());
    }
    let header = if file.version == 1 { 348 } else { 540 };
    file.vox_offset = (header + bytes.len()) as f64;
    let whole = [file.header(), bytes, file.voxels.clone()].concat();
    (file, whole)
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, if name.ends_with(".gz") { gzip(bytes) } else { bytes.to_vec() }).expect("a test file");
    path
}

#[test]
fn extensions_are_kept_from_input_to_output() {
    let folder = tempdir().expect("a folder");
    let (table, note) = (b"<CaretExtension><Label>kidney".as_slice(), b"a comment, 24 bytes long".as_slice());
    let padded = [table, &[0; 11]].concat();
    let want = [Extension { code: 0, data: padded.clone().into() }, Extension { code: 6, data: Arc::from(note) }];
    for version in [1, 2] {
        for big_endian in [false, true] {
            for (name, room) in [("a.nii", 0), ("a.nii.gz", 64)] {
                let file = NiftiFile { big_endian, ..NiftiFile::new(&[4, 3, 2]) };
                let file = if version == 2 { file.version_2() } else { file };
                let (_, bytes) = extended(file, &[(48, 0, &padded), (32, 6, note)], room);
                let image = nifti::read(written(folder.path(), name, &bytes)).expect("a sound file");
                assert_eq!((&image.header.extensions[..], image.warnings.len()), (&want[..], 0), "{name}");
                assert_eq!(image.volume.voxels().to_f32()[23], 23.0);
                // An image on another grid, and a mask, keep the extensions.
                let grid = Grid::with_spacing(&image.volume, [2.0, 2.0, 3.0]).expect("a grid");
                let coarse = Volume::new(grid.shape, Voxels::U8(vec![1; 12].into()), grid.affine).expect("a volume");
                for (volume, out) in [(image.volume.clone(), "out.nii"), (coarse, "out.nii.gz")] {
                    let path = folder.path().join(out);
                    nifti::write(&path, &image.with_volume(volume.clone())).expect("written");
                    let again = nifti::read(&path).expect("read back");
                    assert_eq!((&again.header.extensions[..], again.warnings.len()), (&want[..], 0), "{out}");
                    assert_eq!(again.volume.voxels(), volume.voxels());
                    if version == 1 {
                        let its = peer(&path);
                        let seen: Vec<_> = its.extensions().iter().map(|e| (e.code(), e.data().as_slice())).collect();
                        assert_eq!(seen, [(0, padded.as_slice()), (6, note)]);
                        assert_eq!(its.header().vox_offset, 352.0 + 80.0);
                    }
                }
            }
        }
    }
    // An image that is resampled onto another's grid keeps its own extensions.
    let (_, bytes) = extended(NiftiFile::new(&[4, 3, 2]), &[(32, 6, note)], 0);
    let moving = nifti::read(written(folder.path(), "moving.nii", &bytes)).expect("a sound file");
    let fixed = nifti::read(NiftiFile::new(&[4, 3, 2]).write(folder.path(), "fixed.nii")).expect("a sound file");
    let moved = moving.moved_to(&fixed, fixed.volume.clone());
    assert_eq!((&moved.header.extensions[..], &moved.header.geometry), (&want[1..], &fixed.header.geometry));
}

/// In a pair the extensions follow the header, up to the end of that file.
#[test]
fn extensions_of_a_pair_are_in_its_header() {
    let folder = tempdir().expect("a folder");
    let pair = NiftiFile { magic: b"ni1\0".to_vec(), ..NiftiFile::new(&[3, 2, 2]) };
    let (_, bytes) = extended(NiftiFile { voxels: vec![], ..pair.clone() }, &[(16, 4, b"12345678")], 0);
    let mut header = bytes;
    header[108..112].fill(0); // vox_offset in the .img
    written(folder.path(), "a.hdr", &header);
    written(folder.path(), "a.img", &pair.voxels);
    let image = nifti::read(folder.path().join("a.img")).expect("a sound pair");
    assert_eq!(image.header.extensions, [Extension { code: 4, data: Arc::from(b"12345678".as_slice()) }]);
    assert_eq!(image.volume.voxels().to_f32()[11], 11.0);
}

/// With damaged extensions the image is still read, and the extensions before the damage are kept.
#[test]
fn damaged_extensions_are_left_out_and_said() {
    let folder = tempdir().expect("a folder");
    let good = b"12345678".as_slice();
    for size in [0, -1, 7, i32::MIN, i32::MAX, 1000, 17] {
        for big_endian in [false, true] {
            let file = NiftiFile { big_endian, ..NiftiFile::new(&[3, 2, 2]) };
            let (_, bytes) = extended(file, &[(16, 4, good), (size, 6, good)], 0);
            let image = nifti::read(written(folder.path(), "a.nii", &bytes)).expect("an image");
            assert_eq!(image.volume.voxels().to_f32()[11], 11.0);
            assert_eq!(image.header.extensions.len(), 1, "{size}");
            let said = format!("header extension 2 claims {size} bytes");
            assert!(image.warnings.iter().any(|w| w.contains(&said)), "{size}: {:?}", image.warnings);
        }
    }
    // Extensions above the limit are skipped without a copy.
    let (_, bytes) = extended(NiftiFile::new(&[3, 2, 2]), &[(16, 4, good)], (16 << 20) + 16);
    let image = nifti::read(written(folder.path(), "a.nii.gz", &bytes)).expect("an image");
    assert!(image.header.extensions.is_empty() && image.warnings.iter().any(|w| w.contains("16777216 bytes")));
    assert_eq!(image.volume.voxels().to_f32()[11], 11.0);
    // A file that ends inside the extensions has no voxels, with the usual error.
    let (_, bytes) = extended(NiftiFile::new(&[3, 2, 2]), &[(16, 4, good)], 0);
    for keep in [349, 352, 355, 365] {
        let message = nifti::read(written(folder.path(), "a.nii", &bytes[..keep])).expect_err("cut").to_string();
        assert!(message.contains("cut short") && message.contains("before its voxels"), "{keep}: {message}");
    }
}

/// Any damage to extensions is an error or an image, never a panic or a long wait, and what is read can be written.
#[test]
fn extensions_with_random_damage() {
    let folder = tempdir().expect("a folder");
    let mut rng = rng();
    for round in 0..300 {
        let file = NiftiFile { big_endian: round % 2 == 0, ..NiftiFile::new(&[3, 2, 2]) };
        let file = if round % 3 == 0 { file.version_2() } else { file };
        let header = if round % 3 == 0 { 540 } else { 348 };
        let (_, mut bytes) = extended(file, &[(32, 0, &[7; 24]), (16, 4, &[9; 8])], 16);
        for _ in 0..rng.random_range(1..8) {
            let at = rng.random_range(header..header + 68);
            bytes[at] = rng.random();
        }
        bytes.truncate(if round % 5 == 0 { rng.random_range(header..bytes.len()) } else { bytes.len() });
        let name = if round % 2 == 0 { "a.nii" } else { "a.nii.gz" };
        if let Ok(image) = nifti::read(written(folder.path(), name, &bytes)) {
            assert_eq!(image.volume.voxels().to_f32()[11], 11.0);
            let path = folder.path().join("out.nii");
            nifti::write(&path, &image).expect("written");
            let again = nifti::read(&path).expect("read back");
            // Each is padded to a multiple of 16 bytes.
            let sizes = |image: &Image| {
                image.header.extensions.iter().map(|e| (e.data.len() + 8).div_ceil(16)).collect::<Vec<_>>()
            };
            assert_eq!((sizes(&again), again.warnings.len()), (sizes(&image), 0));
        }
    }
}

/// Faults of headers that nibabel or ITK read past: the geometry stays, and one line says what was done.
#[test]
fn slight_faults_of_headers_are_taken_with_a_warning() {
    let folder = tempdir().expect("a folder");
    let good = NiftiFile::new(&[4, 3, 2]);
    let qform = NiftiFile { codes: [1, 1], qoffset: [-10.0, -20.0, 30.0], ..good.clone() };
    let want = nifti::read(good.write(folder.path(), "good.nii")).expect("read").volume.affine();
    let rank_2 = [1.0, 0.0, 0.0, -10.0, 0.0, 2.0, 0.0, -20.0, 0.0, 2.0, 0.0, 30.0];
    for (name, file, part) in [
        ("negative", NiftiFile { pixdim: [1.0, -1.0, 2.0, 3.0], ..good.clone() }, "-1 mm (pixdim); 1 is used"),
        ("zero", NiftiFile { pixdim: [1.0, 1.0, 0.0, 3.0], ..good.clone() }, "the sform's 2 is used"),
        ("nan", NiftiFile { pixdim: [1.0, 1.0, 2.0, f64::NAN], ..good.clone() }, "the sform's 3 is used"),
        ("no_sform", NiftiFile { srow: [0.0; 12], ..qform.clone() }, "the qform is used"),
        (
            "rank_2",
            NiftiFile { srow: rank_2, ..qform.clone() },
            "singular (determinant 0e0), no geometry; the qform is used",
        ),
        ("infinite", NiftiFile { srow: [f64::INFINITY; 12], ..qform.clone() }, "not finite; the qform is used"),
    ] {
        let image =
            nifti::read(file.write(folder.path(), &format!("{name}.nii"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(image.volume.affine(), want, "{name}");
        assert_eq!(image.header_spacing(), [3.0, 2.0, 1.0], "{name}");
        assert!(image.warnings.iter().any(|w| w.contains(part)), "{name}: {:?}", image.warnings);
    }
}

#[test]
fn lengths_in_other_units_become_millimetres() {
    let folder = tempdir().expect("a folder");
    let good = NiftiFile::new(&[4, 3, 2]);
    for (units, scale, name) in [(1, 1e-3, "metres"), (3, 1e3, "micrometres")] {
        let file = NiftiFile {
            units,
            pixdim: [1.0, scale, 2.0 * scale, 3.0 * scale],
            srow: good.srow.map(|v| v * scale),
            ..good.clone()
        };
        let image = nifti::read(file.write(folder.path(), &format!("{name}.nii"))).expect("read");
        let spacing = image.volume.spacing();
        assert!((0..3).all(|a| (spacing[a] - [3.0, 2.0, 1.0][a]).abs() < 1e-5), "{name}: {spacing:?}");
        assert!(image.warnings.iter().any(|w| w.contains(name) && w.contains("converted")), "{:?}", image.warnings);
        nifti::write(folder.path().join("back.nii"), &image).expect("written");
        let back = nifti::read(folder.path().join("back.nii")).expect("read");
        assert!(back.warnings.is_empty() && back.header.units == 2, "{name}: {:?}", back.warnings);
    }
}

/// What stands behind a gzip stream is left alone, as zlib leaves it; a wrong checksum is not.
#[test]
fn bytes_behind_a_gzip_stream_are_left_out() {
    let folder = tempdir().expect("a folder");
    let packed = std::fs::read(NiftiFile::new(&[4, 3, 2]).write(folder.path(), "good.nii.gz")).expect("a file");
    let read = |bytes: &[u8]| {
        let path = folder.path().join("x.nii.gz");
        std::fs::write(&path, bytes).expect("written");
        nifti::read(path)
    };
    for tail in [&[0u8; 512][..], b"junk", b"\r\n", &[0], &[0x1f]] {
        let found = read(&[&packed[..], tail].concat());
        // One byte of a member's magic may be a member that is cut short.
        if tail == [0x1f] {
            assert!(found.is_err());
            continue;
        }
        let image = found.expect("read");
        assert!(image.warnings.iter().any(|w| w.contains("behind the gzip stream")), "{tail:?}: {:?}", image.warnings);
    }
    let mut wrong = packed.clone();
    let place = wrong.len() - 8;
    wrong[place] ^= 1;
    assert!(read(&wrong).expect_err("a wrong checksum").to_string().contains("damaged"));
}

#[test]
fn volumes_of_a_4d_image_are_its_channels() {
    let folder = tempdir().expect("a folder");
    let path = NiftiFile::new(&[2, 1, 2, 3]).write(folder.path(), "four.nii");
    let (volumes, image) = nifti::read_channels(&path).expect("read");
    let values: Vec<Vec<f32>> = volumes.iter().map(|v| v.voxels().to_f32()).collect();
    assert_eq!(values, [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]);
    assert_eq!(image.volume.shape(), [2, 1, 2]);
    assert!(nifti::read(&path).expect_err("4D").to_string().contains("4D image (2 x 1 x 2 x 3)"));
}

#[test]
fn labels_with_the_remainders_of_a_scale_are_whole() {
    let grid =
        |values: Vec<f32>| Volume::new([1, 1, 3], Voxels::F32(values.into()), Affine::IDENTITY).expect("a volume");
    assert_eq!(grid(vec![0.0003, 0.9999, 2.0009]).to_labels().expect("labels").labels(), [0, 1, 2]);
    for wrong in [1.4, 0.99, -0.6, 255.5, f32::NAN] {
        assert!(grid(vec![0.0, wrong, 1.0]).to_labels().is_err(), "{wrong}");
    }
}
