//! One case: its files, reading them, segmenting it, and writing the results.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::cases::Case;
use super::files::{Format, Images};
use super::outputs::{self, Wanted};
use super::pipeline::Files;
use super::record::{FileRecord, Seconds};
use crate::error::Result;
use crate::progress::Progress;
use crate::segmentation::previous;
use nephron::error::Error as LibraryError;
use nephron::io::{SourceFile, hash_files, images, nifti, npz};
use nephron::models::{Normalization, OrientationRule, UNetPlan};
use nephron::pipeline::{Ensemble, Postprocessing, Scan, SegmentOptions, Segmentation, Stage, Timings};
use nephron::report::{self, SOFT_TISSUE, write_png};
use nephron::volume::{LabelVolume, Volume, Voxels};

/// How the cases of a run are segmented.
pub(super) struct How<'a> {
    pub(super) ensemble: &'a Ensemble,
    pub(super) postprocessing: Option<&'a Postprocessing>,
    pub(super) options: &'a SegmentOptions,
    pub(super) wanted: Wanted,
}

impl How<'_> {
    fn plan(&self) -> &UNetPlan {
        self.ensemble.members()[0].plan()
    }
}

/// What a case's files hold.
pub(super) struct Input {
    images: Images,
    previous: Option<LabelVolume>,
    /// The files that decide the mask.
    sources: Vec<SourceFile>,
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
    for output in outputs::all(case, how.plan()) {
        crate::remove_stale(&output)?;
    }
    let mut input = input?;
    let previous = input.previous.take();
    let images = &input.images;
    let scan = Scan { channels: &images.channels, spacing: Some(images.spacing), previous: previous.as_ref() };
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
        let format = Format::of(self.plan().reader);
        let mut images = format.read(&case.files)?;
        let seconds = reading.elapsed().as_secs_f64();
        let file = previous::file(self.ensemble, &case.prefix)?;
        let previous = file.as_deref().map(|file| previous::read(file, &images.channels[0])).transpose()?;
        images.warnings.extend(previous.iter().flat_map(|(_, warnings)| warnings.clone()));
        let sources = sources(case, format, file)?;
        Ok(Input { images, previous: previous.map(|(mask, _)| mask), sources, seconds })
    }

    fn write(&self, case: &Case, found: Found) -> Result<FileRecord> {
        write(case, found, self)
    }
}

/// Writes the files of a case.
fn write(case: &Case, found: Found, how: &How<'_>) -> Result<FileRecord> {
    let Found { input, mut result } = found;
    let Input { images: Images { channels, spacing, image, warnings }, sources, seconds: read, .. } = input;
    let plan = how.plan();
    if let Some(finish) = how.postprocessing {
        let finishing = Instant::now();
        result.mask = finish.apply(&result.mask)?;
        result.seconds.export += finishing.elapsed().as_secs_f64();
    }

    let writing = Instant::now();
    // The background's is in front of them, or not there.
    let foreground = result.probabilities.len().saturating_sub(result.labels.targets().len());
    let mut probabilities = std::collections::BTreeMap::new();
    if how.wanted.probabilities {
        let volumes = result.probabilities.iter().skip(foreground);
        for ((label, file), volume) in outputs::probabilities(case, &result.labels).into_iter().zip(volumes) {
            nifti::write(&file, &image.with_volume(volume.clone()))?;
            probabilities.insert(label, file.display().to_string());
        }
    }
    let npz = how.wanted.npz.then(|| outputs::npz(case));
    if let Some(path) = &npz {
        write_npz(path, &result.probabilities, plan.reader.orientation())?;
    }
    let measurements = result.measure(&channels[0])?;
    let preview = how.wanted.preview.then(|| outputs::preview(case));
    if let Some(path) = &preview {
        let first = plan.normalization.first();
        let is_ct = first.is_some_and(|first| matches!(first.scheme, Normalization::Ct { .. }));
        write_png(path, &report::preview(&channels[0], &result.mask, is_ct.then_some(SOFT_TISSUE))?)?;
    }
    Format::of(plan.reader).write_mask(&case.mask, &image, spacing, &result.mask)?;
    let write = writing.elapsed().as_secs_f64();
    let volumes_ml = result.volumes_ml().into_iter().collect();
    let Segmentation { tiles, working_set, seconds, warnings: more, .. } = result;
    Ok(FileRecord {
        case: case.name.clone(),
        image: case.files[0].clone(),
        sources,
        mask: case.mask.clone(),
        probabilities,
        npz,
        preview,
        volumes_ml,
        measurements,
        tiles,
        working_set_bytes: working_set,
        seconds: Seconds { read, segment: seconds, write },
        warnings: warnings.into_iter().chain(more).collect(),
    })
}

/// The files that decide a case's mask: its images, with those of voxels or spacing beside them, and the previous stage's mask.
pub(super) fn sources(case: &Case, format: Format, previous: Option<PathBuf>) -> Result<Vec<SourceFile>> {
    let mut spacings: Vec<PathBuf> = case.files.iter().filter_map(|file| format.image_spacing_file(file)).collect();
    spacings.dedup();
    spacings.retain(|file| file.is_file());
    let images = case.files.iter().cloned().chain(previous).flat_map(images::files);
    Ok(hash_files(&images.chain(spacings).collect::<Vec<_>>())?)
}

/// Writes probabilities as nnU-Net does: [outputs, z, y, x] in the axes in which its reader hands an image on.
fn write_npz(path: &Path, probabilities: &[Volume], rule: OrientationRule) -> Result<()> {
    let turned = |volume: &Volume| match rule {
        OrientationRule::Stored => Ok(volume.clone()),
        OrientationRule::Fixed(orientation) => volume.reorient(orientation),
    };
    let Some(first) = probabilities.first() else { return Ok(()) };
    let [z, y, x] = match rule {
        OrientationRule::Stored => first.shape(),
        OrientationRule::Fixed(orientation) => first.grid().turned(&first.orientation().turn_to(orientation)).shape,
    };
    let values = |volume: &Volume| match turned(volume)?.voxels() {
        Voxels::F32(values) => Ok(std::sync::Arc::clone(values)),
        other => Err(LibraryError::argument("probabilities: dtype", "f32", other.dtype())),
    };
    npz::write_f32(path, "probabilities", &[probabilities.len(), z, y, x], probabilities.iter().map(values))?;
    Ok(())
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
