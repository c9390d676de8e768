//! Slices as a viewer counts them that has opened the scan.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::volume::Grid;

/// A slice of a scan as its file stores it, whatever grid it was found on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScanSlice {
    /// The axis of the file (i, j or k) along which slices are counted: the one nearest to the patient's long axis.
    pub axis: char,
    /// The number of the slice along it, counted from 0 as by nibabel, ITK and 3D Slicer's voxel coordinates.
    pub index: usize,
    /// The same, counted from 1 as by ITK-SNAP.
    pub itk_snap: usize,
    /// Its position along the patient's long axis, towards the head, in RAS+ millimetres, as 3D Slicer shows it.
    pub position_mm: f64,
}

impl ScanSlice {
    /// The slice of a scan on `grid` that is nearest to a point in RAS+ millimetres; the first or the last for a point outside.
    ///
    /// # Errors
    /// A grid with a singular affine.
    pub fn at(grid: &Grid, point: [f64; 3]) -> Result<Self> {
        let [d, h, w] = grid.shape;
        let length = |axis: usize| grid.affine.0[2][axis].abs() / grid.affine.spacing()[axis];
        let axis = (0..3).max_by(|a, b| length(*a).total_cmp(&length(*b))).unwrap_or(2);
        let mut at = grid.affine.inverse()?.apply(point);
        let last = [w, h, d][axis].saturating_sub(1);
        // A number below 0 or that is none becomes 0.
        let index = (at[axis].round() as usize).min(last);
        at[axis] = index as f64;
        let [.., position_mm] = grid.affine.apply(at);
        Ok(Self { axis: ['i', 'j', 'k'][axis], index, itk_snap: index + 1, position_mm })
    }
}

impl fmt::Display for ScanSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { axis, index, itk_snap, position_mm } = self;
        let along = if *axis == 'k' { String::new() } else { format!(" along {axis}") };
        write!(f, "slice {index}{along} of the scan from 0 ({itk_snap} in ITK-SNAP, z = {position_mm:.1} mm)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    #[test]
    fn slices_are_those_of_the_file() {
        // Slices of 5 mm from the head to the feet, as KiTS stores them along the first axis, of a patient who lies askew.
        let grid = Grid {
            shape: [20, 30, 40],
            affine: Affine([[0.0, 0.1, -0.8, 100.0], [0.0, 0.8, 0.1, -50.0], [-5.0, 0.0, 0.0, 300.0]]),
        };
        let slice = ScanSlice::at(&grid, grid.affine.apply([28.4, 3.0, 7.0])).expect("a slice");
        assert_eq!((slice.axis, slice.index, slice.itk_snap), ('i', 28, 29));
        assert!((slice.position_mm - 160.0).abs() < 1e-9, "{slice:?}");
        assert_eq!(slice.to_string(), "slice 28 along i of the scan from 0 (29 in ITK-SNAP, z = 160.0 mm)");
        let outside = |i: f64| ScanSlice::at(&grid, grid.affine.apply([i, 0.0, 0.0])).expect("a slice").index;
        assert_eq!([outside(-3.0), outside(77.0)], [0, 39]);
        let axial =
            Grid { affine: Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 3.0, -90.0]]), ..grid };
        let slice = ScanSlice::at(&axial, [5.0, 5.0, -59.0]).expect("a slice");
        assert_eq!(slice.to_string(), "slice 10 of the scan from 0 (11 in ITK-SNAP, z = -60.0 mm)");
    }
}
