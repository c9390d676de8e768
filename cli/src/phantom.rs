//! `nephron phantom`: synthetic patients with their ground truth.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::evaluate::write_table;
use crate::options::{CpuArgs, JsonArgs, list};
use nephron::error::Error as LibraryError;
use nephron::io::FolderLock;
use nephron::phantom::{Diagnoses, Patient, PhantomOptions, Reader, Scanner, SubtypeMix, generate};
use nephron::phase::{Phase, Subtype};

const EXAMPLES: &str = "\
Examples:
  nephron phantom patient
  nephron phantom patient --seed 7 --subtype AML --phases portal,delayed --spacing 1,1,2
  nephron phantom patients --cohort 100
  nephron phantom others --cohort 40 --seed 5000 --scanner external --subtypes external --readers 6";

/// Make synthetic multi-phase patients with ground truth.
///
/// A cohort is one folder for each seed, as `diagnose --cohort` takes them, and a table truth.csv. Phases, slice thickness, pixel size
/// and field of view are drawn for each patient as clinical cohorts have them, where no option gives them.
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
    /// Phases: any of non-contrast, arterial, portal, delayed or N, A, P, D (default: all; in a cohort two to four)
    #[arg(long, value_delimiter = ',', value_parser = parse::<Phase>)]
    phases: Option<Vec<Phase>>,
    /// Voxel size in millimetres along x,y,z (default: 1.6,1.6,3; in a cohort drawn)
    #[arg(long, value_name = "X,Y,Z", value_parser = triple)]
    spacing: Option<[f64; 3]>,
    /// Field of view along x,y,z in millimetres (default: 300,240,174; in a cohort cut in one of twenty scans)
    #[arg(long, value_name = "X,Y,Z", value_parser = triple)]
    size: Option<[f64; 3]>,
    /// Scanner: internal, or external for other noise, enhancement and slices
    #[arg(long, value_parser = parse::<Scanner>, default_value = "internal")]
    scanner: Scanner,
    /// Make patients of N seeds, from --seed on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    cohort: Option<u64>,
    /// Subtypes of a cohort: balanced, or external for those of the external set of Uhm et al. (163 ccRCC, 14 pRCC, 7 chRCC)
    #[arg(long, requires = "cohort", conflicts_with = "subtype", value_parser = parse::<SubtypeMix>, default_value = "balanced")]
    subtypes: SubtypeMix,
    /// Also write readers.csv, the ranked diagnoses of N simulated readers, as `evaluate classification --readers` takes them
    #[arg(long, value_name = "N", requires = "cohort", value_parser = clap::value_parser!(u64).range(1..=100))]
    readers: Option<u64>,
    #[command(flatten)]
    pub(crate) cpu: CpuArgs,
}

fn parse<T: std::str::FromStr<Err = LibraryError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: LibraryError| e.to_string())
}

fn triple(text: &str) -> Result<[f64; 3], String> {
    list(text, "three numbers X,Y,Z")
}

/// Runs the verb.
pub fn run(args: &Args, output: &JsonArgs) -> Result<()> {
    if let Some(count) = args.cohort {
        return cohort(args, count, output);
    }
    let base = PhantomOptions { seed: args.seed, subtype: args.subtype, scanner: args.scanner, ..Default::default() };
    let options = args.given(base);
    // Arguments are checked before the folder is made.
    options.ensure_valid().map_err(Error::wrong_argument)?;
    let _held = FolderLock::new(&args.dir)?;
    // An argument that `generate` refuses is a wrong call.
    let patient = generate(&options).map_err(Error::wrong_argument)?;
    let paths = patient.write(&args.dir)?;
    if output.json {
        return output.print_json(&json!({ "files": paths, "truth": patient.truth() }));
    }
    for tumour in &patient.tumours {
        let [x, y, z] = tumour.diameters;
        say!("{} of {x:.0} x {y:.0} x {z:.0} mm, seed {}", patient.subtype, patient.seed)?;
    }
    for path in &paths {
        say!("{}", path.display())?;
    }
    Ok(())
}

