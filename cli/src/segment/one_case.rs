//! One case: its files, reading them, segmenting it, and writing the results.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use super::cases::Case;
use super::pipeline::Files;
use super::previous;
use super::record::{FileRecord, Seconds};
use crate::error::Result;
use crate::progress::Progress;
use nephron::error::Error as LibraryError;
use nephron::io::{images, nifti};
use nephron::models::TargetLabels;
use nephron::pipeline::{Ensemble, Output, Postprocessing, Scan, SegmentOptions, Segmentation, Stage, Timings};
use nephron::report::{self, write_png};
use nephron::volume::{LabelVolume, Volume};

/// How the cases of a run are segmented.
pub(super) struct How<'a> {
    pub(super) ensemble: &'a Ensemble,
    pub(super) postprocessing: Option<&'a Postprocessing>,
    pub(super) options: &'a SegmentOptions,
    pub(super) with_preview: bool,
}

/// Whether all files of a case are there. Each was renamed to its name when it was whole, the mask last.
pub(super) fn is_done(case: &Case, labels: &TargetLabels, options: &SegmentOptions, with_preview: bool) -> bool {
    let probabilities = match options.output {
        Output::Labels => Vec::new(),
        Output::Probabilities => probability_files(case, labels),
    };
    let preview = !with_preview || preview_file(case).is_file();
    preview && case.mask.is_file() && probabilities.iter().all(|(_, file)| file.is_file())
}

/// The mask, and the probabilities and the picture that a run may write beside it.
pub(super) fn outputs(case: &Case, labels: &TargetLabels) -> Vec<PathBuf> {
    let probabilities = probability_files(case, labels).into_iter().map(|(_, file)| file);
    [case.mask.clone(), preview_file(case)].into_iter().chain(probabilities).collect()
}

fn preview_file(case: &Case) -> PathBuf {
    case.mask.with_file_name(format!("{}_preview.png", case.prefix))
}

/// What a case's files hold.
pub(super) struct Input {
    channels: Vec<Volume>,
    /// The first file, for the header of what is written.
    image: nifti::Image,
    previous: Option<LabelVolume>,
    warnings: Vec<String>,
    seconds: f64,
}

/// The result of a case, with the files that it is of.
pub(super) struct Found {
    input: Input,
    result: Segmentation,
}

/// Segments a case. `tick` is called after each tile, and its break ends the work.
pub(super) fn compute(
    case: &Case,
    input: Result<Input>,
    how: &How<'_>,
    progress: &Progress,
    tick: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Found> {
    // What an earlier run wrote of this case goes first: a failure must not leave it.
    for output in outputs(case, &how.ensemble.members()[0].plan().labels) {
        crate::remove_stale(&output)?;
    }
    let mut input = input?;
    let previous = input.previous.take();
    let scan =
        Scan { channels: &input.channels, spacing: Some(input.image.header_spacing()), previous: previous.as_ref() };
    let result = how.ensemble.segment(scan, how.options, &mut |stage| {
        match stage {
            Stage::Preparing => progress.stage("preprocessing"),
            Stage::Tiles(done, all) => progress.step("network", done, all),
        }
        tick()
    });
    // Whatever went wrong, the message says with which of many images.
    let result = result.map_err(|error| error.context(case.files[0].display()))?;
    Ok(Found { input, result })
}

impl Files for How<'_> {
    type Case = Case;
    type Input = Input;
    type Found = Found;
    type Written = FileRecord;

    fn read(&self, case: &Case) -> Result<Input> {
        if let Some(problem) = &case.problem {
            return Err(LibraryError::Inputs(format!("{}: {problem}", case.name)).into());
        }
        let reading = Instant::now();
        let (mut channels, mut warnings) = (Vec::new(), Vec::new());
        let mut first = None;
        for file in &case.files {
            let (volumes, image) = images::read_channels(file)?;
            channels.extend(volumes);
            warnings.extend(image.warnings.iter().cloned());
            first.get_or_insert(image);
        }
        let Some(image) = first else { return Err(LibraryError::Inputs(format!("{}: no image", case.name)).into()) };
        let seconds = reading.elapsed().as_secs_f64();
        let previous = previous::read(self.ensemble, case)?;
        warnings.extend(previous.iter().flat_map(|(_, warnings)| warnings.clone()));
        Ok(Input { channels, image, previous: previous.map(|(mask, _)| mask), warnings, seconds })
    }

    fn write(&self, case: &Case, found: Found) -> Result<FileRecord> {
        write(case, found, self)
    }
}

/// Writes the files of a case.
fn write(case: &Case, found: Found, how: &How<'_>) -> Result<FileRecord> {
    let Found { input, mut result } = found;
    let Input { channels, image, warnings, seconds: read, .. } = input;
    if let Some(finish) = how.postprocessing {
        let finishing = Instant::now();
        result.mask = finish.apply(&result.mask)?;
        result.seconds.export += finishing.elapsed().as_secs_f64();
    }

    let writing = Instant::now();
    let mut probabilities = std::collections::BTreeMap::new();
    for ((label, file), volume) in probability_files(case, &result.labels).into_iter().zip(&result.probabilities) {
        nifti::write(&file, &image.with_volume(volume.clone()))?;
        probabilities.insert(label, file.display().to_string());
    }
    let measurements = result.measure(&channels[0])?;
    let preview = how.with_preview.then(|| preview_file(case));
    if let Some(path) = &preview {
        write_png(path, &report::preview(&channels[0], &result.mask)?)?;
    }
    nifti::write(&case.mask, &image.with_volume(result.mask.clone()))?;
    let write = writing.elapsed().as_secs_f64();
    let volumes_ml = result.volumes_ml().into_iter().collect();
    let Segmentation { tiles, working_set, seconds, warnings: more, .. } = result;
    Ok(FileRecord {
        case: case.name.clone(),
        image: case.files[0].clone(),
        sources: nephron::io::hash_files(&case.files)?,
        mask: case.mask.clone(),
        probabilities,
        preview,
        volumes_ml,
        measurements,
        tiles,
        working_set_bytes: working_set,
        seconds: Seconds { read, segment: seconds, write },
        warnings: warnings.into_iter().chain(more).collect(),
    })
}

/// Each label or region with the file of its probability. The labels' names become parts of files' names: letters, digits and
/// hyphens; with the label's value where two become the same.
fn probability_files(case: &Case, labels: &TargetLabels) -> Vec<(String, PathBuf)> {
    let plain = |label: &str| -> String {
        label.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
    };
    let names: Vec<String> = labels.targets().iter().map(|target| plain(&target.name)).collect();
    let is_unique = |name: &String| names.iter().filter(|n| *n == name).count() == 1;
    let file = |(target, name): (&nephron::models::Target, &String)| {
        let part = if is_unique(name) { name.clone() } else { format!("{name}_{}", target.value) };
        let file = case.mask.with_file_name(format!("{}_{part}_probability.nii.gz", case.prefix));
        (target.name.clone(), file)
    };
    labels.targets().iter().zip(&names).map(file).collect()
}

pub(super) fn print(report: &FileRecord) -> Result<()> {
    let Timings { preprocess, network, export } = report.seconds.segment;
    say!("{}", report.mask.display())?;
    for m in &report.measurements {
        let mean = m.mean.map(|mean| format!(", mean {mean:.1}")).unwrap_or_default();
        say!("  {:12} {:10.2} ml{mean}", m.name, m.ml)?;
    }
    say!("  {} tiles; {preprocess:.2} s preparing, {network:.2} s network, {export:.2} s export", report.tiles)?;
    Ok(())
}
