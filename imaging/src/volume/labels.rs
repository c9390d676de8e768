//! Label maps: which label each voxel has, and what is measured from them.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Affine, Component, Grid, Orientation, Volume, Voxels, components};
use nephron_compute::error::{Error, Result};

/// The label of everything that is neither kidney nor tumour.
pub const BACKGROUND: u8 = 0;
/// The label of kidney parenchyma, cysts included.
pub const KIDNEY: u8 = 1;
/// The label of kidney tumour.
pub const TUMOUR: u8 = 2;
/// The labels of the kidney with its tumour: what "Dice of the kidney" means everywhere in this program.
pub const WHOLE_KIDNEY: [u8; 2] = [KIDNEY, TUMOUR];

/// Number of voxels that a thread counts at a time.
const STEP: usize = 1 << 16;

/// A label for every voxel of a grid in the patient's space. It keeps the same guarantees as a [`Volume`]; a clone shares the
/// labels.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelVolume {
    grid: Grid,
    labels: Arc<Vec<u8>>,
}

impl LabelVolume {
    /// A label map of shape [d, h, w] from labels in the order d, h, w (w fastest), where `affine` maps an index (i, j, k) to RAS+ millimetres.
    ///
    /// # Errors
    /// As [`Volume::new`].
    pub fn new(shape: [usize; 3], labels: impl Into<Arc<Vec<u8>>>, affine: Affine) -> Result<Self> {
        let (grid, labels) = (Grid { shape, affine }, labels.into());
        grid.ensure_valid(labels.len())?;
        Ok(Self { grid, labels })
    }

    /// A label map with other labels on the same grid.
    ///
    /// # Errors
    /// [`Error::Shape`] for a number of labels that the shape does not have.
    pub fn with_labels(&self, labels: impl Into<Arc<Vec<u8>>>) -> Result<Self> {
        Self::new(self.grid.shape, labels, self.grid.affine)
    }

    /// Number of voxels along (d, h, w), which are NIfTI's (k, j, i).
    pub fn shape(&self) -> [usize; 3] {
        self.grid.shape
    }

    /// The labels, w (= i) fastest.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The shared allocation of the labels.
    pub(crate) fn shared(&self) -> Arc<Vec<u8>> {
        self.labels.clone()
    }

    /// The map from an index (i, j, k) to RAS+ millimetres.
    pub fn affine(&self) -> Affine {
        self.grid.affine
    }

    /// Millimetres between voxel centres along (d, h, w).
    pub fn spacing(&self) -> [f64; 3] {
        self.grid.spacing()
    }

    /// The grid without the labels.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The same labels as a volume of u8; they are shared, not copied.
    pub fn to_volume(&self) -> Volume {
        Volume::of(self.grid, Voxels::U8(self.shared()))
    }

    /// The orientation that is closest to its axes.
    pub fn orientation(&self) -> Orientation {
        Orientation::of(&self.grid.affine)
    }

    /// As [`Volume::reorient`].
    ///
    /// # Errors
    /// As [`Volume::reorient`].
    pub fn reorient(&self, target: Orientation) -> Result<Self> {
        self.to_volume().reorient(target)?.to_labels()
    }

    /// As [`Volume::slices`].
    ///
    /// # Errors
    /// As [`Volume::slices`].
    pub fn slices(&self, range: [usize; 2]) -> Result<Self> {
        self.to_volume().slices(range)?.to_labels()
    }

    /// Number of voxels of each label.
    pub fn counts(&self) -> [usize; 256] {
        let count = |labels: &[u8]| {
            let mut counts = [0; 256];
            labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
            counts
        };
        let add = |a: [usize; 256], b: [usize; 256]| std::array::from_fn(|i| a[i] + b[i]);
        self.labels.par_chunks(STEP).map(count).reduce(|| [0; 256], add)
    }

    /// Number of voxels that have one of the labels.
    pub fn count(&self, labels: &[u8]) -> usize {
        let counts = self.counts();
        (0..=u8::MAX).filter(|label| labels.contains(label)).map(|label| counts[usize::from(label)]).sum()
    }

    /// Volume of a voxel in millilitres: |det A| / 1000 of the affine, which is also right for sheared axes.
    pub fn voxel_ml(&self) -> f64 {
        self.grid.affine.determinant().abs() / 1000.0
    }

