//! `nephron register`: aligns a moving mask, and images with it, to a fixed mask.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, Failure};
use crate::error::{Error, Result};
use crate::options::DeviceArgs;
use crate::output::moved_outputs;
use nephron::error::Error as LibraryError;
use nephron::io::{FolderLock, images, lossy, nifti, write_atomic};
use nephron::ops::{Interpolation, PaddingMode};
use nephron::registration::{
    self, Channels, Overlap, Registration, RegistrationOptions, Space, Start, Transformation, transform,
};

const EXAMPLES: &str = "\
Examples:
  nephron register --fixed portal_mask.nii.gz --moving arterial_mask.nii.gz --image arterial.nii.gz -o aligned
  nephron register --fixed a.nii.gz --moving b.nii.gz --transformation rigid --channels 1/2,3 -o aligned";

/// Align a moving mask, and images with it, to a fixed mask.
///
/// Masks hold labels, by default 1 for kidney and 2 for tumour (see --channels), and may differ in shape, spacing and
/// orientation. The output folder gets the transform for ITK (see --transform-format), transform.json, result.json, and the moving mask and the images
/// resampled onto the fixed mask's grid, with their own names. Outside the field of view masks are 0 and images their minimum.
/// Images of integers, such as CT, are rounded and stay integers.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The fixed mask
    #[arg(long, value_name = "MASK")]
    fixed: PathBuf,
    /// The moving mask, which is aligned to the fixed one
    #[arg(long, value_name = "MASK")]
    moving: PathBuf,
    /// Images in the space of the moving mask, which are resampled with it
    #[arg(long = "image", value_name = "IMG", num_args = 1..)]
    images: Vec<PathBuf>,
    /// Folder for the results; created if needed
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Family of transforms: affine, similarity, rigid or translation
    #[arg(long, value_name = "KIND", default_value_t = Transformation::Affine)]
    transformation: Transformation,
    /// File of the transform for ITK-SNAP, 3D Slicer and ANTs: tfm (text, transform.tfm), mat (ITK's and ANTs' MATLAB file,
    /// transform.mat) or both; the class in it is that of --transformation
    #[arg(long, value_name = "FORMAT", default_value = "tfm", value_parser = parse_format)]
    transform_format: TransformFormat,
    /// Sets of labels whose overlap is maximised, separated by slashes (default: tumour, and kidney with tumour)
    #[arg(long, value_name = "SETS", default_value_t = Channels::default())]
    channels: Channels,
    /// Start of the iterations: centre-of-mass, identity, or a transform file (.tfm, .txt, .mat or .json)
    #[arg(long, value_name = "START", default_value = "centre-of-mass")]
    start: String,
    /// Coordinates in which the identity means no motion: world (millimetres), or grid (normalised coordinates from -1 to 1, as in
    /// the authors' code; needs --resolution full)
    #[arg(long, value_name = "SPACE", default_value = "world", value_parser = parse_space)]
    space: Space,
    /// Value of the moving mask outside its grid: border or zeros
    #[arg(long, value_name = "RULE", default_value = "border", value_parser = parse_padding)]
    padding: PaddingMode,
    /// Whether the normalised coordinates -1 and 1 are the centres of the outer voxels (true) or their outer edges (false)
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    align_corners: bool,
    /// Smoothing term of Dice
    #[arg(long, value_name = "S", default_value_t = RegistrationOptions::default().smooth)]
    smooth: f64,
    /// Adam's learning rate
    #[arg(long, value_name = "RATE", default_value_t = RegistrationOptions::default().learning_rate)]
    learning_rate: f64,
    /// Largest number of iterations
    #[arg(long, value_name = "N", default_value_t = RegistrationOptions::default().max_iterations)]
    max_iterations: usize,
    /// Stop when the loss falls by less than this over --window iterations
    #[arg(long, value_name = "LOSS", default_value_t = RegistrationOptions::default().tolerance)]
    tolerance: f64,
    /// Number of iterations over which --tolerance is measured
    #[arg(long, value_name = "N", default_value_t = RegistrationOptions::default().window)]
    window: usize,
    /// Voxel size in mm to which finer masks are resampled for the first iterations, or full
    #[arg(long, value_name = "MM", default_value = "2", value_parser = parse_resolution)]
    resolution: Resolution,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Clone, Copy)]
