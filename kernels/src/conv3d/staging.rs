//! Shared-memory tiles of a convolution seen as a matrix product, and how they are filled.
//!
//! y[m, co] = sum over k of A[m, k] * B[co, k] with m = (n, z, y, x) of the output, k = (kz, ky, kx, ci): B is the weight
//! as it lies in memory, a row of A is gathered from the input voxels under the taps. A cube makes `m` x `n` outputs in
//! steps of `k`, and a stage holds one step: `m` rows of A and `n` of B, each of `k` elements.
//!
//! Who loads what: units side by side load neighbouring vectors of `N` elements of one row (coalesced: a row's `k`
//! elements are contiguous within a tap), and a unit stays in its column, so it knows one (tap, channel) a step and walks
//! it by additions. What a row needs is worked out once a cube: where its input would lie at tap 0 (it wraps below zero
//! where that is padding, and wraps back), and a bit for each tap coordinate that is inside the input. A load is then
//! three bit tests and two additions; a tap outside, a row past the end and k past the sum load zero.
//!
//! Both tiles are swizzled (`gemm::layout`).

use cubecl::prelude::barrier::{Barrier, copy_async_checked};
use cubecl::prelude::*;

use super::{Geometry, is_inside};
use crate::gemm::layout::place;
pub use crate::gemm::layout::{Tiles, Transfer};

/// The part of a cube in a product whose sum is split: its tile, counted over m and n, and its share of the steps.
#[derive(CubeType)]
pub struct Share {
    pub tile: usize,
    pub split: usize,
    /// First step.
    pub begin: usize,
    /// Number of steps.
    pub steps: usize,
}

/// The share of this cube among `tiles` tiles; tiles run fastest.
#[cube]
pub fn share(g: &Geometry, tiles: usize, splits: usize, #[comptime] t: Tiles) -> Share {
    let all = (g.z.kernel * g.y.kernel * g.x.kernel * g.ci).div_ceil(t.k);
    let each = all.div_ceil(splits);
    let split = CUBE_POS / tiles;
    let begin = min(split * each, all);
    Share { tile: CUBE_POS % tiles, split, begin, steps: min(begin + each, all) - begin }
}

/// What is known of the rows of A that a unit loads, and where in the sum it is.
#[derive(CubeType)]
pub struct Cursor {
    /// Index of the element at tap (0, 0, 0) and channel 0, a row; wraps below zero.
    origins: Array<u32>,
    /// Taps inside the input, a row: bit kz, kd + ky, kd + kh + kx.
    inside: Array<u32>,
    /// Channel, kx, ky, kz and k of this unit's column at the next step.
    at: Array<u32>,
}

/// The cursor of this unit where the sum is at `from_k`. All units of the cube must get here.
#[cube]
pub fn cursor(
    g: &Geometry,
    first_row: usize,
    rows: usize,
    from_k: usize,
    #[comptime] t: Tiles,
    #[comptime] width: usize,
) -> Cursor {
    let unit = UNIT_POS as usize;
    let mut row_origins = SharedMemory::<u32>::new(t.m);
    let mut row_inside = SharedMemory::<u32>::new(t.m);
    for r in range_stepped(unit, t.m, t.units) {
        let out = first_row + r;
        let mut bits = 0u32;
        let line = out / g.x.output;
        let plane = line / g.y.output;
        let image = plane / g.z.output;
        let x = out % g.x.output * g.x.stride;
        let y = line % g.y.output * g.y.stride;
        let z = plane % g.z.output * g.z.stride;
        if out < rows {
            for k in 0..g.z.kernel {
                bits |= u32::cast_from(is_inside(&g.z, z + k * g.z.dilation)) << k as u32;
            }
            for k in 0..g.y.kernel {
                bits |= u32::cast_from(is_inside(&g.y, y + k * g.y.dilation)) << (g.z.kernel + k) as u32;
            }
            for k in 0..g.x.kernel {
                bits |= u32::cast_from(is_inside(&g.x, x + k * g.x.dilation)) << (g.z.kernel + g.y.kernel + k) as u32;
            }
        }
        let slice = image * g.z.input + z - g.z.padding;
        let row = slice * g.y.input + y - g.y.padding;
        row_origins[r] = ((row * g.x.input + x - g.x.padding) * g.ci) as u32;
        row_inside[r] = bits;
    }
    sync_cube();

    let columns = comptime!(t.k / width);
    let each = comptime!(t.m / t.rows_at_once(width));
    let mut origins = Array::<u32>::new(each);
    let mut inside = Array::<u32>::new(each);
    #[unroll]
    for i in 0..each {
        let r = unit / columns + i * comptime!(t.rows_at_once(width));
        origins[i] = row_origins[r];
        inside[i] = row_inside[r];
    }
    let k = from_k + unit % columns * width;
    let tap = k / g.ci;
    let mut at = Array::<u32>::new(5usize);
    at[0] = (k % g.ci) as u32;
    at[1] = (tap % g.x.kernel) as u32;
    at[2] = (tap / g.x.kernel % g.y.kernel) as u32;
    at[3] = (tap / (g.x.kernel * g.y.kernel)) as u32;
    at[4] = k as u32;
    Cursor { origins, inside, at }
}

