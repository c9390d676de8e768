//! The content of `result.json`. docs/result.md describes every field.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::lesion_results::Findings;
use super::run_options::RunOptions;
use super::{ModelCard, ScanSlice};
use crate::error::{Error, Result};
use crate::io::SourceFile;
use crate::phase::{Phase, Subtype};
use crate::registration::Registration;
use crate::volume::Diameter;

/// The version of the layout of `result.json`.
pub const SCHEMA_VERSION: u32 = 2;

/// One phase in the result. Paths are relative to the result folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PhaseResult {
    /// The phase.
    pub phase: Phase,
    /// The path of the scan.
    #[serde(serialize_with = "crate::io::lossy")]
    pub input: PathBuf,
    /// Every file that was read for the phase (a given mask included), with its hash.
    pub files: Vec<SourceFile>,
    /// The mask on the grid of the scan.
    pub mask: PathBuf,
    /// Volume of the kidney parenchyma in millilitres.
    pub kidney_ml: f64,
    /// Volume of the tumour in millilitres.
    pub tumour_ml: f64,
    /// The diameters of the largest connected component of the tumour, on the grid of the scan.
    pub tumour_diameter: Diameter,
    /// The scan on the reference's grid.
    pub aligned: PathBuf,
    /// The mask on the reference's grid.
    pub aligned_mask: PathBuf,
    /// The registration to the reference; None for the reference.
    pub registration: Option<Registration>,
    /// The file of the transform, as ITK text; None for the reference.
    pub transform: Option<PathBuf>,
    /// The overlays: first of the slice with the reference's largest tumour area, then of that with its largest kidney area.
    pub pictures: Vec<PathBuf>,
    /// The slices of this phase's scan that they show.
    #[serde(default)]
    pub picture_slices: Vec<ScanSlice>,
}

/// Wall-clock seconds of each stage.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Seconds {
    /// Segmentation of all phases.
    pub segment: f64,
    /// Registration and resampling of all phases but the reference.
    pub align: f64,
    /// Lesions, crops and classification networks.
    pub classify: f64,
    /// Writing masks, aligned images and pictures.
    pub write: f64,
    /// All stages, from the scans in memory to the report.
    pub total: f64,
}

/// The weight files with their hashes; empty where the weights came from a seed or were not needed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Models {
    /// The files of the segmentation model.
    pub segmentation: Vec<SourceFile>,
    /// The files of the classification model.
    pub classification: Vec<SourceFile>,
    /// What the maker of the segmentation model says of it; None, and absent in the file, without a model.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation_card: Option<ModelCard>,
}

/// The result of a diagnosis: the content of `result.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The version of the layout, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name and version of the program.
    pub program: String,
    /// The name of the device.
    pub device: String,
    /// When the run ended, in UTC by ISO 8601; None in results of versions that did not write it.
    #[serde(default)]
    pub date: Option<String>,
    /// The weights that were used.
    pub models: Models,
    /// What the run was asked for; None in results of versions that did not write it.
    #[serde(default)]
    pub options: Option<RunOptions>,
    /// Notes about the models that every reader must know.
    pub notes: Vec<String>,
    /// Conditions that the reader should know of and that did not prevent a result.
    pub warnings: Vec<String>,
    /// The phase to which the others were aligned.
    pub reference: Phase,
    /// The first and the last slice that all phases cover, counted from the feet on the reference's grid.
    pub slices: [usize; 2],
    /// The phases in the order in which they were given.
    pub phases: Vec<PhaseResult>,
    /// The classes, in the order of all probabilities.
    pub classes: [Subtype; 5],
    /// The lesions, and the classification of the one that was chosen.
    #[serde(flatten)]
    pub findings: Findings,
    /// Wall-clock seconds of each stage.
    pub seconds: Seconds,
}

impl Diagnosis {
    /// Reads the `result.json` of a diagnosis.
    ///
    /// # Errors
    /// As [`read_result`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        read_result(path)
    }
}

/// Name and version of this program, as its results hold them.
pub fn program() -> String {
    format!("nephron {}", env!("CARGO_PKG_VERSION"))
}

