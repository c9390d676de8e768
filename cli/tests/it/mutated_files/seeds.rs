//! Tiny valid files of every format that the program reads, and the calls that read them.

use std::fs;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::support;
use crate::support::checkpoint_file;
use crate::support::nifti_file::{NiftiFile, gzip};

/// Names of the formats in the order in which inputs take turns.
pub const FORMATS: [&str; 22] = [
    "nii",
    "nii.gz",
    "nii2",
    "hdr",
    "img",
    "mha",
    "nrrd",
    "nrrd gzip",
    "npy f32",
    "npy fortran",
    "npy u8",
    "safetensors",
    "pth",
    "plans.json",
    "dataset.json",
    "config.json",
    "tfm",
    "mat",
    "transform json",
    "scores csv",
    "truth csv",
    "readers csv",
];
/// The last format, which has two readers.
pub const RESULT: &str = "result.json";

/// A file that is damaged, with what is known about it.
pub struct Seed {
    /// The name of the file in the folder of an input.
    pub file: &'static str,
    pub bytes: Vec<u8>,
    /// Whether numbers stand in it as words.
    pub text: bool,
    /// Whether the damage is done before the file is compressed.
    pub gzip_after: bool,
}

/// An int16 image of 7 x 6 x 5 voxels with small values, which is also a mask.
fn image() -> NiftiFile {
    let file = NiftiFile::new(&[7, 6, 5]);
    let voxels = (0..210i16).flat_map(|n| (if (60..150).contains(&n) { 1 + n % 2 } else { 0 }).to_le_bytes()).collect();
    NiftiFile { voxels, ..file }
}

fn metaimage() -> Vec<u8> {
    let header = "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\n\
                  ElementSpacing = 1 2 3\nDimSize = 7 6 5\nElementType = MET_SHORT\nElementDataFile = LOCAL\n";
    [header.as_bytes(), &image().voxels].concat()
}

fn nrrd(encoding: &str, voxels: &[u8]) -> Vec<u8> {
    let header = format!(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 7 6 5\nspace: LPS\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n\
         space origin: (1,2,3)\nencoding: {encoding}\nendian: little\n\n"
    );
    [header.as_bytes(), voxels].concat()
}

fn npy(descr: &str, fortran: bool, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': (1, 1, 2, 3, 4), }}\n");
    [b"\x93NUMPY\x01\x00", &(dict.len() as u16).to_le_bytes()[..], dict.as_bytes(), data].concat()
}

fn matlab() -> Vec<u8> {
    let matrix = |name: &str, values: &[f64]| {
        let head = [0, values.len() as i32, 1, 0, name.len() as i32 + 1].map(i32::to_le_bytes).concat();
        let values: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        [&head[..], name.as_bytes(), b"\0", &values].concat()
    };
    let affine = matrix("AffineTransform_double_3_3", &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 2.5, 0.0, 0.0]);
    [affine, matrix("fixed", &[0.0, 0.0, 0.0])].concat()
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(support::root().join("tests/golden/unet").join(name)).expect("a golden file")
}

