//! The files of a segmentation model: where its plans lie, on disk or in an exported archive, and which weights are averaged.

mod place;
mod weights;

pub(super) use place::ModelDir;
pub(super) use weights::{expect_same_training, fold_of, mirrors_of, weight_files};

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::{shown, shown_list};

/// Which part of a model folder is used.
///
/// The struct is open: build it with `..Default::default()`, so that a field that is added later breaks no caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelOptions {
    /// The configuration of plans.json, such as `3d_fullres`; the one the weights were trained by if None.
    pub configuration: Option<String>,
    /// The folds to average, `0`, `1`, ... or `all`; all numbered ones that are there if None.
    pub folds: Option<Vec<String>>,
    /// The checkpoint of each fold, `final`, `best` or `latest`; `final` if None.
    pub checkpoint: Option<String>,
    /// The first stage of a cascade: its model folder, or a folder of its masks; the model beside the cascade's if None. Folds
    /// and checkpoint are chosen in both models.
    pub previous_stage: Option<PathBuf>,
}

/// The folder with plans.json: `root` itself, its folder `segmentation`, a folder of training results in either
/// (`<trainer>__<plans>__<configuration>`), or one in the only data set's folder in `root`, as nnU-Net exports models.
///
/// # Errors
/// None of them; several, of which `configuration` chooses none or more than one.
pub(super) fn find_plans(root: &ModelDir, configuration: Option<&str>) -> Result<ModelDir> {
    for candidate in [root.clone(), root.join("segmentation")] {
        if candidate.is_file("plans.json") {
            return Ok(candidate);
        }
        let found = results_in(&candidate);
        if !found.is_empty() {
            return choose(&candidate, found, configuration);
        }
    }
    let data_sets: Vec<(ModelDir, Vec<String>)> = root
        .entries()?
        .into_iter()
        .filter(|name| name.starts_with("Dataset"))
        .map(|name| root.join(&name))
        .map(|folder| (folder.clone(), results_in(&folder)))
        .filter(|(_, found)| !found.is_empty())
        .collect();
    match data_sets.as_slice() {
        [(folder, found)] => choose(folder, found.clone(), configuration),
        [] => Err(Error::file(root.path(), "has no plans.json: expected a folder that nnU-Net's training made")),
        several => {
            let names = shown_list(several.iter().map(|(folder, _)| folder.name()));
            Err(Error::file(root.path(), format!("holds several data sets, give the folder of one: {}", names)))
        }
    }
}

/// The folders of training results in a folder, by name.
fn results_in(folder: &ModelDir) -> Vec<String> {
    let names = folder.entries().unwrap_or_default();
    let is_result = |name: &String| configuration_of(name).is_some() && folder.join(name).is_file("plans.json");
    names.into_iter().filter(is_result).collect()
}

/// The configuration of a folder `<trainer>__<plans>__<configuration>`.
fn configuration_of(name: &str) -> Option<&str> {
    match name.split("__").collect::<Vec<_>>().as_slice() {
        [_, _, configuration] => Some(configuration),
        _ => None,
    }
}

/// The one that is asked for, or the only one there is.
fn choose(folder: &ModelDir, found: Vec<String>, configuration: Option<&str>) -> Result<ModelDir> {
    let is_wanted = |name: &&String| configuration.is_none() || configuration_of(name) == configuration;
    let wanted: Vec<&String> = found.iter().filter(is_wanted).collect();
    let mut configurations: Vec<&str> = found.iter().filter_map(|name| configuration_of(name)).collect();
    configurations.sort_unstable();
    configurations.dedup();
    match (wanted.as_slice(), configuration) {
        ([only], _) => Ok(folder.join(only)),
        ([], _) => {
            let what = format!("{}: configuration", folder.path().display());
            Err(Error::argument(
                what,
                format!("one of {}", shown_list(&configurations)),
                configuration.unwrap_or("none"),
            ))
        }
        (_, None) if configurations.len() == found.len() => {
            let reason = format!(
                "holds several models, {}: choose one (--configuration {})",
                shown_list(&found),
                configurations.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", or --configuration ")
            );
            Err(Error::file(folder.path(), reason))
        }
        (several, _) => {
            let names = shown_list(several);
            Err(Error::file(folder.path(), format!("holds several models, give the folder of one: {names}")))
        }
    }
}

/// The folder of a cascade's first stage: `previous_stage` in the model's, or that of its configuration beside it.
///
/// # Errors
/// Neither is there.
pub(super) fn beside(folder: &ModelDir, configuration: &str) -> Result<ModelDir> {
    let inside = folder.join(PREVIOUS_STAGE);
    let name = folder.name();
    let sibling = configuration_of(&name)
        .and_then(|own| Some(folder.parent()?.join(&format!("{}{configuration}", name.strip_suffix(own)?))));
    let found = std::iter::once(inside).chain(sibling).find(|place| place.is_file("plans.json"));
    found.ok_or_else(|| {
        let reason = format!(
            "is the second stage of a cascade, and the results of its first stage, {configuration}, are not beside it: give \
             their folder or the folder of its masks (--previous-stage)"
        );
        Error::file(folder.path(), reason)
    })
}

/// Where `nephron import` puts the first stage of a cascade.
pub(super) const PREVIOUS_STAGE: &str = "previous_stage";

/// Whether a folder holds masks, by the ending of their names.
///
/// # Errors
/// A folder that cannot be read.
pub(super) fn holds_masks(folder: &ModelDir, ending: &str) -> Result<bool> {
    Ok(folder.entries()?.iter().any(|name| name.ends_with(ending) || name.ends_with(".nii.gz")))
}
