//! What a segmentation model's labels mean: the stages behind it take 1 for kidney and 2 for tumour.

use crate::error::{Error, Result};
use crate::volume::{Volume, Voxels};

/// A model's label values to ours, found by the labels' names; whatever else it knows becomes background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap(Vec<u8>);

impl LabelMap {
    /// From names in the order of their values: `kidney` and `tumour` (or `tumor`, or their plurals, in any case of letters).
    ///
    /// # Errors
    /// One of the two is missing or there twice.
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
        let ours = |i: usize| if i == kidney { 1 } else { 2 * u8::from(i == tumour) };
        Ok(Self((0..names.len()).map(ours).collect()))
    }

    /// The mask with our labels.
    pub fn apply(&self, mask: &Volume) -> Volume {
        let Voxels::U8(labels) = &mask.voxels else { return mask.clone() };
        let same = self.0.iter().enumerate().all(|(i, ours)| usize::from(*ours) == i);
        if same && self.0.len() <= 3 {
            return mask.clone();
        }
        let ours = |label: &u8| self.0.get(usize::from(*label)).copied().unwrap_or(0);
        Volume { voxels: Voxels::U8(labels.iter().map(ours).collect::<Vec<u8>>().into()), ..mask.clone() }
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
        let mask = Volume::new([1, 1, 4], Voxels::U8(vec![0, 1, 2, 3].into()), Affine::IDENTITY).expect("a mask");
        for (text, want) in [
            ("background kidney tumour", [0, 1, 2, 0]),
            ("background Tumor Kidneys", [0, 2, 1, 0]),
            ("background kidney cyst tumors", [0, 1, 0, 2]),
        ] {
            let mapped = LabelMap::new(&names(text)).expect("labels").apply(&mask);
            let Voxels::U8(got) = &mapped.voxels else { panic!("labels") };
            let used = names(text).len();
            assert_eq!(got[..used], want[..used], "{text}");
        }
        for text in ["background kidney", "background kidney kidney tumour", "background a b"] {
            let message = LabelMap::new(&names(text)).expect_err("refused").to_string();
            assert!(message.contains("one named tumour") && message.contains(&names(text).join(", ")), "{message}");
        }
    }
}
