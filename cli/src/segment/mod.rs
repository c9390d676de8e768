//! `nephron segment`.

mod cases;
mod model;
mod previous;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Serialize, Serializer};

use super::Context;
use crate::error::{Error, Result};
use cases::Case;
use model::{ModelArgs, ModelReport};
use nephron::error::Error as LibraryError;
use nephron::io::nifti;
use nephron::models::{OrientationRule, TargetLabels};
use nephron::pipeline::{Ensemble, Mirroring, Output, Scan, SegmentOptions, Segmentation, Stage, Timings, parse_bytes};

/// Segment kidneys and tumours.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NIfTI images (.nii, .nii.gz, .hdr or .img), each segmented on its own; for a model of several channels one 4D file, or
    /// the files <name>_0000, <name>_0001, ... of each image
    #[arg(required_unless_present = "input", conflicts_with = "input")]
    images: Vec<PathBuf>,
    /// Folder of images as nnU-Net names them, <case>_0000.nii.gz with a number a channel; their masks become <case>.nii.gz
    #[arg(short, long, value_name = "DIR")]
    input: Option<PathBuf>,
    #[command(flatten)]
    what: ModelArgs,
    /// Folder for the masks, <image>_mask.nii.gz; made if missing
    #[arg(short, long)]
    output: PathBuf,
    /// Average over the mirrored copies of each tile, eight where the weights allow all axes: so many times the work, a little
    /// more accurate
    #[arg(long)]
    tta: bool,
    /// Distance of neighbouring tiles, in tiles
    #[arg(long, alias = "step-size", default_value_t = 0.5, value_parser = parse_step)]
    step: f64,
    /// Also write each foreground label's probability, <image>_<label>_probability.nii.gz
    #[arg(long, alias = "save-probabilities")]
    probabilities: bool,
    /// The most memory for the network's sums, activations and slabs: bytes, or with KB, MB, GB, KiB, MiB, GiB
    #[arg(long, value_parser = parse_budget)]
    memory_budget: Option<u64>,
    /// How the network sees the image's axes: stored, or three letters such as RAS or LPS (what plans.json says)
    #[arg(long, value_parser = parse_orientation)]
    orientation: Option<OrientationRule>,
    /// Leave out images whose mask is there already
    #[arg(long = "continue")]
    continue_: bool,
    /// Of the images, in the order of their names, segment only every n-th, from --part-id on
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    num_parts: u32,
    /// The part of --num-parts, from 0
    #[arg(long, default_value_t = 0, value_name = "K")]
    part_id: u32,
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
    #[serde(serialize_with = "lossy")]
    model: PathBuf,
    configuration: String,
    device: String,
    precision: String,
    folds: usize,
    /// All models; the fields above are the first one's.
    models: Vec<ModelReport>,
    files: Vec<FileReport>,
    failed: Vec<Failure>,
}

#[derive(Serialize)]
struct FileReport {
    #[serde(serialize_with = "lossy")]
    image: PathBuf,
    #[serde(serialize_with = "lossy")]
    mask: PathBuf,
    probabilities: BTreeMap<String, String>,
    volumes_ml: BTreeMap<String, f64>,
    tiles: usize,
    working_set_bytes: u64,
    seconds: Seconds,
    warnings: Vec<String>,
}

/// An image that could not be segmented.
#[derive(Serialize)]
struct Failure {
    image: String,
    error: String,
}

#[derive(Serialize)]
struct Seconds {
    read: f64,
    #[serde(flatten)]
    segment: Timings,
    write: f64,
}

/// A path as text: what is not UTF-8 in it is replaced, since JSON cannot say it.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Runs the verb. An image that fails costs that image alone.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    if args.part_id >= args.num_parts {
        let parts = args.num_parts;
        return Err(Error::Usage(format!("--part-id: expected 0 to {}, found {}", parts - 1, args.part_id)));
    }
    let options = SegmentOptions {
        step: args.step,
        mirroring: if args.tta { Mirroring::AllAxes } else { Mirroring::Off },
        output: if args.probabilities { Output::Probabilities } else { Output::Labels },
        memory_budget: args.memory_budget,
        orientation: args.orientation,
    };
    let device = context.device()?;
    let ensemble = args.what.load(&device)?;
    let first = &ensemble.members()[0];
    let plan = first.plan();
    let all = match &args.input {
        Some(folder) => cases::from_folder(folder, &plan.file_ending, plan.channels.len(), &args.output)?,
        None => cases::from_files(&args.images, plan.channels.len(), &args.output)?,
    };
    cases::check_outputs(&all)?;
    let part = all.into_iter().skip(args.part_id as usize).step_by(args.num_parts as usize);
    let cases: Vec<Case> = part.filter(|case| !(args.continue_ && is_done(case, &plan.labels, &options))).collect();
    std::fs::create_dir_all(&args.output).map_err(|e| LibraryError::io(&args.output, "cannot be made", e))?;
    let (mut files, mut failed, mut written) = (Vec::new(), Vec::new(), Ok(()));
    for case in &cases {
        match segment(&ensemble, case, &options, context) {
            Ok(report) => {
                for warning in &report.warnings {
                    note!("warning: {}: {warning}", case.name);
                }
                if !context.json {
                    // A standard output that was closed does not cost the other images.
                    written = written.and_then(|()| print(&report));
                }
                files.push(report);
            }
            Err(error) if cases.len() == 1 && !context.json => return Err(error),
            Err(error) => {
                note!("error: {}: {error}", case.name);
                failed.push(Failure { image: case.name.clone(), error: error.to_string() });
            }
        }
    }
    let failures = failed.len();
    if context.json {
        written = context.print_json(&Report {
            model: args.what.model[0].clone(),
            configuration: plan.configuration.clone(),
            device: device.name(),
            precision: first.dtype().to_string(),
            folds: first.folds(),
            models: args.what.reports(&ensemble),
            files,
            failed,
        });
    }
    if failures > 0 {
        return Err(LibraryError::Data(format!("{failures} of {} images failed", cases.len())).into());
    }
    written
}

