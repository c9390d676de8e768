//! The record of a run: `segment.json`, which `--json` prints too, and `segment.csv`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cases::Case;
use crate::Failure;
use crate::error::{Error, Result};
use crate::evaluate::write_table;
use crate::segmentation::ModelReport;
use nephron::error::Error as LibraryError;
use nephron::io::{SourceFile, lossy, lossy_option, read_small, write_atomic};
use nephron::models::Target;
use nephron::pipeline::{Measurement, Postprocessing, Sums, Timings};

/// The version of the record's layout.
const SCHEMA_VERSION: u32 = 1;

/// What decides the masks besides the images. A run can be continued only by one that has all of it in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Name and version of the program.
    pub(super) program: String,
    /// The first model's configuration.
    pub(super) configuration: String,
    /// The models whose probabilities were averaged.
    pub(super) models: Vec<ModelReport>,
    /// The files of the models: weights, one a fold, plans.json and dataset.json; of a cascade those of its first stage too.
    pub(super) model_files: Vec<SourceFile>,
    /// The folder of a cascade's first stage's masks, where they were given.
    #[serde(serialize_with = "lossy_option")]
    pub(super) previous_masks: Option<PathBuf>,
    /// What was done to the masks; null for nothing.
    pub(super) postprocessing: Option<Postprocessing>,
    /// The device that computed.
    pub(super) device: String,
    /// What it computed with.
    pub(super) precision: String,
    /// The distance of neighbouring tiles, in tiles.
    pub(super) step: f64,
    /// The type of the sums over overlapping tiles.
    #[serde(default)]
    pub(super) sums: Sums,
    /// Whether mirrored copies were averaged.
    pub(super) mirroring: bool,
    /// The orientation that was asked for instead of the model's.
    pub(super) orientation: Option<String>,
    /// Whether probabilities were written.
    pub(super) probabilities: bool,
    /// Whether they were written as nnU-Net does.
    #[serde(default)]
    pub(super) npz: bool,
}

/// What was done with the images of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    schema_version: u32,
    #[serde(serialize_with = "lossy")]
    pub(super) model: PathBuf,
    /// Number of networks that were averaged.
    pub(super) folds: usize,
    /// Their names, such as 0 or all; absent in records of versions that did not write them.
    #[serde(default)]
    pub(super) fold_names: Vec<String>,
    #[serde(flatten)]
    pub(super) settings: Settings,
    /// The labels or regions, with the values of the mask that belong to each.
    pub(super) labels: Vec<Target>,
    /// The images that have a mask, those of an earlier run that this one continued included.
    pub(super) files: Vec<FileRecord>,
    /// The names of images whose masks were there, of a run that left no record.
    pub(super) skipped: Vec<String>,
    pub(super) failed: Vec<Failure>,
    /// The most bytes that the CPU's tensors took at a time, weights included.
    pub(super) host_memory_peak_bytes: u64,
}

/// An image and what was found in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileRecord {
    pub(super) case: String,
    #[serde(serialize_with = "lossy")]
    pub(super) image: PathBuf,
    /// The files of all channels, and the mask of a cascade's first stage where one was given.
    pub(super) sources: Vec<SourceFile>,
    #[serde(serialize_with = "lossy")]
    pub(super) mask: PathBuf,
    pub(super) probabilities: BTreeMap<String, String>,
    /// All probabilities as nnU-Net writes them, if asked for.
    #[serde(default, serialize_with = "lossy_option")]
    pub(super) npz: Option<PathBuf>,
    /// The picture, if one was asked for.
    #[serde(serialize_with = "lossy_option")]
    pub(super) preview: Option<PathBuf>,
    pub(super) volumes_ml: BTreeMap<String, f64>,
    pub(super) measurements: Vec<Measurement>,
    pub(super) tiles: usize,
    pub(super) working_set_bytes: u64,
    pub(super) seconds: Seconds,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Seconds {
    pub(super) read: f64,
    #[serde(flatten)]
    pub(super) segment: Timings,
    pub(super) write: f64,
}

