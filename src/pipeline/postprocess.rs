//! nnU-Net's postprocessing of a mask: labels that keep their largest component only.

use std::path::{Path, PathBuf};

use super::model_folder::ModelDir;
use crate::error::{Error, Result};
use crate::io::postprocessing::{self, KeepLargest};
use crate::io::read_small;
use crate::volume::{LabelVolume, components};

/// A postprocessing that lies in a model folder, where nnU-Net's cross-validation puts it. It is not applied by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostprocessingFile {
    /// Its file.
    pub path: PathBuf,
    folds: Option<String>,
    bytes: Vec<u8>,
}

/// The steps that are applied to masks, and the file that they were read from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Postprocessing {
    /// The file.
    #[serde(serialize_with = "crate::io::lossy")]
    pub file: PathBuf,
    /// The steps, in order.
    pub steps: Vec<KeepLargest>,
}

/// The names of the file, of which the first that is there counts: both say the same.
const FILES: [&str; 2] = ["postprocessing.pkl", "postprocessing.json"];
const CROSS_VALIDATION: &str = "crossval_results_folds_";

/// The postprocessings in a model folder.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn find(folder: &ModelDir) -> Result<Vec<PostprocessingFile>> {
    let mut places = vec![(None, folder.clone())];
    for name in folder.entries()? {
        if let Some(folds) = name.strip_prefix(CROSS_VALIDATION) {
            places.push((Some(folds.to_owned()), folder.join(&name)));
        }
    }
    let mut found = Vec::new();
    for (folds, place) in places {
        if let Some(name) = FILES.into_iter().find(|name| place.is_file(name)) {
            found.push(PostprocessingFile { path: place.path().join(name), folds, bytes: place.read(name)? });
        }
    }
    Ok(found)
}

impl PostprocessingFile {
    /// The folds of the cross-validation that it is of, such as `0_1_2_3_4`; None for a file in the model folder itself.
    pub(super) fn folds(&self) -> Option<&str> {
        self.folds.as_deref()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Postprocessing {
    /// The steps as nnU-Net's postprocessing.json holds them.
    pub(super) fn json(&self) -> String {
        postprocessing::to_json(&self.steps)
    }

    /// Reads nnU-Net's postprocessing.pkl, of which nothing is executed, or its postprocessing.json.
    ///
    /// # Errors
    /// As [`postprocessing::read`].
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Self { file: path.to_path_buf(), steps: postprocessing::read(path, &read_small(path)?)? })
    }

    /// The postprocessing of a model among those in its folder: the only one, or that of the folds that are used. None where
    /// there is none.
    ///
    /// # Errors
    /// Several for other folds; as [`postprocessing::read`].
    pub fn choose(found: &[PostprocessingFile], folds: &[String]) -> Result<Option<Self>> {
        let own = folds.join("_");
        let chosen = match found {
            [] => return Ok(None),
            [only] => only,
            several => several.iter().find(|file| file.folds.as_deref() == Some(own.as_str())).ok_or_else(|| {
                let names: Vec<_> = several.iter().map(|file| file.path.display().to_string()).collect();
                Error::argument("postprocessing", "one, or one of the folds in use: give its file", names.join(", "))
            })?,
        };
        Ok(Some(Self { file: chosen.path.clone(), steps: postprocessing::read(&chosen.path, &chosen.bytes)? }))
    }

    /// The mask after all steps. Voxels are neighbours when they share a face, an edge or a corner, and components as large as
    /// the largest stay, as in nnU-Net (acvl_utils).
    ///
    /// # Errors
    /// As [`LabelVolume::with_labels`].
    pub fn apply(&self, mask: &LabelVolume) -> Result<LabelVolume> {
        let mut labels = mask.labels().to_vec();
        for step in &self.steps {
            let member: Vec<u8> = labels.iter().map(|label| u8::from(step.labels.contains(label))).collect();
            let parts = components(&member, mask.shape(), 1);
            let largest = parts.first().map_or(0, |part| part.voxels());
            for part in parts.iter().filter(|part| part.voxels() < largest) {
                part.paint(&mut labels, step.background)?;
            }
        }
        mask.with_labels(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    #[test]
    fn the_largest_component_of_a_set_of_labels_stays() {
        // Two voxels of a corner-connected set of both labels, two alone, three alone of another label.
        let labels = vec![1, 0, 0, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3];
        let mask = LabelVolume::new([1, 3, 7], labels, Affine::IDENTITY).expect("a mask");
        let kept = |labels: &[u8], background: u8| {
            let steps = vec![KeepLargest { labels: labels.to_vec(), background }];
            let all = Postprocessing { file: "p.pkl".into(), steps };
            all.apply(&mask).expect("a mask").labels().to_vec()
        };
        // Of 1 and 2 together there are two components of two voxels: both stay.
        assert_eq!(kept(&[1, 2], 0), mask.labels());
        // Of 1 alone, the single voxel goes.
        let mut want = mask.labels().to_vec();
        want[0] = 9;
        assert_eq!(kept(&[1], 9), want);
        let want: Vec<u8> = mask.labels().iter().map(|l| if *l == 3 { 3 } else { 0 }).collect();
        assert_eq!(kept(&[1, 2, 3], 0), want);
        assert_eq!(kept(&[7], 0), mask.labels());
    }
}
