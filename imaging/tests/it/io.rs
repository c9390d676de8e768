//! NIfTI files: reading, reading back what was written (here and by another reader), and atomic writing.

use std::path::Path;

use nephron_imaging::io::nifti::{self, GeometrySource, Image, Version};
use nephron_imaging::volume::{Affine, Grid, Orientation, Volume, Voxels};
use tempfile::tempdir;

use crate::support::nifti_file::{NiftiFile, gzip};

fn assert_affine(what: &str, got: &Affine, want: &[f64; 12], bound: f64) {
    for (i, (got, want)) in got.0.as_flattened().iter().zip(want).enumerate() {
        assert!((got - want).abs() <= bound, "{what}: element {i} is {got}, expected {want}");
    }
}

fn values(path: &Path) -> Vec<f32> {
    nifti::read(path).expect("a sound file").volume.voxels().to_f32()
}

/// Every stored type in both byte orders and both versions of the format, with values at the ends of its range.
#[test]
fn every_element_type_is_read() {
    let folder = tempdir().expect("a folder");
    fn words<const N: usize>(big: bool, values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
        values
            .into_iter()
            .flat_map(|mut w| {
                if big {
                    w.reverse()
                };
                w
            })
            .collect()
    }
    for version in [1, 2] {
        for big in [false, true] {
            let cases: [(i16, Vec<u8>, [f32; 2], &str); 10] = [
                (2, vec![0, 255], [0.0, 255.0], "u8"),
                (256, vec![0x80, 0x7f], [-128.0, 127.0], "i16"),
                (4, words(big, [i16::MIN, i16::MAX].map(i16::to_le_bytes)), [-32768.0, 32767.0], "i16"),
                (512, words(big, [7u16, 300].map(u16::to_le_bytes)), [7.0, 300.0], "i16"),
                (512, words(big, [7u16, u16::MAX].map(u16::to_le_bytes)), [7.0, 65535.0], "f32"),
                (8, words(big, [-1024i32, 3071].map(i32::to_le_bytes)), [-1024.0, 3071.0], "i16"),
                (768, words(big, [0u32, u32::MAX].map(u32::to_le_bytes)), [0.0, u32::MAX as f32], "f32"),
                (1024, words(big, [-5i64, 5].map(i64::to_le_bytes)), [-5.0, 5.0], "i16"),
                (16, words(big, [-0.5f32, 1e30].map(f32::to_le_bytes)), [-0.5, 1e30], "f32"),
                (64, words(big, [0.1f64, 2.0].map(f64::to_le_bytes)), [0.1, 2.0], "f32"),
            ];
            for (datatype, voxels, want, loaded) in cases {
                let file = NiftiFile { datatype, voxels, big_endian: big, ..NiftiFile::new(&[2, 1, 1]) };
                let file = if version == 2 { file.version_2() } else { file };
                let image = nifti::read(file.write(folder.path(), "types.nii")).expect("a sound file");
                assert_eq!(image.volume.voxels().to_f32(), want, "code {datatype}, version {version}, big {big}");
                assert_eq!(image.volume.voxels().dtype().to_string(), loaded, "code {datatype}");
                assert_affine("sform", &image.volume.affine(), &file.srow, 0.0);
            }
        }
    }
}

#[test]
fn scale_follows_nibabel() {
    let folder = tempdir().expect("a folder");
    let raw = |scale| NiftiFile { scale, voxels: vec![1, 0, 3, 0], ..NiftiFile::new(&[2, 1, 1]) };
    for none in [[0.0, 5.0], [f64::NAN, 5.0], [f64::INFINITY, f64::NAN], [1.0, 0.0]] {
        let image = nifti::read(raw(none).write(folder.path(), "a.nii")).expect("no scale");
        assert_eq!((image.volume.voxels().to_f32(), image.header.scale), (vec![1.0, 3.0], None), "{none:?}");
    }
    assert_eq!(values(&raw([0.5, -1.0]).write(folder.path(), "a.nii")), [-0.5, 0.5]);
    // A CT stored with an offset stays whole numbers.
    let image = nifti::read(raw([1.0, -1024.0]).write(folder.path(), "a.nii")).expect("a sound file");
    assert_eq!(*image.volume.voxels(), Voxels::I16(vec![-1023, -1021].into()));
    let message = nifti::read(raw([2.0, f64::NAN]).write(folder.path(), "a.nii")).expect_err("no inter").to_string();
    assert!(message.contains("a.nii") && message.contains("slope of 2") && message.contains("NaN"), "{message}");
}

