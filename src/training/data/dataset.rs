//! A data set in nnU-Net's raw layout: `imagesTr/CASE_0000.nii.gz` (a file for each channel), `labelsTr/CASE.nii.gz` and
//! `dataset.json`; or in patients' folders.

use std::path::{Path, PathBuf};

use super::patients;
use super::split::{Split, read_split, split_patients};
use crate::error::{Error, Result};
use crate::io::images;
use crate::models::{ImageReader, JsonFile, TargetLabels, channel_names, reader_by_name};
use crate::volume::{LabelVolume, Volume};
use crate::{shown, shown_list};

/// A data set for training.
#[derive(Debug, Clone)]
pub struct RawDataset {
    folder: PathBuf,
    json: serde_json::Value,
    channels: Vec<String>,
    labels: TargetLabels,
    reader: (String, ImageReader),
    ending: String,
    cases: Vec<Case>,
    /// Whether it is in nnU-Net's layout.
    is_nnunets: bool,
    warnings: Vec<String>,
}

/// A case: one image and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The name of its files without channel and ending.
    pub name: String,
    /// The patient. In nnU-Net's layout every case is one of its own.
    pub patient: String,
    /// The file of each channel.
    pub images: Vec<PathBuf>,
    /// The file of the labels.
    pub labels: PathBuf,
}

/// A case as it was read.
#[derive(Debug, Clone)]
pub struct ReadCase {
    /// The channels, all of one size.
    pub channels: Vec<Volume>,
    /// The spacing of the first channel's header, (d, h, w).
    pub spacing: [f64; 3],
    /// The labels, on the first channel's grid.
    pub labels: LabelVolume,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The reader that nnU-Net takes for images in files of its own, where dataset.json names none.
const DEFAULT_READER: &str = "SimpleITKIO";

impl RawDataset {
    /// Reads dataset.json and lists the cases of `labelsTr`, by name. Labels have to be 0, 1, 2, ... without gaps, the background
    /// first.
    ///
    /// Without dataset.json, labelsTr and imagesTr the folder holds a folder for each patient, with scans named after their phases and the labels of kidney (1)
    /// and tumour (2) beside them: `PATIENT/portal.nii.gz`, `PATIENT/portal_mask.nii.gz`. Every phase is a case.
    ///
    /// # Errors
    /// A folder or file that is missing or cannot be read; what nnU-Net offers but this crate does not train with: regions, an
    /// ignore label, pictures, lists of files in dataset.json; a case that lacks a channel; a patient without a phase, a phase
    /// without labels; no case.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("dataset.json");
        let is_nnunets = file.is_file() || ["labelsTr", "imagesTr"].iter().any(|part| folder.join(part).is_dir());
        let json = if is_nnunets {
            JsonFile::read(&file)?
        } else {
            JsonFile::parse(&file, patients::description().to_string().as_bytes())?
        };
        let root = json.root();
        let labels = TargetLabels::parse(&json)?;
        let refused = |what: &str, expected: &str| Err(Error::file(&file, format!("{what}, expected {expected}")));
        if labels.are_regions() {
            return refused("labels: holds regions (lists of labels)", "one number for each label");
        }
        if root.key("labels")?.has("ignore") {
            return refused("labels: holds an ignore label", "labels of every voxel");
        }
        if let Some(warning) = labels.warning() {
            return refused(&format!("labels: {warning}"), "labels 0, 1, 2, ... without gaps");
        }
        if root.has("dataset") {
            return refused("dataset: lists files", "images in imagesTr and labels in labelsTr");
        }
        let channels = channel_names(&json)?;
        let name = match root.optional("overwrite_image_reader_writer") {
            Some(node) if node.text()? != "None" => node.text()?,
            _ => DEFAULT_READER,
        };
        let reader = (name.to_owned(), reader_by_name(&file, name)?);
        if matches!(reader.1, ImageReader::Pictures | ImageReader::TiffStacks) {
            return refused(&format!("overwrite_image_reader_writer: {name} reads pictures"), "a reader of volumes");
        }
        let ending = root.optional("file_ending").map_or(Ok(".nii.gz"), |node| node.text())?.to_owned();
        if !images::ENDINGS.contains(&ending.to_ascii_lowercase().as_str()) {
            let expected = format!("one of {}", images::ENDINGS.join(", "));
            return refused(&format!("file_ending: {}", shown(&ending)), &expected);
        }
        let (cases, warnings) =
            if is_nnunets { (list(folder, channels.len(), &ending)?, Vec::new()) } else { patients::list(folder)? };
        let json = json.value().clone();
        let folder = folder.to_path_buf();
        Ok(Self { folder, json, channels, labels, reader, ending, cases, is_nnunets, warnings })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cases in the order of their names.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// What the user should know of the folder.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The names of the channels.
    pub fn channels(&self) -> &[String] {
        &self.channels
    }

    /// The labels.
    pub fn labels(&self) -> &TargetLabels {
        &self.labels
    }

    /// How nnU-Net reads the images.
    pub fn reader(&self) -> ImageReader {
        self.reader.1
    }

    /// The name of nnU-Net's reader.
    pub fn reader_name(&self) -> &str {
        &self.reader.0
    }

    /// How the names of the files end, with the dot.
    pub fn file_ending(&self) -> &str {
        &self.ending
    }

    /// The contents of dataset.json.
    pub fn json(&self) -> &serde_json::Value {
        &self.json
    }

