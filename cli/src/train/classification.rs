//! `nephron train classification`: the subtype classifier from patients' folders.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cohort::{Patient, cohort, mask_beside};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::options::{DeviceArgs, ProgressArgs};
use crate::progress::Progress;
use crate::train::options::{Fold, parse_above_zero, parse_fold, parse_time};
use crate::train::subtypes::Subtypes;
use nephron::error::Error as LibraryError;
use nephron::io::FolderLock;
use nephron::pipeline::classify::ClassifierConfig;
use nephron::pipeline::crop::Margin;
use nephron::pipeline::lesions::LesionChoice;
use nephron::pipeline::{Ensemble, ModelOptions, Precision, SegmentOptions, Segmenter};
use nephron::registration::RegistrationOptions;
use nephron::training::SgdOptions;
use nephron::training::classification::{
    ClassifierEpoch, ClassifierOptions, ClassifierOutcome, ClassifierStage, ClassifierTraining, PatientFiles,
    Preparation, ScanFiles, stratified_split,
};
use nephron::training::data::{Split, read_split};

const EXAMPLES: &str = "\
Examples:
  nephron train classification patients -o model --weights resnet101.pth
  nephron train classification patients -o model --segmentation SEGMENTER --fold 1 --weights resnet101.pth
  nephron train classification phantoms -o small --depth 18 --width 16 --image-size 112 --epochs 60";

/// Train the subtype classifier by the recipe of Uhm et al. 2021.
///
/// DIR has a folder for each patient, with three or four images named after their phases, such as portal.nii.gz, and beside each its
/// mask (portal_mask.nii.gz: 1 kidney, 2 tumour) unless --segmentation makes it. Subtypes are of DIR/subtypes.csv (columns patient and
/// subtype) or of each patient's truth.json. Phases are aligned and tumours cropped once, as `nephron diagnose` does it, and kept in
/// MODEL/training/classification. After every epoch log.csv, log.svg and a checkpoint are written there, from which --resume goes on bit
/// for bit. In the end MODEL/classification is what `nephron diagnose --model` classifies by; folds that are trained into one MODEL are
/// averaged there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of the patients
    dataset: PathBuf,
    /// Folder of the model; created if needed
    #[arg(short, long, value_name = "MODEL")]
    output: PathBuf,
    /// Segmentation model that makes the masks, as `segment --model` takes it; given several times, the models are averaged
    #[arg(long, value_name = "DIR")]
    segmentation: Vec<PathBuf>,
    /// Table of the subtypes, with the columns patient (the folder's name) and subtype
    #[arg(long, value_name = "FILE")]
    subtypes: Option<PathBuf>,
    /// Fold that is left out for validation, 0 to 4 (of each subtype a fifth, or as splits_final.json in DIR says); `all` trains and validates on all patients
    #[arg(long, default_value = "0", value_parser = parse_fold)]
    fold: Fold,
    /// Weights to fine-tune: torchvision's ResNet of the depth (.pth or safetensors), or a classifier's
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
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
    network: NetworkArgs,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
struct NetworkArgs {
    /// Depth of the ResNet: 18, 34, 50, 101 or 152
    #[arg(long, default_value_t = 101, value_name = "N", value_parser = parse_depth)]
    depth: usize,
    /// Channels of its first stage; torchvision's weights are of 64
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    width: u16,
    /// Rows and columns of the images
    #[arg(long, default_value_t = 224, value_name = "N", value_parser = clap::value_parser!(u16).range(32..=4096))]
    image_size: u16,
    /// Margin on each side of the tumour's rectangle, in voxels or in millimetres such as 5mm
    #[arg(long, default_value = "0", value_parser = parse_margin)]
    margin: Margin,
    /// Which tumour of a patient has the subtype: largest (of those in every phase), or all tumour voxels together
    #[arg(long, default_value = "largest", value_name = "largest|together", value_parser = parse_lesion)]
    lesion: LesionChoice,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recipe")]
struct RecipeArgs {
    /// Number of epochs, over which the learning rate falls to 0
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=16_777_216))]
    epochs: u64,
    /// Images of a batch
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch_size: u16,
    /// Epochs between validations, besides the one at the end; 0 for that one alone
    #[arg(long, default_value_t = 10, value_name = "N")]
    validate_every: u64,
    /// Seed of weights, order and augmentation
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Learning rate of the first epoch (0.0001 with --weights, else 0.0125)
    #[arg(long, value_name = "RATE", value_parser = parse_above_zero)]
    learning_rate: Option<f64>,
}

