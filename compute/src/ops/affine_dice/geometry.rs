//! Index maps, PyTorch's normalised coordinates, and what of the moving mask a map can reach. Axes here are (x, y, z).

use crate::ops::grid_sample::PaddingMode;

/// x' = A x + t as the three rows of [A | t], rows and columns in (x, y, z) order.
pub type Matrix = [[f64; 4]; 3];

/// y_k = scale_k x_k + offset_k.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Diagonal {
    /// Factor per axis.
    pub scale: [f64; 3],
    /// Added per axis.
    pub offset: [f64; 3],
}

impl Diagonal {
    /// Voxel index to `affine_grid`'s base coordinate: -1 and 1 are the outer voxels' centres (`align_corners`) or
    /// outer edges. An axis of size 1 is at 0.
    pub fn normalise(size: [usize; 3], align_corners: bool) -> Self {
        Self::each(size, |s| match (align_corners, s > 1.0) {
            (true, true) => (2.0 / (s - 1.0), -1.0),
            (true, false) => (0.0, 0.0),
            (false, _) => (2.0 / s, 1.0 / s - 1.0),
        })
    }

    /// `grid_sample`'s normalised coordinate to voxel index.
    pub fn unnormalise(size: [usize; 3], align_corners: bool) -> Self {
        Self::each(size, |s| {
            let half = if align_corners { (s - 1.0) / 2.0 } else { s / 2.0 };
            (half, (s - 1.0) / 2.0)
        })
    }

    /// As an affine map.
    pub fn matrix(&self) -> Matrix {
        std::array::from_fn(|r| {
            let mut row = [0.0, 0.0, 0.0, self.offset[r]];
            row[r] = self.scale[r];
            row
        })
    }

    fn each(size: [usize; 3], f: impl Fn(f64) -> (f64, f64)) -> Self {
        let pairs = size.map(|s| f(s as f64));
        Self { scale: pairs.map(|p| p.0), offset: pairs.map(|p| p.1) }
    }
}

/// Between which coordinates the parameters map: index of the fixed grid -> `input` -> parameters -> `output` -> index
/// of the moving grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Fixed index to the parameters' input.
    pub input: Diagonal,
    /// The parameters' output to moving index.
    pub output: Diagonal,
}

impl Frame {
    /// PyTorch's: theta maps normalised fixed coordinates to normalised moving coordinates.
    pub fn normalised(fixed: [usize; 3], moving: [usize; 3], align_corners: bool) -> Self {
        Self { input: Diagonal::normalise(fixed, align_corners), output: Diagonal::unnormalise(moving, align_corners) }
    }

    /// The index map that parameters mean.
    pub fn matrix(&self, parameters: &Matrix) -> Matrix {
        let (input, output) = (&self.input, &self.output);
        std::array::from_fn(|r| {
            let q = &parameters[r];
            let shift: f64 = (0..3).map(|k| q[k] * input.offset[k]).sum::<f64>() + q[3];
            let mut row: [f64; 4] = std::array::from_fn(|k| if k < 3 { q[k] * input.scale[k] } else { shift });
            row.iter_mut().for_each(|m| *m *= output.scale[r]);
            row[3] += output.offset[r];
            row
        })
    }

    /// d / d parameters from d / d matrix.
    pub fn gradient(&self, by_matrix: &Matrix) -> Matrix {
        let (input, output) = (&self.input, &self.output);
        std::array::from_fn(|r| {
            let d = &by_matrix[r];
            std::array::from_fn(|k| {
                output.scale[r] * if k < 3 { input.scale[k] * d[k] + input.offset[k] * d[3] } else { d[3] }
            })
        })
    }
}

/// The box around the voxels of all channels, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First voxel with a label.
    pub low: [usize; 3],
    /// Last voxel with a label.
    pub high: [usize; 3],
}

impl Bounds {
    /// Cells along each axis: from the one that ends at `low` to the one that starts at `high`.
    pub fn cells(&self) -> [usize; 3] {
        std::array::from_fn(|k| self.high[k] - self.low[k] + 2)
    }

    /// The smallest box around both.
    pub(super) fn union(self, other: Self) -> Self {
        Self {
            low: std::array::from_fn(|k| self.low[k].min(other.low[k])),
            high: std::array::from_fn(|k| self.high[k].max(other.high[k])),
        }
    }
}

/// Positions in cells: 0 is the centre of the voxel before `Bounds::low`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// Least and greatest position that can contribute to a sum.
    pub reach: [[f64; 3]; 2],
    /// Least and greatest position inside the moving grid, to which border padding clamps.
    pub clamp: [[f64; 3]; 2],
}

impl Limits {
    pub(super) fn new(bounds: &Bounds, size: [usize; 3], padding: PaddingMode) -> Self {
        let cells = bounds.cells();
        let clamp = [
            std::array::from_fn(|k| 1.0 - bounds.low[k] as f64),
            std::array::from_fn(|k| size[k] as f64 - bounds.low[k] as f64),
        ];
        // Clamped positions see the outermost voxels; where those are labelled, everything beyond them counts.
        let border = padding == PaddingMode::Border;
        let low = std::array::from_fn(|k| if border && bounds.low[k] == 0 { f64::NEG_INFINITY } else { 0.0 });
        let high =
            std::array::from_fn(
                |k| {
                    if border && bounds.high[k] + 1 == size[k] { f64::INFINITY } else { cells[k] as f64 }
                },
            );
        Self { reach: [low, high], clamp }
    }
}
