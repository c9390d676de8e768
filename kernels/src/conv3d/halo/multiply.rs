//! One tap of the halo times its weights.

use cubecl::prelude::*;

use super::Bricks;
use crate::gemm::fragments::{Product, Sums, lane_in_a, lane_in_b, multiply, plane_blocks, plane_start};
use crate::gemm::layout::{Layout, Rows, lane_at};
use crate::gemm::{Planes, Step};

/// The halo row under the first output voxel that this lane loads. Its others are [`Bricks::halo_step`] further on.
#[cube]
pub(super) fn lane_row(#[comptime] t: Bricks, #[comptime] planes: Planes, #[comptime] step: Step) -> usize {
    let (m0, _n0) = plane_start(t.m(), t.n, planes);
    let (row, _term) = lane_in_a(step);
    let (z, y, x) = place_in_brick(m0 + row, t);
    (z * comptime!(t.halo()[1]) + y) * comptime!(t.halo()[2]) + x
}

/// Coordinates (z, y, x) of output voxel `m` within the brick.
#[cube]
pub(super) fn place_in_brick(m: usize, #[comptime] t: Bricks) -> (usize, usize, usize) {
    let (along_y, along_x) = comptime!((t.voxels[1], t.voxels[2]));
    (m / comptime!(along_y * along_x), m / along_x % along_y, m % along_x)
}

/// Adds the product of one tap to the sums of this unit's plane. `row` is [`lane_row`], `from` the vector of the tap in the
/// halo, and the tap's weights are in stage `stage`.
#[cube]
pub(super) fn multiply_tap<F: Float, N: Size>(
    halo: &SharedMemory<Vector<F, N>>,
    weights: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    row: usize,
    from: usize,
    #[comptime] stage: usize,
    #[comptime] t: Bricks,
    #[comptime] planes: Planes,
    #[comptime] step: Step,
) {
    let product = comptime!(Product {
        blocks: plane_blocks(t.m(), t.n, planes),
        k: t.chunk,
        bytes: t.bytes,
        a: Layout { offset: 0, rows: Rows::Halo { pitch: t.pitch(), sides: t.sides() } },
        b: Layout { offset: stage * t.n * t.pitch(), rows: Rows::Padded { pitch: t.pitch() } },
    });
    let width = N::value();
    let (_m0, n0) = plane_start(t.m(), t.n, planes);
    let (_row_a, term_a) = lane_in_a(step);
    let (row_b, term_b) = lane_in_b(step);
    let lane_a = lane_at(row, term_a, from, product.a, width);
    let lane_b = lane_at(n0 + row_b, term_b, 0usize, product.b, width);
    multiply::<F, N>(halo, weights, sums, &lane_a, &lane_b, product, step);
}