/// Fills stage `stage` of both tiles with the step at the cursor, and moves the cursor one step on. `first_row` counts
/// rows of B. With [`Transfer::Async`] the copies are only begun, and the caller commits them to a barrier.
#[cube]
pub fn fill_stage<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    w: &Array<Vector<F, N>>,
    a: &mut SharedMemory<Vector<F, N>>,
    b: &mut SharedMemory<Vector<F, N>>,
    g: &Geometry,
    cursor: &mut Cursor,
    first_row: usize,
    #[comptime] stage: usize,
    #[comptime] t: Tiles,
) {
    let width = N::value();
    let columns = comptime!(t.k / width);
    let at_once = comptime!(t.rows_at_once(width));
    let column = UNIT_POS as usize % columns * width;
    let row = UNIT_POS as usize / columns;

    let (kx, ky, kz) = (cursor.at[1] as usize, cursor.at[2] as usize, cursor.at[3] as usize);
    let k = cursor.at[4] as usize;
    let sum = g.z.kernel * g.y.kernel * g.x.kernel * g.ci;
    let in_sum = k < sum;
    let tap_bits =
        (1u32 << kz as u32) | (1u32 << (g.z.kernel + ky) as u32) | (1u32 << (g.z.kernel + g.y.kernel + kx) as u32);
    let step = (kz * g.z.dilation * g.y.input + ky * g.y.dilation) * g.x.input + kx * g.x.dilation;
    let step = (step * g.ci) as u32 + cursor.at[0];
    #[unroll]
    for i in 0..comptime!(t.m / at_once) {
        let found = (cursor.inside[i] & tap_bits) == tap_bits && in_sum;
        // Another index where the element is not inside: a wild one must not even be computed into an address.
        let from = select(found, (cursor.origins[i] + step) as usize / width, 0usize);
        let to = comptime!(stage * t.m * columns) + place(row + i * at_once, column, t, width);
        copy(x, a, from, to, found, t);
    }
    #[unroll]
    for i in 0..comptime!(t.n / at_once) {
        let r = first_row + row + i * at_once;
        let found = r < g.co && in_sum;
        let from = select(found, (r * sum + k) / width, 0usize);
        let to = comptime!(stage * t.n * columns) + place(row + i * at_once, column, t, width);
        copy(w, b, from, to, found, t);
    }

    // One step on: k more channels, carried into the taps.
    let mut c = cursor.at[0] + t.k as u32;
    let (mut x_tap, mut y_tap, mut z_tap) = (cursor.at[1], cursor.at[2], cursor.at[3]);
    while c >= g.ci as u32 {
        c -= g.ci as u32;
        x_tap += 1;
        if x_tap == g.x.kernel as u32 {
            x_tap = 0;
            y_tap += 1;
            if y_tap == g.y.kernel as u32 {
                y_tap = 0;
                z_tap += 1;
            }
        }
    }
    cursor.at[0] = c;
    cursor.at[1] = x_tap;
    cursor.at[2] = y_tap;
    cursor.at[3] = z_tap;
    cursor.at[4] += t.k as u32;
}

/// One vector from global to shared memory, zero where it is not `found`.
#[cube]
pub(crate) fn copy<F: Float, N: Size>(
    global: &Array<Vector<F, N>>,
    shared: &mut SharedMemory<Vector<F, N>>,
    from: usize,
    to: usize,
    found: bool,
    #[comptime] t: Tiles,
) {
    if comptime!(t.transfer == Transfer::Async) {
        let source = global.slice(from, from + usize::cast_from(found));
        let elements = N::value();
        copy_async_checked(&source, &mut shared.slice_mut(to, to + 1), comptime!(elements as u32));
    } else {
        let mut value = Vector::<F, N>::new(F::new(0.0));
        if found {
            value = global[from];
        }
        shared[to] = value;
    }
}

/// A barrier for each stage of [`Transfer::Async`], none otherwise.
#[cube]
pub fn stage_barriers(#[comptime] t: Tiles) -> Sequence<Shared<Barrier>> {
    let mut barriers = Sequence::<Shared<Barrier>>::new();
    if comptime!(t.transfer == Transfer::Async) {
        #[unroll]
        for _ in 0..t.stages {
            barriers.push(Barrier::shared(CUBE_DIM, UNIT_POS == 0));
        }
    }
    barriers
}

/// After this unit's [`fill_stage`]: its copies count towards the stage's barrier.
#[cube]
pub fn commit_stage(barriers: &Sequence<Shared<Barrier>>, #[comptime] stage: usize, #[comptime] t: Tiles) {
    if comptime!(t.transfer == Transfer::Async) {
        barriers.index(stage).commit_copy_async();
        let _token = barriers.index(stage).arrive();
    }
}

/// Waits until a stage is full for the `round`-th time and no unit reads the stage before it any more.
#[cube]
pub fn await_stage(barriers: &Sequence<Shared<Barrier>>, round: u32, #[comptime] stage: usize, #[comptime] t: Tiles) {
    if comptime!(t.transfer == Transfer::Async) {
        barriers.index(stage).wait_parity(round & 1);
    }
    sync_cube();
}