#[test]
fn axes_are_z_y_x_and_trailing_ones_go() {
    let folder = tempdir().expect("a folder");
    for dim in [&[3, 2, 4][..], &[3, 2, 4, 1], &[3, 2, 4, 1, 1, 1, 1]] {
        let image = nifti::read(NiftiFile::new(dim).write(folder.path(), "a.nii.gz")).expect("a sound file");
        assert_eq!(image.volume.shape(), [4, 2, 3]);
        assert_eq!(*image.volume.voxels(), Voxels::I16((0..24).collect::<Vec<i16>>().into()));
        assert_eq!(image.volume.spacing(), [3.0, 2.0, 1.0]);
    }
    let flat = nifti::read(NiftiFile::new(&[3, 2]).write(folder.path(), "a.nii")).expect("2D");
    assert_eq!(flat.volume.shape(), [1, 2, 3]);
}

#[test]
fn geometry_comes_from_sform_then_qform_then_pixdim() {
    let folder = tempdir().expect("a folder");
    let h = 0.5f64.sqrt();
    // A rotation by 90 degrees about z, with qfac -1.
    let both = NiftiFile {
        codes: [1, 2],
        quatern: [0.0, 0.0, h],
        qoffset: [5.0, 6.0, 7.0],
        pixdim: [-1.0, 1.0, 2.0, 3.0],
        ..NiftiFile::new(&[5, 4, 3])
    };
    let image = nifti::read(both.write(folder.path(), "a.nii")).expect("both");
    assert_eq!(image.header.geometry.source, GeometrySource::Sform);
    assert_eq!(image.header.geometry.sform_code, 2);
    assert_affine("sform", &image.volume.affine(), &both.srow, 0.0);
    assert!(image.warnings.iter().any(|w| w.contains("differ by up to")), "{:?}", image.warnings);

    let qform = NiftiFile { codes: [1, 0], ..both.clone() };
    let image = nifti::read(qform.write(folder.path(), "a.nii")).expect("qform");
    assert_eq!(image.header.geometry.source, GeometrySource::Qform);
    let want = [0.0, -2.0, 0.0, 5.0, 1.0, 0.0, 0.0, 6.0, 0.0, 0.0, -3.0, 7.0];
    assert_affine("qform", &image.volume.affine(), &want, 1e-6);

    let none = NiftiFile { codes: [0, 0], ..both };
    let image = nifti::read(none.write(folder.path(), "a.nii")).expect("pixdim");
    assert_eq!(image.header.geometry.source, GeometrySource::Pixdim);
    let want = [-1.0, 0.0, 0.0, 2.0, 0.0, 2.0, 0.0, -3.0, 0.0, 0.0, 3.0, -3.0];
    assert_affine("pixdim", &image.volume.affine(), &want, 0.0);
    assert!(image.warnings.iter().any(|w| w.contains("guess")), "{:?}", image.warnings);
}

/// b^2 + c^2 of these f32 numbers is 1 - 5e-8, which is a half turn and not one that is off by the root of that.
#[test]
fn a_half_turn_survives_rounding() {
    let folder = tempdir().expect("a folder");
    let h = f64::from(0.5f64.sqrt() as f32) - 6e-8;
    let file = NiftiFile { codes: [1, 0], quatern: [h, h, 0.0], ..NiftiFile::new(&[5, 4, 3]) };
    let image = nifti::read(file.write(folder.path(), "a.nii")).expect("a sound file");
    let want = [0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -3.0, 0.0];
    assert_affine("half turn", &image.volume.affine(), &want, 1e-6);
    let out = folder.path().join("out.nii");
    nifti::write(&out, &image).expect("written");
    let again = nifti::read(&out).expect("read back");
    assert_eq!(again.header.geometry, image.header.geometry);
}