impl Record {
    pub(super) fn new(
        model: &Path,
        fold_names: &[String],
        folds: usize,
        settings: Settings,
        labels: &[Target],
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            model: model.to_path_buf(),
            folds,
            fold_names: fold_names.to_vec(),
            settings,
            labels: labels.to_vec(),
            files: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
            host_memory_peak_bytes: 0,
        }
    }

    /// Takes over what earlier runs did whose records are in `folder`, those of other parts included, and returns the images that
    /// are left to do: all but those whose files are there and whose sources, which `sources` reads, are the same. Without a record,
    /// as after other programs, an image is done where its files are.
    ///
    /// # Errors
    /// A record that cannot be read; one of another model or of other options, whose masks this run's must not be mixed with.
    pub(super) fn keep<'a>(
        &mut self,
        folder: &Path,
        cases: Vec<&'a Case>,
        has_files: impl Fn(&Case) -> bool,
        sources: impl Fn(&Case) -> Result<Vec<SourceFile>>,
    ) -> Result<Vec<&'a Case>> {
        let earlier = self.earlier(folder, &cases)?;
        let mut left = Vec::new();
        for case in cases {
            let mut files = earlier.iter().flat_map(|record| &record.files).filter(|file| file.case == case.name);
            if !has_files(case) {
                left.push(case);
            } else if earlier.is_empty() {
                self.skipped.push(case.name.clone());
            } else if let Ok(own) = sources(case)
                && let Some(file) = files.find(|file| hashes(&file.sources) == hashes(&own))
            {
                self.files.push(file.clone());
            } else {
                left.push(case);
            }
        }
        Ok(left)
    }

    /// The records in a folder that have some of these cases. Those of other parts may be of other devices or options.
    fn earlier(&self, folder: &Path, cases: &[&Case]) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| LibraryError::io(folder, "cannot be read", e))? {
            let path = entry.map_err(|e| LibraryError::io(folder, "cannot be read", e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !is_record(&name) {
                continue;
            }
            let earlier: Self = serde_json::from_slice(&read_small(&path)?)
                .map_err(|e| LibraryError::io(&path, "expected the record of an earlier run of segment", e))?;
            if !earlier.files.iter().any(|file| cases.iter().any(|case| case.name == file.case)) {
                continue;
            }
            let differing = differences(&earlier.settings, &self.settings);
            if !differing.is_empty() {
                return Err(Error::Usage(format!(
                    "--continue: {} is of a run with another {}; choose another folder, or leave out --continue",
                    path.display(),
                    differing.join(", ")
                )));
            }
            found.push(earlier);
        }
        Ok(found)
    }

    /// Writes the record as JSON to `path`, and a row for each image and label to the .csv beside it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| LibraryError::other("segment.json", e))?;
        write_atomic(path, |file| {
            use std::io::Write;
            writeln!(file, "{text}")
        })?;
        const HEAD: [&str; 7] = ["case", "image", "mask", "label", "voxels", "volume_ml", "mean"];
        let row = |(file, m): (&FileRecord, &Measurement)| {
            let mean = m.mean.map(|mean| mean.to_string()).unwrap_or_default();
            let [image, mask] = [&file.image, &file.mask].map(|path| path.display().to_string());
            vec![file.case.clone(), image, mask, m.name.clone(), m.voxels.to_string(), m.ml.to_string(), mean]
        };
        let rows = self.files.iter().flat_map(|file| file.measurements.iter().map(move |m| (file, m)));
        write_table(&path.with_extension("csv"), &HEAD, rows.map(row))
    }
}

/// Whether a file's name is that of a run's record, or of the record of a part of one.
fn is_record(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let part = name.strip_prefix("segment_").and_then(|rest| rest.strip_suffix(".json"));
    let of_part = part.and_then(|part| part.split_once("_of_")).is_some_and(|(k, n)| is_number(k) && is_number(n));
    name == "segment.json" || of_part
}

/// What files are the same wherever they lie.
fn hashes(files: &[SourceFile]) -> Vec<&str> {
    files.iter().map(|file| file.sha256.as_str()).collect()
}

/// What two runs do not have in common. Weights are compared by their content, wherever they lie.
fn differences(a: &Settings, b: &Settings) -> Vec<&'static str> {
    let configurations = |s: &Settings| s.models.iter().map(|m| m.configuration.clone()).collect::<Vec<_>>();
    let steps = |s: &Settings| s.postprocessing.as_ref().map(|p| p.steps.clone());
    let all = [
        ("program", a.program != b.program),
        ("configuration", configurations(a) != configurations(b)),
        ("--previous-stage", a.previous_masks != b.previous_masks),
        ("--postprocessing", steps(a) != steps(b)),
        ("model (weights, plans.json or dataset.json)", hashes(&a.model_files) != hashes(&b.model_files)),
        ("device", a.device != b.device),
        ("precision", a.precision != b.precision),
        ("--step", a.step != b.step),
        ("--tta", a.mirroring != b.mirroring),
        ("--orientation", a.orientation != b.orientation),
        ("--probabilities", a.probabilities != b.probabilities),
        ("--save-probabilities", a.npz != b.npz),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_other_files() {
        assert!(["segment.json", "segment_0_of_2.json", "segment_11_of_100.json"].into_iter().all(is_record));
        let others = ["segmented_a.json", "segment_of_.json", "segment_a_of_2.json", "segment.csv", "my_segment.json"];
        assert!(!others.into_iter().any(is_record));
    }
}