fn parse_depth(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(depth @ (18 | 34 | 50 | 101 | 152)) => Ok(depth),
        _ => Err("expected 18, 34, 50, 101 or 152".into()),
    }
}

fn parse_margin(text: &str) -> Result<Margin, String> {
    text.parse().map_err(|e: LibraryError| e.to_string())
}

fn parse_lesion(text: &str) -> Result<LesionChoice, String> {
    match text.parse() {
        Ok(lesion @ (LesionChoice::Largest | LesionChoice::Together)) => Ok(lesion),
        _ => Err("expected largest or together".into()),
    }
}

impl Args {
    fn config(&self) -> ClassifierConfig {
        let NetworkArgs { depth, width, image_size, margin, lesion } = self.network;
        ClassifierConfig {
            depth,
            width: width.into(),
            fusion: Some(true),
            input_size: image_size.into(),
            margin,
            lesion,
            ..ClassifierConfig::default()
        }
    }

    fn options(&self) -> ClassifierOptions {
        let RecipeArgs { epochs, batch_size, validate_every, seed, learning_rate } = self.recipe;
        let usual = match self.weights {
            Some(_) => ClassifierOptions::RATE_OF_FINE_TUNING,
            None => ClassifierOptions::RATE_FROM_SCRATCH,
        };
        let default = ClassifierOptions::default();
        let sgd = SgdOptions { learning_rate: learning_rate.unwrap_or(usual), ..default.sgd };
        ClassifierOptions { epochs, batch: batch_size.into(), validate_every, seed, sgd }
    }

    /// The patients with their subtypes.
    fn patients(&self) -> Result<Vec<PatientFiles>> {
        let subtypes = Subtypes::of(&self.dataset, self.subtypes.as_deref())?;
        let is_given = self.segmentation.is_empty();
        let files = |patient: &Patient| {
            patient.ensure_usable()?;
            let name = patient.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let scan = |(phase, image): &(_, PathBuf)| ScanFiles {
                phase: *phase,
                image: image.clone(),
                mask: is_given.then(|| mask_beside(image)),
            };
            let scans = patient.files.iter().map(scan).collect();
            Ok(PatientFiles { subtype: subtypes.get(&name, &patient.folder)?, name, scans })
        };
        cohort(&self.dataset, &self.output)?.iter().map(files).collect()
    }

    fn split(&self, patients: &[PatientFiles]) -> Result<Split> {
        let own = self.dataset.join("splits_final.json");
        let names: Vec<String> = patients.iter().map(|patient| patient.name.clone()).collect();
        let split = match self.fold.0 {
            Some(fold) if own.is_file() => read_split(&own, &names, fold),
            fold => stratified_split(patients, fold),
        };
        split.map_err(Error::wrong_argument)
    }