#[test]
fn pairs_and_zipped_names_are_found() {
    let folder = tempdir().expect("a folder");
    let pair = NiftiFile { magic: b"ni1\0".to_vec(), vox_offset: 0.0, ..NiftiFile::new(&[3, 2, 2]) };
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.hdr"), pair.header()).expect("a header");
    std::fs::write(at("a.img"), &pair.voxels).expect("voxels");
    std::fs::write(at("b.hdr.gz"), gzip(&pair.header())).expect("a header");
    std::fs::write(at("b.img.gz"), gzip(&pair.voxels)).expect("voxels");
    for name in ["a.hdr", "a.img", "b.hdr.gz", "b.img.gz"] {
        assert_eq!(values(&at(name)), (0..12).map(|v| v as f32).collect::<Vec<_>>(), "{name}");
    }
    // The content and not the name determines whether a file is decompressed.
    std::fs::write(at("plain-name.nii"), gzip(&NiftiFile::new(&[2, 2, 1]).bytes())).expect("a file");
    assert_eq!(values(&at("plain-name.nii")), [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn extensions_before_the_voxels_are_skipped() {
    let folder = tempdir().expect("a folder");
    let file = NiftiFile { vox_offset: 4096.0, ..NiftiFile::new(&[3, 2, 2]) };
    assert_eq!(values(&file.write(folder.path(), "a.nii.gz"))[11], 11.0);
}

fn oblique() -> Affine {
    // Orthogonal columns of 0.8 x 0.8 x 2.5 mm, rotated about two axes, left-handed.
    let (s, c, t, u) = (0.3f64.sin(), 0.3f64.cos(), 0.2f64.sin(), 0.2f64.cos());
    Affine([
        [-0.8 * c, 0.8 * s * u, 2.5 * s * t, 101.25],
        [0.8 * s, 0.8 * c * u, 2.5 * c * t, -87.5],
        [0.0, -0.8 * t, 2.5 * u, 12.0],
    ])
}

#[test]
fn what_is_written_reads_back() {
    let folder = tempdir().expect("a folder");
    let voxels = [
        Voxels::U8((0..60).collect::<Vec<u8>>().into()),
        Voxels::I16((0..60).map(|v| v * 500 - 15_000).collect::<Vec<i16>>().into()),
        Voxels::F32((0..60).map(|v| v as f32 / 7.0).collect::<Vec<f32>>().into()),
    ];
    for voxels in voxels {
        for name in ["a.nii", "a.nii.gz"] {
            let image = Image::new(Volume::new([5, 4, 3], voxels.clone(), oblique()).expect("a volume"));
            let path = folder.path().join(name);
            nifti::write(&path, &image).expect("written");
            let again = nifti::read(&path).expect("read back");
            assert_eq!((again.volume.shape(), again.volume.voxels()), ([5, 4, 3], &voxels), "{name}");
            assert_affine("affine", &again.volume.affine(), oblique().0.as_flattened().try_into().expect("12"), 1e-5);
            let qform = again.header.geometry.qform.expect("a rigid affine has a qform");
            assert_affine("qform", &qform.affine, oblique().0.as_flattened().try_into().expect("12"), 1e-5);
            assert_eq!(again.warnings, Vec::<String>::new());
        }
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("the folder").map(|e| e.expect("e").file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary file stays: {left:?}");
}

/// The nifti crate parses NIfTI-1 headers independently.
#[test]
fn an_independent_reader_agrees() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("a.nii.gz");
    let volume =
        Volume::new([4, 3, 2], Voxels::I16((0..24).collect::<Vec<i16>>().into()), oblique()).expect("a volume");
    nifti::write(&path, &Image::new(volume)).expect("written");
    use ::nifti::{NiftiObject, NiftiType, NiftiVolume, RandomAccessNiftiVolume, ReaderOptions};
    let object = ReaderOptions::new().read_file(&path).expect("a NIfTI-1 file");
    let header = object.header();
    assert_eq!((header.sizeof_hdr, header.vox_offset, header.bitpix), (348, 352.0, 16));
    assert_eq!((header.sform_code, header.qform_code, header.xyzt_units), (1, 1, 2));
    assert_eq!((header.scl_slope, header.scl_inter), (1.0, 0.0));
    assert_eq!(header.srow_x, oblique().0[0].map(|v| v as f32));
    assert_eq!(header.srow_z, oblique().0[2].map(|v| v as f32));
    assert_eq!(header.pixdim[..4], [-1.0, 0.8, 0.8, 2.5]);
    let voxels = object.volume();
    assert_eq!((voxels.dim(), voxels.data_type()), (&[2u16, 3, 4][..], NiftiType::Int16));
    assert_eq!(voxels.get_f32(&[1, 2, 3]).expect("the last voxel"), 23.0);
    assert_eq!(voxels.get_f32(&[1, 0, 2]).expect("a voxel"), 13.0);
}

#[test]
fn codes_and_both_forms_survive_and_move_along() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("out.nii");
    let file = NiftiFile {
        codes: [1, 4],
        quatern: [0.1, -0.2, 0.3],
        qoffset: [5.0, 6.0, 7.0],
        units: 10,
        ..NiftiFile::new(&[8, 6, 4])
    };
    let image = nifti::read(file.write(folder.path(), "in.nii")).expect("a sound file");
    nifti::write(&path, &image).expect("written");
    let same = nifti::read(&path).expect("read back");
    assert_eq!(same.header.geometry, image.header.geometry);
    assert_eq!(same.header.units, 10);

    // On a coarser grid sform and qform still give the middle of the image the same position.
    let grid = Grid::with_spacing(&image.volume, [2.0, 4.0, 6.0]).expect("a grid");
    assert_eq!(grid.shape, [2, 3, 4]);
    let coarse = Volume::new(grid.shape, Voxels::U8(vec![0; 24].into()), grid.affine).expect("a volume");
    nifti::write(&path, &image.with_volume(coarse)).expect("written");
    let again = nifti::read(&path).expect("read back").header.geometry;
    let (old, new) = (image.header.geometry.qform.expect("qform"), again.qform.expect("qform"));
    assert_eq!((new.code, again.sform_code), (1, 4));
    let (before, after) = (old.affine.apply([3.5, 2.5, 1.5]), new.affine.apply([1.5, 1.0, 0.5]));
    for axis in 0..3 {
        assert!((before[axis] - after[axis]).abs() < 1e-5, "{before:?} {after:?}");
    }
    assert_eq!(image.header.geometry.affine.apply([3.5, 2.5, 1.5]), again.affine.apply([1.5, 1.0, 0.5]));
}

#[test]
fn a_qform_that_cannot_say_it_gets_an_sform() {
    let folder = tempdir().expect("a folder");
    let file = NiftiFile { codes: [3, 0], quatern: [0.1, -0.2, 0.3], ..NiftiFile::new(&[8, 6, 4]) };
    let mut image = nifti::read(file.write(folder.path(), "in.nii")).expect("a sound file");
    let mut sheared = image.volume.affine();
    sheared.0[0][1] += 0.3;
    image.volume = image.volume.with_affine(sheared).expect("a volume");
    let path = folder.path().join("out.nii");
    nifti::write(&path, &image).expect("written");
    let again = nifti::read(&path).expect("read back");
    assert_eq!((again.header.geometry.sform_code, again.header.geometry.qform), (3, None));
    assert_affine(
        "affine",
        &again.volume.affine(),
        image.volume.affine().0.as_flattened().try_into().expect("12"),
        1e-6,
    );
    assert!(again.warnings.iter().any(|w| w.contains("right angles")), "{:?}", again.warnings);
}

#[test]
fn pixdim_geometry_stays_or_becomes_an_sform() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("out.nii");
    let file = NiftiFile { codes: [0, 0], ..NiftiFile::new(&[8, 6, 4]) };
    let image = nifti::read(file.write(folder.path(), "in.nii")).expect("a sound file");
    nifti::write(&path, &image).expect("written");
    assert_eq!(nifti::read(&path).expect("read back").header.geometry, image.header.geometry);
    let turned = image.volume.reorient(Orientation::RAS).expect("turned");
    nifti::write(&path, &image.with_volume(turned.clone())).expect("written");
    let again = nifti::read(&path).expect("read back");
    assert_eq!((again.header.geometry.sform_code, again.volume.affine()), (2, turned.affine()));
}

#[test]
fn long_axes_make_it_nifti_2() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("long.nii.gz");
    let volume = Volume::new([1, 1, 40_000], Voxels::U8(vec![3; 40_000].into()), oblique()).expect("a volume");
    nifti::write(&path, &Image::new(volume)).expect("written");
    let again = nifti::read(&path).expect("read back");
    assert_eq!((again.header.version, again.volume.shape()), (Version::Two, [1, 1, 40_000]));
    assert_eq!(again.volume.affine(), oblique());
}

#[test]
fn labels_in_any_type_become_u8() {
    let folder = tempdir().expect("a folder");
    for (datatype, voxels) in [(512i16, vec![1u8, 0, 2, 0]), (16, [1f32, 2.0].map(f32::to_le_bytes).concat())] {
        let file = NiftiFile { datatype, voxels, ..NiftiFile::new(&[2, 1, 1]) };
        let image = nifti::read_labels(file.write(folder.path(), "mask.nii")).expect("labels");
        assert_eq!(image.labels.labels(), [1, 2]);
    }
    for (value, shown) in [(0.5f32, "0.5"), (256.0, "256"), (-1.0, "-1"), (f32::NAN, "NaN")] {
        let voxels = [0f32, value].map(f32::to_le_bytes).concat();
        let file = NiftiFile { datatype: 16, voxels, ..NiftiFile::new(&[1, 2, 1]) };
        let message = nifti::read_labels(file.write(folder.path(), "mask.nii")).expect_err("no label").to_string();
        assert!(message.contains("mask.nii") && message.contains(shown) && message.contains("[0, 1, 0]"), "{message}");
    }
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("a.bin");
    std::fs::write(&path, b"old").expect("a file");
    let error = nephron_imaging::io::write_atomic(&path, |out| {
        use std::io::Write;
        out.write_all(b"half")?;
        Err(std::io::Error::other("the disk is full"))
    });
    let message = error.expect_err("it failed").to_string();
    assert!(message.contains("a.bin") && message.contains("the disk is full"), "{message}");
    assert_eq!(std::fs::read(&path).expect("the old file"), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    for wrong in [folder.path().to_path_buf(), folder.path().join("none/a.bin")] {
        nephron_imaging::io::write_atomic(&wrong, |_| Ok(())).expect_err("nowhere to write");
    }
}
