//! Convolution as a matrix product on tile-matrix instructions, without building the matrix (see `staging`).
//!
//! A cube of 32-unit planes makes `m` x `n` outputs, a plane (m / planes_m) x (n / planes_n) of them in blocks of 16 x 8.
//! With 128 x 64 x 32 tiles of f16 a step moves 12 KiB into shared memory and does 0.5 MFLOP: 43 FLOP a byte. Per plane
//! (64 x 32) and step that is 32 `mma.sync` m16n8k16 for 12 `ldmatrix`. `stages` - 1 steps are in flight while one is
//! multiplied; a barrier of the cube a step keeps a stage from being overwritten while it is read.
//!
//! [`Step::Plain`] computes the same blocks from the same shared tiles, each lane the four sums that the instruction
//! would give it, in ordinary arithmetic without plane operations: what it shares with [`Step::Mma`], which is all but
//! the instruction and its two operand loads, is tested wherever there is a GPU of any kind.

use cubecl::prelude::*;

use super::Geometry;
use super::finish::{Epilogue, finished};
use super::staging::{Share, Tiles, await_stage, commit_stage, cursor, fill_stage, place, share, stage_barriers};

/// What multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// CUDA's `mma.sync` m16n8k16 (f16 and bf16, f32 sums), operands by `ldmatrix`; sm_80 and later.
    Mma,
    /// `mma.sync` m16n8k8 over f32 rounded to tf32 (8 bits of exponent, 10 of mantissa), f32 sums; sm_80 and later.
    Tf32,
    /// Ordinary arithmetic over the same tiles.
    Plain,
}

/// How planes share a cube's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Planes {
    /// Along the voxels.
    pub m: usize,
    /// Along the channels.
    pub n: usize,
}

/// Units of a plane.
pub const PLANE: usize = 32;
/// Outputs of a block along m and n, and terms a step: the shape of `mma.sync` for 16-bit floats.
pub(crate) const BLOCK: [usize; 3] = [16, 8, 16];

/// A unit's sums: two rows a block of 16 x 8, two channels each.
pub(crate) type Sums = Sequence<Array<Vector<f32, Const<2>>>>;

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
    // Cubes side by side share their rows of A. The same for all units of a cube: past the end none of them waits.
    if CUBE_POS < tiles * splits {
        let width = N::value();
        let Share { tile, split, begin, steps } = share(&g, tiles, splits, t);
        let first_m = tile / across * t.m;
        let first_n = tile % across * t.n;
        let mut a = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(t.stages * t.m * t.k / width), 16usize);
        let mut bt = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(t.stages * t.n * t.k / width), 16usize);
        let barriers = stage_barriers(t);
        let mut cursor = cursor(&g, first_m, rows, begin * t.k, t, width);

        let (mi, ni) = comptime!((t.m / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
        let mut sums = Sums::new();
        #[unroll]
        for _ in 0..comptime!(mi * ni) {
            let mut block = Array::<Vector<f32, Const<2>>>::new(2usize);
            block[0] = Vector::new(0.0f32);
            block[1] = Vector::new(0.0f32);
            sums.push(block);
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
                    if comptime!(step == Step::Mma) {
                        multiply_mma::<F, N>(&a, &bt, &mut sums, s, t, planes);
                    } else if comptime!(step == Step::Tf32) {
                        multiply_tf32::<F, N>(&a, &bt, &mut sums, s, t, planes);
                    } else {
                        multiply_plain::<F, N>(&a, &bt, &mut sums, s, t, planes);
                    }
                }
            }
        }
        let from = split * rows * g.co;
        store::<O, P>(y, b, residual, &g, &sums, first_m, first_n, rows, from, &epilogue, t, planes);
    }
}

/// The first row and column of this unit's plane.
#[cube]
pub(crate) fn plane_start(#[comptime] t: Tiles, #[comptime] planes: Planes) -> (usize, usize) {
    let plane = UNIT_POS as usize / PLANE;
    (plane / planes.n * comptime!(t.m / planes.m), plane % planes.n * comptime!(t.n / planes.n))
}