/// A result of `diagnose` with two phases, one of them aligned.
fn result() -> Vec<u8> {
    let overlap = json!({"kidney": {"soft": 0.5, "hard": 0.75}, "tumour": {"soft": 0.25, "hard": 0.125}});
    let rows = json!([[1.0, 0.0, 0.0, 2.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    let registration = json!({"transformation": "affine", "theta": rows, "align_corners": true, "transform": rows,
        "identity": overlap, "centre_of_mass": overlap, "aligned": overlap, "loss": -0.5,
        "channels": [{"labels": [1, 2], "weight": 0.5, "dice": 0.75}], "iterations": 30, "converged": true,
        "outcome": "converged", "seconds": 1.5, "warnings": []});
    let phase = |name: &str, registration: &Value| {
        json!({"phase": name, "input": "in.nii.gz", "files": [], "mask": "m.nii.gz", "kidney_ml": 150.5, "tumour_ml": 2.5,
            "tumour_diameter": {"maximum_3d_diameter_mm": 30.5, "maximum_2d_diameter_mm": 20.25}, "aligned": "a.nii.gz",
            "aligned_mask": "b.nii.gz", "registration": registration, "transform": null, "pictures": []})
    };
    let result = json!({"schema_version": 2, "program": "nephron 0.1.0", "device": "cpu",
        "models": {"segmentation": [], "classification": []}, "notes": [], "warnings": [], "reference": "portal", "slices": [0, 41],
        "phases": [phase("portal", &Value::Null), phase("arterial", &registration)],
        "classes": ["oncocytoma", "AML", "chRCC", "pRCC", "ccRCC"],
        "lesions": [], "specks": {"count": 0, "volume_ml": 0.0}, "together": false, "lesion": 1, "not_classified": null,
        "classification": {"probabilities": [0.125, 0.125, 0.25, 0.25, 0.25], "decision": "ccRCC", "images": [], "crops": [],
            "models": 1},
        "seconds": {"segment": 1.0, "align": 2.0, "classify": 0.5, "write": 0.25, "total": 4.0}});
    result.to_string().into_bytes()
}

/// The valid file of a format.
pub fn seed(format: &str) -> Seed {
    let floats: Vec<u8> = (0..24u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
    let (file, bytes) = match format {
        "nii" => ("image.nii", image().bytes()),
        "nii.gz" => ("image.nii.gz", image().bytes()),
        "nii2" => ("image.nii", image().version_2().bytes()),
        "hdr" => ("image.hdr", NiftiFile { magic: b"ni1\0".to_vec(), vox_offset: 0.0, ..image() }.header()),
        "img" => ("image.img", image().voxels),
        "mha" => ("image.mha", metaimage()),
        "nrrd" => ("image.nrrd", nrrd("raw", &image().voxels)),
        "nrrd gzip" => ("image.nrrd", nrrd("gzip", &gzip(&image().voxels))),
        "npy f32" => ("x.npy", npy("<f4", false, &floats)),
        "npy fortran" => ("x.npy", npy("<f4", true, &floats)),
        "npy u8" => ("x.npy", npy("|u1", false, &[1; 24])),
        "safetensors" => ("model/weights.safetensors", golden("weights.safetensors")),
        "pth" => ("model/weights.pth", golden("checkpoint_final.pth")),
        "plans.json" => ("model/plans.json", golden("plans.json")),
        "dataset.json" => ("model/dataset.json", golden("dataset.json")),
        "config.json" => {
            ("classifier/classification/config.json", br#"{"depth": 18, "input_size": 48, "clip": [-40, 347], "mean": 112.7,
            "sd": 97.8, "margin": "5mm", "thresholds": [0.5, 0.5, 0.5, 0.5, 0.5], "weights": ["w.pth"]}"#.to_vec())
        }
        "tfm" => {
            ("t.tfm", b"#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: 1 0 0 0 1 0 0 0 1 2.5 0 0\nFixedParameters: 0 0 0\n".to_vec())
        }
        "mat" => ("t.mat", matlab()),
        "transform json" => ("t.json", br#"{"fixed_to_moving_ras": [[1, 0, 0, 2.5], [0, 1, 0, 0], [0, 0, 1.0, 0]]}"#.to_vec()),
        "scores csv" => ("scores.csv", scores()),
        "truth csv" => ("truth.csv", b"case,truth\na,AML\nb,ccRCC\nc,1\n".to_vec()),
        "readers csv" => ("readers.csv", b"case,reader,first,second\na,anna,AML,ccRCC\nb,anna,0,\nc,ben,1,0\n".to_vec()),
        _ => ("results/a/result.json", result()),
    };
    let text =
        [".json", ".csv", ".tfm", ".mha", ".nrrd"].iter().any(|end| file.ends_with(end)) || format.starts_with("npy");
    Seed { file, bytes, text, gzip_after: format == "nii.gz" }
}

fn scores() -> Vec<u8> {
    b"case,AML,ccRCC\na,0.75,0.25\nb,0.5,0.5\nc,0.125,0.875\n".to_vec()
}

/// Writes what the calls of an input read beside the damaged file.
pub fn prepare(folder: &Path) {
    let write = |name: &str, bytes: Vec<u8>| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    };
    write("good.nii", image().bytes());
    write("good/image.nii", image().bytes());
    write("good.tfm", seed("tfm").bytes);
    for name in ["plans.json", "dataset.json"] {
        write(&format!("model/{name}"), golden(name));
    }
    write("scores.csv", scores());
    write("truth.csv", seed("truth csv").bytes);
    write("results/b/result.json", result());
    write("results-truth.csv", b"case,truth\na,AML\nb,ccRCC\n".to_vec());
    checkpoint_file::write(&folder.join("w.pth"), &[("conv1.weight", &[1], &[1.0])]);
    fs::create_dir_all(folder.join("classifier/classification")).expect("made");
    fs::copy(folder.join("w.pth"), folder.join("classifier/classification/w.pth")).expect("copied");
}

/// Writes the damaged file, and its other half or the weights where a call needs them.
pub fn place(folder: &Path, format: &str, seed: &Seed, bytes: &[u8]) {
    let path = folder.join(seed.file);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let half = match format {
        "hdr" => Some("img"),
        "img" => Some("hdr"),
        _ => None,
    };
    if let Some(half) = half {
        let other = self::seed(half);
        fs::write(folder.join(other.file), other.bytes).expect("written");
    }
    if matches!(format, "plans.json" | "dataset.json") {
        fs::write(folder.join("model/weights.safetensors"), golden("weights.safetensors")).expect("written");
    }
    fs::write(path, if seed.gzip_after { gzip(bytes) } else { bytes.to_vec() }).expect("written");
}

/// Removes what [`place`] has written and what [`prepare`] has not.
pub fn clean(folder: &Path, seed: &Seed) {
    for name in [seed.file, "image.hdr", "image.img", "model/weights.safetensors", "model/weights.pth"] {
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir_all(folder.join("out"));
    prepare(folder);
}

/// A call that reads the file.
pub fn call(format: &str, file: &str, folder: &Path, rng: &mut ChaCha8Rng) -> Vec<PathBuf> {
    let at = |name: &str| folder.join(name);
    let (input, out, good) = (at(file), at("out"), at("good.nii"));
    let word = |word: &str| PathBuf::from(word);
    let words = |text: &str| text.split(' ').map(PathBuf::from).collect::<Vec<_>>();
    match format {
        "nii" | "nii.gz" | "nii2" | "hdr" | "img" | "mha" | "nrrd" | "nrrd gzip" => match rng.random_range(0..6) {
            0 => vec![word("info"), input],
            1 => [words("resample --spacing 2,2,2"), vec![input, at("out.nii.gz")]].concat(),
            2 => {
                [words("warp --like"), vec![good, word("--transform"), at("good.tfm"), word("-o"), out, input]].concat()
            }
            3 => [words("segment --model"), vec![at("segmenter"), word("-o"), out, input]].concat(),
            4 => {
                let start = words("register --max-iterations 3 --fixed");
                [start, vec![good, word("--moving"), input, word("-o"), out]].concat()
            }
            _ => [
                words("warp --interp soft --transform"),
                vec![at("good.tfm"), word("--like"), input, word("-o"), out, good],
            ]
            .concat(),
        },
        "npy f32" | "npy fortran" | "npy u8" => {
            let pair = |name: &str| PathBuf::from(format!("{name}={}", input.display()));
            match rng.random_range(0..4) {
                0 => [words("op leaky_relu --in"), vec![pair("x")]].concat(),
                1 => [words("op softmax --in"), vec![pair("x")]].concat(),
                2 => [words("op interpolate3d --attr size=2,2,2 --in"), vec![pair("x")]].concat(),
                _ => [words("op conv3d --in"), vec![pair("x"), word("--in"), pair("w")]].concat(),
            }
        }
        "safetensors" | "pth" | "plans.json" | "dataset.json" => {
            [words("segment --model"), vec![at("model"), word("-o"), out, good]].concat()
        }
        "config.json" => {
            let pair = |phase: &str| vec![word(phase), good.clone(), good.clone()];
            let phases = ["--portal", "--arterial", "--delayed"].map(pair).concat();
            [words("classify --model"), vec![at("classifier")], phases].concat()
        }
        "tfm" | "mat" | "transform json" => {
            let kind = ["linear", "nearest", "cubic", "soft"][rng.random_range(0..4)];
            let start = words(&format!("warp --interp {kind} --transform"));
            let inverse = if rng.random() { vec![word("--inverse")] } else { vec![] };
            [start, vec![input, word("--like"), good.clone(), word("-o"), out], inverse, vec![good]].concat()
        }
        "scores csv" | "truth csv" | "readers csv" => {
            let start = words("evaluate classification --bootstrap 2 --permutations 2 --scores");
            let readers = if format == "readers csv" { vec![word("--readers"), at("readers.csv")] } else { vec![] };
            [start, vec![at("scores.csv"), word("--truth"), at("truth.csv"), word("-o"), out], readers].concat()
        }
        _ if rng.random_range(0..3) == 0 => [words("evaluate registration"), vec![at("results")]].concat(),
        _ => {
            let start = words("evaluate classification --bootstrap 2 --permutations 2 --results");
            [start, vec![at("results"), word("--truth"), at("results-truth.csv"), word("-o"), out]].concat()
        }
    }
}
