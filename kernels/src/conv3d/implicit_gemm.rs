//! Convolution as a matrix product on tile-matrix instructions, without building the matrix (see `staging`).
//!
//! A cube of 32-unit planes computes a tile of `m` x `n` outputs, and each of its planes (m / planes_m) x (n / planes_n) of
//! them in blocks of 16 x 8. With 128 x 64 x 32 tiles of f16 a step moves 12 KiB into shared memory and does 0.5 MFLOP: 43
//! FLOP per byte. For a plane (64 x 32) a step is 32 `mma.sync` m16n8k16 for 12 `ldmatrix`. `stages` - 1 steps are in flight
//! while one is multiplied; one barrier of the cube in each step keeps a stage from being overwritten while it is read.

use cubecl::prelude::*;

use super::Geometry;
use super::finish::Epilogue;
use super::staging::{Share, Tiles, await_stage, commit_stage, cursor, fill_stage, share, stage_barriers};
use crate::gemm::fragments::{Product, Sums, lane_in_a, lane_in_b, multiply, plane_blocks, plane_start, zero_sums};
use crate::gemm::layout::{Layout, lane_at};
use crate::gemm::store::{Destination, DestinationExpand, Finish, Row, store_sums};
pub use crate::gemm::{PLANE, Planes, Step};

/// y [n, od, oh, ow, co] of x [n, d, h, w, ci] and w [co, kd, kh, kw, ci], one group; `b` [co] where `biased`, `residual`
/// of y's shape where `added`. A unit stores `P` (1 or 2, a divisor of co) channels at a time. kd + kh + kw is at most 32.
///
/// With several `splits` of the sum, each the work of cubes of its own, y holds their parts [splits, n, od, oh, ow, co] as
/// f32, and the epilogue is left to `finish::finish_parts`.
#[cube(launch_unchecked)]
pub fn conv3d_implicit_gemm<F: Float, O: Float, N: Size, P: Size>(
    x: &Array<Vector<F, N>>,
    w: &Array<Vector<F, N>>,
    b: &Array<f32>,
    residual: &Array<Vector<O, P>>,
    y: &mut Array<Vector<O, P>>,
    g: Geometry,
    rows: usize,
    splits: usize,
    epilogue: Epilogue,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
    #[comptime] step: Step,
) {
    let across = g.co.div_ceil(t.n);
    let tiles = rows.div_ceil(t.m) * across;
    // Neighbouring cubes share their rows of A. The condition is the same for all units of a cube, so that past the end none
    // of them waits at a barrier.
    if CUBE_POS < tiles * splits {
        let width = N::value();
        let Share { tile, split, begin, steps } = share(&g, tiles, splits, t);
        let first_m = tile / across * t.m;
        let first_n = tile % across * t.n;
        let mut a = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(t.stages * t.m * t.k / width), 16usize);
        let mut bt = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(t.stages * t.n * t.k / width), 16usize);
        let barriers = stage_barriers(t);
        let mut cursor = cursor(&g, first_m, rows, begin * t.k, t, width);

        let mut sums = zero_sums(comptime!(plane_blocks(t.m, t.n, planes)));
        let ahead = comptime!(t.stages - 1);
        #[unroll]
        for s in 0..ahead {
            fill_stage(x, w, &mut a, &mut bt, &g, &mut cursor, first_n, s, t);
            commit_stage(&barriers, s, t);
        }
        for round in 0..steps.div_ceil(t.stages) {
            #[unroll]
            for s in 0..t.stages {
                let at = round * t.stages + s;
                if at < steps {
                    await_stage(&barriers, round as u32, s, t);
                    let next = comptime!((s + ahead) % t.stages);
                    if at + ahead < steps {
                        fill_stage(x, w, &mut a, &mut bt, &g, &mut cursor, first_n, next, t);
                        commit_stage(&barriers, next, t);
                    }
                    multiply_stage::<F, N>(&a, &bt, &mut sums, s, t, planes, step);
                }
            }
        }
        let to = OutputRows { first: first_m, rows, from: split * rows * g.co };
        store_sums::<O, P, OutputRows>(
            y,
            b,
            residual,
            &g,
            &mut sums,
            &to,
            first_n,
            &epilogue,
            t.m,
            t.n,
            planes,
            Finish::Fused,
        );
    }
}

/// Adds the product of stage `stage` to the sums of this unit's plane.
#[cube]
fn multiply_stage<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
    #[comptime] step: Step,
) {
    let product = comptime!(Product {
        blocks: plane_blocks(t.m, t.n, planes),
        k: t.k,
        bytes: t.bytes,
        a: Layout::of_a(t, stage),
        b: Layout::of_b(t, stage),
    });
    let width = N::value();
    let (m0, n0) = plane_start(t.m, t.n, planes);
    let (row_a, term_a) = lane_in_a(step);
    let (row_b, term_b) = lane_in_b(step);
    let lane_a = lane_at(m0 + row_a, term_a, 0usize, product.a, width);
    let lane_b = lane_at(n0 + row_b, term_b, 0usize, product.b, width);
    multiply::<F, N>(a, b, sums, &lane_a, &lane_b, product, step);
}

/// The rows of a tile: voxels of the output in the order of memory.
#[derive(CubeType)]
struct OutputRows {
    /// The tile's first row.
    first: usize,
    /// Number of voxels.
    rows: usize,
    /// Element of y where voxel 0 begins.
    from: usize,
}

#[cube]
impl Destination for OutputRows {
    fn row(&self, g: &Geometry, m: usize) -> Row {
        let m = self.first + m;
        Row { exists: m < self.rows, start: self.from + m * g.co }
    }
}
