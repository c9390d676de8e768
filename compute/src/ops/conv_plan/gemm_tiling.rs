//! The tiles that the two tiled matrix products of the forward convolution may run with on a device.

use std::fmt;

use nephron_kernels::conv3d::implicit_gemm::{PLANE, Planes, Step};
use nephron_kernels::conv3d::register_blocked::Block;
use nephron_kernels::conv3d::staging::{Tiles, Transfer};

use super::capabilities::DeviceCaps;

/// A tile of the product by matrix instructions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GemmTile {
    /// The tile in shared memory, and its stages.
    pub(crate) tiles: Tiles,
    /// How the planes of a cube share the tile.
    pub(crate) planes: Planes,
    /// What multiplies.
    pub(crate) step: Step,
    /// Input channels that a thread loads at once.
    pub(crate) width: usize,
    /// Output channels that a thread stores at once.
    pub(crate) store: usize,
    /// Cubes that share the sum of a tile (split-K).
    pub(crate) splits: usize,
}

impl GemmTile {
    /// The same tile for a sum of `k` terms; see [`split`].
    pub(super) fn split(self, k: usize, splits: usize) -> Self {
        let (tiles, splits) = split(self.tiles, k, splits);
        Self { tiles, splits, ..self }
    }
}

impl fmt::Display for GemmTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_tiles(f, &self.tiles, self.splits)
    }
}

/// A tile of the product by ordinary multiply-adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RegisterBlockedTile {
    /// The tile in shared memory, and its stages.
    pub(crate) tiles: Tiles,
    /// The part of the tile that one thread computes in its registers.
    pub(crate) block: Block,
    /// Input channels that a thread loads at once.
    pub(crate) width: usize,
    /// Output channels that a thread stores at once where it adds up the parts of split sums.
    pub(crate) store: usize,
    /// Cubes that share the sum of a tile (split-K).
    pub(crate) splits: usize,
}

impl RegisterBlockedTile {
    /// The same tile for a sum of `k` terms; see [`split`].
    pub(super) fn split(self, k: usize, splits: usize) -> Self {
        let (tiles, splits) = split(self.tiles, k, splits);
        Self { tiles, splits, ..self }
    }
}

impl fmt::Display for RegisterBlockedTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_tiles(f, &self.tiles, self.splits)
    }
}

fn write_tiles(f: &mut fmt::Formatter<'_>, t: &Tiles, splits: usize) -> fmt::Result {
    write!(f, "{} x {} x {}, {} stages, {} units", t.m, t.n, t.k, t.stages, t.units)?;
    if splits > 1 { write!(f, ", sums in {splits}") } else { Ok(()) }
}

/// `tiles` for a sum of `k` terms that is cut into about `splits` pieces of whole steps, and the number of pieces. A piece
/// has enough steps for the stages. A sum with fewer steps than `tiles` has stages gets fewer stages.
fn split(tiles: Tiles, k: usize, splits: usize) -> (Tiles, usize) {
    let steps = k.div_ceil(tiles.k);
    let stages = tiles.stages.min(steps + 1);
    // The number of pieces that are not empty, and the steps of the last one.
    let pieces = |splits: usize| {
        let each = steps.div_ceil(splits);
        let pieces = steps.div_ceil(each);
        (pieces, steps - (pieces - 1) * each)
    };
    let mut splits = splits.clamp(1, steps);
    while splits > 1 && pieces(splits).1 + 1 < stages {
        splits -= 1;
    }
    (Tiles { stages, ..tiles }, pieces(splits).0)
}

/// Whether a cube may be as large as `t`, and whether its threads share the tile out evenly, each with few enough rows to
/// keep them in registers.
fn fits(t: &Tiles, caps: &DeviceCaps, width: usize) -> bool {
    let rows = t.rows_at_once(width);
    let even = t.units.is_multiple_of(t.k / width) && t.m.is_multiple_of(rows) && t.n.is_multiple_of(rows);
    // The registers of a software adapter are the processor's stack.
    even && t.m / rows <= if caps.software { 32 } else { 16 }
        && t.shared_bytes() <= caps.shared_bytes
        && t.units <= caps.max_units
}

/// Output channels that a thread of the matrix kernels stores at once: two neighbouring columns of its fragment.
pub(super) fn stored_pair(channels: usize) -> usize {
    if channels.is_multiple_of(2) { 2 } else { 1 }
}

/// The tiles of the product by matrix instructions, or by ordinary arithmetic in their place, for `ci` input channels and
/// `co` output channels. On matrix instructions vectors of less than 16 bytes get the smallest tile, which the threads fill themselves:
/// cp.async of so few bytes saves nothing, and there are many rows to remember.
pub(super) fn implicit_gemm_tiles(caps: &DeviceCaps, [ci, co]: [usize; 2]) -> Vec<GemmTile> {
    let (width, store) = (caps.vector_width(ci), stored_pair(co));
    let step = caps.step(width);
    let narrow = step != Step::Plain && width * caps.dtype.size() < 16;
    let transfer = if narrow { Transfer::Direct } else { caps.transfer(width) };
    let stages = if transfer == Transfer::Async { 3 } else { 2 };
    // m, n, k and the planes along m and n. A row of k is 64 bytes, or 32.
    let k = if step == Step::Tf32 { 16 } else { 32 };
    let shapes = [[128, 64, k, 2, 2], [128, 32, k, 4, 1], [64, 64, k, 2, 2], [64, 32, 16, 2, 2]];
    let tile = |[m, n, k, planes_m, planes_n]: [usize; 5]| GemmTile {
        tiles: Tiles { m, n, k, stages, units: planes_m * planes_n * PLANE, bytes: caps.dtype.size(), transfer },
        planes: Planes { m: planes_m, n: planes_n },
        step,
        width,
        store,
        splits: 1,
    };
    let small = |t: &Tiles| !narrow || t.n * t.k == 32 * 16;
    shapes.into_iter().map(tile).filter(|t| small(&t.tiles) && fits(&t.tiles, caps, width)).collect()
}

/// The tiles of the product by ordinary multiply-adds, for `ci` input channels and `co` output channels.
pub(super) fn register_blocked_tiles(caps: &DeviceCaps, [ci, co]: [usize; 2]) -> Vec<RegisterBlockedTile> {
    let (width, store) = (caps.vector_width(ci), stored_pair(co));
    // m, n and a thread's share of them. On a processor every load is a gather, one lane at a time: few, large blocks pay
    // (twice as large they are 6 % faster and take 12 s to compile, measured on lavapipe).
    let shapes = if caps.software { [[128, 32, 16, 8], [64, 32, 8, 4]] } else { [[128, 64, 8, 4], [64, 32, 8, 4]] };
    let tile = |[m, n, voxels, channels]: [usize; 4]| RegisterBlockedTile {
        tiles: Tiles {
            m,
            n,
            // Four vectors, and at least one piece of 16 bytes.
            k: (4 * width).max(16),
            stages: 2,
            units: m / voxels * (n / channels),
            bytes: caps.dtype.size(),
            transfer: caps.transfer(width),
        },
        block: Block { voxels, channels },
        width,
        store,
        splits: 1,
    };
    shapes.into_iter().map(tile).filter(|t| fits(&t.tiles, caps, width)).collect()
}
