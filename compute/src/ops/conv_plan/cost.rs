//! A small model of what the kernels of the forward convolution cost, over the shape and the device.
//!
//! The time of a cube is what takes it longest, in cycles of a multiprocessor: its multiply-adds, those of the tiles'
//! padding included, or what it fetches from the L2 cache, and a little of the other. Cubes are dealt to the
//! multiprocessors in waves, and a last wave that is not full counts as one. What matters is the order of the candidates,
//! not the numbers.

use nephron_kernels::conv3d::staging::Tiles;
use nephron_kernels::conv3d::stem::{RUN, VOXELS};

use super::capabilities::DeviceCaps;
use super::plan::{Conv3dKernel, Conv3dPlan, Convolution};
use crate::ops::conv_problem::Conv3dProblem;

/// Multiply-adds per cycle of a multiprocessor. On matrix instructions an H100 does 1058 of 16 bits (490 TFLOP/s by
/// `mma.sync`) and half as many of tf32, of which the other instructions of the kernels leave about this much, and likewise
/// of its 128 ordinary ones. With few channels in a vector the time goes to gathering them.
fn rate(kernel: &Conv3dKernel, caps: &DeviceCaps) -> f64 {
    let bytes = caps.dtype.size();
    let gathered = |width: usize| (width * bytes).min(16) as f64 / 16.0;
    let matrix = |width| if caps.multiplies(width) { 1600.0 / bytes as f64 * gathered(width) } else { 4.0 };
    match kernel {
        Conv3dKernel::Naive => 5.0,
        Conv3dKernel::Direct { .. } => 10.0,
        Conv3dKernel::Stem(_) => 110.0,
        Conv3dKernel::Pointwise { .. } => 120.0,
        Conv3dKernel::RegisterBlocked(t) => 40.0 + 40.0 * gathered(t.width),
        Conv3dKernel::ImplicitGemm(t) => matrix(t.width),
        Conv3dKernel::Halo(t) => matrix(t.width),
    }
}

/// Bytes per cycle from L2 to a multiprocessor, while all of them load.
const L2_BYTES: f64 = 24.0;

/// The part of the shorter of the two times that is not hidden behind the longer one.
const SHOWS: f64 = 0.25;

/// Cycles of a launch, about 2 us.
const LAUNCH_CYCLES: f64 = 3500.0;

/// Cycles that `plan` takes, up to a factor that all candidates share.
pub(super) fn cost(plan: &Conv3dPlan, problem: &Conv3dProblem, caps: &DeviceCaps) -> f64 {
    let [m, n, k] = problem.product();
    let rate = rate(&plan.kernel, caps);
    let (cubes, multiprocessors) = (plan.grid.cubes, caps.multiprocessors);
    // The multiply-adds of all cubes of full waves, on all multiprocessors.
    let of_waves = |of_cube: usize| {
        cubes.next_multiple_of(multiprocessors) as f64 * of_cube as f64 / rate / multiprocessors as f64
    };
    match &plan.kernel {
        Conv3dKernel::Naive | Conv3dKernel::Direct { .. } => {
            m as f64 * n as f64 * k as f64 / rate / multiprocessors as f64
        }
        Conv3dKernel::Stem(_) => of_waves(plan.grid.units * VOXELS * RUN * k),
        Conv3dKernel::Pointwise { .. } => of_waves(plan.grid.units * n * k),
        Conv3dKernel::RegisterBlocked(t) => {
            let (multiplications, fetched) = of_tile(&t.tiles, k, t.splits);
            of_cubes(multiplications, fetched, plan, rate, caps) + of_parts(t.splits, m * n, caps)
        }
        Conv3dKernel::ImplicitGemm(t) => {
            let (multiplications, fetched) = of_tile(&t.tiles, k, t.splits);
            of_cubes(multiplications, fetched, plan, rate, caps) + of_parts(t.splits, m * n, caps)
        }
        Conv3dKernel::Halo(tile) => {
            let t = tile.bricks;
            let ci = problem.weight_shape()[1].next_multiple_of(t.chunk);
            let taps: usize = t.kernel.iter().product();
            let halo: usize = t.halo().iter().product();
            of_cubes(t.m() * t.n * taps * ci, (halo + taps * t.n) * ci, plan, rate, caps)
        }
    }
}

/// Multiply-adds of a cube, and elements that it fetches, for its part of a sum of `k` terms.
fn of_tile(t: &Tiles, k: usize, splits: usize) -> (usize, usize) {
    let k = k.div_ceil(t.k).div_ceil(splits) * t.k;
    (t.m * t.n * k, (t.m + t.n) * k)
}

/// Cycles of all waves of cubes with this many multiply-adds and fetched elements each.
fn of_cubes(multiplications: usize, fetched: usize, plan: &Conv3dPlan, rate: f64, caps: &DeviceCaps) -> f64 {
    let multiply = multiplications as f64 / rate;
    let fetch = fetched as f64 * caps.dtype.size() as f64 / L2_BYTES;
    let cycles = multiply.max(fetch) + SHOWS * multiply.min(fetch);
    plan.grid.cubes.div_ceil(caps.multiprocessors) as f64 * cycles
}

/// Cycles of adding up the parts of `outputs` split sums. Parts are f32, written once and read once, by a launch of its own.
fn of_parts(splits: usize, outputs: usize, caps: &DeviceCaps) -> f64 {
    if splits == 1 {
        return 0.0;
    }
    LAUNCH_CYCLES + (splits * outputs * 8) as f64 / (L2_BYTES * caps.multiprocessors as f64)
}
