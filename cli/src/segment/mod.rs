//! `nephron segment`.

mod cases;
mod label_files;
mod model;
mod postprocessing;
mod previous;
mod record;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use super::progress::Progress;
use super::{Context, Failure};
use crate::error::{Error, Result};
use cases::Case;
use model::ModelArgs;
use nephron::error::Error as LibraryError;
use nephron::io::{images, nifti, try_folder};
use nephron::models::{OrientationRule, TargetLabels};
use nephron::pipeline::{
    Ensemble, Mirroring, Output, Postprocessing, Scan, SegmentOptions, Segmentation, Stage, Timings, parse_bytes,
};
use record::{FileRecord, Record, Seconds, Settings};

/// Segment kidneys and tumours.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images (NIfTI, MetaImage or NRRD), each segmented on its own; for a model of several channels one 4D file, or
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
    /// The most memory for the resampled image, the network's sums, activations and slabs: bytes, or with KB, MB, GB, KiB, MiB, GiB
    #[arg(long, value_parser = parse_budget)]
    memory_budget: Option<u64>,
    /// How the network sees the image's axes: stored, or three letters such as RAS or LPS (what plans.json says)
    #[arg(long, value_parser = parse_orientation)]
    orientation: Option<OrientationRule>,
    /// nnU-Net's postprocessing of the masks: none, auto for that of the model folder, or a postprocessing.pkl or .json, which is
    /// read as data
    #[arg(long, default_value = "none", value_name = "FILE|none|auto", value_parser = postprocessing::parse)]
    postprocessing: postprocessing::Choice,
    /// Write segment.json (what was done, with hashes), segment.csv (sizes and mean values) and the labels' names for ITK-SNAP
    /// (labels.txt) and 3D Slicer (labels.ctbl) beside the masks; --input always does
    #[arg(long)]
    record: bool,
    /// Leave out images whose masks are there already, written by a run of the same model and options
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
    let progress = context.progress();
    progress.stage("loading the model");
    let ensemble = args.what.load(&device)?;
    progress.clear();
    args.what.tell_cards(&ensemble);
    let finish = postprocessing::load(&args.postprocessing, &ensemble)?;
    let first = &ensemble.members()[0];
    let plan = first.plan();
    let all = match &args.input {
        Some(folder) => cases::from_folder(folder, &plan.file_ending, plan.channels.len(), &args.output)?,
        None => cases::from_files(&args.images, plan.channels.len(), &args.output)?,
    };
    cases::check_outputs(&all, |case| outputs(case, &plan.labels))?;
    let cases: Vec<Case> = all.into_iter().skip(args.part_id as usize).step_by(args.num_parts as usize).collect();
    try_folder(&args.output)?;
    let path = args.output.join(match args.num_parts {
        1 => "segment.json".to_owned(),
        parts => format!("segment_{}_of_{parts}.json", args.part_id),
    });
    let is_recorded = args.record || args.input.is_some();
    let settings = settings(args, &ensemble, finish.clone(), &device);
    let mut record = Record::new(&args.what.model[0], first.folds(), settings, plan.labels.targets());
    let mut left: Vec<&Case> = cases.iter().collect();
    if args.continue_ {
        left = record.keep(&args.output, left, |case| is_done(case, &plan.labels, &options))?;
    } else {
        super::remove_stale(&path)?;
        super::remove_stale(&path.with_extension("csv"))?;
    }
    if is_recorded {
        label_files::write(&args.output, plan.labels.targets())?;
    }
    let mut written = Ok(());
    for (i, case) in left.iter().enumerate() {
        progress.input("image", (i + 1, left.len()), &case.prefix);
        let result = segment((&ensemble, finish.as_ref()), case, &options, context, &progress);
        progress.clear();
        match result {
            Ok(file) => {
                for warning in &file.warnings {
                    note!("warning: {}: {warning}", case.name);
                }
                if !context.json {
                    // A standard output that was closed does not cost the other images.
                    written = written.and_then(|()| print(&file));
                }
                record.files.push(file);
            }
            Err(error) if cases.len() == 1 && !context.json => return Err(error),
            Err(error) => {
                note!("error: {}: {error}", case.name);
                record.failed.push(Failure { input: case.name.clone(), error: error.to_string() });
            }
        }
        record.host_memory_peak_bytes = nephron::host_memory().peak as u64;
        if is_recorded {
            // After each image, so that a run that is killed can be continued.
            record.write(&path)?;
        }
    }
    record.files.sort_by_key(|file| cases.iter().position(|case| case.name == file.case));
    if is_recorded {
        record.write(&path)?;
    }
    if !record.skipped.is_empty() {
        let (skipped, all) = (record.skipped.len(), cases.len());
        note!("{skipped} of {all} images left out: their masks were there, whatever model they are of");
    }
    if context.json {
        written = context.print_json(&record);
    }
    if !record.failed.is_empty() {
        return Err(LibraryError::Data(format!("{} of {} images failed", record.failed.len(), cases.len())).into());
    }
    written
}

