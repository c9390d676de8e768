//! The position in the input that each voxel of the result reads, with more precision than f32 has.

use crate::error::{Error, Result};

/// Largest term of a coordinate, in voxels: sums of three stay far below 2^24, up to which f32 represents every whole number.
const MAX_TERM: f64 = (1u32 << 21) as f64;

/// A p + t as a sum of three entries, one for each index of p, made in f64. An entry is split into a whole number and a
/// part in [0, 1], both f32. The whole numbers add up exactly, and the parts, which are below 3 together, to within
/// three halves of their own rounding (2^-25 each) and two roundings of the sum (2^-23 each): 4e-7 voxels.
/// A matrix in f32 would be off by 2^-24 of each coordinate, several times over: 2e-4 at 512^3.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceTable {
    size: [usize; 3],
    /// [d + h + w][input axis (z, y, x)][whole, part]: the entries of z, then those of y, then those of x.
    values: Vec<f32>,
}

/// One entry: for each input axis, (whole, part).
pub(super) type Entry = [[f32; 2]; 3];

impl PlaceTable {
    /// The table for a result of `size` (d, h, w). An error unless all entries are finite and within the limit.
    pub(super) fn new(size: [usize; 3], matrix: &[[f64; 4]; 3]) -> Result<Self> {
        let mut values = Vec::with_capacity(6 * size.iter().sum::<usize>());
        for axis in 0..3 {
            for i in 0..size[axis] {
                for row in matrix {
                    // The translation is added to the entries of the first axis.
                    let shift = if axis == 0 { row[3] } else { 0.0 };
                    let term = row[axis] * i as f64 + shift;
                    if !(row[axis].is_finite() && term.abs() <= MAX_TERM) {
                        let found = format!("{term} for index {i} of axis {axis}");
                        return Err(Error::argument(
                            "resample: matrix",
                            format!("terms within {MAX_TERM} voxels"),
                            found,
                        ));
                    }
                    let whole = term.floor();
                    values.extend([whole as f32, (term - whole) as f32]);
                }
            }
        }
        Ok(Self { size, values })
    }

    /// [d + h + w][3][2] as the kernels read it.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The entries of the three axes of the result.
    pub(super) fn axes(&self) -> [&[Entry]; 3] {
        let (entries, _) = self.values.as_chunks::<2>();
        let (entries, _) = entries.as_chunks::<3>();
        let (z, rest) = entries.split_at(self.size[0]);
        let (y, x) = rest.split_at(self.size[1]);
        [z, y, x]
    }
}