/// `ldmatrix` x4 gives lane l the row l % 8 of matrix l / 8. A's four are (rows 0-7, 8-15) x (k 0-7, 8-15), rows first;
/// two blocks of B take (k 0-7, 8-15) x (columns 0-7, 8-15), k first, untransposed since B lies by column.
#[cube]
fn multiply_mma<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
) {
    let width = N::value();
    let def = cmma::MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let lane = UNIT_POS as usize % PLANE;
    let (m0, n0) = plane_start(t, planes);
    let (mi, ni) = comptime!((t.m / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    let row_a = m0 + lane % 16;
    let half_a = lane / 16 * 8;
    let row_b = n0 + lane / 16 * 8 + lane % 8;
    let half_b = lane / 8 % 2 * 8;
    #[unroll]
    for k in 0..comptime!(t.k / BLOCK[2]) {
        let mut left = Sequence::<Array<Vector<F, Const<2>>>>::new();
        #[unroll]
        for i in 0..mi {
            let at = comptime!(stage * t.m * t.k / width) + place(row_a + i * 16, half_a + k * 16, t, width);
            let row = a.slice(at, at + comptime!(t.piece() / width));
            left.push(def.load_matrix::<Vector<F, N>, Const<2>>(&row, cmma::MatrixIdent::A, 4usize, false));
        }
        #[unroll]
        for j in 0..comptime!(ni / 2) {
            let at = comptime!(stage * t.n * t.k / width) + place(row_b + j * 16, half_b + k * 16, t, width);
            let row = b.slice(at, at + comptime!(t.piece() / width));
            let both = def.load_matrix::<Vector<F, N>, Const<2>>(&row, cmma::MatrixIdent::B, 4usize, false);
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

/// Sixteen terms for a block from vectors of four: lane l has four terms of rows l / 4 and l / 4 + 8 of A and of column l / 4
/// of B, where the instruction has it hold terms l % 4 and l % 4 + 4 of eight. Which of the sixteen those are is the same
/// for A and B, and a sum does not mind their order: two instructions take the first and the last two of the four.
#[cube]
pub(super) fn multiply_four_terms<F: Float, N: Size>(
    low: Vector<F, N>,
    high: Vector<F, N>,
    right: &Array<Vector<F, N>>,
    sums: &mut Sums,
    #[comptime] i: usize,
    #[comptime] ni: usize,
) {
    let def = cmma::MmaDefinition::<tf32, tf32, f32>::new(16usize, 8usize, 8usize);
    #[unroll]
    for e in 0..2usize {
        let mut left = Array::<Vector<tf32, Const<1>>>::new(4usize);
        left[0] = rounded::<F>(low[2 * e]);
        left[1] = rounded::<F>(high[2 * e]);
        left[2] = rounded::<F>(low[2 * e + 1]);
        left[3] = rounded::<F>(high[2 * e + 1]);
        #[unroll]
        for j in 0..ni {
            // Rounded anew for each row of blocks: kept, they would take the registers that the sums need.
            let mut column = Array::<Vector<tf32, Const<1>>>::new(2usize);
            column[0] = rounded::<F>(right[j][2 * e]);
            column[1] = rounded::<F>(right[j][2 * e + 1]);
            def.execute_inplace(&left, &column, sums.index_mut(comptime!(i * ni + j)));
        }
    }
}

#[cube]
fn rounded<F: Float>(value: F) -> Vector<tf32, Const<1>> {
    Vector::cast_from(Vector::<F, Const<1>>::new(value))
}

/// Vectors of four f32 (`N` is 4).
#[cube]
fn multiply_tf32<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
) {
    let width = N::value();
    let lane = UNIT_POS as usize % PLANE;
    let (m0, n0) = plane_start(t, planes);
    let (mi, ni) = comptime!((t.m / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    let (of_a, of_b) = comptime!((stage * t.m * t.k / width, stage * t.n * t.k / width));
    #[unroll]
    for part in 0..comptime!(t.k / 16) {
        let k = lane % 4 * 4 + part * 16;
        let mut right = Array::<Vector<F, N>>::new(ni);
        #[unroll]
        for j in 0..ni {
            right[j] = b[of_b + place(n0 + lane / 4 + j * BLOCK[1], k, t, width)];
        }
        #[unroll]
        for i in 0..mi {
            let row = m0 + lane / 4 + i * BLOCK[0];
            let (low, high) = (a[of_a + place(row, k, t, width)], a[of_a + place(row + 8, k, t, width)]);
            multiply_four_terms::<F, N>(low, high, &right, sums, i, ni);
        }
    }
}

/// The four sums of a block that m16n8k16 leaves to a lane: rows l / 4 and l / 4 + 8, columns l % 4 * 2 and the next.
#[cube]
fn multiply_plain<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
) {
    let width = N::value();
    let lane = UNIT_POS as usize % PLANE;
    let (m0, n0) = plane_start(t, planes);
    let (mi, ni) = comptime!((t.m / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    let (of_a, of_b) = comptime!((stage * t.m * t.k / width, stage * t.n * t.k / width));
    for column in 0..comptime!(t.k / width) {
        let k = column * width;
        let mut right = Array::<Vector<f32, N>>::new(comptime!(2 * ni));
        #[unroll]
        for j in 0..ni {
            let n = n0 + j * BLOCK[1] + lane % 4 * 2;
            right[2 * j] = Vector::cast_from(b[of_b + place(n, k, t, width)]);
            right[2 * j + 1] = Vector::cast_from(b[of_b + place(n + 1, k, t, width)]);
        }
        #[unroll]
        for i in 0..mi {
            #[unroll]
            for half in 0..2usize {
                let m = m0 + i * BLOCK[0] + lane / 4 + half * 8;
                let left = Vector::<f32, N>::cast_from(a[of_a + place(m, k, t, width)]);
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

/// Epilogue, rounding and the store at element `from` and on, straight from the sums' places: four lanes write 8 channels of
/// a voxel side by side.
#[cube]
fn store<F: Float, P: Size>(
    y: &mut Array<Vector<F, P>>,
    b: &Array<f32>,
    residual: &Array<Vector<F, P>>,
    g: &Geometry,
    sums: &Sums,
    first_m: usize,
    first_n: usize,
    rows: usize,
    from: usize,
    epilogue: &Epilogue,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
) {
    let pair = P::value();
    let lane = UNIT_POS as usize % PLANE;
    let (m0, n0) = plane_start(t, planes);
    let (mi, ni) = comptime!((t.m / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    #[unroll]
    for j in 0..ni {
        #[unroll]
        for part in 0..comptime!(2 / pair) {
            let n = first_n + n0 + j * BLOCK[1] + lane % 4 * 2 + part * pair;
            if n < g.co {
                let mut bias = Vector::<f32, P>::new(0.0f32);
                if epilogue.biased != 0 {
                    #[unroll]
                    for v in 0..pair {
                        bias[v] = b[n + v];
                    }
                }
                #[unroll]
                for i in 0..mi {
                    #[unroll]
                    for half in 0..2usize {
                        let m = first_m + m0 + i * BLOCK[0] + lane / 4 + half * 8;
                        if m < rows {
                            let block = sums.index(comptime!(i * ni + j));
                            let mut value = bias;
                            #[unroll]
                            for v in 0..pair {
                                value[v] += block[half][comptime!(part * pair + v)];
                            }
                            let at = (from + m * g.co + n) / pair;
                            y[at] = Vector::cast_from(finished::<F, P>(value, residual, at, epilogue));
                        }
                    }
                }
            }
        }
    }
}
