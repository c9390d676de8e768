//! Sums over the outputs of a task, and the pointer through which tasks write.

use std::slice;

use crate::ops::simd::{F64_LANES, F64Vector, Simd};

/// Floats of a cache line.
pub(super) const LINE: usize = 16;

/// Where tasks write: disjoint elements of one tensor.
pub(super) struct Shared<T>(pub(super) *mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY:
// - tasks write disjoint elements, and nobody reads what another task writes before that task is done.
unsafe impl<T> Send for Shared<T> {}
// SAFETY:
// - as above.
unsafe impl<T> Sync for Shared<T> {}

/// The sums over the voxels at the offsets `targets` of consecutive channels from `y`, and of their squares.
///
/// # Safety
/// - Each target in `y` has as many floats behind it as there are `sums`, and nothing writes them meanwhile.
#[inline(always)]
pub(super) unsafe fn add_up(
    simd: impl Simd,
    targets: impl Iterator<Item = usize> + Clone,
    y: *const f32,
    sums: &mut [[f64; 2]],
) {
    for (first, sums) in (0..).step_by(LINE).zip(sums.chunks_mut(LINE)) {
        let mut total = [[0.0f64; LINE]; 2];
        // SAFETY:
        // - the caller's promise.
        let rows = targets.clone().map(|target| unsafe { slice::from_raw_parts(y.add(target + first), sums.len()) });
        if sums.len() == LINE {
            let mut sum = [simd.splat_f64(0.0); LINE / F64_LANES];
            let mut squares = sum;
            for row in rows {
                for (i, (sum, squares)) in sum.iter_mut().zip(&mut squares).enumerate() {
                    let value = simd.widen(&row[i * F64_LANES..]);
                    *sum = sum.add(value);
                    *squares = squares.add(value.mul(value));
                }
            }
            for i in 0..sum.len() {
                sum[i].store(&mut total[0][i * F64_LANES..]);
                squares[i].store(&mut total[1][i * F64_LANES..]);
            }
        } else {
            for row in rows {
                for (c, value) in row.iter().enumerate() {
                    let value = f64::from(*value);
                    total[0][c] += value;
                    total[1][c] += value * value;
                }
            }
        }
        for (c, to) in sums.iter_mut().enumerate() {
            *to = [total[0][c], total[1][c]];
        }
    }
}
