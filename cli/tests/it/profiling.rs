//! The options for profiling: the timeline of a run, and the sources of its kernels.

use std::fs;
use std::path::Path;
use std::process::Output;

use nephron::Device;
use nephron::io::npy;
use serde_json::Value;

use crate::support::{self, compiles_only, devices};

fn nephron(args: &[&str]) -> Output {
    let output = support::nephron().args(args).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn convolve(folder: &Path, device: &str, options: &[&str]) {
    let at = |name: &str| folder.join(name).display().to_string();
    npy::write_f32(Path::new(&at("x.npy")), &[1, 4, 3, 5, 6], &[1.0; 360]).expect("x");
    npy::write_f32(Path::new(&at("w.npy")), &[8, 4, 3, 3, 3], &[1.0; 864]).expect("w");
    let [x, w, y] = [format!("x={}", at("x.npy")), format!("w={}", at("w.npy")), format!("y={}", at("y.npy"))];
    let op = ["op", "conv3d", "--device", device, "--in", &x, "--in", &w, "--out", &y, "--repeat", "1"];
    nephron(&[&op, options].concat());
}

#[test]
fn a_trace_holds_every_op_in_its_stage() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("trace.json");
    let trace = path.display().to_string();
    nephron(&["bench", "resnet", "--filter", "batch 1", "--seconds", "0.01", "--device", "cpu", "--trace", &trace]);
    // Another trace is replaced, but nothing else: the path may be that of a scan.
    let other = folder.path().join("scan.nii");
    fs::write(&other, "a scan").expect("written");
    let again = ["bench", "resnet", "--filter", "batch 1", "--seconds", "0.01"];
    let (code, _, stderr) = support::run(&[&again[..], &["--trace", &other.display().to_string()]].concat());
    assert!(code == Some(2) && stderr.contains("is no trace"), "{stderr}");
    assert_eq!(fs::read(&other).expect("the file"), b"a scan");
    nephron(&[&again[..], &["--device", "cpu", "--trace", &trace]].concat());
    let trace: Value = serde_json::from_slice(&fs::read(&path).expect("a trace")).expect("JSON");
    let events = trace.as_array().expect("events");
    // Spans begin ("B") and end ("E"), here on one thread: spans that begin between the two events of a block are inside it.
    let of_kind = |kind: &str| events.iter().filter(|e| e["ph"] == kind).count();
    assert_eq!(of_kind("B"), of_kind("E"));
    let named = |name: &str| events.iter().filter(|e| e["name"] == name && e["ph"] == "B").count();
    assert!(named("block") > 0 && named("conv3d") >= 3 * named("block"), "{} and {}", named("block"), named("conv3d"));
    let first = events.iter().position(|e| e["name"] == "block" && e["ph"] == "B").expect("a block");
    assert_eq!(events[first]["args"]["i"], "0");
    let end = first + events[first..].iter().position(|e| e["name"] == "block" && e["ph"] == "E").expect("its end");
    let inside = events[first..end].iter().filter(|e| e["name"] == "conv3d" && e["ph"] == "B").count();
    assert_eq!(inside, 4, "a bottleneck's three convolutions and its projection");
    let operands = |e: &&Value| {
        e["args"]["operands"].as_str().is_some_and(|o| o.contains("f32 [1, 3, 1, 224, 224] by [3, 3, 1, 1, 1]"))
    };
    assert!(events.iter().any(|e| operands(&e)), "the fusion layer");
}

#[test]
fn kernels_are_dumped_with_a_table() {
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let folder = tempfile::tempdir().expect("folder");
        let dump = folder.path().join("dump");
        convolve(folder.path(), &device.name(), &["--dump", &dump.display().to_string()]);
        if *device == Device::Cpu {
            assert!(!dump.exists(), "nothing is compiled for a processor");
            continue;
        }
        let table = fs::read_to_string(dump.join("kernels.csv")).expect("a table");
        let rows: Vec<&str> = table.lines().skip(1).collect();
        let row = rows.iter().find(|row| row.to_lowercase().contains("conv3d")).expect("the convolution");
        let file = row.split(',').next().expect("a file");
        let source = fs::read_to_string(dump.join(file)).expect("its source");
        let sign = if device.name().starts_with("vulkan") { "OpEntryPoint" } else { "__global__" };
        assert!(source.contains(sign), "{file}: {source}");
        assert!(!dump.join("cubecl.log").exists(), "the log is taken apart");
        let compiled = device.name().starts_with("cuda:");
        assert_eq!(file.ends_with(".cu"), compiled, "{file}");
    }
}
