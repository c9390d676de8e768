//! A phase with its mask, given or segmented.

use std::ops::ControlFlow;

use super::labels::LabelMap;
use super::phase_input::PhaseInput;
use super::{Ensemble, PhaseScan, Postprocessing, Scan, SegmentOptions, Stage};
use crate::error::{Error, Result};

/// How scans without a mask are segmented.
#[derive(Clone, Copy)]
pub(crate) struct Segmenting<'a> {
    pub(crate) model: &'a Ensemble,
    /// The map of the model's labels to those of the pipeline.
    pub(crate) labels: &'a LabelMap,
    pub(crate) options: &'a SegmentOptions,
    pub(crate) postprocessing: Option<&'a Postprocessing>,
}

/// The scan with its given mask, or that of the segmentation, and the warnings of the latter.
///
/// # Errors
/// Neither a mask nor a model; as [`Ensemble::segment`]: the error names the file and the phase.
pub(crate) fn masked_scan(
    input: &PhaseInput,
    segmenting: Option<Segmenting<'_>>,
    progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
) -> Result<(PhaseScan, Vec<String>)> {
    if let Some(given) = &input.given {
        return Ok((given.clone(), Vec::new()));
    }
    let Some(Segmenting { model, labels, options, postprocessing }) = segmenting else {
        return Err(Error::Data(format!(
            "{} phase: expected a mask or a segmentation model, found neither",
            input.phase
        )));
    };
    let named = |e: Error| e.context(format!("{} ({} phase)", input.path.display(), input.phase));
    let image = Scan {
        channels: std::slice::from_ref(&input.image.volume),
        spacing: Some(input.image.header_spacing()),
        previous: input.previous.as_ref(),
    };
    let found = model.segment(image, options, progress).map_err(named)?;
    let finished = postprocessing.map(|finish| finish.apply(&found.mask)).transpose()?;
    let mask = labels.apply(finished.as_ref().unwrap_or(&found.mask))?;
    Ok((PhaseScan::new(input.phase, input.image.volume.clone(), mask)?, found.warnings))
}
