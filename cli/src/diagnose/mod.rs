//! `nephron diagnose`: the whole pipeline.

mod many;
mod print;
mod system;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub(super) use print::print;

use super::Context;
use super::classify_args::ClassifyArgs;
use super::cohort::{Patient, cohort, given, guessed, mask_beside, read};
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::label_files;
use crate::options::{DeviceArgs, ProgressArgs};
use crate::segmentation::{OPTIONS, SegmentationArgs};
use nephron::error::Error as LibraryError;
use nephron::io::FolderLock;
use nephron::models::Target;
use nephron::phase::{Phase, PhaseSet};
use nephron::pipeline::Stage;
use nephron::pipeline::diagnose::{DiagnoseOptions, DiagnoseStage, Diagnosis, PhaseInput, System, diagnose};
use nephron::volume::{KIDNEY, TUMOUR};

const EXAMPLES: &str = "\
Examples:
  nephron diagnose --portal P.nii.gz --arterial A.nii.gz --delayed D.nii.gz --model MODEL -o result
  nephron diagnose --guess-phases patient --segmentation FULLRES --segmentation CASCADE --tta --no-classify -o result
  nephron diagnose --portal P.nii.gz --delayed D.nii.gz --masks -o result
  nephron diagnose --cohort patients --model MODEL --folds 0,1 --postprocessing auto --continue -o results";

/// What a run that computes nothing has no use for, besides the options of the segmentation.
const NOT_WITH_SUMMARY: [&str; 8] =
    ["continue_", "masks", "model", "segmentation", "no_classify", "lesion", "margin", "thresholds"];

/// Run the whole pipeline on one to four phases: masks, aligned phases and a report; with three or four phases also subtype
/// probabilities.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Portal-venous phase
    #[arg(long, value_name = "F")]
    portal: Option<PathBuf>,
    /// Arterial phase
    #[arg(long, value_name = "F")]
    arterial: Option<PathBuf>,
    /// Delayed phase
    #[arg(long, value_name = "F")]
    delayed: Option<PathBuf>,
    /// Phase without contrast medium
    #[arg(long, value_name = "F")]
    non_contrast: Option<PathBuf>,
    /// Many patients: DIR has one folder for each, with images named portal, arterial, delayed and non-contrast, such as
    /// portal.nii.gz; results are written to folders of the same names
    #[arg(long, value_name = "DIR", conflicts_with_all = ["portal", "arterial", "delayed", "non_contrast"])]
    cohort: Option<PathBuf>,
    /// One patient: DIR has the scans; phases are guessed from the names of its images
    #[arg(long, value_name = "DIR", conflicts_with_all = ["portal", "arterial", "delayed", "non_contrast", "cohort"])]
    guess_phases: Option<PathBuf>,
    /// Do not segment, but read the mask NAME_mask.nii.gz (1 kidney, 2 tumour) next to each scan NAME.nii.gz
    #[arg(long, conflicts_with_all = OPTIONS, conflicts_with = "segmentation")]
    masks: bool,
    #[command(flatten)]
    what: ClassifyArgs,
    /// Do not classify: masks, aligned phases, measurements and a report
    #[arg(long)]
    no_classify: bool,
    /// Model folder with segmentation/ (not needed with --masks or --segmentation) and classification/ (without it nothing is
    /// classified)
    #[arg(long)]
    model: Option<PathBuf>,
    /// Segmentation model instead of that in MODEL, as `segment --model` takes it. Given several times, the models' probabilities
    /// are averaged
    #[arg(long, value_name = "DIR")]
    segmentation: Vec<PathBuf>,
    /// Result folder; created if needed
    #[arg(short, long)]
    output: PathBuf,
    /// Leave out patients whose results are there already, of the same scans, models and options
    #[arg(long = "continue", requires = "cohort")]
    continue_: bool,
    /// Compute nothing: write the summary of the results that are in the output folder, whatever runs they are of
    #[arg(long, requires = "cohort", conflicts_with_all = OPTIONS, conflicts_with_all = NOT_WITH_SUMMARY)]
    summary: bool,
    #[command(flatten)]
    how: SegmentationArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// What all patients of a run have in common.
