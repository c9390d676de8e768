//! The models of a run.

use std::path::PathBuf;

use super::Args;
use crate::error::{Error, Result};
use crate::progress::Progress;
use nephron::phase::PhaseSet;
use nephron::pipeline::Postprocessing;
use nephron::pipeline::classify::Classifier;
use nephron::pipeline::diagnose::System;

/// The folders of the segmentation models; none with given masks.
///
/// # Errors
/// No model where one is needed.
pub(super) fn models(args: &Args) -> Result<Vec<PathBuf>> {
    match (&args.model, args.segmentation.as_slice()) {
        _ if args.masks => Ok(Vec::new()),
        (Some(model), []) => Ok(vec![model.clone()]),
        (None, []) => Err(Error::Usage("--model: expected a model folder, found none".into())),
        (_, several) => Ok(several.to_vec()),
    }
}

/// The folder of the classification model; None where nothing is classified. Says which options then do nothing.
pub(super) fn classification(args: &Args, phases: &[PhaseSet]) -> Option<PathBuf> {
    // Where its folder is there, the model is meant to be used: a broken one is an error.
    let folder = args.model.as_ref().map(|model| model.join("classification")).filter(|folder| folder.exists());
    let why = if !phases.iter().any(PhaseSet::is_classifiable) {
        "which needs three or four phases"
    } else if args.no_classify {
        "as --no-classify says"
    } else if folder.is_none() {
        "for the model folder has no classification/"
    } else {
        return folder;
    };
    let unused = args.what.given();
    if !unused.is_empty() {
        note!("warning: {} not used: nothing is classified, {why}", unused.join(", "));
    }
    None
}

/// Reads the models, and the postprocessing that belongs to them.
pub(super) fn load(
    args: &Args,
    models: &[PathBuf],
    classification: Option<PathBuf>,
    device: &nephron::Device,
    progress: &Progress,
) -> Result<(System, Option<Postprocessing>)> {
    progress.stage("loading the model");
    let segmenter = if models.is_empty() { None } else { Some(args.how.load(models, device)?) };
    let classifier = classification.map(|folder| args.what.apply(Classifier::read(&folder, device)?)).transpose()?;
    progress.clear();
    let postprocessing = match &segmenter {
        Some(ensemble) => {
            args.how.tell_mirroring(ensemble);
            args.how.postprocessing(ensemble)?
        }
        None => None,
    };
    Ok((System { segmenter, classifier, notes: vec![] }, postprocessing))
}
