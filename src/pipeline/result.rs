//! `result.json` of a diagnosis; docs/result.md describes it field by field.

use std::path::PathBuf;

use serde::Serialize;

use super::findings::Findings;
use crate::io::SourceFile;
use crate::phase::{Phase, Subtype};
use crate::registration::Registration;
use crate::volume::Diameter;

/// The version of `result.json`'s layout.
pub const SCHEMA_VERSION: u32 = 2;

/// One phase in the result. Paths are relative to the result folder.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseResult {
    /// Which phase.
    pub phase: Phase,
    /// The scan.
    #[serde(serialize_with = "crate::io::lossy")]
    pub input: PathBuf,
    /// Every file it was read from (a given mask too), with its hash.
    pub files: Vec<SourceFile>,
    /// Its mask, on its own grid.
    pub mask: PathBuf,
    /// Kidney parenchyma, millilitres.
    pub kidney_ml: f64,
    /// Tumour, millilitres.
    pub tumour_ml: f64,
    /// How far across the largest connected component of the tumour is, on the scan's own grid.
    pub tumour_diameter: Diameter,
    /// The scan on the reference's grid.
    pub aligned: PathBuf,
    /// Its mask there.
    pub aligned_mask: PathBuf,
    /// How it was moved; none for the reference.
    pub registration: Option<Registration>,
    /// The transform as ITK text; none for the reference.
    pub transform: Option<PathBuf>,
    /// Overlays, the reference's tumour slice first.
    pub pictures: Vec<PathBuf>,
}

/// Seconds by stage.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Seconds {
    /// Of all phases.
    pub segment: f64,
    /// Of all phases but the reference.
    pub align: f64,
    /// Lesions, crops and networks.
    pub classify: f64,
    /// Masks, aligned images, pictures.
    pub write: f64,
    /// From the scans in memory to the report.
    pub total: f64,
}

/// Weight files with their hashes; empty where the weights were drawn from a seed or not needed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Models {
    /// Of the segmentation.
    pub segmentation: Vec<SourceFile>,
    /// Of the classification.
    pub classification: Vec<SourceFile>,
}

/// `result.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name and version.
    pub program: String,
    /// Where it ran.
    pub device: String,
    /// The weights that were used.
    pub models: Models,
    /// What a reader must know of the models.
    pub notes: Vec<String>,
    /// What was odd but usable.
    pub warnings: Vec<String>,
    /// The phase the others were moved onto.
    pub reference: Phase,
    /// First and last slice that all phases cover, counted from the feet on the reference's grid.
    pub slices: [usize; 2],
    /// In the order given.
    pub phases: Vec<PhaseResult>,
    /// Names of the classes, the order of all probabilities.
    pub classes: [Subtype; 5],
    /// The lesions, and the answer for the one that was asked for.
    #[serde(flatten)]
    pub findings: Findings,
    /// Where the time went.
    pub seconds: Seconds,
}