struct Run<'a> {
    system: System,
    options: DiagnoseOptions,
    device: nephron::Device,
    progress: &'a Progress,
    /// Whether masks are given instead of segmented.
    masks: bool,
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    args.what.ensure_valid()?;
    let patients = patients(args)?;
    let phases = patients.iter().map(Patient::phases).collect::<Result<Vec<_>>>()?;
    if patients.iter().any(|patient| patient.files.is_empty()) {
        return Err(Error::Usage("expected one to four phases, none given".into()));
    }
    // `requires` does not hold where another option conflicts with the required one.
    for (name, given) in [("--summary", args.summary), ("--continue", args.continue_)] {
        if given && args.cohort.is_none() {
            return Err(Error::Usage(format!("{name}: expected --cohort, found the scans of one patient")));
        }
    }
    if args.summary {
        return many::summarise(&patients, &args.output, context);
    }
    let models = system::models(args)?;
    let classification = system::classification(args, &phases);
    let device = context.device()?;
    let progress = args.progress.start();
    let (system, postprocessing) = system::load(args, &models, classification, &device, &progress)?;
    let options = DiagnoseOptions {
        segment: args.how.options(),
        postprocessing,
        lesion: args.what.lesion(),
        ..DiagnoseOptions::default()
    };
    let run = Run { system, options, device, progress: &progress, masks: args.masks };
    if args.cohort.is_some() {
        return many::run(args, context, &run, &patients, &phases);
    }
    let result = run.one(&patients[0], &phases[0])?;
    if context.json {
        return context.print_json(&result);
    }
    print(&result, &patients[0].output)
}

impl Run<'_> {
    /// Runs the pipeline on one patient. What an earlier run wrote goes just before the patient's files are read, so that a run that
    /// fails does not leave it. The folder is held from then on.
    fn one(&self, patient: &Patient, phases: &PhaseSet) -> Result<Diagnosis> {
        let _held = FolderLock::new(&patient.output)?;
        let mut inputs: Vec<PathBuf> = patient.files.iter().map(|(_, path)| path.clone()).collect();
        if self.masks {
            inputs.extend(patient.files.iter().map(|(_, path)| mask_beside(path)));
        }
        let previous = |masks| patient.files.iter().map(move |(_, path)| patient.previous_mask(path, masks));
        inputs.extend(self.previous_masks().into_iter().flat_map(previous).collect::<Result<Vec<_>>>()?);
        nephron::pipeline::diagnose::clear_results(&patient.output, phases, &inputs)?;
        self.progress.stage("reading");
        let inputs = read(patient, self.masks, self.previous_masks())?;
        run_with_progress(&inputs, &self.system, &self.options, &self.device, &patient.output, self.progress)
    }

    /// The folder of masks of a cascade's first stage, and the ending of their names.
    fn previous_masks(&self) -> Option<(&Path, &str)> {
        self.system.segmenter.as_ref().and_then(|models| models.previous_masks())
    }
}

fn patients(args: &Args) -> Result<Vec<Patient>> {
    if let Some(folder) = &args.cohort {
        return cohort(folder, &args.output);
    }
    if let Some(folder) = &args.guess_phases {
        return Ok(vec![guessed(folder, &args.output)?]);
    }
    let files = given([&args.non_contrast, &args.arterial, &args.portal, &args.delayed]);
    Ok(vec![Patient::alone(files, &args.output)])
}

/// Runs the pipeline and shows its progress.
pub(super) fn run_with_progress(
    inputs: &[PhaseInput],
    system: &System,
    options: &DiagnoseOptions,
    device: &nephron::Device,
    folder: &Path,
    progress: &Progress,
) -> Result<Diagnosis> {
    // The result is the last file that is written: what lies beside the masks comes before it.
    let masks = folder.join("masks");
    std::fs::create_dir_all(&masks).map_err(|e| LibraryError::io(&masks, "the folder cannot be created", e))?;
    let target = |(value, name): (u8, &str)| Target { value, name: name.into(), members: vec![value] };
    label_files::write(&masks, &[(KIDNEY, "kidney"), (TUMOUR, "tumour")].map(target))?;
    let place = |phase: Phase| inputs.iter().position(|input| input.phase == phase).map_or(0, |i| i + 1);
    let result = diagnose(inputs, system, options, device, folder, &mut |step| {
        match step {
            DiagnoseStage::Segment(phase, stage) => {
                let what = format!("segment phase {} of {}, {phase}", place(phase), inputs.len());
                match stage {
                    Stage::Preparing => progress.stage(&what),
                    Stage::Tiles(done, all) => progress.step(&what, done, all),
                }
            }
            DiagnoseStage::Align => progress.stage("align"),
            DiagnoseStage::Classify => progress.stage("classify"),
            DiagnoseStage::Write => progress.stage("writing pictures and report"),
        }
        ControlFlow::Continue(())
    });
    progress.clear();
    Ok(result?)
}
