//! `nephron segment`.

mod cases;
mod console;
mod files;
mod one_case;
mod outputs;
mod pipeline;
mod record;

use std::path::PathBuf;

use super::Context;
use crate::error::{Error, Result};
use crate::options::{DeviceArgs, ProgressArgs};
use crate::segmentation::previous;
use crate::segmentation::{SegmentationArgs, reports};
use cases::Case;
use console::Console;
use files::Format;
use nephron::error::Error as LibraryError;
use nephron::io::{FolderLock, try_folder};
use nephron::pipeline::{Ensemble, Output, Postprocessing, SegmentOptions};
use one_case::How;
use outputs::Wanted;
use record::{Record, Settings};

const EXAMPLES: &str = "\
Examples:
  nephron segment scan.nii.gz --model MODEL -o masks
  nephron segment -i imagesTs --model Dataset220 --configuration 3d_fullres --folds 0,1 -o predictions
  nephron segment scan.nii.gz --model MODEL_A --model MODEL_B --tta -o masks
  nephron segment -i imagesTs --model MODEL -o predictions --continue";

/// Segment kidneys and tumours.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Images (NIfTI, MetaImage or NRRD; PNG, BMP or TIFF where the model's reader is nnU-Net's of these), each segmented on its
    /// own; for a model of several channels one 4D file or coloured picture, or the files <name>_0000, <name>_0001, ... of each image
    #[arg(required_unless_present = "input", conflicts_with = "input")]
    images: Vec<PathBuf>,
    /// Folder of images as nnU-Net names them, <case>_0000.nii.gz with a number a channel; their masks become <case>.nii.gz
    #[arg(short, long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Model folder: plans.json, dataset.json and weights (fold_*/checkpoint_final.pth, or weights or fold_* as
    /// .safetensors or .pth), in it, in its segmentation/ or in a folder of training results in it; or a .zip of
    /// nnUNetv2_export_model. Given several times, the models' probabilities are averaged
    #[arg(long, required = true, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Folder for the masks, <image>_mask.nii.gz; made if missing
    #[arg(short, long)]
    output: PathBuf,
    /// Also write each foreground label's probability, <image>_<label>_probability.nii.gz
    #[arg(long)]
    probabilities: bool,
    /// Also write <image>.npz as nnU-Net does: the array `probabilities`, f32 [outputs, z, y, x], for nnUNetv2_ensemble and
    /// NumPy. nnU-Net's <image>.pkl of the image's properties is not written
    #[arg(long)]
    save_probabilities: bool,
    /// Also write <image>_preview.png: the axial slice with most labelled voxels, their outlines on it
    #[arg(long)]
    preview: bool,
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
    #[command(flatten)]
    how: SegmentationArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Runs the verb. An image that fails costs that image alone.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    if args.part_id >= args.num_parts {
        let parts = args.num_parts;
        return Err(Error::Usage(format!("--part-id: expected 0 to {}, found {}", parts - 1, args.part_id)));
    }
    let output = match (args.save_probabilities, args.probabilities) {
        (true, _) => Output::AllProbabilities,
        (false, true) => Output::Probabilities,
        (false, false) => Output::Labels,
    };
    let options = SegmentOptions { output, ..args.how.options() };
    let device = context.device()?;
    let progress = args.progress.start();
    progress.stage("loading the model");
    let ensemble = args.how.load(&args.model, &device)?;
    progress.clear();
    args.how.tell(&args.model, &ensemble);
    let finish = args.how.postprocessing(&ensemble)?;
    let first = &ensemble.members()[0];
    let plan = first.plan();
    let format = Format::of(plan.reader);
    let all = match &args.input {
        Some(folder) => cases::from_folder(folder, &plan.file_ending, (plan.channels.len(), format), &args.output)?,
        None => cases::from_files(&args.images, (plan.channels.len(), format), &args.output)?,
    };
    let wanted = Wanted { probabilities: args.probabilities, npz: args.save_probabilities, preview: args.preview };
    cases::check_outputs(&all, format, |case| outputs::all(case, plan))?;
    let cases: Vec<Case> = all.into_iter().skip(args.part_id as usize).step_by(args.num_parts as usize).collect();
    try_folder(&args.output)?;
    previous::ensure_apart(&ensemble, &args.output)?;
    if format != Format::Volumes && ensemble.previous_masks().is_some() {
        let reason = "masks of pictures and TIFF stacks are not read, expected the model folder of the first stage";
        return Err(Error::Usage(format!("--previous-stage: {reason}")));
    }
    let path = args.output.join(match args.num_parts {
        1 => "segment.json".to_owned(),
        parts => format!("segment_{}_of_{parts}.json", args.part_id),
    });
    let is_recorded = args.record || args.input.is_some();
    // The record is of one run; the parts of a run, and runs without a record, share their folder.
    let _held = (is_recorded && args.num_parts == 1).then(|| FolderLock::new(&args.output)).transpose()?;
    // The spacing of a mask that is a stack has the mask's name.
    if let Some(case) = cases.iter().find(|case| is_recorded && outputs::all(case, plan).contains(&path)) {
        let (mask, path) = (case.mask.display(), path.display());
        return Err(Error::Usage(format!("the spacing of {mask} and the record would both be written to {path}")));
    }
    let settings = settings(args, &ensemble, finish.clone(), &device);
    let mut record = Record::new(&args.model[0], first.fold_names(), first.folds(), settings, plan.labels.targets());
    let mut left: Vec<&Case> = cases.iter().collect();
    if args.continue_ {
        let has_files = |case: &Case| wanted.are_done(case, &plan.labels);
        let sources = |case: &Case| one_case::sources(case, format, previous::file(&ensemble, &case.prefix)?);
        left = record.keep(&args.output, left, has_files, sources)?;
    } else {
        super::remove_stale(&path)?;
        super::remove_stale(&path.with_extension("csv"))?;
    }
    if is_recorded {
        crate::label_files::write(&args.output, plan.labels.targets())?;
    }
    let how = How { ensemble: &ensemble, postprocessing: finish.as_ref(), options: &options, wanted };
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
    // A budget is for one image at a time, and the probabilities of two would take twice the memory of one.
    let is_small = options.memory_budget.is_none() && options.output == Output::Labels;
    let ended = if left.len() > 1 && is_small {
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
    let first = &ensemble.members()[0];
    Settings {
        program: nephron::pipeline::program(),
        configuration: first.plan().configuration.clone(),
        models: reports(&args.model, ensemble),
        model_files: ensemble.files(),
        previous_masks: ensemble.previous_masks().map(|(folder, _)| folder.to_path_buf()),
        postprocessing,
        device: device.name(),
        precision: first.dtype().to_string(),
        step: args.how.step,
        sums: args.how.options().sums,
        mirroring: args.how.tta,
        orientation: args.how.orientation.map(|rule| rule.to_string()),
        probabilities: args.probabilities,
        npz: args.save_probabilities,
    }
}
