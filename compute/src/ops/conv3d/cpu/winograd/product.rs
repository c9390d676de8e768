//! The matrix products V U of a block, in place.

use std::ops::Range;

use super::block::Task;
use crate::ops::simd::{F32Vector, Simd};

/// Tiles whose products wait together before they replace V.
const WAITING: usize = 4;

/// A register block: some rows of V by one column of U.
struct Product<'a> {
    v: *const f32,
    /// Floats from a row to the next.
    v_row: usize,
    u: &'a [f32],
    ci: usize,
    /// Where the products go; may be `v`, whose rows are read before they are written.
    to: *mut f32,
    to_row: usize,
}

impl Task<'_> {
    /// The products of `count` tiles at some points.
    #[inline(always)]
    pub(super) fn products<S: Simd>(&self, simd: S, points: Range<usize>, count: usize) {
        let weights = self.winograd.weights;
        let (rows, row) = (weights.rows(), weights.row());
        let together = (WAITING * rows).min(count.next_multiple_of(rows));
        // V is needed until the last column is done, so that products wait here. Those of a single column replace it at once.
        let waits = weights.columns() > 1;
        let mut waiting = vec![0.0f32; if waits { together * row } else { 0 }];
        for point in points {
            for first in (0..count).step_by(together) {
                let tiles = together.min(count - first);
                // SAFETY:
                // - V has `layout.row` floats for each tile of the block at every point.
                let v = unsafe { self.v.0.add(point * self.layout.point + first * self.layout.row) };
                for column in 0..weights.columns() {
                    let wide = weights.co - column * weights.width() > weights.lanes();
                    let mut tile = 0;
                    while tile < tiles {
                        // SAFETY:
                        // - `tile` is below `tiles`, and so within V and `waiting`,
                        // - a row of V has `ci` floats, and a row of V or one that waits the channels of all columns.
                        unsafe {
                            let v = v.add(tile * self.layout.row);
                            let (to, to_row) = if waits {
                                (waiting.as_mut_ptr().add(tile * row + column * weights.width()), row)
                            } else {
                                (v, self.layout.row)
                            };
                            let u = weights.column(point, column);
                            let product = Product { v, v_row: self.layout.row, u, ci: weights.ci, to, to_row };
                            tile += product.rows(simd, tiles - tile, wide);
                        }
                    }
                }
                for (tile, from) in waiting.chunks_exact(row).take(tiles).enumerate() {
                    // SAFETY:
                    // - a row of V has room for the products of a tile (see `Layout`),
                    // - this task alone has this point of these tiles.
                    unsafe { v.add(tile * self.layout.row).copy_from_nonoverlapping(from.as_ptr(), row) };
                }
            }
        }
    }
}

impl Product<'_> {
    /// As many of `left` rows as a register block holds by two registers, or one if not `wide`. Returns their number.
    ///
    /// # Safety
    /// - `v` has `left` rows of `ci` floats, `to` as many of two registers (one if not `wide`), which no other task touches.
    #[inline(always)]
    unsafe fn rows<S: Simd>(&self, simd: S, left: usize, wide: bool) -> usize {
        let many = S::F32::LANES == 16;
        // SAFETY:
        // - the caller's promise.
        unsafe {
            match left {
                14.. if many => self.run::<S, 14>(simd, wide),
                8.. if many => self.run::<S, 8>(simd, wide),
                6.. if !many => self.run::<S, 6>(simd, wide),
                4.. => self.run::<S, 4>(simd, wide),
                2.. => self.run::<S, 2>(simd, wide),
                _ => self.run::<S, 1>(simd, wide),
            }
        }
    }

    /// `R` rows. Returns `R`.
    ///
    /// # Safety
    /// - As [`Self::rows`], with `R` rows.
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize>(&self, simd: S, wide: bool) -> usize {
        // SAFETY:
        // - the caller's promise.
        unsafe { if wide { self.multiply::<S, R, 2>(simd) } else { self.multiply::<S, R, 1>(simd) } }
        R
    }

    /// # Safety
    /// - As [`Self::rows`], with `R` rows and `N` registers.
    #[inline(always)]
    unsafe fn multiply<S: Simd, const R: usize, const N: usize>(&self, simd: S) {
        let lanes = S::F32::LANES;
        let u = &self.u[..self.ci * 2 * lanes];
        // SAFETY:
        // - the caller's promise; U has two registers for each of the `ci` steps.
        unsafe {
            let mut sum = [[simd.splat(0.0); N]; R];
            let v: [*const f32; R] = std::array::from_fn(|r| self.v.add(r * self.v_row));
            for k in 0..self.ci {
                let u: [S::F32; N] = std::array::from_fn(|n| simd.load_at(u.as_ptr().add((k * 2 + n) * lanes)));
                for r in 0..R {
                    let v = simd.splat(*v[r].add(k));
                    for n in 0..N {
                        sum[r][n] = v.mul_add(u[n], sum[r][n]);
                    }
                }
            }
            for r in 0..R {
                for n in 0..N {
                    sum[r][n].store_at(self.to.add(r * self.to_row + n * lanes));
                }
            }
        }
    }
}