enum Resolution {
    Full,
    Millimetres(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransformFormat {
    Tfm,
    Mat,
    Both,
}

fn parse_format(text: &str) -> Result<TransformFormat, String> {
    match text {
        "tfm" => Ok(TransformFormat::Tfm),
        "mat" => Ok(TransformFormat::Mat),
        "both" => Ok(TransformFormat::Both),
        _ => Err("expected tfm, mat or both".into()),
    }
}

fn parse_resolution(text: &str) -> Result<Resolution, String> {
    match text {
        "full" => Ok(Resolution::Full),
        _ => text.parse().map(Resolution::Millimetres).map_err(|_| "expected millimetres or full".into()),
    }
}

fn parse_space(text: &str) -> Result<Space, String> {
    match text {
        "world" => Ok(Space::World),
        "grid" => Ok(Space::Grid),
        _ => Err("expected world or grid".into()),
    }
}

fn parse_padding(text: &str) -> Result<PaddingMode, String> {
    match text {
        "border" => Ok(PaddingMode::Border),
        "zeros" => Ok(PaddingMode::Zeros),
        _ => Err("expected border or zeros".into()),
    }
}

fn start(text: &str) -> Result<Start> {
    match text {
        "centre-of-mass" => Ok(Start::CentreOfMass),
        "identity" => Ok(Start::Identity),
        file => Ok(Start::Given(transform::read(file)?)),
    }
}

/// The content of result.json, which `--json` prints too.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(serialize_with = "lossy")]
    fixed: &'a Path,
    #[serde(serialize_with = "lossy")]
    moving: &'a Path,
    device: String,
    #[serde(flatten)]
    registration: &'a Registration,
    /// The moving mask and the images on the fixed grid.
    warped: Vec<String>,
    /// The images that could not be resampled.
    failed: Vec<Failure>,
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let images: Vec<&PathBuf> = std::iter::once(&args.moving).chain(&args.images).collect();
    let outputs = moved_outputs(&images, &[&args.fixed], &args.output)?;
    let files = ["result.json", "transform.json", "transform.tfm", "transform.mat"].map(|name| args.output.join(name));
    let start_file = PathBuf::from(&args.start);
    for file in files.iter().chain(&outputs) {
        super::ensure_no_input(file, [&start_file])?;
    }
    let options = RegistrationOptions {
        transformation: args.transformation,
        channels: args.channels,
        start: start(&args.start)?,
        space: args.space,
        padding: args.padding,
        align_corners: args.align_corners,
        smooth: args.smooth,
        learning_rate: args.learning_rate,
        max_iterations: args.max_iterations,
        tolerance: args.tolerance,
        window: args.window,
        resolution: match args.resolution {
            Resolution::Full => None,
            Resolution::Millimetres(mm) => Some(mm),
        },
    };
    // Options are checked before any file is read.
    options.ensure_valid().map_err(|e| Error::Usage(e.to_string()))?;
    let _held = FolderLock::new(&args.output)?;
    // What an earlier run wrote is removed first, so that a run that fails does not leave it.
    for file in files.iter().chain(&outputs) {
        super::remove_stale(file)?;
    }
    let [fixed, moving] = [labels(&args.fixed, &args.channels)?, labels(&args.moving, &args.channels)?];
    let device = context.device()?;
    let found = registration::register(&fixed.volume, &moving.volume, &device, &options)
        .map_err(|e| e.context(format!("{} (fixed) and {} (moving)", args.fixed.display(), args.moving.display())))?;
    for warning in &found.warnings {
        note!("warning: {warning}");
    }

    let grid = fixed.volume.grid();
    let write = |image: &nifti::Image, path: &Path, interpolation: Interpolation| {
        let warped = transform::warp(&image.volume, &found.transform, &grid, interpolation, &device)
            .and_then(|warped| warped.rounded_like(&image.volume))
            .map_err(|e| e.context(path.display()))?;
        nifti::write(path, &image.moved_to(&fixed, warped))
    };
    let resampled = |path: &Path, output: &Path| {
        let image = warned(path, images::read_ct(path)?);
        if image.volume.grid().is_apart_from(&moving.volume.grid())? {
            note!("warning: {}: is completely outside the moving mask's grid", path.display());
        }
        write(&image, output, Interpolation::Linear)
    };
    for (file, other) in [(&files[2], TransformFormat::Mat), (&files[3], TransformFormat::Tfm)] {
        if args.transform_format != other {
            transform::write_itk_as(file, &found.transform, found.transformation)?;
        }
    }
    transform::write_json(&files[1], &found, &grid, &moving.volume.grid())?;
    // An image that fails does not cost the registration.
    let (mut written, mut failed) = (Vec::new(), Vec::new());
    let paths = std::iter::once(&args.moving).chain(&args.images);
    for (i, (path, output)) in paths.zip(&outputs).enumerate() {
        let done = if i == 0 { write(&moving, output, Interpolation::Nearest) } else { resampled(path, output) };
        match done {
            Ok(()) => written.push(output.display().to_string()),
            Err(error) => {
                note!("error: {}: {error}", path.display());
                failed.push(Failure { input: path.display().to_string(), error: error.to_string() });
            }
        }
    }
    let failures = failed.len();
    let report = Report {
        fixed: &args.fixed,
        moving: &args.moving,
        device: device.name(),
        registration: &found,
        warped: written,
        failed,
    };
    let text = serde_json::to_string_pretty(&report).map_err(|e| LibraryError::other("result", e))?;
    write_atomic(&files[0], |file| {
        use std::io::Write;
        writeln!(file, "{text}")
    })?;
    let said = if context.json {
        context.print_json(&report)
    } else {
        print(&found, &args.channels).and_then(|()| say!("{}", args.output.display()))
    };
    if failures > 0 {
        return Err(LibraryError::Data(format!("{failures} of {} images failed", outputs.len())).into());
    }
    said
}

/// A mask as a volume of u8, with its header. Labels that no channel has are named: they count as background.
fn labels(path: &Path, channels: &Channels) -> Result<nifti::Image> {
    let mut mask = images::read_labels(path)?;
    for (label, voxels) in mask.labels.counts().iter().enumerate().skip(1) {
        if *voxels > 0 && channels.members(label as u8) == 0 {
            let reason = format!("label {label} ({voxels} voxels) is in no channel: it counts as background");
            mask.warnings.push(reason);
        }
    }
    let volume = mask.with_volume(mask.labels.clone());
    Ok(warned(path, nifti::Image { warnings: mask.warnings, ..volume }))
}

/// Prints the warnings of a file and returns it.
fn warned(path: &Path, image: nifti::Image) -> nifti::Image {
    for warning in &image.warnings {
        note!("warning: {}: {warning}", path.display());
    }
    image
}

fn print(found: &Registration, channels: &Channels) -> Result<()> {
    let usual = *channels == Channels::default();
    let [all, second] = if usual { ["kidney with tumour", "tumour"] } else { ["all labels", "label 2"] };
    say!("{:<16} {all:>18} {second:>14}", "Dice soft/hard")?;
    let row = |name: &str, overlap: &Overlap| -> Result<()> {
        let both = |d: registration::Dice| format!("{:.4}/{:.4}", d.soft, d.hard);
        say!("{name:<16} {:>18} {:>14}", both(overlap.kidney), overlap.tumour.map_or_else(|| "none".to_owned(), both))
    };
    row("identity", &found.identity)?;
    row("centre of mass", &found.centre_of_mass)?;
    row("aligned", &found.aligned)?;
    // The default channels are the columns of the table.
    for channel in found.channels.iter().filter(|_| !usual) {
        let labels: Vec<String> = channel.labels.iter().map(u8::to_string).collect();
        say!("channel {}: Dice {:.4}, weight {:.2}", labels.join(","), channel.dice, channel.weight)?;
    }
    say!("{} after {} iterations, {:.2} s", found.outcome, found.iterations, found.seconds)?;
    Ok(())
}
