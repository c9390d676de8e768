//! `nephron train segmentation`: a U-Net from a data set.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::options::{DeviceArgs, ProgressArgs};
use crate::progress::Progress;
use crate::train::options::{Fold, PlannerArgs, RecipeArgs, parse_fold, parse_time};
use crate::train::told::Told;
use nephron::io::FolderLock;
use nephron::training::data::{Fingerprint, Plan, PlanFiles, PlannerOptions, RawDataset};
use nephron::training::{SgdOptions, TrainOptions, TrainOutcome, Training};

const EXAMPLES: &str = "\
Examples:
  nephron train segmentation Dataset001_Kidney -o model --fold 0
  nephron train segmentation Dataset001_Kidney -o model --fold 1 --plans nnUNetPlans.json
  nephron train segmentation cohort -o small --fold all --features 8 --patch 32,48,48 --epochs 20 --iterations 50";

/// Train a U-Net by nnU-Net's recipe.
///
/// The data set is in nnU-Net's raw layout: imagesTr/CASE_0000.nii.gz, a file for each channel; labelsTr/CASE.nii.gz; dataset.json.
/// Or it has a folder for each patient, as `nephron phantom --cohort` writes and `diagnose --cohort` reads: PATIENT/portal.nii.gz with
/// the labels PATIENT/portal_mask.nii.gz, and so for arterial, delayed and non-contrast. A plan is made as nnU-Net makes it, or read. Prepared
/// cases are kept in MODEL/training/prepared, 4 bytes a voxel and channel and 1 for its label, for every fold and for --resume. After every epoch log.csv, log.svg and a checkpoint
/// are written to MODEL/training/fold_F, from which --resume goes on bit for bit. In the end MODEL is what `nephron segment --model` reads; folds
/// that are trained into one MODEL are averaged there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of the data set
    dataset: PathBuf,
    /// Folder of the model; created if needed
    #[arg(short, long, value_name = "MODEL")]
    output: PathBuf,
    /// Fold that is left out for validation, 0 to 4 (those of splits_final.json in the data set, where there is one); `all` trains and validates on all cases
    #[arg(long, default_value = "0", value_parser = parse_fold)]
    fold: Fold,
    /// Plan to train by instead of one of its own, such as nnU-Net's nnUNetPlans.json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["memory", "features", "patch", "batch", "spacing"])]
    plans: Option<PathBuf>,
    /// Configuration of the plan: 3d_fullres, 3d_lowres or 2d
    #[arg(long, default_value = "3d_fullres", value_name = "NAME")]
    configuration: String,
    /// Go on from the checkpoint of an interrupted training, if there is one
    #[arg(long)]
    resume: bool,
    /// Write a checkpoint and end after the step in which this time is over, such as 90s, 45m or 3h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time_limit: Option<Duration>,
    /// Threads that make batches ahead of the network
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    loaders: u16,
    #[command(flatten)]
    planner: PlannerArgs,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

impl Args {
    fn options(&self) -> TrainOptions {
        let RecipeArgs { epochs, iterations, validate_every, seed, learning_rate, augmentation } = self.recipe;
        let sgd = SgdOptions { learning_rate, ..SgdOptions::default() };
        TrainOptions { epochs, iterations, validate_every, seed, augmentation: augmentation.into(), sgd }
    }

    /// The plan that is given, that of the model's folder where another fold was planned before, or a new one.
    fn plan(&self, dataset: &RawDataset, progress: &Progress) -> Result<PlanFiles> {
        if let Some(path) = &self.plans {
            return Ok(PlanFiles::read(path, dataset)?);
        }
        let earlier = self.output.join("plans.json");
        let PlannerArgs { memory, features, patch, batch, spacing } = self.planner;
        let is_asked =
            memory.is_some() || features.is_some() || patch.is_some() || batch.is_some() || spacing.is_some();
        if earlier.is_file() && !is_asked {
            return Ok(PlanFiles::read(&earlier, dataset)?);
        }
        let fingerprint = Fingerprint::of(dataset, dataset.reader().orientation(), &mut |done, all| {
            progress.step("measuring", done, all);
            ControlFlow::Continue(())
        })?;
        let default = PlannerOptions::default();
        let options = PlannerOptions {
            memory_gb: memory.unwrap_or(default.memory_gb),
            features: features.map_or(default.features, usize::from),
            batch: batch.map(usize::from),
            patch,
            spacing,
        };
        let plan = Plan::new(&fingerprint, dataset.labels().outputs(), &options).map_err(Error::wrong_argument)?;
        Ok(PlanFiles::new(dataset, &fingerprint, &plan))
    }
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let progress = args.progress.start();
    let dataset = RawDataset::open(&args.dataset)?;
    dataset.warnings().iter().for_each(|warning| note!("warning: {}", nephron::shown(warning)));
    let split = dataset.split(args.fold.0).map_err(Error::wrong_argument)?;
    let _held = FolderLock::new(&args.output)?;
    // Before what takes time.
    dataset.ensure_described_by(&args.output.join("dataset.json"))?;
    let files = args.plan(&dataset, &progress)?;
    let device = context.device()?;
    let training = Training {
        dataset: &dataset,
        files: &files,
        configuration: &args.configuration,
        split: &split,
        fold: args.fold.0,
        options: args.options(),
        threads: args.loaders.into(),
        time_limit: args.time_limit,
        resume: args.resume,
        device: &device,
        out: &args.output,
    };
    let mut told =
        Told { progress: &progress, training: &training, silent: context.json, skipped: None, printed: Ok(()) };
    let warn = &mut |warning| progress.suspend(|| note!("warning: {warning}"));
    let outcome = training.run(warn, &mut |stage| {
        told.tell(stage);
        ControlFlow::Continue(())
    })?;
    progress.clear();
    told.printed?;
    report(&outcome, &args.output, context)
}

fn report(outcome: &TrainOutcome, folder: &Path, context: &Context) -> Result<()> {
    if context.json {
        return context.print_json(&json!({
            "finished": outcome.weights.is_some(),
            "model": folder,
            "weights": outcome.weights,
            "parameters": outcome.parameters,
            "steps": outcome.steps,
            "epochs": outcome.records,
        }));
    }
    super::say_end(outcome.weights.as_deref(), outcome.steps)
}
