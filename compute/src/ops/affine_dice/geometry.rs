//! Maps from index to index, PyTorch's normalised coordinates, and the part of the moving mask that a map can reach. Axes here are
//! (x, y, z).

use crate::ops::grid_sample::PaddingMode;

/// x' = A x + t as the three rows of [A | t], rows and columns in (x, y, z) order.
pub type Matrix = [[f64; 4]; 3];

/// A scaling of each axis: y_k = scale_k x_k + offset_k.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Diagonal {
    /// The factor of each axis.
    pub scale: [f64; 3],
    /// The offset of each axis.
    pub offset: [f64; 3],
}

impl Diagonal {
    /// The map from a voxel index to `affine_grid`'s base coordinate: -1 and 1 are the outer voxels' centres (`align_corners`) or
    /// outer edges. An axis of size 1 is at 0.
    pub fn normalise(size: [usize; 3], align_corners: bool) -> Self {
        Self::each(size, |s| match (align_corners, s > 1.0) {
            (true, true) => (2.0 / (s - 1.0), -1.0),
            (true, false) => (0.0, 0.0),
            (false, _) => (2.0 / s, 1.0 / s - 1.0),
        })
    }

    /// The map from `grid_sample`'s normalised coordinate to a voxel index.
    pub fn unnormalise(size: [usize; 3], align_corners: bool) -> Self {
        Self::each(size, |s| {
            let half = if align_corners { (s - 1.0) / 2.0 } else { s / 2.0 };
            (half, (s - 1.0) / 2.0)
        })
    }

    /// The same as an affine map.
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

/// The coordinates between which the parameters map: index of the fixed grid -> `input` -> parameters -> `output` -> index of the moving
/// grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// The map from a fixed index to the input of the parameters.
    pub input: Diagonal,
    /// The map from the output of the parameters to a moving index.
    pub output: Diagonal,
}

impl Frame {
    /// The frame of PyTorch, in which theta maps normalised fixed coordinates to normalised moving coordinates.
    pub fn normalised(fixed: [usize; 3], moving: [usize; 3], align_corners: bool) -> Self {
        Self { input: Diagonal::normalise(fixed, align_corners), output: Diagonal::unnormalise(moving, align_corners) }
    }

    /// The map from index to index for given parameters.
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

    /// The derivative by the parameters, from the derivative by the index map.
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
    /// The lowest index of a labelled voxel along each axis.
    pub low: [usize; 3],
    /// The highest index of a labelled voxel along each axis.
    pub high: [usize; 3],
}

impl Bounds {
    /// Number of cells along each axis: from the one that ends at `low` to the one that starts at `high`.
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
    /// The least and the greatest position that can contribute to a sum.
    pub reach: [[f64; 3]; 2],
    /// The least and the greatest position inside the moving grid, to which border padding clamps.
    pub clamp: [[f64; 3]; 2],
}

impl Limits {
    pub(super) fn new(bounds: &Bounds, size: [usize; 3], padding: PaddingMode) -> Self {
        let cells = bounds.cells();
        let clamp = [
            std::array::from_fn(|k| 1.0 - bounds.low[k] as f64),
            std::array::from_fn(|k| size[k] as f64 - bounds.low[k] as f64),
        ];
        // Clamped positions read the outermost voxels; where those are labelled, all positions beyond them contribute.
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
