//! The end of an iteration, a cube a pair: adds up the sweep's records, and from the sums makes the loss, its gradient,
//! a step of Adam, the next sweep's matrix, and says whether the iterations are over. Nothing goes through the host.
//!
//! Parameters mean the map [A | b]; the sweep's matrix is `post` [A | b] `pre` and an offset. For any affine map the
//! parameters are A and b themselves, for a motion they are those of [`write_motion`].

use cubecl::prelude::*;

use super::motion::{MOTION, motion_gradient, write_motion};
use super::{AT_RUNNING, LAYOUT, MAP, SUMS};
use crate::common::cube_sum::UNITS;

/// Values of a pair's constants: rows of `pre` (12), of `post` with the offset (12), G of each channel (4), weights of
/// each in the loss (4), the smoothing term, the learning rate, the tolerance, the window, the most iterations, the
/// count of parameters, the reach of a shift.
pub const CONSTANTS: usize = 39;
const AT_POST: usize = 12;
const AT_G: usize = 24;
const AT_WEIGHTS: usize = 28;
const AT_SMOOTH: usize = 32;
const AT_RATE: usize = 33;
const AT_TOLERANCE: usize = 34;
const AT_WINDOW: usize = 35;
const AT_MOST: usize = 36;
const AT_COUNT: usize = 37;
const AT_REACH: usize = 38;

/// Values of a pair's state: 12 parameters, 12 first moments, 12 second moments, then as named.
pub const STATE: usize = 60;
/// The parameters of the lowest loss so far.
pub const AT_BEST: usize = 36;
/// That loss.
pub const AT_BEST_LOSS: usize = 48;
/// Running powers of the two decays.
pub const AT_DECAY: usize = 49;
/// Iterations done.
pub const AT_ITERATIONS: usize = 51;
/// 0, or why the iterations are over.
pub const AT_STATUS: usize = 52;
/// The loss of the first iteration.
pub const AT_FIRST: usize = 53;
/// The loss of the last.
pub const AT_LAST: usize = 54;
/// Dice of each channel at the lowest loss.
pub const AT_DICE: usize = 55;

/// The loss has stopped falling.
pub const CONVERGED: f32 = 1.0;
/// As many iterations as were allowed.
pub const STOPPED: f32 = 2.0;
/// The loss is not a finite number.
pub const NOT_FINITE: f32 = 3.0;

