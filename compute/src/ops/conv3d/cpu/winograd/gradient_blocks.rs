//! The steps of the weight gradient in a block of tiles: M = A dy of the tiles, and the products of V and M summed over them.

use std::ops::Range;

use super::super::sums::Shared;
use super::grid::{Grid, Place};
use super::input::Input;
use crate::ops::simd::{F32Vector, Kernel, Simd};

/// Tiles whose rows of V and M at a point stay in the first-level cache while all pairs of channels pass over them.
const DEPTH: usize = 64;

/// What the steps of all blocks share.
pub(super) struct Gradient<'a> {
    pub grid: &'a Grid,
    /// Channels-last input.
    pub x: &'a [f32],
    pub ci: usize,
    /// Channels-last gradient by the output.
    pub dy: &'a [f32],
    pub co: usize,
    /// A vector of zeros.
    pub zeros: &'a [f32],
    /// Floats from a tile to the next in V and in M, from a point to the next in V and in M.
    pub rows: [usize; 2],
    pub points: [usize; 2],
    /// Floats from an input channel to the next in the sums: the output channels in whole vectors.
    pub sums_row: usize,
}

/// What one thread computes of a block.
pub(super) enum Step {
    /// V and M of these tiles, counted from the block's first.
    Transforms { first: usize, count: usize },
    /// The products of these points, added to the sums.
    Products { points: Range<usize>, count: usize },
    /// Both of a block of this many tiles.
    All { count: usize },
}

/// A step of a block that starts at tile `start`.
pub(super) struct Task<'a> {
    pub gradient: &'a Gradient<'a>,
    pub start: usize,
    pub v: Shared<f32>,
    pub m: Shared<f32>,
    /// [points][ci][sums_row]
    pub sums: Shared<f32>,
    pub step: Step,
}

impl Kernel for Task<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.gradient.grid.deep { self.depth::<S, 4>(simd) } else { self.depth::<S, 1>(simd) }
    }
}

impl Task<'_> {
    /// With `D` points along z.
    #[inline(always)]
    fn depth<S: Simd, const D: usize>(self, simd: S) {
        match self.step {
            Step::Transforms { first, count } => self.transforms::<S, D>(simd, first, count),
            Step::Products { ref points, count } => self.products(simd, points.clone(), count),
            Step::All { count } => {
                self.transforms::<S, D>(simd, 0, count);
                self.products(simd, 0..16 * D, count);
            }
        }
    }

    #[inline(always)]
    fn transforms<S: Simd, const D: usize>(&self, simd: S, first: usize, count: usize) {
        let Gradient { grid, x, ci, zeros, rows, points, .. } = *self.gradient;
        let input = Input { grid, xs: &[x], channels: ci, zeros, v: self.v, row: rows[0], point: points[0] };
        input.transform::<S, D>(simd, self.start, first, count);
        for tile in first..first + count {
            self.outputs::<S, D>(simd, grid.place(self.start + tile), tile);
        }
    }

    /// M of the block's tile `tile`.
    #[inline(always)]
    fn outputs<S: Simd, const D: usize>(&self, simd: S, place: Place, tile: usize) {
        let (co, lanes) = (self.gradient.co, S::F32::LANES);
        let targets = self.gradient.grid.targets(place, co);
        for channel in (0..co).step_by(lanes) {
            let mut planes = [[[simd.splat(0.0); 4]; 4]; 2];
            for i in 0..if D == 4 { 2 } else { 1 } {
                let mut along_x = [[simd.splat(0.0); 4]; 2];
                for j in 0..2 {
                    let mut pair = [simd.splat(0.0); 2];
                    for k in 0..2 {
                        if let Some(target) = targets[i][j][k] {
                            let from = &self.gradient.dy[target + channel..target + co];
                            pair[k] = if from.len() >= lanes { simd.load(from) } else { simd.load_partial(from) };
                        }
                    }
                    along_x[j] = transform(simd, pair);
                }
                for k in 0..4 {
                    let along_y = transform(simd, [along_x[0][k], along_x[1][k]]);
                    for j in 0..4 {
                        planes[i][j][k] = along_y[j];
                    }
                }
            }
            for j in 0..4 {
                for k in 0..4 {
                    let mut along_z = [planes[0][j][k]; 4];
                    if D == 4 {
                        along_z = transform(simd, [planes[0][j][k], planes[1][j][k]]);
                    }
                    for i in 0..D {
                        let point = (i * 4 + j) * 4 + k;
                        // SAFETY:
                        // - M has a row of whole vectors for each tile of the block at every point,
                        // - this task alone writes the rows of these tiles.
                        unsafe {
                            let at = point * self.gradient.points[1] + tile * self.gradient.rows[1] + channel;
                            along_z[i].store_at(self.m.0.add(at));
                        }
                    }
                }
            }
        }
    }

    /// Adds the products of the block's first `count` tiles to the sums of some points.
    #[inline(always)]
    fn products<S: Simd>(&self, simd: S, points: Range<usize>, count: usize) {
        let (gradient, lanes) = (self.gradient, S::F32::LANES);
        let Gradient { ci, co, rows, sums_row, .. } = *gradient;
        for point in points {
            for first in (0..count).step_by(DEPTH) {
                let tiles = DEPTH.min(count - first);
                for channel in (0..co).step_by(2 * lanes) {
                    let wide = co - channel > lanes;
                    let mut c = 0;
                    while c < ci {
                        // SAFETY:
                        // - V and M have a row for each of the block's tiles at this point, with `ci` floats and with `co` in
                        //   whole vectors,
                        // - the sums have as many vectors for each input channel, and this task alone has this point's.
                        c += unsafe {
                            let product = Product {
                                v: self.v.0.add(point * gradient.points[0] + first * rows[0] + c),
                                v_row: rows[0],
                                m: self.m.0.add(point * gradient.points[1] + first * rows[1] + channel),
                                m_row: rows[1],
                                tiles,
                                sums: self.sums.0.add((point * ci + c) * sums_row + channel),
                                sums_row,
                            };
                            product.channels(simd, ci - c, wide)
                        };
                    }
                }
            }
        }
    }
}

