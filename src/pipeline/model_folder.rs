//! The files of a segmentation model: where its plans lie and which weights are averaged.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::weights::TrainingNotes;
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
}

/// The folder with plans.json: `folder` itself, its folder `segmentation`, or the only folder of training results in it
/// (`<trainer>__<plans>__<configuration>`).
///
/// # Errors
/// None of them, several folders of results, an archive.
pub(super) fn find_plans(folder: &Path) -> Result<PathBuf> {
    if folder.is_file() {
        let archive = folder.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip"));
        let what = if archive { "is a zip archive: unpack it and give the folder inside" } else { "is a file" };
        return Err(Error::file(folder, format!("{what}, expected a model folder")));
    }
    if !folder.exists() {
        return Err(Error::file(folder, "there is no such folder, expected a model folder with plans.json"));
    }
    for candidate in [folder.to_path_buf(), folder.join("segmentation")] {
        if candidate.join("plans.json").is_file() {
            return Ok(candidate);
        }
    }
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "cannot be read", e))?;
    let mut results: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| name(path).split("__").count() == 3 && path.join("plans.json").is_file())
        .collect();
    results.sort();
    match results.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Error::file(folder, "has no plans.json: expected a folder that nnU-Net's training made")),
        several => {
            let names = shown_list(several.iter().map(|path| name(path)));
            Err(Error::file(folder, format!("holds several models, choose one of {}", names)))
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The weights of a model folder, of one kind: weights.safetensors or weights.pth; every fold_*.safetensors or fold_*.pth;
/// nnU-Net's own fold_*/checkpoint_<name>.pth; each in the order of their names. nnU-Net's fold_all, which saw all cases, counts
/// where there is no numbered fold: averaged with them it would count twice.
///
/// # Errors
/// None of them; several kinds, which may be one model twice; a fold or checkpoint that is asked for and not there.
pub(super) fn weight_files(folder: &Path, options: &ModelOptions) -> Result<Vec<PathBuf>> {
    let checkpoint = format!("checkpoint_{}.pth", options.checkpoint.as_deref().unwrap_or("final"));
    let single = ["weights.safetensors", "weights.pth"].map(|name| folder.join(name));
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "cannot be read", e))?;
    let mut folds: Vec<PathBuf> =
        entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|path| name(path).starts_with("fold_")).collect();
    folds.sort();
    let ending = |ending: &str| {
        let has = |path: &&PathBuf| path.extension().is_some_and(|e| e == ending) && path.is_file();
        folds.iter().filter(has).cloned().collect::<Vec<_>>()
    };
    let own: Vec<PathBuf> = folds.iter().map(|fold| fold.join(&checkpoint)).filter(|path| path.is_file()).collect();
    if options.folds.is_none()
        && let Some(stray) = folds.iter().find(|path| !is_fold(&name(path)))
    {
        let reason =
            "is no fold: expected fold_0, fold_1, ... or fold_all; move it away, or choose folds (--folds 0,1)";
        return Err(Error::file(stray, reason));
    }
    let nothing_else = options.checkpoint.is_some();
    let single = single.into_iter().filter(|path| path.is_file()).map(|path| vec![path]);
    let mut kinds: Vec<Vec<PathBuf>> =
        if nothing_else { vec![own] } else { single.chain([ending("safetensors"), ending("pth"), own]).collect() };
    kinds.retain(|files| !files.is_empty());
    match kinds.as_slice() {
        [] => Err(no_weights(folder, &folds, &checkpoint)),
        [files] => choose_folds(folder, files, options),
        [first, second, ..] => {
            let [first, second] =
                [first, second].map(|files| files[0].strip_prefix(folder).unwrap_or(&files[0]).display());
            Err(Error::file(folder, format!("expected weights of one kind, found {first} and {second}")))
        }
    }
}

