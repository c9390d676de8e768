//! Adam on a GPU for any number of pairs of masks at once, without transfers to the host between its iterations. Each iteration is a pass
//! over the masks and one small kernel that computes the loss, takes the step, computes the matrix of the next pass and tests for
//! convergence.
//!
//! Each pair has records and a state of its own, so that its result has the same bits alone and with others.

use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, PairMap, SUMS, StepConstants, StepState};

use super::{CHECK_EVERY, Minimum, Objective, StopReason, Task};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::affine_dice::gather::Gathered;
use crate::ops::affine_dice::gpu::{StepProblem, SweepProblem};
use crate::ops::affine_dice::prepare::{Prepared, narrow};
use crate::ops::affine_dice::{AffineDice, Parameters, Parametrization};
use crate::ops::grid_sample::PaddingMode;

/// Number of iterations after which the host reads the states.
const STRIDE: usize = 4 * CHECK_EVERY;

/// Largest number of pairs, which is the largest number of cubes along y of a grid.
const MAX_PAIRS: usize = 65_535;

/// The iterations of tasks on a GPU: all buffers, and the number of iterations that were launched.
///
/// ```no_run
/// # use nephron_compute::ops::affine_dice_optimizer::{DeviceOptimizer, Minimum, Task};
/// # fn all(tasks: &[Task<'_>]) -> nephron_compute::Result<Vec<Minimum>> {
/// let minima = DeviceOptimizer::new(tasks)?.run()?;
/// # Ok(minima)
/// # }
/// ```
#[derive(Debug)]
pub struct DeviceOptimizer {
    device: Gpu,
    pairs: Gathered,
    /// Number of channels of the kernels.
    channels: usize,
    padding: PaddingMode,
    motion: bool,
    maps: Handle,
    constants: Handle,
    state: Handle,
    lowest: Handle,
    /// Number of values of `lowest` for each pair.
    ring: usize,
    partials: Handle,
    /// The number of iterations that were launched, and the largest limit of a task.
    launched: usize,
    most: usize,
    /// For each task the number of its parameters and channels, and its state when the host last read it.
    tasks: Vec<(usize, usize, StepState)>,
}

impl DeviceOptimizer {
    /// Whether the masks are on a GPU and the moving mask is not empty, as [`DeviceOptimizer::new`] requires.
    pub fn accepts(masks: &AffineDice) -> bool {
        masks.prepared().is_some()
    }

    /// Uploads the constants and the state of every task, before the first iteration. Does not wait for the device.
    ///
    /// # Errors
    /// No task or more than 65,535; tasks out of range or whose parts do not fit together; masks on the CPU, on
    /// different devices, or without labels in the moving mask; tasks that do not agree in channels, padding or in
    /// whether their parameters are those of a motion; masks that together exceed a buffer or 32-bit indices.
    pub fn new(tasks: &[Task<'_>]) -> Result<Self> {
        let Some(first) = tasks.first().filter(|_| tasks.len() <= MAX_PAIRS) else {
            let expected = format!("1 to {MAX_PAIRS} pairs of masks");
            return Err(Error::argument("affine_dice optimizer: tasks", expected, tasks.len()));
        };
        tasks.iter().try_for_each(Task::ensure_valid)?;
        let pairs: Vec<&Prepared> = tasks
            .iter()
            .map(|task| {
                let none = || Error::argument("affine_dice: masks", "labels, on a GPU", "none, or on the CPU");
                task.masks.prepared().ok_or_else(none)
            })
            .collect::<Result<_>>()?;
        let kind = |task: &Task<'_>| {
            let motion = task.parametrization.parameters != Parameters::Matrix;
            (task.masks.counts()[0].len(), task.masks.padding(), motion)
        };
        if let Some(other) = tasks.iter().find(|task| kind(task) != kind(first)) {
            let [expected, found] = [first, other].map(|task| format!("{:?}", kind(task)));
            return Err(Error::argument("affine_dice: channels, padding and motion of pairs", expected, found));
        }
        let (_, padding, motion) = kind(first);
        let (device, channels) = (pairs[0].device.clone(), pairs[0].channels);
        if let Some(other) = pairs.iter().find(|pair| pair.device != device) {
            return Err(Error::argument("affine_dice: device of pairs", device.name(), other.device.name()));
        }
        let most = tasks.iter().map(|t| t.objective.max_iterations).max().unwrap_or(1);
        let ring = tasks.iter().map(|t| window(t.objective)).max().unwrap_or(1) + 1;
        let gathered = Gathered::new(&pairs)?;
        let partials = addressable("sums", [tasks.len(), gathered.records, channels * SUMS])?;
        let lowest = addressable("losses of the windows", [tasks.len(), ring, 1])?;

        let (mut constants, mut state, mut maps) = (Vec::new(), Vec::new(), Vec::new());
        for (task, prepared) in tasks.iter().zip(&pairs) {
            let own = prepared.parametrization(task.parametrization);
            constants.push(step_constants(task, &own));
            state.push(first_state(task));
            maps.push(prepared.map(&own.matrix(task.start)));
        }
        let begin = |task: &Task<'_>| (task.start.len(), task.objective.weights.len(), first_state(task));
        Ok(Self {
            pairs: gathered,
            channels,
            padding,
            motion,
            maps: device.upload(bytemuck::cast_slice::<PairMap, u8>(&maps))?,
            constants: device.upload(bytemuck::cast_slice::<StepConstants, u8>(&constants))?,
            state: device.upload(bytemuck::cast_slice::<StepState, u8>(&state))?,
            lowest: device.alloc(lowest * 4)?,
            ring,
            partials: device.alloc(partials * 4)?,
            launched: 0,
            most,
            tasks: tasks.iter().map(begin).collect(),
            device,
        })
    }

