//! Where the rows of a tile lie in shared memory.
//!
//! `ldmatrix`, `cp.async` and vector loads move 16 bytes, and eight neighbouring rows of such a piece should lie in eight
//! different groups of banks. There are two ways to that. A *swizzled* tile has rows without gaps, and piece p of row r
//! is stored at piece p ^ (number of r's line of 128 bytes): it takes no memory, but an address takes several
//! instructions. A *padded* tile has rows that are an odd number of pieces apart, so that an address is a constant away from
//! that of another row; the halo kernel, which reads a row under 27 taps, needs that.

use cubecl::prelude::*;

/// How a stage is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// `cp.async`: the units carry on, and a barrier in shared memory says when a stage is full (CUDA, sm_80 and later).
    Async,
    /// Loads and stores by the units.
    Direct,
}

/// The tiles of a cube. `units` must divide into whole rows of vectors, and those into `m` and `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tiles {
    /// Rows of the product: output voxels.
    pub m: usize,
    /// Columns of the product: output channels.
    pub n: usize,
    /// Terms of the sum in each step.
    pub k: usize,
    /// Steps in shared memory at a time, at most one more than the sum has, so that no copy is in flight when the kernel ends.
    pub stages: usize,
    /// Number of units of the cube.
    pub units: usize,
    /// Bytes of an element.
    pub bytes: usize,
    /// How stages are filled.
    pub transfer: Transfer,
}

impl Tiles {
    /// Number of elements in a piece of 16 bytes.
    pub fn piece(&self) -> usize {
        16 / self.bytes
    }

    /// Number of rows that the units load at once in vectors of `width`.
    pub fn rows_at_once(&self, width: usize) -> usize {
        self.units / (self.k / width)
    }

    /// Bytes of shared memory: the stages, and two words for each row of A.
    pub fn shared_bytes(&self) -> usize {
        self.stages * (self.m + self.n) * self.k * self.bytes + 8 * self.m
    }
}

/// How the rows of an operand follow one another in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// Rows of the tile's `k` elements, swizzled.
    Swizzled(Tiles),
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
            Rows::Swizzled(t) => Some(t),
            Rows::Padded { .. } | Rows::Halo { .. } => None,
        }
    }

    /// Elements from one row of a padded operand to the next, 0 for a swizzled one.
    fn pitch(&self) -> usize {
        match self.rows {
            Rows::Padded { pitch } | Rows::Halo { pitch, .. } => pitch,
            Rows::Swizzled(_) => 0,
        }
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
        comptime!(layout.offset / width) + place(lane.row + rows, lane.term + terms, t, width)
    } else {
        lane.row + comptime!(layout.further(rows, terms, width))
    }
}

/// Index of the vector that holds element `k` of `row` in a tile.
#[cube]
pub fn place(row: usize, k: usize, #[comptime] t: Tiles, #[comptime] width: usize) -> usize {
    let piece = t.piece();
    let (pieces, rows_a_line) = comptime!((t.k / piece, if t.k * t.bytes < 128 { 128 / (t.k * t.bytes) } else { 1 }));
    let mask = comptime!(if pieces < 8 { pieces - 1 } else { 7 });
    let moved = (k / piece) ^ ((row / rows_a_line) & mask);
    row * comptime!(t.k / width) + moved * comptime!(piece / width) + (k % piece) / width
}
