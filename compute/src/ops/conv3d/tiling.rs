//! The tiles that the tiled convolution kernels may run with on a device.

use std::fmt;

use nephron_kernels::conv3d::implicit_gemm::{PLANE, Planes, Step};
use nephron_kernels::conv3d::register_blocked::Block;
use nephron_kernels::conv3d::staging::{Tiles, Transfer};

use super::facts::Facts;

/// Tiles and how units share them; each kernel reads its own half.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tiling {
    pub(super) tiles: Tiles,
    pub(super) planes: Planes,
    pub(super) step: Step,
    pub(super) block: Block,
    /// Cubes that share a tile's sum.
    pub(super) splits: usize,
}

impl Tiling {
    /// The same tiles for a sum of `k` terms, cut into about `splits` pieces of whole steps, each of enough of them for the
    /// stages; the stages of a sum that is shorter than those are fewer.
    pub(super) fn split(self, k: usize, splits: usize) -> Self {
        let steps = k.div_ceil(self.tiles.k);
        let stages = self.tiles.stages.min(steps + 1);
        let pieces = |splits: usize| {
            let each = steps.div_ceil(splits);
            let pieces = steps.div_ceil(each);
            (pieces, steps - (pieces - 1) * each)
        };
        let mut splits = splits.clamp(1, steps);
        while splits > 1 && pieces(splits).1 + 1 < stages {
            splits -= 1;
        }
        Self { tiles: Tiles { stages, ..self.tiles }, splits: pieces(splits).0, ..self }
    }
}

impl fmt::Display for Tiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.tiles;
        write!(f, "{} x {} x {}, {} stages, {} units", t.m, t.n, t.k, t.stages, t.units)?;
        if self.splits > 1 { write!(f, ", sums in {}", self.splits) } else { Ok(()) }
    }
}

/// cp.async copies 4, 8 or 16 bytes.
pub(super) fn transfer(facts: &Facts) -> Transfer {
    if facts.copy_async && facts.width * facts.dtype.size() >= 4 { Transfer::Async } else { Transfer::Direct }
}

/// May a cube have this much, and do its units share the tiles out evenly, each with rows few enough to remember them in
/// registers?
fn fits(tiling: &Tiling, facts: &Facts) -> bool {
    let t = tiling.tiles;
    let rows = t.rows_at_once(facts.width);
    let even = t.units.is_multiple_of(t.k / facts.width) && t.m.is_multiple_of(rows) && t.n.is_multiple_of(rows);
    // A software adapter's registers are the processor's stack.
    even && t.m / rows <= if facts.software { 32 } else { 16 }
        && t.shared_bytes() <= facts.shared_bytes
        && t.units <= facts.units
}

/// Tiles whose blocks are `mma.sync`'s or its plain twin's. On matrix instructions vectors of less than 16 bytes get the
/// smallest tile, filled by the units: cp.async of so few saves nothing, and there are many rows to remember.
pub(super) fn implicit_gemm(facts: &Facts) -> impl Iterator<Item = Tiling> {
    let facts = *facts;
    let step = facts.step();
    let narrow = step != Step::Plain && facts.width * facts.dtype.size() < 16;
    let transfer = if narrow { Transfer::Direct } else { transfer(&facts) };
    let stages = if transfer == Transfer::Async { 3 } else { 2 };
    // m, n, k and the planes along m and n. A row of k is 64 bytes, or 32.
    let k = if step == Step::Tf32 { 16 } else { 32 };
    let shapes = [[128, 64, k, 2, 2], [128, 32, k, 4, 1], [64, 64, k, 2, 2], [64, 32, 16, 2, 2]];
    let tiling = move |[m, n, k, planes_m, planes_n]: [usize; 5]| Tiling {
        tiles: Tiles { m, n, k, stages, units: planes_m * planes_n * PLANE, bytes: facts.dtype.size(), transfer },
        planes: Planes { m: planes_m, n: planes_n },
        step,
        block: Block { voxels: 0, channels: 0 },
        splits: 1,
    };
    let small = move |t: &Tiling| !narrow || t.tiles.n * t.tiles.k == 32 * 16;
    shapes.into_iter().map(tiling).filter(move |t| small(t) && fits(t, &facts))
}

/// Tiles for ordinary multiplications.
pub(super) fn register_blocked(facts: &Facts) -> impl Iterator<Item = Tiling> {
    let facts = *facts;
    let (transfer, width) = (transfer(&facts), facts.width);
    // m, n and a unit's share of them. On a processor every load is a gather, a lane at a time: few, large blocks (twice as
    // large they are 6 % faster and take 12 s to compile).
    let shapes = if facts.software { &[[128, 32, 16, 8], [64, 32, 8, 4]] } else { &[[128, 64, 8, 4], [64, 32, 8, 4]] };
    let tiling = move |[m, n, voxels, channels]: [usize; 4]| Tiling {
        tiles: Tiles {
            m,
            n,
            // Four vectors, and at least a piece of 16 bytes.
            k: (4 * width).max(16),
            stages: 2,
            units: m / voxels * (n / channels),
            bytes: facts.dtype.size(),
            transfer,
        },
        planes: Planes { m: 1, n: 1 },
        step: Step::Plain,
        block: Block { voxels, channels },
        splits: 1,
    };
    shapes.iter().copied().map(tiling).filter(move |t| fits(t, &facts))
}
