//! Every op of `nephron op` against arrays that PyTorch, SciPy and MONAI computed in f64 (golden/make.py).

use std::collections::BTreeMap;
use std::path::Path;

use nephron::Device;
use nephron::io::npy;
use nephron::io::weights::Weights;
use serde_json::Value;

use crate::support::{self, compiles_only, devices};

fn golden(file: &str) -> std::path::PathBuf {
    support::root().join("tests/golden").join(file)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// Runs one case on a device and compares each output, element by element, with its own bound.
fn run(case: &Value, arrays: &Weights, device: &Device, folder: &Path) {
    let (name, op) = (text(case, "name"), text(case, "op"));
    let mut args: Vec<String> = vec!["nephron".into(), "op".into(), op.into(), "--device".into(), device.name()];
    for input in list(case, "inputs") {
        let key = text(input, "name");
        let (shape, data) = arrays.get(&format!("{name}/in/{key}")).expect("an input");
        let path = folder.join(format!("{key}.npy"));
        if input["labels"].as_bool().expect("a flag") {
            let labels: Vec<u8> = data.iter().map(|v| *v as u8).collect();
            npy::write_u8(&path, &shape, &labels).expect("a written array");
        } else {
            npy::write_f32(&path, &shape, &data).expect("a written array");
        }
        args.extend(["--in".into(), format!("{key}={}", path.display())]);
    }
    for attr in list(case, "attrs") {
        args.extend(["--attr".into(), attr.as_str().expect("text").into()]);
    }
    let out = |key: &str| folder.join(format!("out_{key}.npy"));
    let keys: Vec<&str> = list(case, "outputs").iter().map(|k| k.as_str().expect("text")).collect();
    for key in &keys {
        args.extend(["--out".into(), format!("{key}={}", out(key).display())]);
    }
    nephron_cli::run_from(args).unwrap_or_else(|e| panic!("{name} on {}: {e}", device.name()));
    for key in keys {
        let (shape, got) = npy::read_f32(out(key)).expect("an output");
        let (want_shape, want) = arrays.get(&format!("{name}/want/{key}")).expect("a golden output");
        let (_, bound) = arrays.get(&format!("{name}/bound/{key}")).expect("a bound");
        assert_eq!(shape, want_shape, "{name} {key} on {}", device.name());
        for (i, ((got, want), bound)) in got.iter().zip(&want).zip(&bound).enumerate() {
            let difference = (f64::from(*got) - f64::from(*want)).abs();
            assert!(
                difference <= f64::from(*bound),
                "{name} {key}[{i}] on {}: {got}, golden {want}, bound {bound:e}",
                device.name()
            );
        }
    }
}

/// Runs all cases of the ops that `wanted` selects on every device, and returns their number.
fn run_all(wanted: &[&str]) {
    let cases: Value =
        serde_json::from_str(&std::fs::read_to_string(golden("cases.json")).expect("cases.json")).expect("json");
    let arrays = Weights::read(golden("ops.safetensors")).expect("ops.safetensors");
    let mut count = BTreeMap::new();
    for case in list(&cases, "cases").iter().filter(|c| wanted.contains(&text(c, "op"))) {
        // The command cannot open the device that only compiles; the tests of the ops launch every kernel on it.
        for device in devices().iter().filter(|d| !compiles_only(d)) {
            let folder = tempfile::tempdir().expect("a folder");
            run(case, &arrays, device, folder.path());
        }
        *count.entry(text(case, "op").to_owned()).or_insert(0) += 1;
    }
    assert_eq!(count.len(), wanted.len(), "every op has cases: {count:?}");
    println!("{count:?} on {:?}", devices());
}

const CONVOLUTIONS: &[&str] = &["conv3d", "conv3d_backward", "conv_transpose3d"];
const NORMS: &[&str] =
    &["instance_norm", "batch_norm", "leaky_relu", "softmax", "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d"];
const SAMPLING: &[&str] = &["interpolate3d", "bspline_resample3d", "grid_sample3d", "affine_grid3d", "warp3d"];
const LOSSES: &[&str] = &["dice", "dice_ce", "affine_dice", "segmentation_loss", "cross_entropy"];
const GRADIENTS: &[&str] = &[
    "conv_transpose3d_backward",
    "instance_norm_backward",
    "batch_norm_train_backward",
    "leaky_relu_backward",
    "max_pool3d_backward",
    "avg_pool3d_backward",
];

#[test]
fn convolutions() {
    run_all(CONVOLUTIONS);
}

#[test]
fn norms_activations_and_pools() {
    run_all(NORMS);
}

#[test]
fn sampling() {
    run_all(SAMPLING);
}

#[test]
fn losses() {
    run_all(LOSSES);
}

#[test]
fn gradients() {
    run_all(GRADIENTS);
}

/// Golden cases of an op that no test above names would never be run.
#[test]
fn every_golden_case_is_run() {
    let cases: Value =
        serde_json::from_str(&std::fs::read_to_string(golden("cases.json")).expect("cases.json")).expect("json");
    let named = [CONVOLUTIONS, NORMS, SAMPLING, LOSSES, GRADIENTS].concat();
    for case in list(&cases, "cases") {
        assert!(named.contains(&text(case, "op")), "{} is in no test of this file", text(case, "op"));
    }
}