    fn segmenter(&self, device: &nephron::Device) -> Result<Option<Ensemble>> {
        let load = |model: &PathBuf| Segmenter::load(model, &ModelOptions::default(), Precision::Fastest, device);
        let members = self.segmentation.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let ensemble = if members.is_empty() { None } else { Some(Ensemble::new(members)?) };
        if ensemble.as_ref().is_some_and(|ensemble| ensemble.previous_masks().is_some()) {
            return Err(Error::Usage("--segmentation: expected a model that needs no masks of a stage before".into()));
        }
        Ok(ensemble)
    }
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let progress = args.progress.start();
    let patients = args.patients()?;
    let split = args.split(&patients)?;
    let _held = FolderLock::new(&args.output)?;
    let device = context.device()?;
    let segmenter = args.segmenter(&device)?;
    let config = args.config();
    let name = args.dataset.file_name().map_or("a data set".into(), |name| name.to_string_lossy());
    let training = ClassifierTraining {
        name: &name,
        patients: &patients,
        preparation: Preparation {
            config: &config,
            segmenter: segmenter.as_ref(),
            segment: &SegmentOptions::default(),
            postprocessing: None,
            registration: &RegistrationOptions::default(),
            device: &device,
        },
        split: &split,
        fold: args.fold.0,
        weights: args.weights.as_deref(),
        options: args.options(),
        threads: args.loaders.into(),
        time_limit: args.time_limit,
        resume: args.resume,
        out: &args.output,
    };
    let warn = &mut |warning| progress.suspend(|| note!("warning: {warning}"));
    let mut told = Told { progress: &progress, silent: context.json, skipped: None, printed: Ok(()) };
    let outcome = training.run(warn, &mut |stage| {
        told.tell(stage, &training);
        ControlFlow::Continue(())
    })?;
    progress.clear();
    told.printed?;
    report(&outcome, &args.output, context)
}

/// What is said of a training under way.
struct Told<'a> {
    progress: &'a Progress,
    /// Whether epochs are not printed.
    silent: bool,
    /// Steps of the first epoch that an earlier run did; None before the first step. The time left is estimated without them.
    skipped: Option<u64>,
    /// Whether all lines were printed: the training goes on without them.
    printed: Result<()>,
}

impl Told<'_> {
    fn tell(&mut self, stage: ClassifierStage<'_>, training: &ClassifierTraining<'_>) {
        match stage {
            ClassifierStage::Preparing(done, all) => self.progress.step("aligning and cropping", done, all),
            ClassifierStage::Segmenting(_) => {}
            ClassifierStage::Step(done, _, iterations, _) => {
                let (epoch, within) = ((done - 1) / iterations, (done - 1) % iterations + 1);
                let skipped = *self.skipped.get_or_insert(within - 1);
                let fold = training.fold.map_or("fold all".to_owned(), |fold| format!("fold {fold}"));
                self.progress.input("epoch", (epoch as usize + 1, training.options.epochs as usize), &fold);
                self.progress.step("training", (within - skipped) as usize, (iterations - skipped) as usize);
            }
            ClassifierStage::Validating(done, all) => self.progress.step("validating", done, all),
            ClassifierStage::Epoch(record) => {
                // What follows is another epoch, of which no step is done.
                self.skipped = Some(0);
                if !self.silent && self.printed.is_ok() {
                    self.printed = self.progress.suspend(|| print(record));
                }
            }
        }
    }
}

fn print(record: &ClassifierEpoch) -> Result<()> {
    let ClassifierEpoch { epoch, loss, seconds, .. } = record;
    let validation = record.validation.map_or(String::new(), |found| {
        let auc = found.auc.map_or(String::new(), |auc| format!(", mean AUC {auc:.3}"));
        format!(", validation loss {:.4}, accuracy {:.3}{auc}", found.loss, found.accuracy)
    });
    say!("epoch {epoch}: loss {loss:.4}{validation}, {seconds:.1} s")
}

fn report(outcome: &ClassifierOutcome, folder: &Path, context: &Context) -> Result<()> {
    if context.json {
        return context.print_json(&json!({
            "finished": outcome.weights.is_some(),
            "model": folder,
            "weights": outcome.weights,
            "parameters": outcome.parameters,
            "images": outcome.images,
            "left_out": outcome.left_out,
            "steps": outcome.steps,
            "epochs": outcome.records,
        }));
    }
    super::say_end(outcome.weights.as_deref(), outcome.steps)
}
