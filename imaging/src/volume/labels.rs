//! Label maps: what each voxel is, and what is measured of it.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Affine, Component, Grid, Orientation, Volume, Voxels, components};
use nephron_compute::error::{Error, Result};

/// Neither kidney nor tumour.
pub const BACKGROUND: u8 = 0;
/// Kidney parenchyma, cysts included.
pub const KIDNEY: u8 = 1;
/// Kidney tumour.
pub const TUMOUR: u8 = 2;
/// The kidney with its tumour: what "Dice of the kidney" means everywhere in this program.
pub const WHOLE_KIDNEY: [u8; 2] = [KIDNEY, TUMOUR];

/// Voxels counted at a time by one thread.
const STEP: usize = 1 << 16;

/// A label for every voxel of a grid in the patient's space. As sound as a [`Volume`]; a clone shares the labels.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelVolume {
    grid: Grid,
    labels: Arc<Vec<u8>>,
}

impl LabelVolume {
    /// Labels of shape [d, h, w], w fastest, where `affine` maps an index (i, j, k) to RAS+ millimetres.
    ///
    /// # Errors
    /// As [`Volume::new`].
    pub fn new(shape: [usize; 3], labels: impl Into<Arc<Vec<u8>>>, affine: Affine) -> Result<Self> {
        let (grid, labels) = (Grid { shape, affine }, labels.into());
        grid.check(labels.len())?;
        Ok(Self { grid, labels })
    }

    /// Other labels on the same grid.
    ///
    /// # Errors
    /// [`Error::Shape`] for labels that do not fill the shape.
    pub fn with_labels(&self, labels: impl Into<Arc<Vec<u8>>>) -> Result<Self> {
        Self::new(self.grid.shape, labels, self.grid.affine)
    }

    /// [d, h, w], which are NIfTI's (k, j, i).
    pub fn shape(&self) -> [usize; 3] {
        self.grid.shape
    }

    /// The labels, w (= i) fastest.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The labels as they are shared with clones.
    pub(crate) fn shared(&self) -> Arc<Vec<u8>> {
        self.labels.clone()
    }

    /// Index (i, j, k) to RAS+ millimetres.
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

    /// The closest orientation of its axes.
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

    /// Voxels of each label.
    pub fn counts(&self) -> [usize; 256] {
        let count = |labels: &[u8]| {
            let mut counts = [0; 256];
            labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
            counts
        };
        let add = |a: [usize; 256], b: [usize; 256]| std::array::from_fn(|i| a[i] + b[i]);
        self.labels.par_chunks(STEP).map(count).reduce(|| [0; 256], add)
    }

    /// Voxels that have one of the labels.
    pub fn count(&self, labels: &[u8]) -> usize {
        let counts = self.counts();
        (0..=u8::MAX).filter(|label| labels.contains(label)).map(|label| counts[usize::from(label)]).sum()
    }

    /// Millilitres of a voxel: the determinant of the affine, so that sheared axes count right too.
    pub fn voxel_ml(&self) -> f64 {
        self.grid.affine.determinant().abs() / 1000.0
    }

    /// Millilitres of all voxels that have one of the labels.
    pub fn volume_ml(&self, labels: &[u8]) -> f64 {
        self.count(labels) as f64 * self.voxel_ml()
    }

    /// [`hard_dice`] of the voxels that have one of the labels in this mask and in another.
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

    /// The smallest box of all voxels that have one of the labels: first and last index along (d, h, w). None without any.
    pub fn bounding_box(&self, labels: &[u8]) -> Option<[[usize; 2]; 3]> {
        let (is, [_, h, w]) = (members(labels), self.grid.shape);
        let mut found: Option<[[usize; 2]; 3]> = None;
        for (row, values) in self.labels.chunks_exact(w).enumerate() {
            let inside = |label: &u8| is[usize::from(*label)];
            let Some(first) = values.iter().position(inside) else { continue };
            let last = values.iter().rposition(inside).unwrap_or(first);
            let here = [[row / h; 2], [row % h; 2], [first, last]];
            let grown = |old: [[usize; 2]; 3]| {
                std::array::from_fn(|axis| [old[axis][0].min(here[axis][0]), old[axis][1].max(here[axis][1])])
            };
            found = Some(found.map_or(here, grown));
        }
        found
    }

    /// The slice along d with the most voxels of `label`, the lowest of equals, and how many it has. None without any.
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

/// Of each label: is it in the set?
fn members(labels: &[u8]) -> [bool; 256] {
    let mut is = [false; 256];
    labels.iter().for_each(|label| is[usize::from(*label)] = true);
    is
}

/// Dice = 2 |A and B| / (|A| + |B|) of two sets of voxels by their sizes, `both` being |A and B|.
///
/// Two empty sets agree: 1, as in MONAI with `ignore_empty=False`. MONAI's default and nnU-Net give NaN there and their means leave
/// the case out; here it counts, since a mask that rightly shows no tumour is as good as one that shows it whole, and since NaN is
/// no number of JSON.
pub fn hard_dice(both: u64, a: u64, b: u64) -> f64 {
    let total = a as f64 + b as f64;
    if total > 0.0 { 2.0 * both as f64 / total } else { 1.0 }
}
