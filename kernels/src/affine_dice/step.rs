//! The end of an iteration, in one cube: adds up the sweep's records, and from the sums makes the loss, its gradient, a
//! step of Adam and the next sweep's matrix. Nothing goes through the host between iterations.
//!
//! State, in f32: 12 parameters, 12 first moments, 12 second moments, the 12 parameters of the lowest loss so far, that
//! loss, the running powers of the two decays, and from [`AT_HISTORY`] a loss an iteration.

use cubecl::prelude::*;

use super::SUMS;

/// Where the best parameters start in the state.
pub const AT_BEST: usize = 36;
/// Where their loss is.
pub const AT_BEST_LOSS: usize = 48;
/// Where the powers of the decays are.
pub const AT_DECAY: usize = 49;
/// Where the losses start.
pub const AT_HISTORY: usize = 52;

/// As PyTorch's `Adam`.
const DECAY_1: f32 = 0.9;
const DECAY_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

const COLUMNS: usize = 2 * SUMS;
/// Units that share a column of the records.
const LANES: usize = 4;

/// Parameters q (3 x 4) give the sweep's matrix: position_r = `frame[r]` (sum_k q_rk y_k + q_r3) + `frame[3 + r]`, with
/// y_k = `frame[6 + k]` x_k + `frame[9 + k]` and x from the middle of the fixed grid. `problem` holds G of both channels,
/// their weights in the loss, the smoothing term and the learning rate. 256 units.
#[cube(launch_unchecked)]
pub fn affine_dice_step(
    partials: &Array<f32>,
    frame: &Array<f32>,
    problem: &Array<f32>,
    state: &mut Array<f32>,
    matrix: &mut Array<f32>,
    records: usize,
    iteration: usize,
) {
    let unit = UNIT_POS_X as usize;
    let mut high = SharedMemory::<f32>::new(COLUMNS * LANES);
    let mut low = SharedMemory::<f32>::new(COLUMNS * LANES);
    let mut total = SharedMemory::<f32>::new(COLUMNS);
    if unit < COLUMNS * LANES {
        let mut sum = 0.0f32;
        let mut lost = 0.0f32;
        let mut record = unit / COLUMNS;
        while record < records {
            let value = partials[record * COLUMNS + unit % COLUMNS];
            let next = sum + value;
            lost += rounding(sum, value, next);
            sum = next;
            record += LANES;
        }
        high[unit] = sum;
        low[unit] = lost;
    }
    sync_cube();
    if unit < COLUMNS {
        let mut sum = 0.0f32;
        let mut lost = 0.0f32;
        for lane in 0..LANES {
            let value = high[lane * COLUMNS + unit];
            let next = sum + value;
            lost += rounding(sum, value, next) + low[lane * COLUMNS + unit];
            sum = next;
        }
        total[unit] = sum + lost;
    }
    sync_cube();
    let smooth = problem[4];
    let mut loss = 0.0f32;
    // d loss / d matrix = sum of a (gradient over the fixed mask) + b (gradient over all).
    let mut a = Array::<f32>::new(2usize);
    let mut b = Array::<f32>::new(2usize);
    #[unroll]
    for channel in 0..2usize {
        let above = 2.0 * total[channel * SUMS] + smooth;
        let below = total[channel * SUMS + 1] + problem[channel] + smooth;
        let weight = problem[2 + channel];
        // Nothing on either side and nothing to smooth with: agreement without a gradient.
        let some = below > 0.0;
        let scale = select(some, weight / max(below, 1e-30), 0.0);
        loss -= select(some, above * scale, weight);
        a[channel] = -2.0 * scale;
        b[channel] = above * scale / max(below, 1e-30);
    }
    let r = unit / 4;
    let k = unit % 4;
    let decay_1 = state[AT_DECAY] * DECAY_1;
    let decay_2 = state[AT_DECAY + 1] * DECAY_2;
    let better = loss < state[AT_BEST_LOSS];
    // Everyone has read the state before anyone writes it.
    sync_cube();
    if unit < 12 {
        let mut by_offset = 0.0f32;
        let mut gradient = 0.0f32;
        #[unroll]
        for channel in 0..2usize {
            let all = channel * SUMS + 2 + 4 * r;
            by_offset += a[channel] * total[all + 12 + 3] + b[channel] * total[all + 3];
            gradient += a[channel] * total[all + 12 + k] + b[channel] * total[all + k];
        }
        if k < 3 {
            gradient = frame[6 + k] * gradient + frame[9 + k] * by_offset;
        }
        gradient *= frame[r];
        let first = DECAY_1 * state[12 + unit] + (1.0 - DECAY_1) * gradient;
        let second = DECAY_2 * state[24 + unit] + (1.0 - DECAY_2) * gradient * gradient;
        let step = first / (1.0 - decay_1) / (f32::sqrt(second / (1.0 - decay_2)) + EPSILON);
        if better {
            state[AT_BEST + unit] = state[unit];
        }
        state[unit] = state[unit] - problem[5] * step;
        state[12 + unit] = first;
        state[24 + unit] = second;
        high[unit] = state[unit];
    }
    if unit == 0 {
        state[AT_DECAY] = decay_1;
        state[AT_DECAY + 1] = decay_2;
        if better {
            state[AT_BEST_LOSS] = loss;
        }
        state[AT_HISTORY + iteration] = loss;
    }
    sync_cube();
    if unit < 12 {
        let mut sum = high[4 * r + 3];
        if k < 3 {
            matrix[unit] = frame[r] * high[unit] * frame[6 + k];
        } else {
            #[unroll]
            for j in 0..3usize {
                sum += high[4 * r + j] * frame[9 + j];
            }
            matrix[unit] = frame[r] * sum + frame[3 + r];
        }
    }
}

/// What rounding took from a + b to make `sum` of it (Knuth).
#[cube]
fn rounding(a: f32, b: f32, sum: f32) -> f32 {
    let b_part = sum - a;
    let a_part = sum - b_part;
    (a - a_part) + (b - b_part)
}