/// Reads those fields of a `result.json` that `T` has, such as its [`Findings`], which `classify` writes too.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read, has another version of the layout, or lacks a field of `T`.
pub fn read_result<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let path = path.as_ref();
    let text = crate::io::read_small(path)?;
    let other = |e| Error::io(path, "expected a result of diagnose", e);
    let Version { schema_version } = serde_json::from_slice(&text).map_err(other)?;
    if schema_version != SCHEMA_VERSION {
        return Err(Error::file(path, format!("expected schema version {SCHEMA_VERSION}, found {schema_version}")));
    }
    serde_json::from_slice(&text).map_err(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn registration() -> Value {
        let overlap = json!({"kidney": {"soft": 0.5, "hard": 0.75}, "tumour": {"soft": 0.25, "hard": 0.125}});
        json!({
            "transformation": "affine", "theta": [[1.0, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
            "align_corners": true,
            "transform": [[1.0, 0.0, 0.0, 2.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
            "identity": overlap, "centre_of_mass": overlap, "aligned": {"kidney": {"soft": 1.0, "hard": 1.0}, "tumour": null},
            "loss": -0.5, "channels": [{"labels": [1, 2], "weight": 0.5, "dice": 0.75}], "iterations": 30,
            "converged": false, "outcome": "diverged", "seconds": 1.5, "warnings": ["odd"]
        })
    }

    fn result() -> Value {
        let diameter = json!({"maximum_3d_diameter_mm": 30.5, "maximum_2d_diameter_mm": 20.25});
        let file = json!({"file": "a.nii.gz", "sha256": "00ff"});
        let classification = json!({
            "probabilities": [0.125, 0.125, 0.25, 0.25, 0.25], "decision": "ccRCC",
            "images": [{"phases": ["non-contrast", "arterial", "portal"], "probabilities": [0.5, 0.5], "picture": null}],
            "crops": [{"phase": "portal", "slice": 3, "rows": [1, 2], "columns": [3, 4], "area": 9, "picture": "p.png",
                "scan_slice": {"axis": "k", "index": 28, "itk_snap": 29, "position_mm": -0.5}}],
            "models": 2
        });
        let lesion = json!({
            "number": 1, "volume_ml": 2.5, "side": "left",
            "phases": [{"phase": "delayed", "volume_ml": 2.5, "maximum_3d_diameter_mm": 30.5,
                "maximum_2d_diameter_mm": 20.25, "centre": [1.0, -2.0, 3.5]}],
            "classification": classification, "not_classified": null
        });
        let phase = |registration: Value| {
            json!({
                "phase": "arterial", "input": "in.nii.gz", "files": [file], "mask": "masks/a.nii.gz", "kidney_ml": 150.5,
                "tumour_ml": 2.5, "tumour_diameter": diameter, "aligned": "aligned/a.nii.gz",
                "aligned_mask": "aligned/a_mask.nii.gz", "registration": registration, "transform": null, "pictures": ["x.png"],
                "picture_slices": [{"axis": "i", "index": 0, "itk_snap": 1, "position_mm": 2.5}]
            })
        };
        json!({
            "schema_version": SCHEMA_VERSION, "program": "nephron 0.1.0", "device": "cpu", "date": "2026-11-27T10:00:00Z",
            "models": {"segmentation": [file], "classification": []},
            "options": {"given_masks": true, "mirroring": false, "lesion": "largest", "margin": "5mm", "thresholds": [0.5],
                "segmentation": {"models": [{"configuration": "2d", "folds": ["all"], "mirroring_allowed": "y,x"}], "precision": "f16",
                    "step": 0.5, "sums": "f16", "orientation": "RAS", "postprocessing": null, "previous_masks": "masks"}},
            "notes": ["n"], "warnings": [],
            "reference": "portal", "slices": [0, 41], "phases": [phase(Value::Null), phase(registration())],
            "classes": ["oncocytoma", "AML", "chRCC", "pRCC", "ccRCC"],
            "lesions": [lesion], "specks": {"count": 1, "volume_ml": 0.0625}, "together": false, "lesion": 1,
            "classification": classification, "not_classified": null,
            "seconds": {"segment": 1.0, "align": 2.0, "classify": 0.5, "write": 0.25, "total": 4.0}
        })
    }

    fn read(value: &Value) -> Result<Diagnosis> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("result.json");
        std::fs::write(&path, value.to_string()).expect("written");
        Diagnosis::read(&path)
    }

    #[test]
    fn a_result_that_was_read_is_written_the_same() {
        let found = read(&result()).expect("a result");
        assert_eq!(found.findings.lesions[0].lesion.phases[0].phase, Phase::Delayed);
        assert_eq!(serde_json::to_value(&found).expect("JSON"), result());
    }

    #[test]
    fn a_result_of_an_earlier_version_is_read() {
        let mut older = result();
        for (place, field) in [
            ("", "date"),
            ("/options", "segmentation"),
            ("/phases/0", "picture_slices"),
            ("/classification/crops/0", "scan_slice"),
        ] {
            let removed = older.pointer_mut(place).and_then(Value::as_object_mut).expect("an object").remove(field);
            assert!(removed.is_some(), "{field}");
        }
        let found = read(&older).expect("a result");
        assert!(found.date.is_none() && found.options.is_some_and(|options| options.segmentation.is_none()));
    }

    #[test]
    fn other_layouts_are_refused_by_name() {
        let mut newer = result();
        newer["schema_version"] = 99.into();
        let message = read(&newer).expect_err("another version").to_string();
        assert!(message.ends_with("result.json: expected schema version 2, found 99"), "{message}");
        let mut part = result();
        part.as_object_mut().expect("an object").remove("specks");
        let message = read(&part).expect_err("a field is missing").to_string();
        assert!(message.contains("expected a result of diagnose") && message.contains("specks"), "{message}");
    }
}
