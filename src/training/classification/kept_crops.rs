//! Crops that are kept in a file, so that a patient is aligned once.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::weights::{self, TrainingNotes, Weights};
use crate::phase::Phase;
use crate::pipeline::PhaseCrop;
use crate::pipeline::crop::CropBox;

/// What a file says beside the pixels, which are a tensor under each phase's name.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What the crops depend on.
    key: String,
    boxes: Vec<(Phase, CropBox)>,
}

/// The crops of a file; None where there is none, or not of this key: then they are made again.
pub(super) fn read(path: &Path, key: &str, size: usize) -> Option<Vec<PhaseCrop>> {
    let file = path.is_file().then(|| Weights::read(path).ok()).flatten()?;
    let kept: Kept = serde_json::from_str(file.training().state.as_deref()?).ok()?;
    if kept.key != key {
        return None;
    }
    let crop = |(phase, at): (Phase, CropBox)| {
        let (shape, pixels) = file.get(phase.name()).ok()?;
        (shape == [size; 2]).then_some(PhaseCrop { phase, at, pixels })
    };
    kept.boxes.into_iter().map(crop).collect()
}

/// Writes crops.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(path: &Path, key: &str, size: usize, crops: &[PhaseCrop]) -> Result<()> {
    let kept = Kept { key: key.to_owned(), boxes: crops.iter().map(|crop| (crop.phase, crop.at)).collect() };
    let mut notes = TrainingNotes::default();
    notes.state = Some(serde_json::to_string(&kept).map_err(|e| Error::io(path, "cannot be written", e))?);
    let shape = [size; 2];
    let tensors: Vec<(&str, &[usize], &[f32])> =
        crops.iter().map(|crop| (crop.phase.name(), &shape[..], crop.pixels.as_slice())).collect();
    weights::write_with(path, &tensors, &notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_of_another_key_or_size_are_made_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let at = CropBox { slice: 3, rows: [1, 4], columns: [2, 9], area: 17 };
        let crop = |phase, value| PhaseCrop { phase, at, pixels: vec![value; 4] };
        let crops = [crop(Phase::Portal, 0.1), crop(Phase::Delayed, -1.5)];
        assert_eq!(read(&path, "key", 2), None);
        write(&path, "key", 2, &crops).expect("written");
        assert_eq!(read(&path, "key", 2).as_deref(), Some(&crops[..]));
        assert_eq!(read(&path, "other", 2), None);
        assert_eq!(read(&path, "key", 3), None);
        std::fs::write(&path, "nothing").expect("written");
        assert_eq!(read(&path, "key", 2), None);
    }
}
