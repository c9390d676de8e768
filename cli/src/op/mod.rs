//! `nephron op`: runs one operation on .npy arrays, with the layout and the attributes of PyTorch.

mod arrays;
mod attributes;
mod gradients;
mod table;

use std::path::PathBuf;

use serde::Serialize;

use super::Context;
use crate::error::{Error, Result};
use crate::options::DeviceArgs;
use crate::samples::Samples;
use arrays::Inputs;
use attributes::Attributes;
use nephron::io::try_beside;
use nephron::tensor::DType;

const EXAMPLES: &str = "\
Examples:
  nephron op conv3d --in x=x.npy w=w.npy --out y=y.npy --attr padding=1,1,1
  nephron op instance_norm --in x=x.npy --out y=y.npy --device cuda --dtype f16 --repeat 20";

/// Run one operation on .npy arrays (f32 [n, c, d, h, w] unless the README's table says otherwise).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[arg(help = format!("Name of the operation, whose arrays and attributes README.md lists: {}", table::names()))]
    name: String,
    /// Input array
    #[arg(long = "in", value_name = "NAME=F.npy", num_args = 1..)]
    inputs: Vec<String>,
    /// File for an output array
    #[arg(long = "out", value_name = "NAME=F.npy", num_args = 1..)]
    outputs: Vec<String>,
    /// Attribute, such as stride=2,2,2 or align_corners=true
    #[arg(long = "attr", value_name = "K=V", num_args = 1..)]
    attributes: Vec<String>,
    /// Storage type of float arrays on the device
    #[arg(long, value_parser = ["f32", "f16", "bf16"], default_value = "f32")]
    dtype: String,
    /// Time N batches of runs (10 ms at least, one wait behind each) with the arrays on the device, and print the median
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Serialize)]
struct Report {
    op: String,
    device: String,
    outputs: Vec<(String, Vec<usize>)>,
    #[serde(flatten)]
    timing: Option<Timing>,
}

/// Medians over the repeats. The rates count the arithmetic and the bytes that the operation needs at least.
#[derive(Serialize)]
struct Timing {
    repeat: u32,
    /// Runs of a batch, behind which the host waits once.
    runs_per_wait: usize,
    median_ms: f64,
    gflops: f64,
    gbs: f64,
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let attributes = Attributes::parse(&args.attributes)?;
    let outputs = named_files("--out", &args.outputs)?;
    let files = named_files("--in", &args.inputs)?;
    let dtype = match args.dtype.as_str() {
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ => DType::F32,
    };
    let prepare = table::find(&args.name)?;
    let device = context.device()?;
    let inputs = Inputs::new(files, &device, dtype);
    let call = prepare(&inputs, &attributes).map_err(wrong_call)?;
    attributes.ensure_all_known(&args.name)?;
    inputs.ensure_all_known(&args.name)?;

    for (_, path) in &outputs {
        try_beside(path)?;
    }
    let results = call.run().map_err(Error::wrong_argument)?;
    device.synchronize()?;
    for (name, _) in &outputs {
        if !results.iter().any(|(known, _)| known == name) {
            let known: Vec<_> = results.iter().map(|(known, _)| *known).collect();
            return Err(Error::Usage(format!("{} has no output '{name}' (it gives: {})", args.name, known.join(", "))));
        }
    }
    let mut shapes = Vec::new();
    for (name, value) in results {
        if let Some((_, path)) = outputs.iter().find(|(wanted, _)| wanted == name) {
            value.write(path)?;
        }
        shapes.push((name.to_owned(), value.shape()));
    }

    let timing = args.repeat.map(|repeat| time(&call, &device, repeat)).transpose()?;
    let report = Report { op: args.name.clone(), device: device.name(), outputs: shapes, timing };
    if context.json {
        return context.print_json(&report);
    }
    for (name, shape) in &report.outputs {
        say!("{name}: {shape:?}")?;
    }
    if let Some(t) = &report.timing {
        say!(
            "median of {} x {}: {:.4} ms, {:.2} GFLOP/s, {:.2} GB/s on {}",
            t.repeat,
            t.runs_per_wait,
            t.median_ms,
            t.gflops,
            t.gbs,
            report.device
        )?;
    }
    Ok(())
}

/// A usage error where the library found an argument of the op out of range, which is an attribute of this call.
fn wrong_call(error: Error) -> Error {
    match error {
        Error::Library(error) => Error::wrong_argument(error),
        other => other,
    }
}

fn time(call: &table::Call, device: &nephron::Device, repeat: u32) -> Result<Timing> {
    let samples = Samples::in_batches(&|| call.run().map(drop), device, repeat as usize)?;
    let (median_ms, runs_per_wait) = (samples.median(), samples.runs);
    let per_second = 1e3 / median_ms.max(1e-9) / 1e9;
    Ok(Timing { repeat, runs_per_wait, median_ms, gflops: call.flops() * per_second, gbs: call.bytes() * per_second })
}

/// Parses `NAME=FILE` pairs, each name at most once.
fn named_files(option: &str, pairs: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for pair in pairs {
        let (name, file) = pair
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("{option} takes NAME=FILE.npy, found '{pair}'")))?;
        if files.iter().any(|(known, _)| known == name) {
            return Err(Error::Usage(format!("{option}: '{name}' is given twice")));
        }
        files.push((name.to_owned(), PathBuf::from(file)));
    }
    Ok(files)
}
