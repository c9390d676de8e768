//! Transposed convolution whose kernel is its stride, as one matrix product whose store is the scatter.
//!
//! Footprints do not overlap: y[o * stride + k, co] = sum over ci of x[o, ci] * w[ci, k, co]. So A is x as it lies in memory,
//! [voxels, ci], B is the weight as it lies, [ci, (k, co)], and the sum at (o, k, co) is stored at its output voxel: no
//! matrix of [voxels, k * co] in between. Where a row of A lands depends on o alone and where a column lands on (k, co)
//! alone, so an address is the sum of the two. Along x the taps of one voxel and their channels are side by side in y.
//!
//! A cube of 32-unit planes makes `m` x `n` of it in steps of `k`, in the blocks of `mma.sync` (see
//! `conv3d::implicit_gemm`); tiles lie and are filled as in `conv3d::staging`, without its taps. Two things are different:
//!
//! * B has its columns contiguous, not its terms. It is staged as it lies and `ldmatrix` transposes on the way to the
//!   registers, which costs nothing. Packing it first would move few bytes (32 KiB to 1.3 MiB in a U-Net) but costs a launch,
//!   2 us or so, as long as the whole product takes on the small levels.
//! * `mma.sync` leaves a lane columns 2q and 2q + 1 (q = lane % 4) of each block, 4 bytes a store. Any column of B may sit
//!   in any seat, so pairs of columns are staged such that a lane's pairs of four blocks are eight neighbours of y
//!   ([`seat`]): 16 bytes a store, and a quad writes 32 channels side by side. B is copied in pairs for that, 4 bytes
//!   of f16 each; it is the smaller tile and cubes side by side read it from the same lines.
//!
//! With f16, 64 channels to 32 and 128 x 64 tiles a cube reads 16 KiB of A and 8 KiB of B, and writes 16 KiB: 1 MFLOP, 26 a
//! byte. The device's memory sees A once (the cubes of a row of tiles run side by side) and y once.

use cubecl::prelude::*;

use super::Placement;
use crate::conv3d::Geometry;
use crate::conv3d::staging::{await_stage, commit_stage, copy, stage_barriers};
use crate::gemm::fragments::{Sums, plane_blocks, plane_start, zero_sums};
use crate::gemm::layout::{Tiles, place};
use crate::gemm::{BLOCK, PLANE, Planes, Step};

/// Columns that the seats are dealt out in: four blocks.
pub const SEATS: usize = 32;
/// The target of a row or column of the tiles that has no output.
const NOWHERE: u32 = u32::MAX;

/// Bytes of shared memory: the stages, a word a row, two a column.
pub fn shared_bytes(t: &Tiles) -> usize {
    t.stages * (t.m + t.n) * t.k * t.bytes + 4 * t.m + 8 * t.n
}

/// y of x [n, d, h, w, ci] and w [ci, kd, kh, kw, co], kernel = stride, no padding, one group; `b` [co] where `biased`. `P`
/// is 1 or 2, a divisor of all columns; `S`, channels stored at a time, is at most 8 and divides co, the pitch and the
/// offset. A plane's share of `n` is a multiple of [`SEATS`].
#[cube(launch_unchecked)]
pub fn conv_transpose3d_gemm<F: Float, N: Size, P: Size, S: Size>(
    x: &Array<Vector<F, N>>,
    w: &Array<Vector<F, P>>,
    b: &Array<f32>,
    y: &mut Array<Vector<F, S>>,
    g: Geometry,
    at: Placement,
    rows: usize,
    biased: u32,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
    #[comptime] step: Step,
) {
    let columns = g.z.kernel * g.y.kernel * g.x.kernel * g.co;
    let across = columns.div_ceil(t.n);
    // Cubes side by side share their rows of A. The same for all units of a cube: past the end none of them waits.
    if CUBE_POS < rows.div_ceil(t.m) * across {
        let first_m = CUBE_POS / across * t.m;
        let first_n = CUBE_POS % across * t.n;
        let (width, pair) = (N::value(), P::value());
        let mut a = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(t.stages * t.m * t.k / width), 16usize);
        let mut bt = SharedMemory::<Vector<F, P>>::new_aligned(comptime!(t.stages * t.n * t.k / pair), 16usize);
        let mut targets = SharedMemory::<u32>::new(comptime!(t.m + t.n));
        let mut biases = SharedMemory::<f32>::new(t.n);
        let barriers = stage_barriers(t);

        let steps = g.ci.div_ceil(t.k);
        let ahead = comptime!(t.stages - 1);
        #[unroll]
        for s in 0..ahead {
            fill(x, w, &mut a, &mut bt, &g, first_m, first_n, rows, columns, comptime!(s * t.k), s, t);
            commit_stage(&barriers, s, t);
        }
        // While they are on their way; waiting for the first of them makes these visible too.
        for r in range_stepped(UNIT_POS as usize, t.m, t.units) {
            targets[r] = select(first_m + r < rows, row_target(&g, &at, first_m + r) as u32, NOWHERE);
        }
        for c in range_stepped(UNIT_POS as usize, t.n, t.units) {
            let column = first_n + c;
            targets[t.m + c] = select(column < columns, column_target(&g, &at, column) as u32, NOWHERE);
            let mut bias = 0.0f32;
            if biased != 0 {
                bias = b[column % g.co];
            }
            biases[c] = bias;
        }
        let mut sums = zero_sums(comptime!(plane_blocks(t.m, t.n, planes)));
        for round in 0..steps.div_ceil(t.stages) {
            #[unroll]
            for s in 0..t.stages {
                let now = round * t.stages + s;
                if now < steps {
                    await_stage(&barriers, round as u32, s, t);
                    let next = comptime!((s + ahead) % t.stages);
                    let later = now + ahead;
                    if later < steps {
                        fill(x, w, &mut a, &mut bt, &g, first_m, first_n, rows, columns, later * t.k, next, t);
                        commit_stage(&barriers, next, t);
                    }
                    if comptime!(step == Step::Mma) {
                        multiply_mma::<F, N, P>(&a, &bt, &mut sums, s, t, planes);
                    } else {
                        multiply_plain::<F, N, P>(&a, &bt, &mut sums, s, t, planes);
                    }
                }
            }
        }
        scatter::<F, S>(y, &sums, &targets, &biases, t, planes);
    }
}

