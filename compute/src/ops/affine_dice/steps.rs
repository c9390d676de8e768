//! Adam on a GPU for any number of pairs of masks at once, with nothing through the host between its iterations: each
//! is a sweep and one small kernel that finishes the loss, steps, makes the next sweep's matrix and says who is done.
//!
//! A pair's records and state are its own, so that it ends with the same bits alone and among others.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, CHANNELS, CONSTANTS, LAYOUT, MAP, STATE, SUMS};
use nephron_kernels::common::cube_sum::UNITS;

use super::gpu::{Prepared, SweepProblem, from_middle, launch_affine_dice_sums, layout, map, swept};
use super::{AffineDice, Backend, Bounds, CHECK_EVERY, Chain, Minimum, Objective, Parameters, Reason, into_cells};
use crate::device::Gpu;
use crate::device::gpu::with_client;
use crate::error::{Error, Result};
use crate::ops::launch::{array, grid};

/// Iterations between two looks of the host.
const STRIDE: usize = 4 * CHECK_EVERY;

/// A pair of masks and what is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The masks.
    pub masks: &'a AffineDice,
    /// What parameters mean.
    pub chain: &'a Chain,
    /// Where they begin: 12 of a matrix, `count` of a motion.
    pub start: &'a [f64],
    /// What is minimised.
    pub objective: &'a Objective,
}

/// The buffers of one iteration for some pairs.
#[derive(Debug)]
pub struct StepProblem<'a> {
    /// The sweep and its records.
    pub sweep: SweepProblem<'a>,
    /// A row of values a pair that stay, as the kernel documents them.
    pub constants: &'a Handle,
    /// A row of values a pair.
    pub state: &'a Handle,
    /// Lowest losses, `ring` a pair.
    pub lowest: &'a Handle,
    /// More than any pair's window.
    pub ring: usize,
    /// Are the parameters those of motions?
    pub motion: bool,
}

/// The end of an iteration: records in `partials` to the state and the maps.
pub fn launch_affine_dice_step<R: Runtime>(client: &ComputeClient<R>, problem: &StepProblem<'_>, partials: &Handle) {
    let SweepProblem { pairs, records, channels, .. } = problem.sweep;
    // SAFETY: a cube a pair, which reads its records below `records` and writes its own row of the state, of the maps
    // and of the ring.
    unsafe {
        kernels::affine_dice_step::launch_unchecked::<R>(
            client,
            CubeCount::Static(pairs as u32, 1, 1),
            CubeDim::new_1d(UNITS),
            array(partials, pairs * records * channels * SUMS),
            array(problem.sweep.layout, pairs * LAYOUT),
            array(problem.constants, pairs * CONSTANTS),
            array(problem.state, pairs * STATE),
            array(problem.sweep.maps, pairs * MAP),
            array(problem.lowest, pairs * problem.ring),
            records,
            problem.ring,
            CHECK_EVERY,
            channels,
            problem.motion,
        );
    }
}

/// Are the masks on a GPU, with something to sweep?
pub fn on_gpu(masks: &AffineDice) -> bool {
    matches!(masks.backend, Backend::Gpu(_))
}

/// Runs every task to its end. All are on one device and agree in channels, padding and the kind of parameters.
///
/// # Errors
/// Tasks that do not agree, or have nothing to sweep; a device that fails.
pub fn minimise(tasks: &[Task<'_>]) -> Result<Vec<Minimum>> {
    let pairs: Vec<(&Prepared, &Bounds)> = tasks
        .iter()
        .map(|task| match (&task.masks.backend, &task.masks.moving.bounds) {
            (Backend::Gpu(prepared), Some(bounds)) => Ok((&**prepared, bounds)),
            _ => Err(Error::argument("affine_dice: masks", "labels, on a GPU", "none, or on the CPU")),
        })
        .collect::<Result<_>>()?;
    let Some((&(prepared, _), first)) = pairs.first().zip(tasks.first()) else { return Ok(Vec::new()) };
    let kind = |task: &Task<'_>| {
        let motion = task.chain.parameters != Parameters::Matrix;
        (task.masks.channels, task.masks.padding, motion)
    };
    if let Some(other) = tasks.iter().find(|task| kind(task) != kind(first)) {
        let [expected, found] = [first, other].map(|task| format!("{:?}", kind(task)));
        return Err(Error::argument("affine_dice: channels, padding and motion of pairs", expected, found));
    }
    let (channels, padding, motion) = kind(first);
    let channels = swept(channels);
    let device = &prepared.device;
    let upload = |values: &[f32]| device.upload(bytemuck::cast_slice(values));
    let records = pairs.iter().map(|(p, _)| p.records()).max().unwrap_or(1);
    let most = tasks.iter().map(|t| t.objective.max_iterations).max().unwrap_or(1);
    let ring = tasks.iter().map(|t| t.objective.window.min(t.objective.max_iterations)).max().unwrap_or(1) + 1;

    let ([fixed, cells], table) = together(device, &pairs)?;
    let (mut constants, mut state, mut maps) = (Vec::new(), Vec::new(), Vec::new());
    for (task, (prepared, bounds)) in tasks.iter().zip(&pairs) {
        let chain = in_cells(task.chain, bounds, task.masks.fixed_size);
        constants.extend(row(task, &chain));
        state.extend(begin(task));
        maps.extend(map(&chain.matrix(task.start), &prepared.limits));
    }
    let (constants, state, maps) = (upload(&constants)?, upload(&state)?, upload(&maps)?);
    let lowest = device.alloc(tasks.len() * ring * 4)?;
    let partials = device.alloc(tasks.len() * records * channels * SUMS * 4)?;
    let sweep = SweepProblem {
        pairs: tasks.len(),
        records,
        channels,
        padding,
        fixed: &fixed.0,
        fixed_words: fixed.1,
        cells: &cells.0,
        cells_words: cells.1,
        layout: &table,
        maps: &maps,
    };
    let problem = StepProblem { sweep, constants: &constants, state: &state, lowest: &lowest, ring, motion };
    let mut launched = 0;
    loop {
        let count = STRIDE.min(most - launched);
        with_client!(device, client => for _ in 0..count {
            launch_affine_dice_sums(client, &problem.sweep, &partials);
            launch_affine_dice_step(client, &problem, &partials);
        });
        launched += count;
        let state: Vec<f32> = bytemuck::pod_collect_to_vec(&device.read(&state, tasks.len() * STATE * 4)?);
        let running = state.chunks_exact(STATE).any(|state| state[kernels::AT_STATUS] == 0.0);
        if !running || launched >= most {
            return Ok(tasks.iter().zip(state.chunks_exact(STATE)).map(|(task, state)| ended(task, state)).collect());
        }
    }
}

