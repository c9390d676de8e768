//! Maps the labels of a segmentation model to [`KIDNEY`] and [`TUMOUR`], which the later stages expect.

use crate::error::{Error, Result};
use crate::volume::{BACKGROUND, KIDNEY, LabelVolume, TUMOUR};

/// The map from a model's labels to those of the pipeline, by their names; all other labels become background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap(Vec<u8>);

impl LabelMap {
    /// The map for a model with these label names, in the order of their values. The two labels are found as `kidney` and `tumour`
    /// (or `tumor`, or the plurals), in upper or lower case.
    ///
    /// # Errors
    /// [`Error::Argument`] where one of the two is missing or occurs twice.
    pub fn new(names: &[String]) -> Result<Self> {
        let find = |words: [&str; 4]| {
            let mut places = (0..names.len()).filter(|&i| words.contains(&names[i].to_lowercase().as_str()));
            (places.next(), places.next())
        };
        let kidney = find(["kidney", "kidneys", "kidney", "kidneys"]);
        let tumour = find(["tumour", "tumours", "tumor", "tumors"]);
        let ((Some(kidney), None), (Some(tumour), None)) = (kidney, tumour) else {
            let what = "diagnose: labels of the segmentation model";
            return Err(Error::argument(what, "one named kidney and one named tumour", names.join(", ")));
        };
        let mut ours = vec![BACKGROUND; names.len()];
        (ours[kidney], ours[tumour]) = (KIDNEY, TUMOUR);
        Ok(Self(ours))
    }

    /// A mask of the model with the labels of the pipeline.
    ///
    /// # Errors
    /// As [`LabelVolume::with_labels`].
    pub fn apply(&self, mask: &LabelVolume) -> Result<LabelVolume> {
        let same = self.0.iter().enumerate().all(|(i, ours)| usize::from(*ours) == i);
        if same && self.0.len() <= 3 {
            return Ok(mask.clone());
        }
        let ours = |label: &u8| self.0.get(usize::from(*label)).copied().unwrap_or(BACKGROUND);
        mask.with_labels(mask.labels().iter().map(ours).collect::<Vec<u8>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn labels_are_found_by_their_names() {
        let mask = LabelVolume::new([1, 1, 4], vec![0, 1, 2, 3], Affine::IDENTITY).expect("a mask");
        for (text, want) in [
            ("background kidney tumour", [0, 1, 2, 0]),
            ("background Tumor Kidneys", [0, 2, 1, 0]),
            ("background kidney cyst tumors", [0, 1, 0, 2]),
        ] {
            let mapped = LabelMap::new(&names(text)).expect("labels").apply(&mask).expect("a mask");
            let got = mapped.labels();
            let used = names(text).len();
            assert_eq!(got[..used], want[..used], "{text}");
        }
        for text in ["background kidney", "background kidney kidney tumour", "background a b"] {
            let message = LabelMap::new(&names(text)).expect_err("refused").to_string();
            assert!(message.contains("one named tumour") && message.contains(&names(text).join(", ")), "{message}");
        }
    }
}
