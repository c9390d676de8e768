//! `nephron phantom`: a synthetic patient with its ground truth.

use std::path::PathBuf;

use serde_json::json;

use crate::error::{Error, Result};
use crate::options::{CpuArgs, JsonArgs};
use nephron::error::Error as LibraryError;
use nephron::io::FolderLock;
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::{Phase, Subtype};

const EXAMPLES: &str = "\
Examples:
  nephron phantom patient
  nephron phantom patient --seed 7 --subtype AML --phases portal,delayed --spacing 1,1,2";

/// Make a synthetic multi-phase patient with ground truth.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder for images, masks and truth.json; created if needed
    dir: PathBuf,
    /// Seed; the same seed gives the same files
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Subtype: oncocytoma, AML, chRCC, pRCC or ccRCC (default: random, from the seed)
    #[arg(long, value_parser = parse::<Subtype>)]
    subtype: Option<Subtype>,
    /// Phases: any of non-contrast, arterial, portal, delayed or N, A, P, D
    #[arg(long, value_delimiter = ',', value_parser = parse::<Phase>, default_value = "N,A,P,D")]
    phases: Vec<Phase>,
    /// Voxel size in millimetres along x,y,z
    #[arg(long, value_name = "X,Y,Z", value_parser = triple, default_value = "1.6,1.6,3")]
    spacing: [f64; 3],
    /// Field of view along x,y,z in millimetres
    #[arg(long, value_name = "X,Y,Z", value_parser = triple, default_value = "300,240,174")]
    size: [f64; 3],
    #[command(flatten)]
    pub(crate) cpu: CpuArgs,
}

fn parse<T: std::str::FromStr<Err = LibraryError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: LibraryError| e.to_string())
}

fn triple(text: &str) -> Result<[f64; 3], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|x| x.trim().parse::<f64>()).collect();
    let numbers = numbers.map_err(|e| format!("expected three numbers X,Y,Z, found {text:?}: {e}"))?;
    <[f64; 3]>::try_from(numbers).map_err(|n| format!("expected three numbers X,Y,Z, found {}", n.len()))
}

/// Runs the verb.
pub fn run(args: &Args, output: &JsonArgs) -> Result<()> {
    let options = PhantomOptions {
        seed: args.seed,
        subtype: args.subtype,
        phases: args.phases.clone(),
        spacing: args.spacing,
        size: args.size,
    };
    // Arguments are checked before the folder is made.
    options.ensure_valid().map_err(Error::wrong_argument)?;
    let _held = FolderLock::new(&args.dir)?;
    // An argument that `generate` refuses is a wrong call.
    let patient = generate(&options).map_err(Error::wrong_argument)?;
    let paths = patient.write(&args.dir)?;
    if output.json {
        return output.print_json(&json!({ "files": paths, "truth": patient.truth() }));
    }
    let [x, y, z] = patient.tumour.diameters;
    say!("{} of {x:.0} x {y:.0} x {z:.0} mm, seed {}", patient.subtype, patient.seed)?;
    for path in &paths {
        say!("{}", path.display())?;
    }
    Ok(())
}
