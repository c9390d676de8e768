//! Converting nnU-Net's models once to safetensors and JSON, which `segment` reads with the same results.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::model_card;
use super::model_folder::{ModelDir, ModelOptions, PREVIOUS_STAGE, find_plans};
use super::{Postprocessing, Precision, Segmenter};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Storage;
use crate::io::{TemporaryFolder, write_atomic};

/// Reads a model as [`Segmenter::load`] does and writes it to the new folder `out`: plans.json and dataset.json as they are, the
/// weights of each fold as `storage` with what their checkpoint says of their training, a postprocessing as JSON, a model card, and the
/// first stage of a cascade to `previous_stage`. The folder appears when it is whole. Returns the model as it is read from there.
///
/// # Errors
/// As [`Segmenter::load`]; a folder `out` that is there already or cannot be written; a weight that f16 cannot hold.
pub fn import_nnunet(folder: &Path, options: &ModelOptions, storage: Storage, out: &Path) -> Result<Segmenter> {
    let segmenter = Segmenter::load(folder, options, Precision::Single, &Device::Cpu)?;
    if let Some(masks) = segmenter.previous_masks() {
        return Err(Error::file(masks, "holds masks, expected the model folder of the previous stage"));
    }
    if out.exists() {
        return Err(Error::file(out, "is there already, expected the name of a new folder"));
    }
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |e| Error::io(out, "cannot be made", e);
    std::fs::create_dir_all(parent).map_err(failed)?;
    let temporary = TemporaryFolder::new(parent).map_err(failed)?;
    let given = ModelDir::open(folder)?;
    let place = find_plans(&given, options.configuration.as_deref())?;
    write(&segmenter, &place, &[&place, &given], storage, temporary.path())?;
    if let Some((first, place)) = segmenter.first_stage(&place, options)? {
        write(first, &place, &[&place], storage, &temporary.path().join(PREVIOUS_STAGE))?;
    }
    // Whatever this cannot read must not be left behind.
    Segmenter::load(temporary.path(), &ModelOptions::default(), Precision::Single, &Device::Cpu)?;
    temporary.rename(out).map_err(failed)?;
    Segmenter::load(out, &ModelOptions::default(), Precision::Single, &Device::Cpu)
}

/// Writes one model, whose plans lie in `place` and whose card in the first of `cards` that has one.
fn write(segmenter: &Segmenter, place: &ModelDir, cards: &[&ModelDir], storage: Storage, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, "cannot be made", e))?;
    let put = |path: PathBuf, bytes: &[u8]| write_atomic(path, |file| file.write_all(bytes));
    for name in ["plans.json", "dataset.json"] {
        put(out.join(name), &place.read(name)?)?;
    }
    if let Some(card) = cards.iter().find(|folder| folder.is_file(model_card::FILE)) {
        put(out.join(model_card::FILE), &card.read(model_card::FILE)?)?;
    }
    segmenter.save_networks(out, storage)?;
    for found in segmenter.postprocessing() {
        // One that cannot be read is refused when it is asked for, as in the model itself.
        let folds = found.folds().map(|folds| format!("crossval_results_folds_{folds}"));
        let folder = folds.map_or(out.to_path_buf(), |name| out.join(name));
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "cannot be made", e))?;
        match Postprocessing::choose(std::slice::from_ref(found), &[]) {
            Ok(Some(read)) => put(folder.join("postprocessing.json"), read.json().as_bytes())?,
            _ => put(folder.join("postprocessing.pkl"), found.bytes())?,
        }
    }
    Ok(())
}
