//! `nephron bench`: times operations and networks at the sizes of the pipeline, after checking each.

mod cases;
mod ceilings;
mod line;
mod record;

use std::path::PathBuf;

use super::Context;
use crate::error::{Error, Result};
use crate::options::{DeviceArgs, list};
use crate::samples::Samples;
use cases::OwnConv;
use ceilings::Ceilings;
use line::Line;
use nephron::error::Error as LibraryError;
use nephron::tensor::DType;
use record::Record;

const EXAMPLES: &str = "\
Examples:
  nephron bench unet --device cuda --dtype f16 --save before.json
  nephron bench unet --device cuda --dtype f16 --baseline before.json
  nephron bench conv3d --filter stride --threads 8 --seconds 0.2
  nephron bench conv3d --shape 1,32,128,128,128 --weight 64,32,3,3,3 --stride 2,2,2 --padding 1,1,1";

/// A change of the ceilings during a run from which on it is said.
const DRIFT: f64 = 0.05;

/// Time operations and networks on a device, relative to its rates of copying and multiplying.
///
/// A case is run in batches of at least 10 ms with one wait for the device behind each, after its result was checked. `roof` is the share
/// of what the nearer ceiling allows: the device's rate of copying times the case's FLOP/B, or its rate of multiplying. Both are measured
/// before and after the cases, as are those of reading alone and of a + 2 b, and what a launch costs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Time only conv3d, conv_transpose3d, conv3d_backward, relu, add, instance_norm, grid_sample, unet, resnet, train (in f32), affine_dice or resample
    op: Option<String>,
    /// Time only cases whose name contains TEXT
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Storage type of float arrays
    #[arg(long, value_parser = ["f32", "f16", "bf16"], default_value = "f32")]
    dtype: String,
    /// Time for which each case is repeated (at least 5 batches)
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Write the result and the machine to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare each case with that of an earlier record: faster or slower where the 95 % intervals of both medians are apart
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    #[command(flatten)]
    own: OwnArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Convolution of your own (conv3d)")]
struct OwnArgs {
    /// Input, in place of the usual cases
    #[arg(long, value_name = "N,C,D,H,W", value_parser = parse_sizes::<5>, requires = "weight")]
    shape: Option<[usize; 5]>,
    /// Weight
    #[arg(long, value_name = "O,C,D,H,W", value_parser = parse_sizes::<5>, requires = "shape")]
    weight: Option<[usize; 5]>,
    /// Stride
    #[arg(long, value_name = "D,H,W", value_parser = parse_sizes::<3>, requires = "shape", default_value = "1,1,1")]
    stride: [usize; 3],
    /// Zeros on each side
    #[arg(long, value_name = "D,H,W", value_parser = parse_sizes::<3>, requires = "shape", default_value = "0,0,0")]
    padding: [usize; 3],
}

fn parse_sizes<const N: usize>(text: &str) -> Result<[usize; N], String> {
    list(text, &format!("{N} whole numbers"))
}

impl OwnArgs {
    fn conv(&self) -> Option<OwnConv> {
        let (input, weight) = self.shape.zip(self.weight)?;
        Some(OwnConv { input, weight, stride: self.stride, padding: self.padding })
    }
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    if !(args.seconds.is_finite() && args.seconds >= 0.0) {
        return Err(Error::Usage(format!("--seconds: expected 0 or more, found {}", args.seconds)));
    }
    let dtype = match args.dtype.as_str() {
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ => DType::F32,
    };
    let wanted = cases::named(args.op.as_deref(), &args.filter, args.own.conv())?;
    let baseline = args.baseline.as_deref().map(Record::read).transpose()?;
    let device = context.device()?;
    if !device.supports(dtype) {
        let reason = format!("cannot store {dtype}");
        return Err(LibraryError::Device { device: device.name(), reason }.into());
    }
    let mut record = Record::new(&device, dtype.to_string(), Ceilings::of(&device, dtype, args.seconds)?);
    let differences = baseline.as_ref().map_or(vec![], |earlier| record.differences(earlier));
    differences.iter().for_each(|what| note!("warning: the baseline is of {what}"));
    let mut written = Ok(());
    if !context.json {
        written = print_head(&record);
    }
    for make in wanted {
        let case = make(&device, dtype)?;
        (case.check)()?;
        let samples = Samples::for_seconds(&case.run, &device, args.seconds)?;
        let mut line = Line::new(&case, &samples, &record.ceilings);
        line.baseline = baseline.as_ref().and_then(|earlier| earlier.compare(&line));
        if !context.json {
            // A closed standard output does not end the run: the other cases are still checked.
            written = written.and_then(|()| line.print());
        }
        record.cases.push(line);
    }
    let after = Ceilings::of(&device, dtype, args.seconds)?;
    let drift = record.ceilings.drift(&after);
    record.ceilings_after = Some(after);
    if drift > DRIFT {
        note!("warning: the ceilings changed by {:.0} % during the run: per cents are that rough", 100.0 * drift);
    }
    if let Some(path) = &args.save {
        record.save(path)?;
    }
    if context.json {
        return context.print_json(&record);
    }
    written
}

fn print_head(record: &Record) -> Result<()> {
    let Record { device, dtype, version, machine, ceilings, .. } = record;
    let Ceilings { read_gbs, copy_gbs, triad_gbs, matrix_gflops, launch_us, launch_and_wait_us, .. } = ceilings;
    say!("{device} ({}), {dtype}, nephron {version}", machine.adapter)?;
    say!(
        "ceilings: read {read_gbs:.1}, copy {copy_gbs:.1}, a + 2 b {triad_gbs:.1} GB/s on arrays of {} MiB; matrix product {matrix_gflops:.0} GFLOP/s",
        ceilings.array_bytes >> 20
    )?;
    say!("a launch: {launch_us:.1} us among others, {launch_and_wait_us:.1} us with a wait behind it")?;
    Line::print_head()
}