/// Whether all files of a case are there. Each was renamed to its name when it was whole, the mask last.
fn is_done(case: &Case, labels: &TargetLabels, options: &SegmentOptions) -> bool {
    let probabilities = match options.output {
        Output::Labels => Vec::new(),
        Output::Probabilities => probability_files(case, labels),
    };
    case.mask.is_file() && probabilities.iter().all(|(_, file)| file.is_file())
}

fn segment(ensemble: &Ensemble, case: &Case, options: &SegmentOptions, context: &Context) -> Result<FileReport> {
    let reading = Instant::now();
    let (mut channels, mut warnings) = (Vec::new(), Vec::new());
    let mut first = None;
    for file in &case.files {
        let (volumes, image) = nifti::read_channels(file)?;
        channels.extend(volumes);
        warnings.extend(image.warnings.iter().cloned());
        first.get_or_insert(image);
    }
    let Some(image) = first else { return Err(LibraryError::Inputs(format!("{}: no image", case.name)).into()) };
    let read = reading.elapsed().as_secs_f64();
    let bar = context.progress(0, &case.prefix);
    let previous = previous::read(ensemble, case)?;
    warnings.extend(previous.iter().flat_map(|(_, warnings)| warnings.clone()));
    let scan = Scan {
        channels: &channels,
        spacing: Some(image.header_spacing()),
        previous: previous.as_ref().map(|(mask, _)| mask),
    };
    let result = ensemble.segment(scan, options, &mut |stage| {
        if let Stage::Tiles(done, all) = stage {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let result = result.map_err(|error| match error.cause() {
        LibraryError::Data(_) | LibraryError::Argument { .. } => LibraryError::in_file(&case.files[0], error),
        _ => error,
    })?;

    let writing = Instant::now();
    let mut probabilities = BTreeMap::new();
    for ((label, file), volume) in probability_files(case, &result.labels).into_iter().zip(&result.probabilities) {
        nifti::write(&file, &image.with_volume(volume.clone()))?;
        probabilities.insert(label, file.display().to_string());
    }
    nifti::write(&case.mask, &image.with_volume(result.mask.clone()))?;
    let volumes_ml = result.volumes_ml().into_iter().collect();
    let Segmentation { tiles, working_set, seconds, warnings: more, .. } = result;
    if context.verbose > 0 {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        note!(
            "memory: {:.0} MB planned for sums, activations and one slab; {:.0} MB at most held by the CPU's tensors, weights \
             included",
            megabytes(working_set),
            megabytes(nephron::host_memory().peak as u64)
        );
    }
    Ok(FileReport {
        image: case.files[0].clone(),
        mask: case.mask.clone(),
        probabilities,
        volumes_ml,
        tiles,
        working_set_bytes: working_set,
        seconds: Seconds { read, segment: seconds, write: writing.elapsed().as_secs_f64() },
        warnings: warnings.into_iter().chain(more).collect(),
    })
}

/// Each label or region with the file of its probability. The labels' names become parts of files' names: letters, digits and
/// hyphens; with the label's value where two become the same.
fn probability_files(case: &Case, labels: &TargetLabels) -> Vec<(String, PathBuf)> {
    let plain = |label: &str| -> String {
        label.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
    };
    let names: Vec<String> = labels.targets().iter().map(|target| plain(&target.name)).collect();
    let is_unique = |name: &String| names.iter().filter(|n| *n == name).count() == 1;
    let file = |(target, name): (&nephron::models::Target, &String)| {
        let part = if is_unique(name) { name.clone() } else { format!("{name}_{}", target.value) };
        let file = case.mask.with_file_name(format!("{}_{part}_probability.nii.gz", case.prefix));
        (target.name.clone(), file)
    };
    labels.targets().iter().zip(&names).map(file).collect()
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
