//! `nephron warp`: resamples images and masks through transforms onto a reference grid.

use std::path::{Path, PathBuf};

use super::{Context, Failure};
use crate::error::Result;
use crate::options::DeviceArgs;
use crate::output::moved_outputs;
use nephron::error::Error as LibraryError;
use nephron::io::{images, nifti, try_folder};
use nephron::ops::Interpolation;
use nephron::registration::transform;
use nephron::volume::Affine;

const EXAMPLES: &str = "\
Examples:
  nephron warp arterial.nii.gz --transform aligned/transform.tfm --like portal.nii.gz -o moved
  nephron warp arterial_mask.nii.gz --transform aligned/transform.tfm --like portal.nii.gz --interp nearest -o moved
  nephron warp portal_mask.nii.gz --transform aligned/transform.tfm --inverse --like arterial.nii.gz --interp soft -o back";

/// Resample images and masks through transforms of `register` or of other programs.
///
/// A transform maps points of the reference to points of the image, as in ITK; `register` writes such a transform with its fixed
/// mask as the reference. Several transforms are applied one after the other, the first to points of the reference. Outside an
/// image's field of view masks are 0 and images their minimum. Images of integers, such as CT, are rounded and stay integers.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Images in the space that the last transform maps to
    #[arg(required = true, value_name = "IMG")]
    images: Vec<PathBuf>,
    /// Transform as an ITK file (.tfm, .txt, .mat) or as nephron's .json
    #[arg(long = "transform", required = true, value_name = "FILE")]
    transforms: Vec<PathBuf>,
    /// Apply the inverse of the transforms, which then map points of the image to points of the reference
    #[arg(long)]
    inverse: bool,
    /// Also write what is applied, with --inverse its inverse, as one transform for ITK: .tfm or .txt, several transforms as a
    /// CompositeTransform; or .mat, several as their product
    #[arg(long, value_name = "FILE", value_parser = parse_transform_file)]
    save_transform: Option<PathBuf>,
    /// Image whose grid the results get
    #[arg(long, value_name = "REF")]
    like: PathBuf,
    /// Interpolation: linear or cubic for images; for masks nearest, or soft (each label trilinearly, then the largest)
    #[arg(long, value_name = "KIND", default_value = "linear", value_parser = parse_interpolation)]
    interp: WarpInterpolation,
    /// Folder for the results, which keep their names; created if needed
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Clone, Copy)]
enum WarpInterpolation {
    Values(Interpolation),
    Soft,
}

fn parse_interpolation(text: &str) -> Result<WarpInterpolation, String> {
    match text {
        "linear" => Ok(WarpInterpolation::Values(Interpolation::Linear)),
        "cubic" => Ok(WarpInterpolation::Values(Interpolation::Cubic)),
        "nearest" => Ok(WarpInterpolation::Values(Interpolation::Nearest)),
        "soft" => Ok(WarpInterpolation::Soft),
        _ => Err("expected linear, cubic, nearest or soft".into()),
    }
}

fn parse_transform_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    match ending.as_deref() {
        Some("tfm" | "txt" | "mat") => Ok(path),
        _ => Err("expected a name that ends in .tfm, .txt or .mat".into()),
    }
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let mut steps = args.transforms.iter().map(transform::read).collect::<Result<Vec<_>, _>>()?;
    let mut chain = steps.iter().fold(Affine::IDENTITY, |chain, next| next.after(&chain));
    let transforms = args.transforms.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let finite = chain.0.as_flattened().iter().all(|v| v.is_finite());
    if !finite {
        return Err(LibraryError::Data(format!("{transforms}: expected finite numbers, found {:?}", chain.0)).into());
    }
    if args.inverse {
        let named = |e: LibraryError| e.context(format!("inverse of {transforms}"));
        chain = chain.inverse().map_err(named)?;
        steps = steps.iter().rev().map(Affine::inverse).collect::<Result<_, _>>().map_err(named)?;
    }
    let outputs = moved_outputs(&args.images.iter().collect::<Vec<_>>(), &[&args.like], &args.output)?;
    if let Some(file) = &args.save_transform {
        super::ensure_no_input(file, args.transforms.iter().chain(&args.images).chain([&args.like]))?;
        super::remove_stale(file)?;
    }
    let reference = images::read(&args.like)?;
    let device = context.device()?;
    try_folder(&args.output)?;
    if let Some(file) = &args.save_transform {
        transform::write_itk_chain(file, &steps)?;
    }
    let (mut done, mut failed, mut written) = (Vec::new(), Vec::new(), Ok(()));
    for (path, output) in args.images.iter().zip(&outputs) {
        let by = |error: LibraryError| error.context(format!("{} by {transforms}", path.display()));
        match warp(path, output, &chain, &reference, args.interp, &device, by) {
            Ok(()) => {
                if !context.json {
                    // A closed standard output does not end the run: the other images are still processed.
                    written = written.and_then(|()| say!("{}", output.display()));
                }
                done.push(output.display().to_string());
            }
            Err(error) if outputs.len() == 1 => return Err(error),
            Err(error) => {
                note!("error: {error}");
                failed.push(Failure { input: path.display().to_string(), error: error.to_string() });
            }
        }
    }
    if context.json {
        written = context.print_json(&serde_json::json!({"transform": chain.0, "written": done, "failed": failed}));
    }
    if !failed.is_empty() {
        return Err(LibraryError::Data(format!("{} of {} images failed", failed.len(), outputs.len())).into());
    }
    written
}

fn warp(
    path: &Path,
    output: &Path,
    chain: &Affine,
    reference: &nifti::Image,
    interp: WarpInterpolation,
    device: &nephron::Device,
    by: impl Fn(LibraryError) -> LibraryError,
) -> Result<()> {
    super::remove_stale(output)?;
    let image = images::read(path)?;
    for warning in &image.warnings {
        note!("warning: {}: {warning}", path.display());
    }
    let grid = reference.volume.grid();
    let moved = match interp {
        WarpInterpolation::Values(interpolation) => {
            if interpolation != Interpolation::Nearest {
                // Interpolation spreads NaN to its neighbours, cubic splines to the whole image.
                image.volume.ensure_finite().map_err(|e| LibraryError::in_file(path, e))?;
                if image.volume.looks_like_labels() {
                    note!("warning: {}: {}", path.display(), super::LABELS_INTERPOLATED);
                }
            }
            transform::warp(&image.volume, chain, &grid, interpolation, device)
                .and_then(|moved| moved.rounded_like(&image.volume))
                .map_err(by)?
        }
        WarpInterpolation::Soft => transform::warp_largest(&image.volume, chain, &grid, device).map_err(by)?,
    };
    Ok(nifti::write(output, &image.moved_to(reference, moved))?)
}
