//! `nephron resample`: resamples an image onto a new grid.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::Context;
use crate::error::{Error, Result};
use crate::options::{DeviceArgs, list};
use nephron::error::Error as LibraryError;
use nephron::io::{images, nifti, try_beside};
use nephron::ops::Interpolation;
use nephron::volume::Grid;

const EXAMPLES: &str = "\
Examples:
  nephron resample scan.nii.gz fine.nii.gz --spacing 1,1,2
  nephron resample mask.nii.gz moved.nii.gz --like scan.nii.gz --interp nearest";

/// Resample an image onto a new grid.
///
/// Points outside the input's field of view become 0 in uint8 masks and the minimum in every other image. Images of integers,
/// such as CT, are rounded and stay uint8 or int16; everything else, and an interpolated label map, is written as float32.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An image: NIfTI (.nii, .nii.gz, .hdr, .img), MetaImage (.mha, .mhd) or NRRD (.nrrd, .nhdr)
    input: PathBuf,
    /// The result, .nii or .nii.gz
    output: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Interpolation between voxels
    #[arg(long, value_enum, default_value_t = Interp::Linear)]
    interp: Interp,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Voxel size in mm along the file's own axes; the centre of the field of view stays
    #[arg(long, value_name = "X,Y,Z", value_parser = parse_spacing)]
    spacing: Option<[f64; 3]>,
    /// The grid of this image
    #[arg(long, value_name = "REF")]
    like: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Interp {
    Linear,
    Nearest,
    Cubic,
}

impl From<Interp> for Interpolation {
    fn from(interp: Interp) -> Self {
        match interp {
            Interp::Linear => Self::Linear,
            Interp::Nearest => Self::Nearest,
            Interp::Cubic => Self::Cubic,
        }
    }
}

fn parse_spacing(text: &str) -> Result<[f64; 3], String> {
    let spacing: [f64; 3] = list(text, "three numbers X,Y,Z")?;
    if spacing.iter().all(|s| s.is_finite() && *s > 0.0) {
        Ok(spacing)
    } else {
        Err("expected millimetres above 0".into())
    }
}

/// The JSON of `resample`. Axes are the file's own, (i, j, k).
#[derive(Serialize)]
struct Report {
    output: PathBuf,
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    dtype: String,
    device: String,
    /// Seconds of the resampling, including transfers to and from the device but not reading and writing files.
    seconds: f64,
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    nifti::ensure_name(&args.output).map_err(|e| Error::Usage(e.to_string()))?;
    try_beside(&args.output)?;
    super::ensure_no_input(&args.output, std::iter::once(&args.input).chain(&args.target.like))?;
    let image = images::read_ct(&args.input)?;
    warn(&args.input, &image);
    if image.volume.looks_like_labels() && !matches!(args.interp, Interp::Nearest) {
        note!("warning: {}: {}", args.input.display(), super::LABELS_INTERPOLATED);
    }
    let named = |e: LibraryError| e.context(args.input.display());
    let grid = match (&args.target.spacing, &args.target.like) {
        (Some(spacing), _) => Grid::with_spacing(&image.volume, *spacing).map_err(named)?,
        (None, Some(like)) => {
            let reference = images::read(like)?;
            warn(like, &reference);
            reference.volume.grid()
        }
        (None, None) => image.volume.grid(),
    };
    if grid.is_apart_from(&image.volume.grid()).map_err(named)? {
        note!("warning: {}: is completely outside the new grid", args.input.display());
    }
    let device = context.device()?;
    let start = Instant::now();
    let volume = image
        .volume
        .resample_to(&grid, args.interp.into(), &device)
        .and_then(|resampled| resampled.rounded_like(&image.volume))
        .map_err(named)?;
    let seconds = start.elapsed().as_secs_f64();
    let result = image.with_volume(volume);
    nifti::write(&args.output, &result)?;

    let [d, h, w] = grid.shape;
    let report = Report {
        output: args.output.clone(),
        shape: [w, h, d],
        spacing_mm: grid.affine.spacing(),
        dtype: result.volume.voxels().dtype().to_string(),
        device: device.name(),
        seconds,
    };
    if context.json {
        return context.print_json(&report);
    }
    let ([i, j, k], [x, y, z]) = (report.shape, report.spacing_mm);
    say!("{}: {i} x {j} x {k} voxels of {x:.4} x {y:.4} x {z:.4} mm", report.output.display())?;
    say!("{} on {} in {seconds:.3} s", report.dtype, report.device)?;
    Ok(())
}

/// Prints the warnings of a file.
fn warn(path: &Path, image: &nifti::Image) {
    for warning in &image.warnings {
        note!("warning: {}: {warning}", path.display());
    }
}