    /// Runs up to `iterations` more iterations of every task that has not ended, and waits for them. Returns whether any task can continue.
    ///
    /// # Errors
    /// A device that fails.
    pub fn advance(&mut self, iterations: usize) -> Result<bool> {
        let count = iterations.min(self.most - self.launched);
        let sweep = SweepProblem {
            pairs: self.tasks.len(),
            records: self.pairs.records,
            channels: self.channels,
            padding: self.padding,
            fixed: &self.pairs.members.0,
            fixed_words: self.pairs.members.1,
            cells: &self.pairs.cells.0,
            cells_words: self.pairs.cells.1,
            layout: &self.pairs.layout,
            maps: &self.maps,
        };
        let problem = StepProblem {
            sweep,
            constants: &self.constants,
            state: &self.state,
            lowest: &self.lowest,
            ring: self.ring,
            check_every: CHECK_EVERY,
            motion: self.motion,
        };
        self.device.run(|client| client.affine_dice_iterate(&problem, &self.partials, count))?;
        self.launched += count;
        let bytes = self.device.read(&self.state, self.tasks.len() * size_of::<StepState>())?;
        let states: Vec<StepState> = bytemuck::pod_collect_to_vec(&bytes);
        self.tasks.iter_mut().zip(states).for_each(|((_, _, own), state)| *own = state);
        Ok(self.launched < self.most && self.tasks.iter().any(|(_, _, state)| state.status == 0.0))
    }

    /// The current result of each task, in their order; a task that can continue has [`StopReason::Stopped`].
    pub fn minima(&self) -> Vec<Minimum> {
        self.tasks.iter().map(|(parameters, channels, state)| minimum(state, *parameters, *channels)).collect()
    }

    /// Runs every task to its end. The host waits once every 40 iterations.
    ///
    /// # Errors
    /// A device that fails.
    pub fn run(mut self) -> Result<Vec<Minimum>> {
        while self.advance(STRIDE)? {}
        Ok(self.minima())
    }
}

/// The number of elements of a buffer, which kernels index with 32 bits.
fn addressable(what: &str, shape: [usize; 3]) -> Result<usize> {
    let count = shape.iter().fold(1, |product: usize, n| product.saturating_mul(*n));
    if count > u32::MAX as usize {
        let expected = format!("{} {what} at most", u32::MAX);
        return Err(Error::argument("affine_dice: pairs together", expected, count));
    }
    Ok(count)
}

/// Number of iterations of a window: a window that is never filled is shortened.
fn window(objective: &Objective) -> usize {
    objective.window.min(objective.max_iterations)
}

/// A task's constants; `own` is its parametrisation from the middle of the fixed grid to the moving mask's cells.
fn step_constants(task: &Task<'_>, own: &Parametrization) -> StepConstants {
    let objective = task.objective;
    let shift_unit = match own.parameters {
        Parameters::Matrix => 0.0,
        Parameters::Motion { shift_unit, .. } => shift_unit,
    };
    StepConstants {
        pre: narrow(own.pre.as_flattened()),
        post: narrow(own.post.as_flattened()),
        fixed_counts: narrow(task.masks.counts()[0]),
        weights: narrow(&objective.weights),
        smooth: objective.smooth as f32,
        learning_rate: objective.learning_rate as f32,
        tolerance: objective.tolerance as f32,
        window: window(objective) as f32,
        max_iterations: objective.max_iterations as f32,
        parameter_count: task.start.len() as f32,
        shift_unit: shift_unit as f32,
    }
}

/// A task's state before the first iteration.
fn first_state(task: &Task<'_>) -> StepState {
    let parameters = narrow(task.start);
    StepState {
        parameters,
        best_parameters: parameters,
        best_loss: f32::MAX,
        decay_powers: [1.0; 2],
        ..StepState::default()
    }
}

fn minimum(state: &StepState, parameters: usize, channels: usize) -> Minimum {
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    Minimum {
        parameters: wide(&state.best_parameters[..parameters]),
        loss: f64::from(state.best_loss),
        dice: wide(&state.best_dice[..channels]),
        ends: [state.first_loss, state.last_loss].map(f64::from),
        iterations: state.iterations as usize,
        reason: if state.status == kernels::CONVERGED {
            StopReason::Converged
        } else if state.status == kernels::NOT_FINITE {
            StopReason::NotFinite
        } else {
            StopReason::Stopped
        },
    }
}
