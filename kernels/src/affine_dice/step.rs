//! The end of an iteration, a cube a pair: adds up the sweep's records, and from the sums makes the loss, its gradient,
//! a step of Adam, the next sweep's matrix, and says whether the iterations are over. Nothing goes through the host.
//!
//! Parameters mean the map [A | b]; the sweep's matrix is `post` [A | b] `pre` and an offset. For any affine map the
//! parameters are A and b themselves, for a motion they are those of [`write_motion`].

use cubecl::prelude::*;

use super::SUMS;
use super::motion::{MOTION, motion_gradient, write_motion};
use super::records::{
    BETA_1, BETA_2, CONVERGED, EPSILON, NOT_FINITE, PairLayout, PairMap, STOPPED, StepConstants, StepState,
};
use crate::common::cube_sum::UNITS;

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
    let records = layout[pair * PairLayout::WORDS + PairLayout::RECORDS] as usize;
    let constant = pair * StepConstants::WORDS;
    let own = pair * StepState::WORDS;
    let map = pair * PairMap::WORDS;
    let running = maps[map + PairMap::RUNNING] > 0.0;

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
        parameters[unit] = state[own + StepState::PARAMETERS + unit];
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
    let shift_unit = constants[constant + StepConstants::SHIFT_UNIT];
    if comptime!(motion) {
        if unit == UNITS as usize - 1 {
            write_motion(&parameters, shift_unit, &mut moved);
        }
    }
    sync_cube();
    let smooth = constants[constant + StepConstants::SMOOTH];
    let mut loss = 0.0f32;
    // d loss / d matrix = sum of a (gradient over the fixed mask) + b (gradient over all).
    let mut a = Array::<f32>::new(channels);
    let mut b = Array::<f32>::new(channels);
    let mut dice = Array::<f32>::new(channels);
    #[unroll]
    for channel in 0..channels {
        let above = 2.0 * total[channel * SUMS] + smooth;
        let below = total[channel * SUMS + 1] + constants[constant + StepConstants::FIXED_COUNTS + channel] + smooth;
        let weight = constants[constant + StepConstants::WEIGHTS + channel];
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
    let iteration = state[own + StepState::ITERATIONS];
    let decay_1 = state[own + StepState::DECAY_POWERS] * BETA_1;
    let decay_2 = state[own + StepState::DECAY_POWERS + 1] * BETA_2;
    let best = state[own + StepState::BEST_LOSS];
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
                inner *= constants[constant + StepConstants::PRE + 4 * k + 3];
                #[unroll]
                for c in 0..3usize {
                    inner += by_matrix[4 * i + c] * constants[constant + StepConstants::PRE + 4 * k + c];
                }
            }
            gradient += constants[constant + StepConstants::POST + 4 * i + r] * inner;
        }
        by_map[unit] = gradient;
    }
    // Everyone has read the state before anyone writes it.
    sync_cube();
    if unit < 12 && running {
        let mut gradient = by_map[unit];
        if comptime!(motion) {
            gradient = motion_gradient(&moved, &by_map, shift_unit, min(unit, 6));
        }
        let first = BETA_1 * state[own + StepState::FIRST_MOMENTS + unit] + (1.0 - BETA_1) * gradient;
        let second = BETA_2 * state[own + StepState::SECOND_MOMENTS + unit] + (1.0 - BETA_2) * gradient * gradient;
        let step = first / (1.0 - decay_1) / (f32::sqrt(second / (1.0 - decay_2)) + EPSILON);
        let before = parameters[unit];
        if better {
            state[own + StepState::BEST_PARAMETERS + unit] = before;
        }
        let mut after = before;
        if (unit as f32) < constants[constant + StepConstants::PARAMETER_COUNT] {
            after = before - constants[constant + StepConstants::LEARNING_RATE] * step;
        }
        state[own + StepState::PARAMETERS + unit] = after;
        state[own + StepState::FIRST_MOMENTS + unit] = first;
        state[own + StepState::SECOND_MOMENTS + unit] = second;
        parameters[unit] = after;
    }
    if unit == 0 && running {
        state[own + StepState::DECAY_POWERS] = decay_1;
        state[own + StepState::DECAY_POWERS + 1] = decay_2;
        state[own + StepState::LAST_LOSS] = loss;
        state[own + StepState::ITERATIONS] = iteration + 1.0;
        if iteration == 0.0 {
            state[own + StepState::FIRST_LOSS] = loss;
        }
        if better {
            state[own + StepState::BEST_LOSS] = loss;
            #[unroll]
            for channel in 0..channels {
                state[own + StepState::BEST_DICE + channel] = dice[channel];
            }
        }
        let done = iteration as usize;
        let fallen = min(loss, best);
        lowest[pair * ring + done % ring] = fallen;
        let window = constants[constant + StepConstants::WINDOW] as usize;
        let most = iteration + 1.0 >= constants[constant + StepConstants::MAX_ITERATIONS];
        let mut status = 0.0f32;
        if most {
            status = STOPPED;
        }
        let since = (done + 1) % check;
        if done >= window && (since == 0 || most) {
            if lowest[pair * ring + (done - window) % ring] - fallen < constants[constant + StepConstants::TOLERANCE] {
                status = CONVERGED;
            }
        }
        // NaN is not below anything.
        let finite = f32::abs(loss) < 1e30;
        if !finite {
            status = NOT_FINITE;
        }
        if status > 0.0 {
            state[own + StepState::STATUS] = status;
            maps[map + PairMap::RUNNING] = 0.0;
        }
    }
    sync_cube();
    if comptime!(motion) {
        if unit == 0 {
            write_motion(&parameters, shift_unit, &mut moved);
        }
    } else if unit < 12 {
        moved[unit] = parameters[unit];
    }
    sync_cube();
    if unit < 12 && running {
        let mut value = 0.0f32;
        if k == 3 {
            value = constants[constant + StepConstants::POST + 4 * r + 3];
        }
        #[unroll]
        for i in 0..3usize {
            let mut inner = 0.0f32;
            if k == 3 {
                inner = moved[4 * i + 3];
            }
            #[unroll]
            for j in 0..3usize {
                inner += moved[4 * i + j] * constants[constant + StepConstants::PRE + 4 * j + k];
            }
            value += constants[constant + StepConstants::POST + 4 * r + i] * inner;
        }
        maps[map + PairMap::MATRIX + unit] = value;
    }
}

/// What rounding took from a + b to make `sum` of it (Knuth).
#[cube]
fn rounding(a: f32, b: f32, sum: f32) -> f32 {
    let b_part = sum - a;
    let a_part = sum - b_part;
    (a - a_part) + (b - b_part)
}
