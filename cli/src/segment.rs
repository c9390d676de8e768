//! `nephron segment`: segments kidneys and tumours.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::Context;
use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::io::nifti;
use nephron::models::OrientationRule;
use nephron::pipeline::{
    Mirroring, Output, Precision, SegmentOptions, Segmentation, Segmenter, Stage, Timings, parse_bytes,
};

/// Segment kidneys and tumours.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NIfTI images (.nii, .nii.gz, .hdr or .img), each segmented on its own
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Model folder, with plans.json, dataset.json and weights (fold_*/checkpoint_final.pth, or weights or fold_* as .safetensors or
    /// .pth) in it or in its subfolder segmentation/
    #[arg(long)]
    model: PathBuf,
    /// Folder for the masks, <image>_mask.nii.gz; created if needed
    #[arg(short, long)]
    output: PathBuf,
    /// Average over mirrored copies of each tile (eight in total where the weights allow all axes): more accurate, with as many times
    /// the work
    #[arg(long)]
    tta: bool,
    /// Distance of neighbouring tiles as a fraction of the tile
    #[arg(long, default_value_t = 0.5, value_parser = parse_step)]
    step: f64,
    /// Also write each foreground label's probability, <image>_<label>_probability.nii.gz
    #[arg(long)]
    probabilities: bool,
    /// Largest memory of the network's sums, activations and slabs, in bytes or with KB, MB, GB, KiB, MiB, GiB
    #[arg(long, value_parser = parse_budget)]
    memory_budget: Option<u64>,
    /// Configuration of plans.json (default: 3d_fullres, or the only one)
    #[arg(long)]
    configuration: Option<String>,
    /// Orientation of the network's input: stored, or three letters such as RAS or LPS (default: that of plans.json)
    #[arg(long, value_parser = parse_orientation)]
    orientation: Option<OrientationRule>,
    /// Storage type on a GPU (on the CPU always f32)
    #[arg(long, value_enum, default_value_t)]
    precision: PrecisionArg,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum PrecisionArg {
    /// f16 where the GPU has it
    #[default]
    Fastest,
    /// f32
    Single,
}

fn parse_step(text: &str) -> Result<f64, String> {
    let step: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.05..=1.0).contains(&step) { Ok(step) } else { Err(format!("expected 0.05 to 1 tile, found {step}")) }
}

fn parse_budget(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|e| e.to_string())
}

fn parse_orientation(text: &str) -> Result<OrientationRule, String> {
    if text.eq_ignore_ascii_case("stored") {
        return Ok(OrientationRule::Stored);
    }
    text.parse().map(OrientationRule::Fixed).map_err(|e: LibraryError| e.to_string())
}

/// The JSON of `segment`.
#[derive(Serialize)]
struct Report {
    model: PathBuf,
    device: String,
    precision: String,
    folds: usize,
    files: Vec<FileReport>,
}

