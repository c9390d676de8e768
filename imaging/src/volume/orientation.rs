//! The anatomical directions of a volume's axes, and permuting and flipping them. Voxels are moved, never interpolated.

use std::fmt;
use std::str::FromStr;

use super::{Affine, Grid, Volume, Voxels};
use nephron_compute::ensure_room;
use nephron_compute::error::{Error, Result};

/// The anatomical direction each index axis (i, j, k) runs towards, as nibabel's axis codes: `RAS` has i growing to the
/// right, j to the front (anterior), k to the head (superior).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation {
    /// The RAS+ axis (0 x, 1 y, 2 z) that each of i, j, k is closest to.
    axes: [usize; 3],
    /// Whether each index grows towards the positive end of that axis.
    positive: [bool; 3],
}

const LETTERS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['I', 'S']];

impl Orientation {
    /// i to the right, j to the front, k to the head: NIfTI's convention.
    pub const RAS: Self = Self { axes: [0, 1, 2], positive: [true; 3] };
    /// i to the left, j to the back, k to the head: the convention of DICOM and ITK.
    pub const LPS: Self = Self { axes: [0, 1, 2], positive: [false, false, true] };

    /// The closest orientation of an affine: of the six ways to pair index axes with anatomical ones, the one with the
    /// largest sum of |cosines|; the first of several equal ones.
    pub fn of(affine: &Affine) -> Self {
        const PAIRINGS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let length = affine.spacing();
        let cosine = |row: usize, column: usize| affine.0[row][column] / length[column];
        let score = |axes: &[usize; 3]| (0..3).map(|c| cosine(axes[c], c).abs()).sum::<f64>();
        let mut axes = PAIRINGS[0];
        for candidate in &PAIRINGS[1..] {
            // The margin exceeds rounding, so that axes at exactly 45 degrees do not depend on the last bit.
            if score(candidate) > score(&axes) + 1e-9 {
                axes = *candidate;
            }
        }
        Self { axes, positive: std::array::from_fn(|c| affine.0[axes[c]][c] >= 0.0) }
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code: String = (0..3).map(|c| LETTERS[self.axes[c]][usize::from(self.positive[c])]).collect();
        f.write_str(&code)
    }
}

impl FromStr for Orientation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::argument("orientation", "a letter each of L/R, P/A and I/S, such as RAS", text);
        let letters: Vec<char> = text.chars().map(|c| c.to_ascii_uppercase()).collect();
        let letters: [char; 3] = letters.try_into().map_err(|_| wrong())?;
        let (mut axes, mut positive) = ([0; 3], [false; 3]);
        for (c, letter) in letters.iter().enumerate() {
            axes[c] = LETTERS.iter().position(|pair| pair.contains(letter)).ok_or_else(wrong)?;
            positive[c] = LETTERS[axes[c]][1] == *letter;
        }
        let mut sorted = axes;
        sorted.sort_unstable();
        if sorted != [0, 1, 2] {
            return Err(wrong());
        }
        Ok(Self { axes, positive })
    }
}

/// How the axes of a volume are permuted and flipped to another orientation. Axes are (d, h, w).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// For each new axis the old axis that it is.
    pub axes: [usize; 3],
    /// Whether each new axis runs in the opposite direction.
    pub flipped: [bool; 3],
}

impl Turn {
    /// The turn that changes nothing.
    pub const NONE: Self = Self { axes: [0, 1, 2], flipped: [false; 3] };
}

impl Orientation {
    /// The turn from this orientation to `target`.
    pub fn turn_to(self, target: Self) -> Turn {
        let old = |a: usize| (0..3).find(|&old| self.axes[2 - old] == target.axes[2 - a]).unwrap_or(a);
        let axes: [usize; 3] = std::array::from_fn(old);
        Turn { axes, flipped: std::array::from_fn(|a| self.positive[2 - axes[a]] != target.positive[2 - a]) }
    }
}

impl Grid {
    /// The grid with its axes turned; every voxel keeps its position in the patient.
    pub fn turned(&self, turn: &Turn) -> Self {
        let shape = turn.axes.map(|old| self.shape[old]);
        let mut step = Affine([[0.0; 4]; 3]); // new index (i, j, k) to old index
        for a in 0..3 {
            let (new, row) = (2 - a, &mut step.0[2 - turn.axes[a]]);
            row[new] = if turn.flipped[a] { -1.0 } else { 1.0 };
            row[3] = if turn.flipped[a] { shape[a].saturating_sub(1) as f64 } else { 0.0 };
        }
        Self { shape, affine: self.affine.after(&step) }
    }
}

impl Volume {
    /// The orientation that is closest to its axes.
    pub fn orientation(&self) -> Orientation {
        Orientation::of(&self.affine())
    }

    /// The same image with its axes permuted and flipped to the orientation closest to `target`. Every voxel keeps its value
    /// and its position in the patient. `reorient(original.orientation())` restores the voxels bit for bit.
    ///
    /// # Errors
    /// As [`Volume::new`], for an affine whose offset is so large that the flipped origin is not finite.
    pub fn reorient(&self, target: Orientation) -> Result<Self> {
        let source = self.orientation();
        if source == target {
            return Ok(self.clone());
        }
        let turn = source.turn_to(target);
        let grid = self.grid().turned(&turn);
        let [_, h, w] = self.shape();
        let strides = [h * w, w, 1];
        let offsets: [Vec<usize>; 3] = std::array::from_fn(|a| {
            let (size, stride) = (grid.shape[a], strides[turn.axes[a]]);
            (0..size).map(|n| (if turn.flipped[a] { size - 1 - n } else { n }) * stride).collect()
        });
        ensure_room::<u8>("a turned volume", self.voxels().len() * self.voxels().dtype().size())?;
        let voxels = match self.voxels() {
            Voxels::U8(v) => Voxels::U8(gather(v, &offsets).into()),
            Voxels::I16(v) => Voxels::I16(gather(v, &offsets).into()),
            Voxels::F32(v) => Voxels::F32(gather(v, &offsets).into()),
        };
        Self::new(grid.shape, voxels, grid.affine)
    }
}

/// Collects `values[x + y + z]` with z as the slowest and x as the fastest offset.
fn gather<T: Copy>(values: &[T], [z, y, x]: &[Vec<usize>; 3]) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for z in z {
        for y in y {
            out.extend(x.iter().map(|x| values[x + y + z]));
        }
    }
    out
}