    /// The cases of a fold: those of `splits_final.json` where the folder has one, else drawn as [`split`](super::split()) does, all
    /// cases of a patient together.
    ///
    /// # Errors
    /// As [`read_split`] and [`split_patients`].
    pub fn split(&self, fold: Option<usize>) -> Result<Split> {
        let own = self.folder.join("splits_final.json");
        match fold {
            Some(fold) if own.is_file() => {
                let names: Vec<String> = self.cases.iter().map(|case| case.name.clone()).collect();
                read_split(&own, &names, fold)
            }
            fold => {
                let cases = self.cases.iter().map(|case| (case.patient.as_str(), case.name.as_str()));
                split_patients(&cases.collect::<Vec<_>>(), fold)
            }
        }
    }

    /// Refuses the dataset.json of a model that was trained on other labels or channels. A file that does not exist describes none.
    ///
    /// # Errors
    /// Other labels or channels, with both; a file that cannot be read or is not JSON.
    pub fn ensure_described_by(&self, path: &Path) -> Result<()> {
        if !path.is_file() {
            return Ok(());
        }
        let earlier = JsonFile::read(path)?;
        for key in ["labels", "channel_names", "modality"] {
            let [then, now] =
                [earlier.value(), &self.json].map(|json| json.get(key).unwrap_or(&serde_json::Value::Null));
            if then != now {
                let reason = format!("is of a model of another data set: expected {key} {now}, found {then}");
                return Err(Error::file(path, reason));
            }
        }
        Ok(())
    }

    /// Reads a case.
    ///
    /// A case without any foreground is taken, with a warning: a healthy patient teaches the network where nothing is.
    ///
    /// # Errors
    /// A file that cannot be read; NaN or infinite voxels; labels on another grid than the first channel; a label that
    /// dataset.json does not list. The message names the case.
    pub fn read(&self, case: &Case) -> Result<ReadCase> {
        self.read_files(case).map_err(|e| e.context(format!("case {}", shown(&case.name))))
    }

    fn read_files(&self, case: &Case) -> Result<ReadCase> {
        let (mut channels, mut warnings, mut spacing) = (Vec::new(), Vec::new(), None);
        for path in &case.images {
            let image = images::read_ct(path)?;
            warnings.extend(image.warnings.iter().cloned());
            spacing.get_or_insert(image.header_spacing());
            channels.push(image.volume);
        }
        let labels = images::read_labels(&case.labels)?;
        warnings.extend(labels.warnings.iter().map(|warning| format!("labels: {warning}")));
        let labels = labels.labels;
        let (Some(first), Some(spacing)) = (channels.first(), spacing) else {
            return Err(Error::argument("channels of the image", self.channels.len(), 0));
        };
        if !labels.grid().matches(&first.grid()) {
            let of = |shape: [usize; 3], spacing: [f64; 3]| format!("{shape:?} voxels of {spacing:?} mm (z, y, x)");
            let found = of(labels.shape(), labels.spacing());
            let place = if labels.shape() == first.shape() { ", or elsewhere in the patient" } else { "" };
            let expected = of(first.shape(), first.spacing());
            let reason = format!("labels on another grid: expected the image's {expected}, found {found}{place}");
            return Err(Error::file(&case.labels, reason));
        }
        let classes = self.labels.outputs();
        let counts = labels.counts();
        if let Some((label, count)) = counts.iter().enumerate().skip(classes).find(|(_, count)| **count > 0) {
            let names = shown_list(self.labels.targets().iter().map(|target| &target.name));
            let reason = format!(
                "holds label {label} ({count} voxels): expected 0 to {} (background, {names}), as {} has them",
                classes - 1,
                if self.is_nnunets { "dataset.json" } else { "a data set of patients" }
            );
            return Err(Error::file(&case.labels, reason));
        }
        if counts[1..].iter().all(|count| *count == 0) {
            warnings.push("no voxel of any label but the background".into());
        }
        let warnings = warnings.into_iter().map(|w| format!("case {}: {w}", shown(&case.name))).collect();
        Ok(ReadCase { channels, spacing, labels, warnings })
    }
}

/// The cases of `labelsTr`.
fn list(folder: &Path, channels: usize, ending: &str) -> Result<Vec<Case>> {
    let (images, labels) = (folder.join("imagesTr"), folder.join("labelsTr"));
    let entries = std::fs::read_dir(&labels).map_err(|e| Error::io(&labels, "cannot be listed", e))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| Error::io(&labels, "cannot be listed", e))?.file_name();
        let Some(name) = name.to_str() else { continue };
        // What a file manager hides is no case.
        if let Some(case) = name.strip_suffix(ending).filter(|case| !case.is_empty() && !case.starts_with('.')) {
            names.push(case.to_owned());
        }
    }
    names.sort_unstable();
    if names.is_empty() {
        return Err(Error::file(&labels, format!("holds no file CASE{ending}, expected the labels of each case")));
    }
    let case = |name: String| {
        let file = |channel: usize| images.join(format!("{name}_{channel:04}{ending}"));
        let files: Vec<PathBuf> = (0..channels).map(file).collect();
        if let Some(missing) = files.iter().find(|path| !path.is_file()) {
            let reason = format!("is missing: labelsTr holds the labels of case {}", shown(&name));
            return Err(Error::file(missing, reason));
        }
        let extra = file(channels);
        if extra.is_file() {
            let reason = format!("is one channel more than the {channels} that dataset.json names");
            return Err(Error::file(&extra, reason));
        }
        let labels = labels.join(format!("{name}{ending}"));
        Ok(Case { patient: name.clone(), name, images: files, labels })
    };
    names.into_iter().map(case).collect()
}