/// A register block: some input channels by two registers of output channels (one if not wide), summed over tiles.
struct Product {
    v: *const f32,
    v_row: usize,
    m: *const f32,
    m_row: usize,
    tiles: usize,
    sums: *mut f32,
    sums_row: usize,
}

impl Product {
    /// As many of `left` input channels as a register block holds. Returns their number.
    ///
    /// # Safety
    /// - `v` has `tiles` rows of `left` floats, `m` as many of two registers (one if not `wide`), `sums` `left` rows of as many, which no
    ///   other task touches.
    #[inline(always)]
    unsafe fn channels<S: Simd>(&self, simd: S, left: usize, wide: bool) -> usize {
        // Sixteen or eight sums of two registers, and with 16 registers half of that: enough to hide the latency of two FMA units.
        let many = S::F32::LANES == 16;
        // SAFETY:
        // - the caller's promise.
        unsafe {
            match (left, wide) {
                (8.., true) if many => self.add::<S, 8, 2>(simd),
                (4.., true) => self.add::<S, 4, 2>(simd),
                (_, true) => self.add::<S, 1, 2>(simd),
                (16.., false) if many => self.add::<S, 16, 1>(simd),
                (8.., false) => self.add::<S, 8, 1>(simd),
                (4.., false) => self.add::<S, 4, 1>(simd),
                (_, false) => self.add::<S, 1, 1>(simd),
            }
        }
    }

    /// Adds `R` input channels by `N` registers. Returns `R`.
    ///
    /// # Safety
    /// - As [`Self::channels`], with `R` input channels and `N` registers.
    #[inline(always)]
    unsafe fn add<S: Simd, const R: usize, const N: usize>(&self, simd: S) -> usize {
        let lanes = S::F32::LANES;
        let mut sum = [[simd.splat(0.0); N]; R];
        // SAFETY:
        // - the caller's promise: each row of V and M is read once, and each sum read and written.
        unsafe {
            let (mut v, mut m) = (self.v, self.m);
            for _ in 0..self.tiles {
                let mut g = [simd.splat(0.0); N];
                for n in 0..N {
                    g[n] = simd.load_at(m.add(n * lanes));
                }
                for r in 0..R {
                    let x = simd.splat(*v.add(r));
                    for n in 0..N {
                        sum[r][n] = x.mul_add(g[n], sum[r][n]);
                    }
                }
                (v, m) = (v.wrapping_add(self.v_row), m.wrapping_add(self.m_row));
            }
            for r in 0..R {
                for n in 0..N {
                    let to = self.sums.add(r * self.sums_row + n * lanes);
                    simd.load_at(to).add(sum[r][n]).store_at(to);
                }
            }
        }
        R
    }
}

/// A dy.
#[inline(always)]
fn transform<S: Simd>(simd: S, [d0, d1]: [S::F32; 2]) -> [S::F32; 4] {
    [d0, d0.add(d1), d0.sub(d1), simd.splat(0.0).sub(d1)]
}