impl Args {
    /// Options with those that were given on the command line.
    fn given(&self, mut options: PhantomOptions) -> PhantomOptions {
        if let Some(phases) = &self.phases {
            options.phases.clone_from(phases);
        }
        options.spacing = self.spacing.unwrap_or(options.spacing);
        options.size = self.size.unwrap_or(options.size);
        for grid in &mut options.grids {
            grid.spacing = self.spacing.unwrap_or(grid.spacing);
            if let Some(size) = self.size {
                (grid.size, grid.height) = (size, 0.0);
            }
        }
        options
    }
}

/// The columns of truth.csv.
const COLUMNS: [&str; 14] = [
    "case",
    "truth",
    "seed",
    "phases",
    "tumours",
    "cysts",
    "x_mm",
    "y_mm",
    "z_mm",
    "hu_n",
    "hu_a",
    "hu_p",
    "hu_d",
    "second_fraction",
];

/// The columns of readers.csv.
const READERS_COLUMNS: [&str; 4] = ["case", "reader", "first", "second"];

/// Writes the patients of a cohort, each to a folder of its own, and the tables, which are removed first and written last.
fn cohort(args: &Args, count: u64, output: &JsonArgs) -> Result<()> {
    let last = args.seed.checked_add(count - 1);
    let too_large =
        || LibraryError::argument("seed", format!("at most {} for {count} patients", u64::MAX - count + 1), args.seed);
    let last = last.ok_or_else(|| Error::wrong_argument(too_large()))?;
    let options = |seed: u64| {
        let subtype = args.subtype.unwrap_or_else(|| args.subtypes.subtype(seed));
        args.given(PhantomOptions { subtype: Some(subtype), ..PhantomOptions::drawn(seed, args.scanner) })
    };
    // Every patient is drawn with a grid of its own: none is refused after others were written.
    for seed in args.seed..=last {
        options(seed).ensure_valid().map_err(|e| Error::wrong_argument(e.context(format!("seed {seed}"))))?;
    }
    let _held = FolderLock::new(&args.dir)?;
    let [table, readings] = ["truth.csv", "readers.csv"].map(|name| args.dir.join(name));
    [&table, &readings].into_iter().try_for_each(|table| crate::remove_stale(table))?;
    let readers: Vec<Reader> = (0..args.readers.unwrap_or(0)).map(Reader::new).collect();
    let (mut rows, mut read): (Vec<Vec<String>>, Vec<Vec<String>>) = (Vec::new(), Vec::new());
    let mut patients: Vec<Value> = Vec::new();
    for seed in args.seed..=last {
        let case = format!("p{seed:05}");
        let patient = generate(&options(seed)).map_err(Error::wrong_argument)?;
        let folder = args.dir.join(&case);
        patient.write(&folder)?;
        rows.push(row(&case, &patient));
        read.extend(readers.iter().enumerate().map(|(n, reader)| diagnoses(&case, n + 1, reader.read(&patient))));
        if output.json {
            patients.push(json!({ "folder": folder, "truth": patient.truth() }));
        } else {
            say!("{}: {}, {} phases", folder.display(), patient.subtype, patient.phases.len())?;
        }
    }
    write_table(&table, &COLUMNS, rows)?;
    if !readers.is_empty() {
        write_table(&readings, &READERS_COLUMNS, read)?;
    }
    if output.json {
        return output.print_json(&json!({ "table": table, "patients": patients }));
    }
    say!("{}", table.display())
}

/// The row of a patient, whose size and attenuation are those of the main tumour.
fn row(case: &str, patient: &Patient) -> Vec<String> {
    let main = &patient.tumours[0];
    let phases: String = patient.phases.iter().map(|p| p.phase.letter()).collect();
    let mut row = vec![case.to_owned(), patient.subtype.to_string(), patient.seed.to_string(), phases];
    row.extend([patient.tumours.len(), patient.cysts.len()].map(|n| n.to_string()));
    row.extend(main.diameters.iter().chain(&main.hu).map(|x| format!("{x:.1}")));
    row.push(format!("{:.4}", main.second_fraction));
    row
}

/// The row of what the reader of this number, from 1, says of a patient.
fn diagnoses(case: &str, number: usize, Diagnoses { first, second }: Diagnoses) -> Vec<String> {
    let second = second.map_or(String::new(), |second| second.to_string());
    vec![case.to_owned(), format!("reader {number}"), first.to_string(), second]
}
