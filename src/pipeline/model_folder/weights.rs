//! Which files of a model folder are its weights, and what their checkpoints say of training.

use std::path::Path;

use super::{ModelDir, ModelOptions};
use crate::error::{Error, Result};
use crate::io::weights::TrainingNotes;
use crate::{shown, shown_list};

/// The weights of a model folder, of one kind: weights.safetensors or weights.pth; every fold_*.safetensors or fold_*.pth;
/// nnU-Net's own fold_*/checkpoint_<name>.pth; each in the order of their names. nnU-Net's fold_all, which saw all cases, counts
/// where there is no numbered fold: averaged with them it would count twice.
///
/// # Errors
/// None of them; several kinds, which may be one model twice; a fold or checkpoint that is asked for and not there.
pub(in crate::pipeline) fn weight_files(folder: &ModelDir, options: &ModelOptions) -> Result<Vec<String>> {
    let checkpoint = format!("checkpoint_{}.pth", options.checkpoint.as_deref().unwrap_or("final"));
    let folds: Vec<String> = folder.entries()?.into_iter().filter(|name| name.starts_with("fold_")).collect();
    let ending = |ending: &str| {
        let has = |name: &&String| Path::new(name).extension().is_some_and(|e| e == ending) && folder.is_file(name);
        folds.iter().filter(has).cloned().collect::<Vec<_>>()
    };
    let own: Vec<String> =
        folds.iter().map(|fold| format!("{fold}/{checkpoint}")).filter(|name| folder.is_file(name)).collect();
    if options.folds.is_none()
        && let Some(stray) = folds.iter().find(|name| !is_fold(name))
    {
        let reason =
            "is no fold: expected fold_0, fold_1, ... or fold_all; move it away, or choose folds (--folds 0,1)";
        return Err(Error::file(folder.path().join(stray), reason));
    }
    let nothing_else = options.checkpoint.is_some();
    let single = ["weights.safetensors", "weights.pth"].into_iter().filter(|name| folder.is_file(name));
    let single = single.map(|name| vec![name.to_owned()]);
    let mut kinds: Vec<Vec<String>> =
        if nothing_else { vec![own] } else { single.chain([ending("safetensors"), ending("pth"), own]).collect() };
    kinds.retain(|files| !files.is_empty());
    match kinds.as_slice() {
        [] => Err(no_weights(folder, &folds, &checkpoint)),
        [files] => choose_folds(folder, files, options),
        [first, second, ..] => {
            let reason = format!("expected weights of one kind, found {} and {}", first[0], second[0]);
            Err(Error::file(folder.path(), reason))
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
fn no_weights(folder: &ModelDir, folds: &[String], wanted: &str) -> Error {
    let mut others: Vec<String> = folds
        .iter()
        .flat_map(|fold| folder.join(fold).entries().unwrap_or_default())
        .filter_map(|name| Some(name.strip_suffix(".pth")?.strip_prefix("checkpoint_")?.to_owned()))
        .collect();
    others.sort();
    others.dedup();
    if let Some(other) = others.first() {
        let all = shown_list(others.iter().map(|other| format!("checkpoint_{other}.pth")));
        let other = shown(other);
        let reason =
            format!("its folds hold {all} and no {wanted}: choose a checkpoint by name (--checkpoint {other})");
        return Error::file(folder.path(), reason);
    }
    let kinds = "weights.safetensors, weights.pth, fold_*.safetensors, fold_*.pth";
    Error::file(folder.path(), format!("expected {kinds} or fold_*/{wanted}, found none"))
}

/// The fold of a file: `0` of fold_0/checkpoint_final.pth or fold_0.pth.
pub(in crate::pipeline) fn fold_of(file: &str) -> Option<&str> {
    let first = file.split('/').next()?;
    Path::new(first).file_stem()?.to_str()?.strip_prefix("fold_")
}

fn choose_folds(folder: &ModelDir, files: &[String], options: &ModelOptions) -> Result<Vec<String>> {
    let Some(wanted) = &options.folds else {
        let numbered: Vec<String> = files.iter().filter(|file| fold_of(file) != Some("all")).cloned().collect();
        return Ok(if numbered.is_empty() { files.to_vec() } else { numbered });
    };
    let find = |wanted: &String| {
        let found = files.iter().find(|file| fold_of(file) == Some(wanted));
        found.cloned().ok_or_else(|| {
            let there: Vec<_> = files.iter().filter_map(|file| fold_of(file)).collect();
            let there = if there.is_empty() { "weights without folds".into() } else { shown_list(&there) };
            Error::argument(format!("{}: folds", folder.path().display()), format!("some of {there}"), wanted)
        })
    };
    wanted.iter().map(find).collect()
}

/// Folds are averaged: they have to be of one network, for one kind of image.
pub(in crate::pipeline) fn expect_same_training(
    path: &Path,
    first: &TrainingNotes,
    found: &TrainingNotes,
) -> Result<()> {
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
pub(in crate::pipeline) fn mirrors_of(notes: &TrainingNotes, planar: bool) -> [bool; 3] {
    let first = usize::from(planar);
    match &notes.mirror_axes {
        Some(axes) => std::array::from_fn(|axis| axes.iter().any(|allowed| allowed + first == axis)),
        None if notes.trainer.is_some() => [false; 3],
        None => [!planar, true, true],
    }
}