/// The tile of B, a row of it a term of the sum: [`place`] takes columns for terms.
fn by_columns(t: Tiles) -> Tiles {
    Tiles { k: t.n, ..t }
}

/// Where a column of the tile sits in shared memory: pair j of a quad's lane q, columns 8q + 2j and the next, at 8j + 2q.
#[cube]
fn seat(column: usize) -> usize {
    column / SEATS * SEATS + column % 8 / 2 * 8 + column % SEATS / 8 * 2 + column % 2
}

/// The element of y at tap (0, 0, 0) and channel -offset of an input voxel.
#[cube]
fn row_target(g: &Geometry, at: &Placement, voxel: usize) -> usize {
    let line = voxel / g.x.input;
    let plane = line / g.y.input;
    let z = plane / g.z.input * g.z.output + plane % g.z.input * g.z.stride;
    let row = z * g.y.output + line % g.y.input * g.y.stride;
    (row * g.x.output + voxel % g.x.input * g.x.stride) * at.pitch
}

/// How much further the tap and the channel of a column are.
#[cube]
fn column_target(g: &Geometry, at: &Placement, column: usize) -> usize {
    let tap = column / g.co;
    let line = tap / g.x.kernel;
    let row = line / g.y.kernel * g.y.output + line % g.y.kernel;
    (row * g.x.output + tap % g.x.kernel) * at.pitch + at.offset + column % g.co
}

/// Fills stage `stage` of both tiles with the terms from `first_k` on.
#[cube]
fn fill<F: Float, N: Size, P: Size>(
    x: &Array<Vector<F, N>>,
    w: &Array<Vector<F, P>>,
    a: &mut SharedMemory<Vector<F, N>>,
    b: &mut SharedMemory<Vector<F, P>>,
    g: &Geometry,
    first_m: usize,
    first_n: usize,
    rows: usize,
    columns: usize,
    first_k: usize,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
) {
    let unit = UNIT_POS as usize;
    let width = N::value();
    let a_columns = comptime!(t.k / width);
    let a_rows = comptime!(t.rows_at_once(width));
    let (row, column) = (unit / a_columns, unit % a_columns * width);
    let k = first_k + column;
    #[unroll]
    for i in 0..comptime!(t.m / a_rows) {
        let m = first_m + row + i * a_rows;
        let found = m < rows && k < g.ci;
        // Another index where there is no element: a wild one must not even be computed into an address.
        let from = select(found, (m * g.ci + k) / width, 0usize);
        let to = comptime!(stage * t.m * a_columns) + place(row + i * a_rows, column, t, width);
        copy(x, a, from, to, found, t);
    }
    let pair = P::value();
    let tb = comptime!(by_columns(t));
    let b_columns = comptime!(tb.k / pair);
    let b_rows = comptime!(tb.rows_at_once(pair));
    let (row, column) = (unit / b_columns, unit % b_columns * pair);
    let n = first_n + column;
    #[unroll]
    for i in 0..comptime!(t.k / b_rows) {
        let k = first_k + row + i * b_rows;
        let found = n < columns && k < g.ci;
        let from = select(found, (k * columns + n) / pair, 0usize);
        let to = comptime!(stage * t.k * b_columns) + place(row + i * b_rows, seat(column), tb, pair);
        copy(w, b, from, to, found, t);
    }
}

