//! `nephron import`: models of other programs as files of this one.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::options::{CpuArgs, JsonArgs};
use nephron::error::Error as LibraryError;
use nephron::io::weights::Storage;
use nephron::pipeline::{ModelCard, ModelOptions, import_nnunet};

/// Convert a model of another program.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    /// Convert a model of nnU-Net to safetensors and JSON, which `segment` reads with the same results and without a pickle.
    Nnunet(Nnunet),
}

const EXAMPLES: &str = "\
Examples:
  nephron import nnunet Dataset220 --configuration 3d_fullres -o model/segmentation
  nephron import nnunet model.zip --folds 0,1,2 -o model/segmentation
  nephron import nnunet model/segmentation --f16 -o half/segmentation";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Nnunet {
    /// What `segment --model` takes: a folder of results, the folder above it, or a .zip of nnUNetv2_export_model
    folder: PathBuf,
    /// The new model folder
    #[arg(short, long)]
    output: PathBuf,
    /// Configuration of plans.json (the one that the weights were trained by)
    #[arg(long)]
    configuration: Option<String>,
    /// Folds to convert, such as 0,1,2, or all for fold_all (every numbered one)
    #[arg(long, value_delimiter = ',')]
    folds: Option<Vec<String>>,
    /// Checkpoint of each fold: final, best or latest (final)
    #[arg(long)]
    checkpoint: Option<String>,
    /// Model folder of a cascade's first stage (the one beside the cascade's); it is converted too
    #[arg(long, value_name = "DIR")]
    previous_stage: Option<PathBuf>,
    /// Round the weights to f16, which halves the files
    #[arg(long)]
    f16: bool,
    #[command(flatten)]
    cpu: CpuArgs,
}

#[derive(Serialize)]
struct Report {
    #[serde(serialize_with = "nephron::io::lossy")]
    model: PathBuf,
    configuration: String,
    previous_stage: Option<String>,
    folds: usize,
    card: Option<ModelCard>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let From::Nnunet(args) = &args.from;
    args.cpu.run(|output| nnunet(args, output))
}

fn nnunet(args: &Nnunet, output: &JsonArgs) -> Result<()> {
    let options = ModelOptions {
        configuration: args.configuration.clone(),
        folds: args.folds.clone(),
        checkpoint: args.checkpoint.clone(),
        previous_stage: args.previous_stage.clone(),
    };
    let asked = options != ModelOptions::default();
    let storage = if args.f16 { Storage::F16 } else { Storage::F32 };
    let model = import_nnunet(&args.folder, &options, storage, &args.output).map_err(|e| {
        if asked && matches!(e, LibraryError::Argument { .. }) { Error::Usage(e.to_string()) } else { e.into() }
    })?;
    let report = Report {
        model: args.output.clone(),
        configuration: model.plan().configuration.clone(),
        previous_stage: model.plan().previous.as_ref().map(|stage| stage.configuration.clone()),
        folds: model.folds(),
        card: model.card().cloned(),
    };
    if output.json {
        return output.print_json(&report);
    }
    let first = report.previous_stage.map(|name| format!(", with its first stage {name}")).unwrap_or_default();
    say!("{}: {}{first}, folds: {}", report.model.display(), report.configuration, report.folds)
}