/// Members and cells of all pairs in one buffer each, with their words, and the layout.
fn together(device: &Gpu, pairs: &[(&Prepared, &Bounds)]) -> Result<([(Handle, usize); 2], Handle)> {
    if let [(only, _)] = pairs {
        let [fixed, cells] = only.words();
        return Ok(([(only.fixed.clone(), fixed), (only.cells.clone(), cells)], only.layout.clone()));
    }
    let total: [usize; 2] = pairs.iter().fold([0; 2], |sum, (p, _)| std::array::from_fn(|i| sum[i] + p.words()[i]));
    // Kernels find a member by its byte and a code by its word, with 32 bits.
    if total[0] > (u32::MAX / 4) as usize || total[1] > u32::MAX as usize {
        let expected = format!("{} and {} words of members and cells at most", u32::MAX / 4, u32::MAX);
        return Err(Error::argument("affine_dice: pairs together", expected, format!("{} and {}", total[0], total[1])));
    }
    let (fixed, cells) = (device.alloc(total[0] * 4)?, device.alloc(total[1] * 4)?);
    let mut at = [0usize; 2];
    let mut table = Vec::new();
    for (pair, _) in pairs {
        let words = pair.words();
        for (i, (from, to)) in [(&pair.fixed, &fixed), (&pair.cells, &cells)].into_iter().enumerate() {
            let (cubes, dim) = grid(words[i]);
            // SAFETY: each unit copies the word of its own position, below the source's count; the destination has room
            // for all.
            with_client!(device, client => unsafe {
                kernels::copy_words::launch_unchecked(
                    client, cubes, dim, array(from, words[i]), array(to, total[i]), at[i],
                )
            });
        }
        table.extend(layout(pair.size, pair.cell_counts, at));
        at = std::array::from_fn(|i| at[i] + words[i]);
    }
    Ok(([(fixed, total[0]), (cells, total[1])], device.upload(bytemuck::cast_slice(&table))?))
}

/// The kernels count fixed voxels from the middle of their grid, and moving ones in cells.
fn in_cells(chain: &Chain, bounds: &Bounds, size: [usize; 3]) -> Chain {
    Chain { pre: from_middle(&chain.pre, size), post: into_cells(&chain.post, bounds), ..*chain }
}

/// A task's row of constants.
fn row(task: &Task<'_>, chain: &Chain) -> [f32; CONSTANTS] {
    let Objective { smooth, weights, learning_rate, max_iterations, window, tolerance } = task.objective;
    let (count, reach) = match task.chain.parameters {
        Parameters::Matrix => (12, 0.0),
        Parameters::Motion { count, reach } => (count, reach),
    };
    let channels =
        |values: &[f64]| -> [f64; CHANNELS] { std::array::from_fn(|c| values.get(c).copied().unwrap_or(0.0)) };
    let (g, weights) = (task.masks.fixed.counts, channels(weights));
    let last = [
        *smooth,
        *learning_rate,
        *tolerance,
        *window.min(max_iterations) as f64,
        *max_iterations as f64,
        count as f64,
        reach,
    ];
    let values =
        chain.pre.as_flattened().iter().chain(chain.post.as_flattened()).chain(&g).chain(&weights).chain(&last);
    let mut row = [0.0; CONSTANTS];
    row.iter_mut().zip(values).for_each(|(out, v)| *out = *v as f32);
    row
}

/// A task's state before the first iteration.
fn begin(task: &Task<'_>) -> [f32; STATE] {
    let mut state = [0.0; STATE];
    for (i, value) in task.start.iter().take(12).enumerate() {
        state[i] = *value as f32;
        state[kernels::AT_BEST + i] = *value as f32;
    }
    state[kernels::AT_BEST_LOSS] = f32::MAX;
    state[kernels::AT_DECAY..kernels::AT_DECAY + 2].fill(1.0);
    state
}

fn ended(task: &Task<'_>, state: &[f32]) -> Minimum {
    let value = |at: usize| f64::from(state[at]);
    let status = state[kernels::AT_STATUS];
    Minimum {
        parameters: (0..task.start.len()).map(|i| value(kernels::AT_BEST + i)).collect(),
        loss: value(kernels::AT_BEST_LOSS),
        dice: (0..task.masks.channels).map(|c| value(kernels::AT_DICE + c)).collect(),
        ends: [value(kernels::AT_FIRST), value(kernels::AT_LAST)],
        iterations: value(kernels::AT_ITERATIONS) as usize,
        reason: if status == kernels::CONVERGED {
            Reason::Converged
        } else if status == kernels::NOT_FINITE {
            Reason::NotFinite
        } else {
            Reason::Stopped
        },
    }
}
