//! Convolution as a matrix product by ordinary multiplications (see `staging`): for devices without matrix instructions,
//! and for f32 on all of them.
//!
//! A cube of (m / voxels) x (n / channels) units makes `m` x `n` outputs, a unit `voxels` x `channels` of them, m / voxels
//! and n / channels apart so that neighbouring units read neighbouring rows of the tiles and store neighbouring channels.
//! Per vector of `N` terms a unit loads voxels + channels vectors from shared memory for voxels * channels * `N` FMAs: with
//! 4 x 8 that is 2.7 FMAs an element loaded, where the direct kernel has 0.8 and loads from global memory. With
//! 64 x 64 x 16 tiles of f32 a step moves 8 KiB and does 131 kFLOP: 16 FLOP a byte of global memory.

use cubecl::prelude::*;

use super::Geometry;
use super::finish::{Epilogue, finished};
use super::staging::{Share, Tiles, await_stage, commit_stage, cursor, fill_stage, share, stage_barriers};
use crate::gemm::layout::place;

/// Outputs of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// Along m.
    pub voxels: usize,
    /// Along n.
    pub channels: usize,
}

/// y [n, od, oh, ow, co] of x [n, d, h, w, ci] and w [co, kd, kh, kw, ci], one group; `b` [co] where `biased`, `residual`
/// of y's shape where `added`. kd + kh + kw is at most 32. Several `splits`: as `conv3d_implicit_gemm`.
#[cube(launch_unchecked)]
pub fn conv3d_register_blocked<F: Float, O: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    w: &Array<Vector<F, N>>,
    b: &Array<f32>,
    residual: &Array<Vector<O, Const<1>>>,
    y: &mut Array<Vector<O, Const<1>>>,
    g: Geometry,
    rows: usize,
    splits: usize,
    epilogue: Epilogue,
    #[comptime] t: Tiles,
    #[comptime] block: Block,
) {
    let across = g.co.div_ceil(t.n);
    let tiles = rows.div_ceil(t.m) * across;
    // The same for all units of a cube: past the end none of them waits.
    if CUBE_POS < tiles * splits {
        let width = N::value();
        let Share { tile, split, begin, steps } = share(&g, tiles, splits, t);
        let first_m = tile / across * t.m;
        let first_n = tile % across * t.n;
        let mut a = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(t.stages * t.m * t.k / width), 16usize);
        let mut bt = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(t.stages * t.n * t.k / width), 16usize);
        let barriers = stage_barriers(t);
        let mut cursor = cursor(&g, first_m, rows, begin * t.k, t, width);

        let mut sums = Array::<f32>::new(comptime!(block.voxels * block.channels));
        #[unroll]
        for i in 0..comptime!(block.voxels * block.channels) {
            sums[i] = 0.0;
        }
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
                    multiply::<F, N>(&a, &bt, &mut sums, s, t, block);
                }
            }
        }

        let lanes = comptime!(t.n / block.channels);
        let (row, column) = (UNIT_POS as usize / lanes, UNIT_POS as usize % lanes);
        #[unroll]
        for j in 0..block.channels {
            let n = first_n + column + j * lanes;
            if n < g.co {
                let mut bias = 0.0f32;
                if epilogue.biased != 0 {
                    bias = b[n];
                }
                #[unroll]
                for i in 0..block.voxels {
                    let m = first_m + row + i * comptime!(t.m / block.voxels);
                    if m < rows {
                        let at = (split * rows + m) * g.co + n;
                        let sum = Vector::<f32, Const<1>>::new(sums[comptime!(i * block.channels + j)] + bias);
                        y[at] = Vector::cast_from(finished::<O, Const<1>>(sum, residual, at, &epilogue));
                    }
                }
            }
        }
    }
}

#[cube]
fn multiply<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Array<f32>,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
    #[comptime] block: Block,
) {
    let width = N::value();
    let lanes = comptime!(t.n / block.channels);
    let (row, lane) = (UNIT_POS as usize / lanes, UNIT_POS as usize % lanes);
    let (of_a, of_b) = comptime!((stage * t.m * t.k / width, stage * t.n * t.k / width));
    for column in 0..comptime!(t.k / width) {
        let k = column * width;
        // The shorter side stays in registers, the longer passes by.
        let mut right = Array::<Vector<f32, N>>::new(block.channels);
        #[unroll]
        for j in 0..block.channels {
            right[j] = Vector::cast_from(b[of_b + place(lane + j * lanes, k, t, width)]);
        }
        #[unroll]
        for i in 0..block.voxels {
            let m = row + i * comptime!(t.m / block.voxels);
            let left = Vector::<f32, N>::cast_from(a[of_a + place(m, k, t, width)]);
            #[unroll]
            for v in 0..width {
                #[unroll]
                for j in 0..block.channels {
                    sums[comptime!(i * block.channels + j)] += left[v] * right[j][v];
                }
            }
        }
    }
}