/// `ldmatrix` x4 gives lane l the row l % 8 of matrix l / 8. A's four are (rows 0-7, 8-15) x (k 0-7, 8-15), rows first; two
/// blocks of B take (k 0-7, 8-15) x (columns 0-7, 8-15), k first, its rows being terms: transposed.
#[cube]
fn multiply_mma<F: Float, N: Size, P: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, P>>,
    sums: &mut Sums,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
) {
    let (width, pair) = (N::value(), P::value());
    let tb = comptime!(by_columns(t));
    let def = cmma::MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let lane = UNIT_POS as usize % PLANE;
    let (m0, n0) = plane_start(t.m, t.n, planes);
    let (mi, ni) = comptime!((t.m / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    #[unroll]
    for k in 0..comptime!(t.k / BLOCK[2]) {
        let mut left = Sequence::<Array<Vector<F, Const<2>>>>::new();
        #[unroll]
        for i in 0..mi {
            let row = m0 + lane % 16 + i * 16;
            let at = comptime!(stage * t.m * t.k / width) + place(row, lane / 16 * 8 + k * 16, t, width);
            let row = a.slice(at, at + comptime!(t.piece() / width));
            left.push(def.load_matrix::<Vector<F, N>, Const<2>>(&row, cmma::MatrixIdent::A, 4usize, false));
        }
        #[unroll]
        for j in 0..comptime!(ni / 2) {
            let column = n0 + lane / 16 * 8 + j * 16;
            let at = comptime!(stage * t.n * t.k / pair) + place(lane % 16 + k * 16, column, tb, pair);
            let row = b.slice(at, at + comptime!(t.piece() / pair));
            let both = def.load_matrix::<Vector<F, P>, Const<2>>(&row, cmma::MatrixIdent::B, 4usize, true);
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

/// The sums that m16n8k16 leaves to a lane, rows l / 4 and l / 4 + 8 and seats l % 4 * 2 and the next of each block, in ordinary
/// arithmetic: 2 * mi rows by 2 * ni columns of FMAs for that many loads.
#[cube]
fn multiply_plain<F: Float, N: Size, P: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, P>>,
    sums: &mut Sums,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
) {
    let (width, pair) = (N::value(), P::value());
    let tb = comptime!(by_columns(t));
    let lane = UNIT_POS as usize % PLANE;
    let (m0, n0) = plane_start(t.m, t.n, planes);
    let (mi, ni) = comptime!((t.m / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    let (of_a, of_b) = comptime!((stage * t.m * t.k / width, stage * t.n * t.k / pair));
    for column in 0..comptime!(t.k / width) {
        let k = column * width;
        let mut left = Array::<Vector<f32, N>>::new(comptime!(2 * mi));
        #[unroll]
        for i in 0..comptime!(2 * mi) {
            left[i] = Vector::cast_from(a[of_a + place(m0 + i * 8 + lane / 4, k, t, width)]);
        }
        #[unroll]
        for v in 0..width {
            #[unroll]
            for j in 0..ni {
                let n = n0 + j * BLOCK[1] + lane % 4 * 2;
                let mut right = Vector::<f32, Const<2>>::new(0.0f32);
                #[unroll]
                for e in 0..comptime!(2 / pair) {
                    let part = Vector::<f32, P>::cast_from(b[of_b + place(k + v, n + e * pair, tb, pair)]);
                    #[unroll]
                    for f in 0..pair {
                        right[e * pair + f] = part[f];
                    }
                }
                #[unroll]
                for i in 0..comptime!(2 * mi) {
                    let block = sums.index_mut(comptime!(i / 2 * ni + j));
                    block[comptime!(i % 2)] += Vector::new(left[i][v]) * right;
                }
            }
        }
    }
}

/// Bias, rounding and the store: eight neighbouring columns of a voxel a lane, from its pairs in four blocks.
#[cube]
fn scatter<F: Float, S: Size>(
    y: &mut Array<Vector<F, S>>,
    sums: &Sums,
    targets: &SharedMemory<u32>,
    biases: &SharedMemory<f32>,
    #[comptime] t: Tiles,
    #[comptime] planes: Planes,
) {
    let wide = S::value();
    let lane = UNIT_POS as usize % PLANE;
    let (m0, n0) = plane_start(t.m, t.n, planes);
    let (mi, ni) = comptime!((t.m / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    #[unroll]
    for part in 0..comptime!(ni / 4 * 8 / wide) {
        let (group, inner) = comptime!((part * wide / 8, part * wide % 8));
        let column = n0 + lane % 4 * 8 + comptime!(group * SEATS + inner);
        let place = targets[t.m + column];
        if place != NOWHERE {
            let mut bias = Vector::<f32, S>::new(0.0f32);
            #[unroll]
            for v in 0..wide {
                bias[v] = biases[column + v];
            }
            #[unroll]
            for i in 0..comptime!(2 * mi) {
                let start = targets[m0 + i * 8 + lane / 4];
                if start != NOWHERE {
                    let mut value = bias;
                    #[unroll]
                    for v in 0..wide {
                        let block = sums.index(comptime!(i / 2 * ni + group * 4 + (inner + v) / 2));
                        value[v] += block[comptime!(i % 2)][comptime!((inner + v) % 2)];
                    }
                    y[(start + place) as usize / wide] = Vector::cast_from(value);
                }
            }
        }
    }
}
