//! The tiles that the matrix product of the transposed convolution may run with on a device.

use std::fmt;

use nephron_kernels::conv_transpose3d::gemm::{SEATS, shared_bytes};
use nephron_kernels::conv3d::implicit_gemm::{PLANE, Planes, Step};
use nephron_kernels::conv3d::staging::{Tiles, Transfer};

use super::capabilities::DeviceCaps;

/// Output channels that a thread stores at once at most.
const MAX_STORE: usize = 8;

/// A tile of the product, with input voxels as rows and (tap, output channel) as columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TransposedTile {
    /// The tile in shared memory, and its stages.
    pub(crate) tiles: Tiles,
    /// How the planes of a cube share the tile.
    pub(crate) planes: Planes,
    /// What multiplies.
    pub(crate) step: Step,
    /// Input channels that a thread loads at once.
    pub(crate) width: usize,
    /// Columns of the weight that a thread loads at once.
    pub(crate) pair: usize,
    /// Output channels that a thread stores at once where the pitch and the offset of the buffer are multiples of them.
    pub(crate) store: usize,
}

impl fmt::Display for TransposedTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.tiles;
        write!(f, "{} x {} x {}, {} stages, {} units", t.m, t.n, t.k, t.stages, t.units)
    }
}

/// The tiles that the device allows for a product of `columns` and `terms` (input channels), the largest tile first, with
/// `co` output channels.
pub(super) fn tiles(caps: &DeviceCaps, [columns, terms]: [usize; 2], co: usize) -> Vec<TransposedTile> {
    let width = caps.vector_width(terms);
    let pair = if columns.is_multiple_of(2) { 2 } else { 1 };
    let bytes = caps.dtype.size();
    // The kernel knows the matrix instructions of 16-bit types alone.
    let matrix = caps.matrix && bytes == 2;
    let transfer = caps.transfer(width.min(pair));
    // Ordinary arithmetic takes longer than a copy: one step ahead is enough, and a third stage costs registers.
    let stages = if transfer == Transfer::Async && matrix { 3 } else { 2 };
    // m, n, k and the planes along m and n.
    let shapes: &[[usize; 5]] = match (matrix, caps.software) {
        (true, _) => &[[128, 64, 32, 2, 2], [64, 64, 32, 2, 2], [64, 32, 32, 4, 1]],
        // On a processor every load is a gather, one lane at a time: few, large blocks pay.
        (_, true) => &[[128, 64, 16, 2, 1], [64, 32, 16, 2, 1]],
        _ => &[[128, 64, 16, 2, 2], [64, 64, 16, 2, 2]],
    };
    let tile = |&[m, n, k, planes_m, planes_n]: &[usize; 5]| TransposedTile {
        tiles: Tiles { m, n, k, stages, units: planes_m * planes_n * PLANE, bytes, transfer },
        planes: Planes { m: planes_m, n: planes_n },
        step: if matrix { Step::Mma } else { Step::Plain },
        width,
        pair,
        store: caps.vector_width(co).min(MAX_STORE),
    };
    // No more stages than steps and one: no copy is on its way when the kernel ends.
    let short = |t: TransposedTile| TransposedTile {
        tiles: Tiles { stages: t.tiles.stages.min(terms.div_ceil(t.tiles.k) + 1), ..t.tiles },
        ..t
    };
    shapes.iter().map(tile).filter(|t| fits(t, caps)).map(short).collect()
}

/// Whether a cube may be as large as the tile, and whether its threads share both operands out evenly.
fn fits(tile: &TransposedTile, caps: &DeviceCaps) -> bool {
    let t = tile.tiles;
    let (a_columns, b_columns) = (t.k / tile.width, t.n / tile.pair);
    let even = |columns: usize, rows: usize| t.units.is_multiple_of(columns) && rows.is_multiple_of(t.units / columns);
    (t.n / tile.planes.n).is_multiple_of(SEATS)
        && even(a_columns, t.m)
        && even(b_columns, t.k)
        && shared_bytes(&t) <= caps.shared_bytes
        && t.units <= caps.max_units
}