    /// Volume in millilitres of all voxels that have one of the labels.
    pub fn volume_ml(&self, labels: &[u8]) -> f64 {
        self.count(labels) as f64 * self.voxel_ml()
    }

    /// [`hard_dice`] of two sets: the voxels of this mask that have one of the labels, and those of the other mask.
    ///
    /// # Errors
    /// [`Error::Shape`] for masks that do not lie on one grid ([`Grid::matches`]).
    pub fn dice(&self, other: &Self, labels: &[u8]) -> Result<f64> {
        if !self.grid.matches(&other.grid) {
            return Err(Error::shape("Dice: the other mask's grid", self.grid, other.grid));
        }
        let is = members(labels);
        let count = |(a, b): (&[u8], &[u8])| {
            let mut sizes = [0u64; 3];
            for (a, b) in a.iter().zip(b).map(|(a, b)| (is[usize::from(*a)], is[usize::from(*b)])) {
                sizes[0] += u64::from(a && b);
                sizes[1] += u64::from(a);
                sizes[2] += u64::from(b);
            }
            sizes
        };
        let add = |a: [u64; 3], b: [u64; 3]| std::array::from_fn(|i| a[i] + b[i]);
        let pairs = self.labels.par_chunks(STEP).zip(other.labels.par_chunks(STEP));
        let [both, a, b] = pairs.map(count).reduce(|| [0; 3], add);
        Ok(hard_dice(both, a, b))
    }

    /// The smallest box around all voxels that have one of the labels, as the first and the last index along (d, h, w). None
    /// where no voxel has one.
    pub fn bounding_box(&self, labels: &[u8]) -> Option<[[usize; 2]; 3]> {
        let (is, [_, h, w]) = (members(labels), self.grid.shape);
        let mut bounds: Option<[[usize; 2]; 3]> = None;
        for (row, values) in self.labels.chunks_exact(w).enumerate() {
            let inside = |label: &u8| is[usize::from(*label)];
            let Some(first) = values.iter().position(inside) else { continue };
            let last = values.iter().rposition(inside).unwrap_or(first);
            let here = [[row / h; 2], [row % h; 2], [first, last]];
            let grown = |old: [[usize; 2]; 3]| {
                std::array::from_fn(|axis| [old[axis][0].min(here[axis][0]), old[axis][1].max(here[axis][1])])
            };
            bounds = Some(bounds.map_or(here, grown));
        }
        bounds
    }

    /// The index along d of the slice with the most voxels of `label` (the lowest such slice), and their number. None where no
    /// voxel has the label.
    pub fn largest_slice(&self, label: u8) -> Option<(usize, usize)> {
        let [_, h, w] = self.grid.shape;
        let areas = self.labels.chunks_exact(h * w).map(|slice| slice.iter().filter(|l| **l == label).count());
        areas.enumerate().filter(|(_, area)| *area > 0).max_by_key(|(k, area)| (*area, std::cmp::Reverse(*k)))
    }

    /// The connected components of `label`, see [`components()`].
    pub fn components(&self, label: u8) -> Vec<Component> {
        components(&self.labels, self.grid.shape, label)
    }
}

impl From<LabelVolume> for Volume {
    fn from(labels: LabelVolume) -> Self {
        labels.to_volume()
    }
}

/// Whether each of the 256 labels is in the set.
fn members(labels: &[u8]) -> [bool; 256] {
    let mut is = [false; 256];
    labels.iter().for_each(|label| is[usize::from(*label)] = true);
    is
}

/// Dice = 2 |A and B| / (|A| + |B|) of two sets of voxels, given the sizes `both` = |A and B|, `a` = |A| and `b` = |B|.
///
/// Two empty sets have Dice 1, as in MONAI with `ignore_empty=False`. MONAI's default and nnU-Net return NaN there and leave the
/// case out of their means. Here it counts, because a mask that correctly shows no tumour is as good as one that shows the whole
/// tumour, and because JSON has no NaN.
pub fn hard_dice(both: u64, a: u64, b: u64) -> f64 {
    let total = a as f64 + b as f64;
    if total > 0.0 { 2.0 * both as f64 / total } else { 1.0 }
}