/// `fold_<number>` or `fold_all`, as a folder or with the ending of a file of weights.
fn is_fold(name: &str) -> bool {
    let fold = name.strip_prefix("fold_").unwrap_or_default();
    let fold = [".safetensors", ".pth"].iter().find_map(|ending| fold.strip_suffix(ending)).unwrap_or(fold);
    fold == "all" || !fold.is_empty() && fold.bytes().all(|b| b.is_ascii_digit())
}

/// Names what is there instead of the checkpoint.
fn no_weights(folder: &Path, folds: &[PathBuf], wanted: &str) -> Error {
    let mut others: Vec<String> = folds
        .iter()
        .filter_map(|fold| std::fs::read_dir(fold).ok())
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| name(&entry.path())))
        .filter_map(|name| Some(name.strip_suffix(".pth")?.strip_prefix("checkpoint_")?.to_owned()))
        .collect();
    others.sort();
    others.dedup();
    if let Some(other) = others.first() {
        let all = shown_list(others.iter().map(|other| format!("checkpoint_{other}.pth")));
        let other = shown(other);
        let reason =
            format!("its folds hold {all} and no {wanted}: choose a checkpoint by name (--checkpoint {other})");
        return Error::file(folder, reason);
    }
    let kinds = "weights.safetensors, weights.pth, fold_*.safetensors, fold_*.pth";
    Error::file(folder, format!("expected {kinds} or fold_*/{wanted}, found none"))
}

/// The fold of a file under `folder`: `0` of fold_0/checkpoint_final.pth or fold_0.pth.
fn fold_of(folder: &Path, file: &Path) -> Option<String> {
    let first = file.strip_prefix(folder).ok()?.components().next()?;
    let stem = Path::new(&first).file_stem()?.to_string_lossy().into_owned();
    stem.strip_prefix("fold_").map(str::to_owned)
}

fn choose_folds(folder: &Path, files: &[PathBuf], options: &ModelOptions) -> Result<Vec<PathBuf>> {
    let named: Vec<(Option<String>, &PathBuf)> = files.iter().map(|file| (fold_of(folder, file), file)).collect();
    let Some(wanted) = &options.folds else {
        let numbered: Vec<PathBuf> =
            named.iter().filter(|(fold, _)| fold.as_deref() != Some("all")).map(|(_, file)| (*file).clone()).collect();
        return Ok(if numbered.is_empty() { files.to_vec() } else { numbered });
    };
    let find = |wanted: &String| {
        let found = named.iter().find(|(fold, _)| fold.as_ref() == Some(wanted));
        found.map(|(_, file)| (*file).clone()).ok_or_else(|| {
            let there: Vec<_> = named.iter().filter_map(|(fold, _)| fold.clone()).collect();
            let there = if there.is_empty() { "weights without folds".into() } else { shown_list(&there) };
            Error::argument(format!("{}: folds", folder.display()), format!("some of {there}"), wanted)
        })
    };
    wanted.iter().map(find).collect()
}

/// Folds are averaged: they have to be of one network, for one kind of image.
pub(super) fn expect_same_training(path: &Path, first: &TrainingNotes, found: &TrainingNotes) -> Result<()> {
    let pairs =
        [("configuration", &first.configuration, &found.configuration), ("trainer", &first.trainer, &found.trainer)];
    for (what, first, found) in pairs {
        if first != found {
            let shown = |value: &Option<String>| crate::shown(value.as_deref().unwrap_or("none"));
            let reason = format!("expected the {what} of the first fold, {}, found {}", shown(first), shown(found));
            return Err(Error::file(path, reason));
        }
    }
    Ok(())
}

/// The axes that weights may be mirrored along. nnU-Net mirrors along none where its checkpoint does not say; weights from
/// elsewhere say nothing, and all axes are left to the user.
pub(super) fn mirrors_of(notes: &TrainingNotes, planar: bool) -> [bool; 3] {
    let first = usize::from(planar);
    match &notes.mirror_axes {
        Some(axes) => std::array::from_fn(|axis| axes.iter().any(|allowed| allowed + first == axis)),
        None if notes.trainer.is_some() => [false; 3],
        None => [!planar, true, true],
    }
}
