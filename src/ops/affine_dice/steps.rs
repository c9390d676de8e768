//! Adam on a GPU with nothing through the host between its iterations: each is a sweep and one small kernel that
//! finishes the loss, steps and makes the next sweep's matrix.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, AT_BEST, AT_BEST_LOSS, AT_DECAY, AT_HISTORY, SUMS};
use nephron_kernels::common::cube_sum::UNITS;

use super::gpu::{SweepProblem, from_middle, launch_affine_dice_sums, middle, to_f32};
use super::{AffineDice, Backend, Frame, Matrix, into_cells};
use crate::device::Gpu;
use crate::device::gpu::with_client;
use crate::error::Result;
use crate::ops::launch::array;

/// Iterations between two looks of the host at most.
pub const MAX_ITERATIONS: usize = 64;

const STATE: usize = AT_HISTORY + MAX_ITERATIONS;

/// What the iterations minimise, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// The smoothing term of Dice.
    pub smooth: f64,
    /// Weights of the channels {2} and {1, 2} in the loss.
    pub weights: [f64; 2],
    /// Adam's learning rate.
    pub learning_rate: f64,
}

/// The buffers of an optimisation that stays on the device.
#[derive(Debug)]
pub struct AdamSteps<'a> {
    device: Gpu,
    sweep: SweepProblem<'a>,
    frame: Handle,
    problem: Handle,
    state: Handle,
    matrix: Handle,
    partials: Handle,
}

/// One step: `records` records in `partials`, the frame (12 values) and the problem (6) as the kernel documents them, to
/// `state` and the next `matrix`; the loss goes to place `iteration` of the state's history.
pub fn launch_affine_dice_step<R: Runtime>(
    client: &ComputeClient<R>,
    [partials, frame, problem, state, matrix]: [&Handle; 5],
    records: usize,
    iteration: usize,
) {
    // SAFETY: one cube; it reads `records` records and writes the fixed places of the state, of which the history has
    // MAX_ITERATIONS.
    unsafe {
        kernels::affine_dice_step::launch_unchecked::<R>(
            client,
            CubeCount::new_single(),
            CubeDim::new_1d(UNITS),
            array(partials, records * 2 * SUMS),
            array(frame, 12),
            array(problem, 6),
            array(state, STATE),
            array(matrix, 12),
            records,
            iteration.min(MAX_ITERATIONS - 1),
        );
    }
}

impl<'a> AdamSteps<'a> {
    /// Ready for the first iteration at `start`. None where the masks are not on a GPU or have nothing to sweep.
    pub fn new(masks: &'a AffineDice, frame: &Frame, start: &Matrix, objective: &Objective) -> Result<Option<Self>> {
        let (Backend::Gpu(prepared), Some(bounds)) = (&masks.backend, &masks.moving.bounds) else { return Ok(None) };
        let device = prepared.device.clone();
        let sweep = prepared.problem(masks.fixed_size, masks.padding);
        let size = masks.fixed_size;
        let (input, output) = (&frame.input, &frame.output);
        // The kernel counts fixed voxels from the middle of their grid, and moving ones in cells.
        let mut constants = [0.0f32; 12];
        for k in 0..3 {
            constants[k] = output.scale[k] as f32;
            constants[3 + k] = (output.offset[k] + 1.0 - bounds.low[k] as f64) as f32;
            constants[6 + k] = input.scale[k] as f32;
            constants[9 + k] = (input.offset[k] + input.scale[k] * middle(size[k])) as f32;
        }
        let [tumour, both] = masks.fixed.counts;
        let [first, second] = objective.weights;
        let problem = [tumour, both, first, second, objective.smooth, objective.learning_rate].map(|v| v as f32);
        let mut state = [0.0f32; STATE];
        state[..12].copy_from_slice(&to_f32(start));
        state[AT_BEST..AT_BEST + 12].copy_from_slice(&to_f32(start));
        state[AT_BEST_LOSS] = f32::MAX;
        state[AT_DECAY..AT_DECAY + 2].fill(1.0);
        let matrix = to_f32(&from_middle(&into_cells(&frame.matrix(start), bounds), size));
        let upload = |values: &[f32]| device.upload(bytemuck::cast_slice(values));
        Ok(Some(Self {
            frame: upload(&constants)?,
            problem: upload(&problem)?,
            state: upload(&state)?,
            matrix: upload(&matrix)?,
            partials: device.alloc(sweep.records() * 2 * SUMS * 4)?,
            device,
            sweep,
        }))
    }

    /// `iterations` more, [`MAX_ITERATIONS`] at most: the loss before each step, and the parameters of the lowest so far.
    pub fn run(&mut self, iterations: usize) -> Result<(Vec<f64>, Matrix)> {
        let iterations = iterations.min(MAX_ITERATIONS);
        let records = self.sweep.records();
        let buffers = [&self.partials, &self.frame, &self.problem, &self.state, &self.matrix];
        with_client!(self.device, client => for iteration in 0..iterations {
            launch_affine_dice_sums(client, &self.sweep, &self.matrix, &self.partials);
            launch_affine_dice_step(client, buffers, records, iteration);
        });
        let state: Vec<f32> = bytemuck::pod_collect_to_vec(&self.device.read(&self.state, STATE * 4)?);
        let losses = state[AT_HISTORY..][..iterations].iter().map(|v| f64::from(*v)).collect();
        Ok((losses, std::array::from_fn(|r| std::array::from_fn(|k| state[AT_BEST + 4 * r + k].into()))))
    }
}
