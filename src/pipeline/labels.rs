//! Maps the labels of a segmentation model to [`KIDNEY`] and [`TUMOUR`], which the later stages expect.

use crate::error::{Error, Result};
use crate::models::TargetLabels;
use crate::shown_list;
use crate::volume::{BACKGROUND, KIDNEY, LabelVolume, TUMOUR};

/// The map from a model's labels to those of the pipeline, by their names; all other labels become background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    kidney: u8,
    tumour: u8,
}

impl LabelMap {
    /// From a model's labels: the value of `kidney` and that of `tumour` (or `tumor`, or their plurals, in any case of letters).
    ///
    /// # Errors
    /// One of the two is missing or there twice, or both have one value.
    pub fn new(labels: &TargetLabels) -> Result<Self> {
        let find = |words: &[&str]| {
            let mut found = labels.targets().iter().filter(|t| words.contains(&t.name.to_lowercase().as_str()));
            (found.next().map(|t| t.value), found.next())
        };
        match (find(&["kidney", "kidneys"]), find(&["tumour", "tumours", "tumor", "tumors"])) {
            ((Some(kidney), None), (Some(tumour), None)) if kidney != tumour => Ok(Self { kidney, tumour }),
            _ => {
                let what = "diagnose: labels of the segmentation model";
                let names = shown_list(labels.targets().iter().map(|t| t.name.as_str()));
                Err(Error::argument(what, "one named kidney and one named tumour", names))
            }
        }
    }

    /// A mask of the model with the labels of the pipeline.
    ///
    /// # Errors
    /// As [`LabelVolume::with_labels`].
    pub fn apply(&self, mask: &LabelVolume) -> Result<LabelVolume> {
        if (self.kidney, self.tumour) == (KIDNEY, TUMOUR) && mask.labels().iter().all(|label| *label <= TUMOUR) {
            return Ok(mask.clone());
        }
        let ours = |label: &u8| match *label {
            label if label == self.kidney => KIDNEY,
            label if label == self.tumour => TUMOUR,
            _ => BACKGROUND,
        };
        mask.with_labels(mask.labels().iter().map(ours).collect::<Vec<u8>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    fn labels(text: &str) -> TargetLabels {
        TargetLabels::exclusive(&text.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn labels_are_found_by_their_names() {
        let mask = LabelVolume::new([1, 1, 4], vec![0, 1, 2, 3], Affine::IDENTITY).expect("a mask");
        for (text, want) in [
            ("background kidney tumour", [0, 1, 2, 0]),
            ("background Tumor Kidneys", [0, 2, 1, 0]),
            ("background kidney cyst tumors", [0, 1, 0, 2]),
        ] {
            let mapped = LabelMap::new(&labels(text)).expect("labels").apply(&mask).expect("a mask");
            let got = mapped.labels();
            let used = text.split(' ').count();
            assert_eq!(got[..used], want[..used], "{text}");
        }
        for text in ["background kidney", "background kidney kidney tumour", "background a b"] {
            let message = LabelMap::new(&labels(text)).expect_err("refused").to_string();
            assert!(
                message.contains("one named tumour")
                    && message.contains(&text.split(' ').skip(1).collect::<Vec<_>>().join(", ")),
                "{message}"
            );
        }
    }
}
