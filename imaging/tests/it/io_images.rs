//! MetaImage and NRRD: values and geometry as ITK has them, and what is refused.

use std::io::Write;
use std::path::{Path, PathBuf};

use nephron_imaging::io::images;
use nephron_imaging::volume::Voxels;

/// 4 x 3 x 2 voxels of int16, i fastest.
const VALUES: [i16; 24] = {
    let mut values = [0; 24];
    let mut i = 0;
    while i < 24 {
        values[i] = i as i16 * 37 - 400;
        i += 1;
    }
    values
};

fn little() -> Vec<u8> {
    VALUES.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).expect("compressed");
    out.finish().expect("compressed")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).expect("compressed");
    out.finish().expect("compressed")
}

fn write(folder: &Path, name: &str, header: &str, voxels: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, [header.as_bytes(), voxels].concat()).expect("written");
    path
}

/// i towards the front, j towards the left, k towards the head, in LPS: (0, -1, 0), (1, 0, 0), (0, 0, 1).
const MATRIX: &str = "0 -1 0 1 0 0 0 0 1";

fn metaimage(more: &str, file: &str) -> String {
    format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\n{more}TransformMatrix = {MATRIX}\nOffset = 10 -20 30\n\
         CenterOfRotation = 0 0 0\nAnatomicalOrientation = ALS\nElementSpacing = 0.5 2 3\nDimSize = 4 3 2\n\
         ElementType = MET_SHORT\nElementDataFile = {file}\n"
    )
}

fn nrrd(more: &str) -> String {
    format!("NRRD0004\n# a comment\ntype: short\ndimension: 3\nsizes: 4 3 2\nkind := not a field\n{more}\n")
}

const LPS: &str =
    "space: left-posterior-superior\nspace directions: (0,-0.5,0) (2,0,0) (0,0,3)\nspace origin: (10,-20,30)\n";

fn check(path: &Path) {
    let image = images::read_ct(path).unwrap_or_else(|e| panic!("{e}"));
    let name = path.display();
    assert_eq!(image.volume.shape(), [2, 3, 4], "{name}");
    let Voxels::I16(values) = image.volume.voxels() else { panic!("{name}: int16 stays int16") };
    assert_eq!(values.as_slice(), VALUES, "{name}");
    // RAS: x and y change their sign.
    let want = [[0.0, -2.0, 0.0, -10.0], [0.5, 0.0, 0.0, 20.0], [0.0, 0.0, 3.0, 30.0]];
    assert_eq!(image.volume.affine().0, want, "{name}");
    assert_eq!(image.header_spacing(), [3.0, 2.0, 0.5], "{name}");
    assert!(image.warnings.is_empty(), "{name}: {:?}", image.warnings);
}

#[test]
fn metaimages_are_read_as_itk_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let big: Vec<u8> = VALUES.iter().flat_map(|v| v.to_be_bytes()).collect();
    check(&write(at, "a.mha", &metaimage("", "LOCAL"), &little()));
    check(&write(at, "b.MHA", &metaimage("BinaryDataByteOrderMSB = True\n", "LOCAL"), &big));
    check(&write(
        at,
        "c.mha",
        &metaimage("CompressedData = True\nCompressedDataSize = 99\n", "LOCAL"),
        &zlib(&little()),
    ));
    let apart = write(at, "d.mhd", &metaimage("", "d.raw"), &[]);
    std::fs::write(at.join("d.raw"), little()).expect("written");
    check(&apart);
    assert_eq!(images::files(&apart), [apart.clone(), at.join("d.raw")]);
    // Truth is the first letter to MetaIO; without BinaryData voxels are binary.
    for (k, head) in ["BinaryDataByteOrderMSB = T\n", "ElementByteOrderMSB = 1\n", "BinaryDataByteOrderMSB = true\n"]
        .iter()
        .enumerate()
    {
        check(&write(at, &format!("t{k}.mha"), &metaimage(head, "LOCAL"), &big));
    }
    let plain = metaimage("", "LOCAL");
    check(&write(at, "u.mha", &plain.replace("BinaryData = True\n", ""), &little()));
    check(&write(at, "v.mha", &plain.replace("BinaryData = True", "BinaryData = 1"), &little()));
    let spaced = write(at, "w.mhd", &metaimage("", "patient 1.raw"), &[]);
    std::fs::write(at.join("patient 1.raw"), little()).expect("written");
    check(&spaced);
    // The voxels are the end of the file, whatever stands before them.
    let end = write(at, "e.mhd", &metaimage("HeaderSize = -1\n", "e.raw"), &[]);
    std::fs::write(at.join("e.raw"), [&[7; 5], little().as_slice()].concat()).expect("written");
    check(&end);
    let (volumes, _) = images::read_channels(at.join("a.mha")).expect("one channel");
    assert_eq!(volumes.len(), 1);
}

