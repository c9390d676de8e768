//! `nephron bench`: times operations and networks at the sizes of the pipeline, after checking each.

mod cases;

use std::time::Instant;

use serde::Serialize;

use super::Context;
use crate::error::{Error, Result};
use crate::options::DeviceArgs;
use cases::Case;
use nephron::device::Device;
use nephron::error::Error as LibraryError;
use nephron::tensor::DType;

const EXAMPLES: &str = "\
Examples:
  nephron bench
  nephron bench unet --device cuda --dtype f16
  nephron bench conv3d --filter stride --threads 8 --seconds 0.2";

/// Time operations and networks on a device, relative to its rates of copying and multiplying.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Time only conv3d, conv_transpose3d, unet, resnet, train (in f32), affine_dice or resample
    op: Option<String>,
    /// Time only cases whose name contains TEXT
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Storage type of float arrays
    #[arg(long, value_parser = ["f32", "f16", "bf16"], default_value = "f32")]
    dtype: String,
    /// Time for which each case is repeated (at least 5 times)
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Smallest number of repeats; the median of fewer is not reliable.
const MIN_REPEATS: usize = 5;

#[derive(Serialize)]
struct Report {
    device: String,
    dtype: String,
    version: &'static str,
    /// GB/s read and written by an element-wise operation on a large array.
    copy_gbs: f64,
    /// GFLOP/s of a large matrix product, as a 1x1x1 convolution.
    matrix_gflops: f64,
    cases: Vec<Line>,
}

/// The result of one case. Times are those of one run; rates count the arithmetic and the bytes that the operation needs at least.
#[derive(Serialize)]
struct Line {
    op: &'static str,
    name: String,
    repeats: usize,
    median_ms: f64,
    /// The 10th and the 90th percentile.
    spread_ms: [f64; 2],
    gflops: f64,
    gbs: f64,
    percent_of_matrix: f64,
    percent_of_copy: f64,
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
    let wanted = cases::named(args.op.as_deref(), &args.filter)?;
    let device = context.device()?;
    if !device.supports(dtype) {
        let reason = format!("cannot store {dtype}");
        return Err(LibraryError::Device { device: device.name(), reason }.into());
    }
    let timed = |case: Case| -> Result<(Case, Vec<f64>)> {
        let ms = time(&case, &device, args.seconds)?;
        Ok((case, ms))
    };
    let (copy, ms) = timed(cases::copy(&device)?)?;
    let copy_gbs = rate(copy.bytes, median(&ms));
    let (product, ms) = timed(cases::matrix_product(&device, dtype)?)?;
    let matrix_gflops = rate(product.flops, median(&ms));
    let mut written = Ok(());
    if !context.json {
        written = print_head(&device, dtype, copy_gbs, matrix_gflops);
    }
    let mut lines = Vec::new();
    for make in wanted {
        let case = make(&device, dtype)?;
        (case.check)()?;
        let (case, ms) = timed(case)?;
        let median_ms = median(&ms);
        let (gflops, gbs) = (rate(case.flops, median_ms), rate(case.bytes, median_ms));
        let line = Line {
            op: case.op,
            name: case.name,
            repeats: ms.len(),
            median_ms,
            spread_ms: [ms[ms.len() / 10], ms[ms.len() - 1 - ms.len() / 10]],
            gflops,
            gbs,
            percent_of_matrix: 100.0 * gflops / matrix_gflops,
            percent_of_copy: 100.0 * gbs / copy_gbs,
        };
        if !context.json {
            // A closed standard output does not end the run: the other cases are still checked.
            written = written.and_then(|()| line.print());
        }
        lines.push(line);
    }
    if !context.json {
        return written;
    }
    context.print_json(&Report {
        device: device.name(),
        dtype: dtype.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        copy_gbs,
        matrix_gflops,
        cases: lines,
    })
}

fn print_head(device: &Device, dtype: DType, copy_gbs: f64, matrix_gflops: f64) -> Result<()> {
    say!("{}, {dtype}, nephron {}", device.name(), env!("CARGO_PKG_VERSION"))?;
    say!("ceilings: copy {copy_gbs:.1} GB/s, matrix product {matrix_gflops:.0} GFLOP/s")?;
    say!(
        "{:16} {:34} {:>10} {:>21} {:>9} {:>8} {:>7} {:>6}",
        "op",
        "case",
        "median ms",
        "10 %..90 %",
        "GFLOP/s",
        "GB/s",
        "matrix",
        "copy"
    )
}

impl Line {
    fn print(&self) -> Result<()> {
        let [low, high] = self.spread_ms;
        say!(
            "{:16} {:34} {:>10.3} {:>10.3}..{:<9.3} {:>9.1} {:>8.1} {:>5.0} % {:>4.0} %",
            self.op,
            self.name,
            self.median_ms,
            low,
            high,
            self.gflops,
            self.gbs,
            self.percent_of_matrix,
            self.percent_of_copy
        )?;
        Ok(())
    }
}

/// The sorted times of completed runs in milliseconds, after two runs to warm up.
fn time(case: &Case, device: &Device, seconds: f64) -> Result<Vec<f64>> {
    let once = || -> Result<f64> {
        let start = Instant::now();
        (case.run)()?;
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    once()?;
    once()?;
    let (mut ms, mut total) = (Vec::new(), 0.0);
    while ms.len() < MIN_REPEATS || total < seconds {
        let took = once()?;
        total += took;
        ms.push(took * 1e3);
    }
    ms.sort_by(f64::total_cmp);
    Ok(ms)
}

/// The median of sorted values.
fn median(sorted: &[f64]) -> f64 {
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// The rate of an amount in units of 10^9 per second.
fn rate(amount: f64, ms: f64) -> f64 {
    amount / ms.max(1e-9) / 1e6
}