/// As PyTorch's `Adam`.
const DECAY_1: f32 = 0.9;
const DECAY_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Row x of the grid of cubes is a pair. Its records begin at pair times `stride` in `partials`, its lowest losses at
/// pair times `ring` in `lowest`: `ring` is more than the window, and place i % `ring` holds that up to iteration i.
/// Whether the loss has stopped falling is asked every `check` iterations. 256 units.
#[cube(launch_unchecked)]
pub fn affine_dice_step(
    partials: &Array<f32>,
    layout: &Array<u32>,
    constants: &Array<f32>,
    state: &mut Array<f32>,
    maps: &mut Array<f32>,
    lowest: &mut Array<f32>,
    stride: usize,
    ring: usize,
    check: usize,
    #[comptime] channels: usize,
    #[comptime] motion: bool,
) {
    let unit = UNIT_POS_X as usize;
    let pair = CUBE_POS_X as usize;
    let columns = comptime!(channels * SUMS);
    // Units that share a column of the records.
    let lanes = comptime!(UNITS as usize / (channels * SUMS));
    let records = layout[pair * LAYOUT + LAYOUT - 1] as usize;
    let constant = pair * CONSTANTS;
    let own = pair * STATE;
    let map = pair * MAP;
    let running = maps[map + AT_RUNNING] > 0.0;

    let mut high = SharedMemory::<f32>::new(UNITS as usize);
    let mut low = SharedMemory::<f32>::new(UNITS as usize);
    let mut total = SharedMemory::<f32>::new(columns);
    let mut by_matrix = SharedMemory::<f32>::new(12usize);
    let mut by_map = SharedMemory::<f32>::new(12usize);
    let mut parameters = SharedMemory::<f32>::new(12usize);
    let mut moved = SharedMemory::<f32>::new(MOTION);
    if unit < columns * lanes {
        let mut sum = 0.0f32;
        let mut lost = 0.0f32;
        let mut record = unit / columns;
        while record < records {
            let value = partials[(pair * stride + record) * columns + unit % columns];
            let next = sum + value;
            lost += rounding(sum, value, next);
            sum = next;
            record += lanes;
        }
        high[unit] = sum;
        low[unit] = lost;
    }
    if unit < 12 {
        parameters[unit] = state[own + unit];
    }
    sync_cube();
    if unit < columns {
        let mut sum = 0.0f32;
        let mut lost = 0.0f32;
        for lane in 0..lanes {
            let value = high[lane * columns + unit];
            let next = sum + value;
            lost += rounding(sum, value, next) + low[lane * columns + unit];
            sum = next;
        }
        total[unit] = sum + lost;
    }
    let reach = constants[constant + AT_REACH];
    if comptime!(motion) {
        if unit == UNITS as usize - 1 {
            write_motion(&parameters, reach, &mut moved);
        }
    }
    sync_cube();
    let smooth = constants[constant + AT_SMOOTH];
    let mut loss = 0.0f32;
    // d loss / d matrix = sum of a (gradient over the fixed mask) + b (gradient over all).
    let mut a = Array::<f32>::new(channels);
    let mut b = Array::<f32>::new(channels);
    let mut dice = Array::<f32>::new(channels);
    #[unroll]
    for channel in 0..channels {
        let above = 2.0 * total[channel * SUMS] + smooth;
        let below = total[channel * SUMS + 1] + constants[constant + AT_G + channel] + smooth;
        let weight = constants[constant + AT_WEIGHTS + channel];
        // Nothing on either side and nothing to smooth with: agreement without a gradient.
        let some = below > 0.0;
        let scale = select(some, weight / max(below, 1e-30), 0.0);
        loss -= select(some, above * scale, weight);
        a[channel] = -2.0 * scale;
        b[channel] = above * scale / max(below, 1e-30);
        dice[channel] = select(some, above / max(below, 1e-30), 1.0);
    }
    let r = unit / 4;
    let k = unit % 4;
    let iteration = state[own + AT_ITERATIONS];
    let decay_1 = state[own + AT_DECAY] * DECAY_1;
    let decay_2 = state[own + AT_DECAY + 1] * DECAY_2;
    let best = state[own + AT_BEST_LOSS];
    let better = running && loss < best;
    if unit < 12 {
        let mut gradient = 0.0f32;
        #[unroll]
        for channel in 0..channels {
            let all = channel * SUMS + 2 + unit;
            gradient += a[channel] * total[all + 12] + b[channel] * total[all];
        }
        by_matrix[unit] = gradient;
    }
    sync_cube();
    // [A | b] = post^T by_matrix [pre; 0 0 0 1]^T.
    if unit < 12 {
        let mut gradient = 0.0f32;
        #[unroll]
        for i in 0..3usize {
            let mut inner = by_matrix[4 * i + 3];
            if k < 3 {
                inner *= constants[constant + 4 * k + 3];
                #[unroll]
                for c in 0..3usize {
                    inner += by_matrix[4 * i + c] * constants[constant + 4 * k + c];
                }
            }
            gradient += constants[constant + AT_POST + 4 * i + r] * inner;
        }
        by_map[unit] = gradient;
    }
    // Everyone has read the state before anyone writes it.
    sync_cube();
    if unit < 12 && running {
        let mut gradient = by_map[unit];
        if comptime!(motion) {
            gradient = motion_gradient(&moved, &by_map, reach, min(unit, 6));
        }
        let first = DECAY_1 * state[own + 12 + unit] + (1.0 - DECAY_1) * gradient;
        let second = DECAY_2 * state[own + 24 + unit] + (1.0 - DECAY_2) * gradient * gradient;
        let step = first / (1.0 - decay_1) / (f32::sqrt(second / (1.0 - decay_2)) + EPSILON);
        let before = parameters[unit];
        if better {
            state[own + AT_BEST + unit] = before;
        }
        let mut after = before;
        if (unit as f32) < constants[constant + AT_COUNT] {
            after = before - constants[constant + AT_RATE] * step;
        }
        state[own + unit] = after;
        state[own + 12 + unit] = first;
        state[own + 24 + unit] = second;
        parameters[unit] = after;
    }
    if unit == 0 && running {
        state[own + AT_DECAY] = decay_1;
        state[own + AT_DECAY + 1] = decay_2;
        state[own + AT_LAST] = loss;
        state[own + AT_ITERATIONS] = iteration + 1.0;
        if iteration == 0.0 {
            state[own + AT_FIRST] = loss;
        }
        if better {
            state[own + AT_BEST_LOSS] = loss;
            #[unroll]
            for channel in 0..channels {
                state[own + AT_DICE + channel] = dice[channel];
            }
        }
        let done = iteration as usize;
        let fallen = min(loss, best);
        lowest[pair * ring + done % ring] = fallen;
        let window = constants[constant + AT_WINDOW] as usize;
        let most = iteration + 1.0 >= constants[constant + AT_MOST];
        let mut status = 0.0f32;
        if most {
            status = STOPPED;
        }
        let since = (done + 1) % check;
        if done >= window && (since == 0 || most) {
            if lowest[pair * ring + (done - window) % ring] - fallen < constants[constant + AT_TOLERANCE] {
                status = CONVERGED;
            }
        }
        // NaN is not below anything.
        let finite = f32::abs(loss) < 1e30;
        if !finite {
            status = NOT_FINITE;
        }
        if status > 0.0 {
            state[own + AT_STATUS] = status;
            maps[map + AT_RUNNING] = 0.0;
        }
    }
    sync_cube();
    if comptime!(motion) {
        if unit == 0 {
            write_motion(&parameters, reach, &mut moved);
        }
    } else if unit < 12 {
        moved[unit] = parameters[unit];
    }
    sync_cube();
    if unit < 12 && running {
        let mut value = 0.0f32;
        if k == 3 {
            value = constants[constant + AT_POST + 4 * r + 3];
        }
        #[unroll]
        for i in 0..3usize {
            let mut inner = 0.0f32;
            if k == 3 {
                inner = moved[4 * i + 3];
            }
            #[unroll]
            for j in 0..3usize {
                inner += moved[4 * i + j] * constants[constant + 4 * j + k];
            }
            value += constants[constant + AT_POST + 4 * r + i] * inner;
        }
        maps[map + unit] = value;
    }
}

/// What rounding took from a + b to make `sum` of it (Knuth).
#[cube]
fn rounding(a: f32, b: f32, sum: f32) -> f32 {
    let b_part = sum - a;
    let a_part = sum - b_part;
    (a - a_part) + (b - b_part)
}