#[test]
fn nrrds_are_read_as_itk_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let plain = "encoding: raw\nendian: little\n";
    check(&write(at, "a.nrrd", &nrrd(&format!("{LPS}{plain}")), &little()));
    check(&write(at, "b.nrrd", &nrrd(&format!("{LPS}encoding: gzip\nendian: little\n")), &gzip(&little())));
    let ras = "space: RAS\nspace directions: (0,0.5,0) (-2,0,0) (0,0,3)\nspace origin: (-10,20,30)\n";
    check(&write(at, "c.nrrd", &nrrd(&format!("{ras}{plain}")), &little()));
    let las = "space: left-anterior-superior\nspace directions: (0,0.5,0) (2,0,0) (0,0,3)\nspace origin: (10,20,30)\n";
    check(&write(at, "d.nrrd", &nrrd(&format!("{las}{plain}")), &little()));
    let apart = write(at, "e.nhdr", &nrrd(&format!("{LPS}{plain}data file: e.raw\n")), &[]);
    std::fs::write(at.join("e.raw"), little()).expect("written");
    check(&apart);
    // Windows' ends of lines.
    check(&write(at, "f.nrrd", &nrrd(&format!("{LPS}{plain}")).replace('\n', "\r\n"), &little()));
    // Without a space: the axes of LPS. A minimum is a voxel's outer face, unless the samples are nodes; SimpleITK's values.
    for (centers, origin) in [
        ("", [-4.5, -6.0, 7.5]),
        ("centers: node node node\n", [-4.0, -5.0, 6.0]),
        ("centerings: node cell ???\n", [-4.0, -6.0, 7.5]),
    ] {
        let head = nrrd(&format!("kinds: domain space ???\nspacings: 1 2 3\naxis mins: 4 5 6\n{centers}{plain}"));
        let image = images::read(write(at, "g.nrrd", &head, &little())).expect("an image");
        let [x, y, z] = origin;
        assert_eq!(
            image.volume.affine().0,
            [[-1.0, 0.0, 0.0, x], [0.0, -2.0, 0.0, y], [0.0, 0.0, 3.0, z]],
            "{centers}"
        );
    }
    let mins = images::read(write(at, "h.nrrd", &nrrd(&format!("axis mins: 4 5 6\n{plain}")), &little()));
    assert_eq!(
        mins.expect("an image").volume.affine().0,
        [[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    );
    // A gantry's tilt is told as of NIfTI.
    let tilted = LPS.replace("(0,0,3)", "(0,0.5,3)");
    let image = images::read(write(at, "i.nrrd", &nrrd(&format!("{tilted}{plain}")), &little())).expect("an image");
    assert!(image.warnings.iter().any(|w| w.contains("right angles")), "{:?}", image.warnings);
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let refused = |name: &str, header: &str, voxels: &[u8], why: &str| {
        let message = images::read(write(at, name, header, voxels)).expect_err(name).to_string();
        assert!(message.contains(name) && message.contains(why) && message.lines().count() == 1, "{message}");
    };
    let local = metaimage("", "LOCAL");
    refused("short.mha", &local, &little()[..40], "holds at most 40 bytes");
    refused("cut.mha", &metaimage("CompressedData = True\n", "LOCAL"), &zlib(&little())[..20], "zlib stream");
    for (part, instead, why) in [
        ("NDims = 3", "NDims = 4", "3 axes, found 4"),
        ("MET_SHORT", "MET_STRING", "number type"),
        ("DimSize = 4 3 2", "DimSize = 4 0 2", "lengths of at least 1"),
        ("DimSize = 4 3 2", "DimSize = 4 3", "expected 3 numbers, found 2"),
        ("ElementSpacing = 0.5", "ElementSpacing = -0.5", "above 0"),
        ("LOCAL", "LIST", "one file"),
        ("LOCAL", "s%03d.raw 1 9 1", "one file"),
        ("BinaryData = True", "BinaryData = False", "text"),
        ("BinaryData = True", "BinaryData = yes", "expected True or False, found yes"),
        ("BinaryData = True", "HeaderSize = 18446744073709551615", "HeaderSize"),
        ("BinaryData = True", "ElementNumberOfChannels = 3", "one value a voxel"),
        ("DimSize = 4 3 2", "DimSize = 999999999 999999999 999999999", "memory"),
        ("Offset = 10", "Offset = nan", "finite"),
        ("DimSize", "Size", "DimSize is missing"),
    ] {
        refused("wrong.mha", &local.replace(part, instead), &little(), why);
    }
    let plain = nrrd(&format!("{LPS}encoding: raw\nendian: little\n"));
    refused("short.nrrd", &plain, &little()[..40], "holds at most 40 bytes");
    for (part, instead, why) in [
        ("NRRD0004", "NRRD9999", "NRRD0001"),
        ("dimension: 3", "dimension: 4", "dimension 4"),
        ("encoding: raw", "encoding: bzip2", "raw or gzip, found"),
        ("endian: little\n", "", "expected little or big"),
        ("left-posterior-superior", "scanner-xyz", "space: expected"),
        ("space: left-posterior-superior\n", "", "without a space"),
        ("type: short", "type: block", "number type"),
        ("space directions: (0,-0.5,0) ", "space directions: none ", "expected 3 vectors"),
        ("encoding: raw", "encoding: raw\nspace units: \"cm\" \"cm\" \"cm\"", "expected mm"),
        ("encoding: raw", "encoding: raw\nline skip: 3", "line skip: expected 0, found 3"),
        ("encoding: raw", "encoding: raw\nbyte skip: 18446744073709551615", "byte skip"),
        ("encoding: raw", "encoding: raw\nkinds: RGB-color domain domain", "found RGB-color"),
    ] {
        refused("wrong.nrrd", &plain.replace(part, instead), &little(), why);
    }
    refused("empty.nrrd", "", &[], "NRRD0001");
    refused("empty.mha", "", &[], "NDims is missing");
}

#[test]
fn names_lose_the_endings_of_images() {
    let stem = |name: &str| images::stem(Path::new(name));
    for name in ["a.b.nii.gz", "a.b.nii", "a.b.hdr", "a.b.mha", "x/a.b.NRRD", "a.b.nhdr"] {
        assert_eq!(stem(name).as_deref(), Some("a.b"), "{name}");
    }
    assert_eq!((stem("a.mha.gz"), stem("notes.txt"), stem("a")), (None, None, None));
}
