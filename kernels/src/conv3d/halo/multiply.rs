//! One tap of the halo times its weights.

use cubecl::prelude::*;

use super::Bricks;
use crate::conv3d::implicit_gemm::{BLOCK, PLANE, Planes, Step, Sums, multiply_four_terms};

/// The halo row under the first output voxel that this lane multiplies. Its others are [`Bricks::halo_step`] further on.
#[cube]
pub(super) fn lane_row(#[comptime] t: Bricks, #[comptime] planes: Planes, #[comptime] step: Step) -> usize {
    let lane = UNIT_POS as usize % PLANE;
    let row = if comptime!(step == Step::Mma) { lane % 16 } else { lane / 4 };
    let m = UNIT_POS as usize / PLANE / planes.n * comptime!(t.m() / planes.m) + row;
    let (z, y, x) = place_in_brick(m, t);
    (z * comptime!(t.halo()[1]) + y) * comptime!(t.halo()[2]) + x
}

/// (z, y, x) in the brick of its output voxel `m`.
#[cube]
pub(super) fn place_in_brick(m: usize, #[comptime] t: Bricks) -> (usize, usize, usize) {
    let (along_y, along_x) = comptime!((t.voxels[1], t.voxels[2]));
    (m / comptime!(along_y * along_x), m / along_x % along_y, m % along_x)
}

/// Operands as in `implicit_gemm`; `from` is the vector of the tap in the halo.
#[cube]
pub(super) fn multiply_mma<F: Float, N: Size>(
    halo: &SharedMemory<Vector<F, N>>,
    weights: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    row: usize,
    from: usize,
    #[comptime] stage: usize,
    #[comptime] t: Bricks,
    #[comptime] planes: Planes,
) {
    let width = N::value();
    let def = cmma::MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let lane = UNIT_POS as usize % PLANE;
    let pitch = comptime!(t.pitch() / width);
    let piece = comptime!(16 / t.bytes / width);
    let n0 = UNIT_POS as usize / PLANE % planes.n * comptime!(t.n / planes.n);
    let (mi, ni) = comptime!((t.m() / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    let row_a = row * pitch + from + lane / 16 * comptime!(8 / width);
    let row_b = (n0 + lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * comptime!(8 / width);
    #[unroll]
    for k in 0..comptime!(t.chunk / BLOCK[2]) {
        let mut left = Sequence::<Array<Vector<F, Const<2>>>>::new();
        #[unroll]
        for i in 0..mi {
            let at = row_a + comptime!((t.halo_step(i * BLOCK[0]) * t.pitch() + k * BLOCK[2]) / width);
            let part = halo.slice(at, at + piece);
            left.push(def.load_matrix::<Vector<F, N>, Const<2>>(&part, cmma::MatrixIdent::A, 4usize, false));
        }
        #[unroll]
        for j in 0..comptime!(ni / 2) {
            let at = row_b + comptime!(((stage * t.n + j * 16) * t.pitch() + k * BLOCK[2]) / width);
            let part = weights.slice(at, at + piece);
            let both = def.load_matrix::<Vector<F, N>, Const<2>>(&part, cmma::MatrixIdent::B, 4usize, false);
            #[unroll]
            for h in 0..2usize {
                let mut right = Array::<Vector<F, Const<2>>>::new(2usize);
                right[0] = both[h * 2];
                right[1] = both[h * 2 + 1];
                #[unroll]
                for i in 0..mi {
                    def.execute_inplace(left.index(i), &right, sums.index_mut(comptime!(i * ni + j * 2 + h)));
                }
            }
        }
    }
}

/// Operands as in `implicit_gemm`, vectors of four f32 (`N` is 4).
#[cube]
pub(super) fn multiply_tf32<F: Float, N: Size>(
    halo: &SharedMemory<Vector<F, N>>,
    weights: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    row: usize,
    from: usize,
    #[comptime] stage: usize,
    #[comptime] t: Bricks,
    #[comptime] planes: Planes,
) {
    let width = N::value();
    let lane = UNIT_POS as usize % PLANE;
    let pitch = comptime!(t.pitch() / width);
    let n0 = UNIT_POS as usize / PLANE % planes.n * comptime!(t.n / planes.n);
    let (mi, ni) = comptime!((t.m() / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    #[unroll]
    for part in 0..comptime!(t.chunk / 16) {
        let k = lane % 4 + part * 4;
        let mut right = Array::<Vector<F, N>>::new(ni);
        #[unroll]
        for j in 0..ni {
            let co = comptime!(stage * t.n + j * BLOCK[1]) + n0 + lane / 4;
            right[j] = weights[co * pitch + k];
        }
        #[unroll]
        for i in 0..mi {
            let at = row * pitch + from + k;
            let low = halo[at + comptime!(t.halo_step(i * BLOCK[0]) * t.pitch() / width)];
            let high = halo[at + comptime!(t.halo_step(i * BLOCK[0] + 8) * t.pitch() / width)];
            multiply_four_terms::<F, N>(low, high, &right, sums, i, ni);
        }
    }
}

/// The same sums in ordinary arithmetic.
#[cube]
pub(super) fn multiply_plain<F: Float, N: Size>(
    halo: &SharedMemory<Vector<F, N>>,
    weights: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    row: usize,
    from: usize,
    #[comptime] stage: usize,
    #[comptime] t: Bricks,
    #[comptime] planes: Planes,
) {
    let width = N::value();
    let lane = UNIT_POS as usize % PLANE;
    let pitch = comptime!(t.pitch() / width);
    let n0 = UNIT_POS as usize / PLANE % planes.n * comptime!(t.n / planes.n);
    let (mi, ni) = comptime!((t.m() / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    let row_b = (comptime!(stage * t.n) + n0 + lane % 4 * 2) * pitch;
    for k in 0..comptime!(t.chunk / width) {
        let mut right = Array::<Vector<f32, N>>::new(comptime!(2 * ni));
        #[unroll]
        for j in 0..ni {
            let at = row_b + comptime!(j * BLOCK[1]) * pitch + k;
            right[2 * j] = Vector::cast_from(weights[at]);
            right[2 * j + 1] = Vector::cast_from(weights[at + pitch]);
        }
        #[unroll]
        for i in 0..mi {
            #[unroll]
            for half in 0..2usize {
                let at = row + comptime!(t.halo_step(i * BLOCK[0] + half * 8));
                let left = Vector::<f32, N>::cast_from(halo[at * pitch + from + k]);
                #[unroll]
                for j in 0..ni {
                    let block = sums.index_mut(comptime!(i * ni + j));
                    let mut pair = block[half];
                    #[unroll]
                    for v in 0..width {
                        pair[0] += left[v] * right[2 * j][v];
                        pair[1] += left[v] * right[2 * j + 1][v];
                    }
                    block[half] = pair;
                }
            }
        }
    }
}
