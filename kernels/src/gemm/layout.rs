//! Where the rows of a tile lie in shared memory.
//!
//! `ldmatrix`, `cp.async` and vector loads move 16 bytes, and eight neighbouring rows of such a piece should lie in eight
//! different groups of banks. There are two ways to that. A *swizzled* tile has rows without gaps, and piece p of row r
//! is stored at piece p ^ (number of r's line of 128 bytes): it takes no memory, but an address takes several
//! instructions. A *padded* tile has rows that are an odd number of pieces apart, so that an address is a constant away from
//! that of another row; the halo kernel, which reads a row under 27 taps, needs that.

use cubecl::prelude::*;

use crate::conv3d::staging::{Tiles, place};

/// How the rows of an operand follow one another in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// Rows of the tile's `k` elements, swizzled.
    Swizzled(Tiles),
    /// As [`Rows::Swizzled`], but the tile's rows are terms of the sum and its `k` elements are rows of the operand.
    Transposed(Tiles),
    /// Rows `pitch` elements apart.
    Padded { pitch: usize },
    /// As [`Rows::Padded`], where the operand's rows are the voxels of a box and the tile's those of a larger box.
    Halo { pitch: usize, sides: Sides },
}

/// The sides of a box and of the larger box that holds it, along (y, x). The smaller box's are powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sides {
    /// Sides of the smaller box.
    pub inner: [usize; 2],
    /// Sides of the larger box.
    pub outer: [usize; 2],
}

impl Sides {
    /// Voxels of the larger box from under a voxel of the smaller one to under the voxel `m` further on, where no carry lies
    /// between them: the first has zeros where `m` has ones.
    pub fn step(&self, m: usize) -> usize {
        let ([along_y, along_x], [outer_y, outer_x]) = (self.inner, self.outer);
        let (z, y, x) = (m / along_x / along_y, m / along_x % along_y, m % along_x);
        (z * outer_y + y) * outer_x + x
    }
}

/// An operand of one stage in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Elements of the stages before it.
    pub offset: usize,
    /// How its rows follow one another.
    pub rows: Rows,
}

impl Layout {
    /// Stage `stage` of the swizzled rows of A.
    pub fn of_a(t: Tiles, stage: usize) -> Self {
        Self { offset: stage * t.m * t.k, rows: Rows::Swizzled(t) }
    }

    /// Stage `stage` of the swizzled rows of B.
    pub fn of_b(t: Tiles, stage: usize) -> Self {
        Self { offset: stage * t.n * t.k, rows: Rows::Swizzled(t) }
    }

    /// The tile of a swizzled operand.
    fn swizzled(&self) -> Option<Tiles> {
        match self.rows {
            Rows::Swizzled(t) | Rows::Transposed(t) => Some(t),
            Rows::Padded { .. } | Rows::Halo { .. } => None,
        }
    }

    /// Elements from one row of a padded operand to the next, 0 for a swizzled one.
    fn pitch(&self) -> usize {
        match self.rows {
            Rows::Padded { pitch } | Rows::Halo { pitch, .. } => pitch,
            Rows::Swizzled(_) | Rows::Transposed(_) => 0,
        }
    }

    /// Do the tile's rows count terms of the sum?
    pub fn is_transposed(&self) -> bool {
        matches!(self.rows, Rows::Transposed(_))
    }

    /// Vectors of `width` from the start of a padded operand, or from an element of it, to `rows` and `terms` further on.
    fn further(&self, rows: usize, terms: usize, width: usize) -> usize {
        let rows = if let Rows::Halo { sides, .. } = self.rows { sides.step(rows) } else { rows };
        (self.offset + rows * self.pitch() + terms) / width
    }
}

/// The first element of an operand that a lane loads; its others are constant steps from it ([`vector_at`]).
#[derive(CubeType, Clone, Copy)]
pub struct Lane {
    /// Row of a swizzled operand, vector of a padded one.
    row: usize,
    /// Term of a swizzled operand.
    term: usize,
}

/// The lane whose first element is at `row` and `term`, `from` vectors behind that in a padded operand.
#[cube]
pub fn lane_at(row: usize, term: usize, from: usize, #[comptime] layout: Layout, #[comptime] width: usize) -> Lane {
    if comptime!(layout.swizzled().is_some()) {
        Lane { row, term }
    } else {
        Lane { row: row * comptime!(layout.pitch() / width) + from + term / width, term }
    }
}

/// The lane `vectors` further along its row.
#[cube]
pub fn lane_along(lane: &Lane, vectors: usize, #[comptime] layout: Layout, #[comptime] width: usize) -> Lane {
    if comptime!(layout.swizzled().is_some()) {
        Lane { row: lane.row, term: lane.term + vectors * width }
    } else {
        Lane { row: lane.row + vectors, term: lane.term }
    }
}

/// Index of the vector `rows` and `terms` further than a lane's first.
#[cube]
pub fn vector_at(
    lane: &Lane,
    #[comptime] rows: usize,
    #[comptime] terms: usize,
    #[comptime] layout: Layout,
    #[comptime] width: usize,
) -> usize {
    if comptime!(layout.swizzled().is_some()) {
        let t = comptime!(layout.swizzled().unwrap());
        let (row, term) = (lane.row + rows, lane.term + terms);
        let within =
            if comptime!(layout.is_transposed()) { place(term, row, t, width) } else { place(row, term, t, width) };
        comptime!(layout.offset / width) + within
    } else {
        lane.row + comptime!(layout.further(rows, terms, width))
    }
}