#[derive(Serialize)]
struct FileReport {
    image: PathBuf,
    mask: PathBuf,
    probabilities: BTreeMap<String, PathBuf>,
    volumes_ml: BTreeMap<String, f64>,
    tiles: usize,
    working_set_bytes: u64,
    seconds: Seconds,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Seconds {
    read: f64,
    #[serde(flatten)]
    segment: Timings,
    write: f64,
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let outputs = outputs(&args.images, &args.output)?;
    let options = SegmentOptions {
        step: args.step,
        mirroring: if args.tta { Mirroring::AllAxes } else { Mirroring::Off },
        output: if args.probabilities { Output::Probabilities } else { Output::Labels },
        memory_budget: args.memory_budget,
        orientation: args.orientation,
    };
    let precision = match args.precision {
        PrecisionArg::Fastest => Precision::Fastest,
        PrecisionArg::Single => Precision::Single,
    };
    let device = context.device()?;
    let segmenter = Segmenter::load(&args.model, args.configuration.as_deref(), precision, &device).map_err(|e| {
        // A configuration that the model does not have is a wrong call and not a fault of the model.
        if args.configuration.is_some() && matches!(e, LibraryError::Argument { .. }) {
            Error::Usage(e.to_string())
        } else {
            e.into()
        }
    })?;
    std::fs::create_dir_all(&args.output)
        .map_err(|e| LibraryError::io(&args.output, "the folder cannot be created", e))?;
    let (mut files, mut written) = (Vec::new(), Ok(()));
    for (image, mask) in args.images.iter().zip(outputs) {
        let report = segment(&segmenter, image, mask, &options, context)?;
        for warning in &report.warnings {
            note!("warning: {}: {warning}", image.display());
        }
        if !context.json {
            // A closed standard output does not end the run: the other images are still processed.
            written = written.and_then(|()| print(&report));
        }
        files.push(report);
    }
    if context.json {
        return context.print_json(&Report {
            model: args.model.clone(),
            device: device.name(),
            precision: segmenter.dtype().to_string(),
            folds: segmenter.folds(),
            files,
        });
    }
    written
}

/// The path of each mask.
///
/// # Errors
/// [`Error::Usage`] for two images with one name, and for a mask that would replace an input.
fn outputs(images: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>> {
    let masks: Vec<PathBuf> = images.iter().map(|image| folder.join(format!("{}_mask.nii.gz", stem(image)))).collect();
    let resolved = |path: &Path| path.canonicalize().ok();
    for (i, mask) in masks.iter().enumerate() {
        if resolved(mask).is_some_and(|mask| images.iter().any(|image| resolved(image).as_ref() == Some(&mask))) {
            return Err(Error::Usage(format!("{} is an input, choose another folder", mask.display())));
        }
        if let Some(other) = masks[..i].iter().position(|m| m == mask) {
            let [first, second] = [&images[other], &images[i]].map(|p| p.display());
            return Err(Error::Usage(format!("{first} and {second} would both be written to {}", mask.display())));
        }
    }
    Ok(masks)
}

/// The name of a file without .nii, .nii.gz, .hdr or .img.
fn stem(image: &Path) -> String {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let endings = [".nii", ".hdr", ".img"];
    endings.iter().find_map(|e| plain.strip_suffix(e)).unwrap_or(&name).to_owned()
}

fn segment(
    segmenter: &Segmenter,
    path: &Path,
    mask: PathBuf,
    options: &SegmentOptions,
    context: &Context,
) -> Result<FileReport> {
    let reading = Instant::now();
    let image = nifti::read_ct(path)?;
    let read = reading.elapsed().as_secs_f64();
    let bar = context.progress(0, &stem(path));
    let result = segmenter.segment(&image.volume, options, &mut |stage| {
        if let Stage::Tiles(done, all) = stage {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let result = result.map_err(|error| match error {
        LibraryError::Data(_) => LibraryError::in_file(path, error),
        other => other,
    })?;

    let writing = Instant::now();
    nifti::write(&mask, &image.with_volume(result.mask.clone()))?;
    let mut probabilities = BTreeMap::new();
    let names = file_names(&result.labels);
    for ((label, name), volume) in result.labels.iter().zip(names).skip(1).zip(&result.probabilities) {
        let file = mask.with_file_name(format!("{}_{name}_probability.nii.gz", stem(path)));
        nifti::write(&file, &image.with_volume(volume.clone()))?;
        probabilities.insert(label.clone(), file);
    }
    let volumes_ml = result.labels.iter().cloned().zip(result.volumes_ml()).skip(1).collect();
    let Segmentation { tiles, working_set, seconds, warnings, .. } = result;
    if context.verbose > 0 {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        note!(
            "memory: {:.0} MB planned for sums, activations and one slab; tensors on the CPU took at most {:.0} MB, weights \
             included",
            megabytes(working_set),
            megabytes(nephron::host_memory().peak as u64)
        );
    }
    Ok(FileReport {
        image: path.to_path_buf(),
        mask,
        probabilities,
        volumes_ml,
        tiles,
        working_set_bytes: working_set,
        seconds: Seconds { read, segment: seconds, write: writing.elapsed().as_secs_f64() },
        warnings: image.warnings.into_iter().chain(warnings).collect(),
    })
}

/// The names of labels as parts of file names: other characters than letters, digits and hyphens become underscores, and names that
/// become equal get the label's value appended.
fn file_names(labels: &[String]) -> Vec<String> {
    let plain = |label: &String| -> String {
        label.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
    };
    let names: Vec<String> = labels.iter().map(plain).collect();
    let unique = |name: &String| names.iter().filter(|n| *n == name).count() == 1;
    names.iter().enumerate().map(|(i, n)| if unique(n) { n.clone() } else { format!("{n}_{i}") }).collect()
}

fn print(report: &FileReport) -> Result<()> {
    let Timings { preprocess, network, export } = report.seconds.segment;
    say!("{}", report.mask.display())?;
    for (label, millilitres) in &report.volumes_ml {
        say!("  {label:12} {millilitres:10.2} ml")?;
    }
    say!("  {} tiles; {preprocess:.2} s preparing, {network:.2} s network, {export:.2} s export", report.tiles)?;
    Ok(())
}