fn settings(
    args: &Args,
    ensemble: &Ensemble,
    postprocessing: Option<Postprocessing>,
    device: &nephron::Device,
) -> Settings {
    let (first, members) = (&ensemble.members()[0], ensemble.members());
    Settings {
        program: nephron::pipeline::program(),
        configuration: first.plan().configuration.clone(),
        models: args.what.reports(ensemble),
        weights: members.iter().flat_map(|member| member.files().to_vec()).collect(),
        previous_masks: members.iter().find_map(|member| member.previous_masks()).map(|folder| folder.to_path_buf()),
        postprocessing,
        device: device.name(),
        precision: first.dtype().to_string(),
        step: args.step,
        mirroring: args.tta,
        orientation: args.orientation.map(|rule| rule.to_string()),
        probabilities: args.probabilities,
    }
}

/// Whether all files of a case are there. Each was renamed to its name when it was whole, the mask last.
fn is_done(case: &Case, labels: &TargetLabels, options: &SegmentOptions) -> bool {
    let probabilities = match options.output {
        Output::Labels => Vec::new(),
        Output::Probabilities => probability_files(case, labels),
    };
    case.mask.is_file() && probabilities.iter().all(|(_, file)| file.is_file())
}

/// The mask, and the probabilities that a run may write beside it.
fn outputs(case: &Case, labels: &TargetLabels) -> Vec<PathBuf> {
    let probabilities = probability_files(case, labels).into_iter().map(|(_, file)| file);
    std::iter::once(case.mask.clone()).chain(probabilities).collect()
}

fn segment(
    (ensemble, finish): (&Ensemble, Option<&Postprocessing>),
    case: &Case,
    options: &SegmentOptions,
    context: &Context,
    progress: &Progress,
) -> Result<FileRecord> {
    // What an earlier run wrote of this case goes first: a failure must not leave it.
    for output in outputs(case, &ensemble.members()[0].plan().labels) {
        super::remove_stale(&output)?;
    }
    if let Some(problem) = &case.problem {
        return Err(LibraryError::Inputs(format!("{}: {problem}", case.name)).into());
    }
    progress.stage("reading");
    let reading = Instant::now();
    let (mut channels, mut warnings) = (Vec::new(), Vec::new());
    let mut first = None;
    for file in &case.files {
        let (volumes, image) = images::read_channels(file)?;
        channels.extend(volumes);
        warnings.extend(image.warnings.iter().cloned());
        first.get_or_insert(image);
    }
    let Some(image) = first else { return Err(LibraryError::Inputs(format!("{}: no image", case.name)).into()) };
    let read = reading.elapsed().as_secs_f64();
    let previous = previous::read(ensemble, case)?;
    warnings.extend(previous.iter().flat_map(|(_, warnings)| warnings.clone()));
    let scan = Scan {
        channels: &channels,
        spacing: Some(image.header_spacing()),
        previous: previous.as_ref().map(|(mask, _)| mask),
    };
    let result = ensemble.segment(scan, options, &mut |stage| {
        match stage {
            Stage::Preparing => progress.stage("preprocessing"),
            Stage::Tiles(done, all) => progress.step("network", done, all),
        }
        ControlFlow::Continue(())
    });
    // Whatever went wrong, the message says with which of many images.
    let mut result = result.map_err(|error| error.context(case.files[0].display()))?;

    if let Some(finish) = finish {
        let finishing = Instant::now();
        result.mask = finish.apply(&result.mask)?;
        result.seconds.export += finishing.elapsed().as_secs_f64();
    }

    progress.stage("writing");
    let writing = Instant::now();
    let mut probabilities = std::collections::BTreeMap::new();
    for ((label, file), volume) in probability_files(case, &result.labels).into_iter().zip(&result.probabilities) {
        nifti::write(&file, &image.with_volume(volume.clone()))?;
        probabilities.insert(label, file.display().to_string());
    }
    let measurements = result.measure(&channels[0])?;
    nifti::write(&case.mask, &image.with_volume(result.mask.clone()))?;
    let write = writing.elapsed().as_secs_f64();
    let volumes_ml = result.volumes_ml().into_iter().collect();
    let Segmentation { tiles, working_set, seconds, warnings: more, .. } = result;
    if context.verbose > 0 {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        note!(
            "memory: {:.0} MB planned for the resampled image, sums, activations and one slab; {:.0} MB at most held by the \
             CPU's tensors, weights included",
            megabytes(working_set),
            megabytes(nephron::host_memory().peak as u64)
        );
    }
    Ok(FileRecord {
        case: case.name.clone(),
        image: case.files[0].clone(),
        sources: nephron::io::hash_files(&case.files)?,
        mask: case.mask.clone(),
        probabilities,
        volumes_ml,
        measurements,
        tiles,
        working_set_bytes: working_set,
        seconds: Seconds { read, segment: seconds, write },
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

fn print(report: &FileRecord) -> Result<()> {
    let Timings { preprocess, network, export } = report.seconds.segment;
    say!("{}", report.mask.display())?;
    for m in &report.measurements {
        let mean = m.mean.map(|mean| format!(", mean {mean:.1}")).unwrap_or_default();
        say!("  {:12} {:10.2} ml{mean}", m.name, m.ml)?;
    }
    say!("  {} tiles; {preprocess:.2} s preparing, {network:.2} s network, {export:.2} s export", report.tiles)?;
    Ok(())
}
