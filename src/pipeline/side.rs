//! The side of the patient on which a lesion lies.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::volume::{BACKGROUND, KIDNEY, LabelVolume};

/// Smallest component of kidney and tumour together that counts as a kidney, millilitres: an adult's has 100 to 250.
const KIDNEY_ML: f64 = 20.0;
/// Smallest distance of both kidneys' centres from side to side, millimetres: an adult's are 90 to 160 apart.
const APART_MM: f64 = 50.0;

/// A side of the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The patient's right.
    Right,
    /// The patient's left.
    Left,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Right => "right",
            Self::Left => "left",
        })
    }
}

/// Half-way between both kidneys from side to side, in RAS+ millimetres.
pub(super) struct Midline(Option<f64>);

impl Midline {
    /// Unknown where fewer than two kidneys are in the mask.
    ///
    /// # Errors
    /// None in practice: the labels have the mask's own shape.
    pub(super) fn of(mask: &LabelVolume) -> Result<Self> {
        let seen = |label: &u8| if *label == BACKGROUND { BACKGROUND } else { KIDNEY };
        let both = mask.with_labels(mask.labels().iter().map(seen).collect::<Vec<u8>>())?;
        let kidneys = both.components(KIDNEY).into_iter().filter(|c| c.voxels() as f64 * both.voxel_ml() >= KIDNEY_ML);
        let across: Vec<f64> = kidneys.filter_map(|c| c.centre()).map(|at| both.affine().apply(at)[0]).collect();
        let (low, high) = across.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
        Ok(Self((high - low >= APART_MM).then_some((low + high) / 2.0)))
    }

    /// That of no mask at all.
    pub(super) fn unknown() -> Self {
        Self(None)
    }

    /// The side of a point in RAS+ millimetres.
    pub(super) fn side(&self, point: [f64; 3]) -> Option<Side> {
        self.0.map(|middle| if point[0] > middle { Side::Right } else { Side::Left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, TUMOUR};

    /// Kidneys of 30 ml around these voxels of 5 x 5 x 10 mm along x; the second half of the last is tumour.
    fn mask(kidneys: &[usize]) -> LabelVolume {
        let (shape, mut labels) = ([4, 10, 60], vec![0; 2400]);
        for (i, label) in labels.iter_mut().enumerate() {
            let x = i % 60;
            if let Some(&at) = kidneys.iter().find(|at| x.abs_diff(**at) <= 1) {
                *label = if Some(&at) == kidneys.last() && x > at { TUMOUR } else { KIDNEY };
            }
        }
        let affine = Affine([[-5.0, 0.0, 0.0, 150.0], [0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 10.0, 0.0]]);
        LabelVolume::new(shape, labels, affine).expect("a mask")
    }

    #[test]
    fn the_side_is_that_of_the_nearer_kidney_where_both_are_seen() {
        let side = |kidneys: &[usize], x: f64| Midline::of(&mask(kidneys)).expect("a midline").side([x, 0.0, 0.0]);
        // Voxel 10 lies at 100 mm, to the right, and voxel 50 at -100 mm.
        assert_eq!((side(&[10, 50], 90.0), side(&[10, 50], -40.0)), (Some(Side::Right), Some(Side::Left)));
        assert_eq!((side(&[10], 90.0), side(&[10, 17], 90.0), side(&[], 0.0)), (None, None, None));
    }
}
