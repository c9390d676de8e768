//! Grids: shape and affine, without voxels.

use std::fmt;

use super::{Affine, Volume};
use nephron_compute::error::{Error, Result};

/// The largest length of an axis of a new grid: a spacing that makes more is a mistake in the unit.
const MAX_AXIS: f64 = 65536.0;
/// The largest number of voxels of a new grid, for the same reason: 32 GiB of f32.
const MAX_VOXELS: f64 = 8.0 * 1_073_741_824.0;

/// Where voxels are in the patient, without their values. `Display` writes the shape and the rows of the affine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Number of voxels along (d, h, w), which are NIfTI's (k, j, i).
    pub shape: [usize; 3],
    /// The map from an index (i, j, k) to RAS+ millimetres.
    pub affine: Affine,
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.shape, self.affine.0)
    }
}

impl Grid {
    /// Checks that a volume of `voxels` values can lie on this grid.
    ///
    /// # Errors
    /// [`Error::Shape`] for an axis of length 0 or another number of voxels, [`Error::Argument`] for an affine that is singular
    /// or not finite.
    pub(super) fn ensure_valid(&self, voxels: usize) -> Result<()> {
        let Self { shape, affine } = self;
        let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n > 0);
        let Some(expected) = expected else {
            let found = format!("{shape:?}");
            return Err(Error::shape("volume", "axes of length 1 and more that fit in memory", found));
        };
        if expected != voxels {
            return Err(Error::shape("volume", format!("{expected} voxels for shape {shape:?}"), voxels));
        }
        if affine.0.as_flattened().iter().any(|v| !v.is_finite()) {
            return Err(Error::argument("volume: affine", "finite values", format!("{:?}", affine.0)));
        }
        affine.inverse().map(|_| ())
    }

    /// The grid of `volume` with another voxel size: exactly `spacing`, in mm along the file's own axes (i, j, k).
    ///
    /// New size = size * old spacing / new spacing, rounded half to even, at least 1. The directions of the axes and the centre
    /// of the field of view stay, so the edges move by at most a quarter of a new voxel (more only where the size was raised
    /// to 1).
    ///
    /// # Errors
    /// [`Error::Argument`] for a spacing that is not finite and more than 0, or so small that an axis exceeds 65536.
    pub fn with_spacing(volume: &Volume, spacing: [f64; 3]) -> Result<Self> {
        if spacing.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::argument("grid: spacing", "millimetres above 0", format!("{spacing:?}")));
        }
        let old = volume.affine().spacing();
        let [d, h, w] = volume.shape();
        let size = [w, h, d];
        let ideal: [f64; 3] =
            std::array::from_fn(|a| (old[a] * size[a] as f64 / spacing[a]).round_ties_even().max(1.0));
        if ideal.iter().any(|n| *n > MAX_AXIS) {
            let found = format!("{spacing:?}, which makes {ideal:?} voxels");
            return Err(Error::argument("grid: spacing", format!("axes of at most {MAX_AXIS} voxels"), found));
        }
        if ideal.iter().product::<f64>() > MAX_VOXELS {
            let found = format!("{spacing:?}, which makes {ideal:?} voxels");
            return Err(Error::argument("grid: spacing", format!("at most {MAX_VOXELS} voxels"), found));
        }
        // The map from a new index to an old one, which takes centre to centre.
        let scale: [f64; 3] = std::array::from_fn(|a| spacing[a] / old[a]);
        let step = Affine(std::array::from_fn(|a| {
            let mut row = [0.0; 4];
            row[a] = scale[a];
            row[3] = (size[a] as f64 - 1.0) / 2.0 - scale[a] * (ideal[a] - 1.0) / 2.0;
            row
        }));
        let [i, j, k] = ideal.map(|n| n as usize);
        Ok(Self { shape: [k, j, i], affine: volume.affine().after(&step) })
    }

    /// Whether both grids have the same shape and all corners agree to within a hundredth of the smallest voxel size, which
    /// allows for two programs that round one geometry to f32.
    pub fn matches(&self, other: &Self) -> bool {
        let least = self.affine.spacing().into_iter().fold(f64::INFINITY, f64::min);
        let last = self.shape.map(|n| n.saturating_sub(1) as f64);
        let corners = (0..8).map(|c| std::array::from_fn(|a| if c >> a & 1 == 1 { last[2 - a] } else { 0.0 }));
        let near = |p: [f64; 3]| {
            let (a, b) = (self.affine.apply(p), other.affine.apply(p));
            (0..3).all(|k| (a[k] - b[k]).abs() <= 0.01 * least)
        };
        self.shape == other.shape && corners.into_iter().all(near)
    }

    /// Millimetres between voxel centres along (d, h, w).
    pub fn spacing(&self) -> [f64; 3] {
        let [i, j, k] = self.affine.spacing();
        [k, j, i]
    }

    /// Whether the voxel centres of `self` all lie beyond one face of the field of view of `other`. (Grids that are apart only
    /// along a diagonal are not recognised.)
    ///
    /// # Errors
    /// [`Error::Argument`] when the affine of `other` is singular.
    pub fn is_apart_from(&self, other: &Self) -> Result<bool> {
        let to_other = other.affine.inverse()?.after(&self.affine);
        let last = self.shape.map(|n| n.saturating_sub(1) as f64);
        let corners: [[f64; 3]; 8] = std::array::from_fn(|corner| {
            to_other.apply(std::array::from_fn(|a| if corner >> a & 1 == 1 { last[2 - a] } else { 0.0 }))
        });
        Ok((0..3).any(|a| {
            let edge = other.shape[2 - a] as f64 - 0.5;
            corners.iter().all(|c| c[a] < -0.5) || corners.iter().all(|c| c[a] > edge)
        }))
    }
}
