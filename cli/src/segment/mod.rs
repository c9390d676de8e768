//! `nephron segment`.

mod cases;
mod console;
mod label_files;
mod model;
mod one_case;
mod pipeline;
mod postprocessing;
mod previous;
mod record;

use std::path::PathBuf;

use super::Context;
use crate::error::{Error, Result};
use cases::Case;
use console::Console;
use model::ModelArgs;
use nephron::error::Error as LibraryError;
use nephron::io::try_folder;
use nephron::models::OrientationRule;
use nephron::pipeline::{Ensemble, Mirroring, Output, Postprocessing, SegmentOptions, parse_bytes};
use one_case::How;
use record::{Record, Settings};

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
    /// Also write <image>_preview.png: the axial slice with most labelled voxels, their outlines on it
    #[arg(long)]
    preview: bool,
    /// The most memory for the resampled image, the network's sums, activations and slabs: bytes, or with KB, MB, GB, KiB, MiB, GiB. With it no
    /// image is read or written while another is segmented
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
    cases::check_outputs(&all, |case| one_case::outputs(case, &plan.labels))?;
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
        left = record.keep(&args.output, left, |case| one_case::is_done(case, &plan.labels, &options, args.preview))?;
    } else {
        super::remove_stale(&path)?;
        super::remove_stale(&path.with_extension("csv"))?;
    }
    if is_recorded {
        label_files::write(&args.output, plan.labels.targets())?;
    }
    let how =
        How { ensemble: &ensemble, postprocessing: finish.as_ref(), options: &options, with_preview: args.preview };
    let mut console = Console {
        how: &how,
        progress: &progress,
        context,
        cases: &left,
        is_alone: cases.len() == 1,
        path: is_recorded.then_some(path.as_path()),
        record,
        written: Ok(()),
    };
    // A budget is for one image at a time.
    let ended = if left.len() > 1 && args.memory_budget.is_none() {
        pipeline::run_overlapped(&left, &how, &mut console)
    } else {
        pipeline::run_in_turn(&left, &how, &mut console)
    };
    progress.clear();
    ended?;
    let Console { mut record, mut written, .. } = console;
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
