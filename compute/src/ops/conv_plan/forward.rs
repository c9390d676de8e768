//! Which kernels can compute a forward convolution, and in which order they are preferred.

use std::iter;

use nephron_kernels::conv3d::pointwise;
use nephron_kernels::conv3d::staging::Tiles;

use super::algorithm::Conv3dAlgorithm;
use super::capabilities::DeviceCaps;
use super::cost::cost;
use super::gemm_tiling::{implicit_gemm_tiles, register_blocked_tiles};
use super::halo_tiling::{self, HaloTile};
use super::plan::{
    CUBE_LIMITS, Conv3dKernel, Conv3dPlan, Convolution, Grid, ROOM_FOR_A_TILE, output_channels_per_thread,
};
use super::stem_tiling::{self, StemTile};
use crate::error::Error;
use crate::ops::conv_problem::Conv3dProblem;
use crate::tensor::Shape;

/// Output channels of a thread of the pointwise kernel at most. With more, a matrix product pads little.
const MAX_POINTWISE_CHANNELS: usize = 8;

/// Taps along z, y and x together that the tiled matrix products keep in the bits of a word.
const MAX_TAPS: usize = 32;

/// Elements of all parts of split sums at most: 64 MiB, what stays in the caches of the GPUs that have few cubes to share
/// out.
const MAX_PARTS: usize = 1 << 24;

/// Steps of a part of a split sum at least: what fills a pipeline of stages and leaves a multiple of that.
const MIN_STEPS: usize = 8;

impl Conv3dAlgorithm {
    /// Why this algorithm cannot compute `problem` on a device of these capabilities, or nothing if it can. The planner,
    /// the autotuner and the tests ask this function alone.
    pub fn unsupported(self, problem: &Conv3dProblem, caps: &DeviceCaps) -> Option<Error> {
        obstacle(problem, caps, self).or_else(|| {
            let none = plans(problem, caps, self).is_empty();
            none.then(|| self.refuse(CUBE_LIMITS, ROOM_FOR_A_TILE, caps.limits())).flatten()
        })
    }
}

impl Convolution for Conv3dProblem {
    type Algorithm = Conv3dAlgorithm;
    type Plan = Conv3dPlan;
    const OP: &'static str = "conv3d";

    fn algorithm_of(plan: &Conv3dPlan) -> Conv3dAlgorithm {
        plan.algorithm()
    }

    fn unsupported_by(&self, algorithm: Conv3dAlgorithm, caps: &DeviceCaps) -> Option<Error> {
        algorithm.unsupported(self, caps)
    }

    fn candidates(&self, caps: &DeviceCaps, algorithm: Option<Conv3dAlgorithm>) -> Vec<Conv3dPlan> {
        use Conv3dAlgorithm as By;
        // Of two that cost the same the one named first is taken.
        // The naive kernel is a baseline that is used on request only.
        let unasked = || By::ALL.into_iter().filter(|a| *a != By::Naive).collect();
        let asked: Vec<_> = algorithm.map_or_else(unasked, |a| vec![a]);
        let able = asked.into_iter().filter(|a| obstacle(self, caps, *a).is_none());
        let plans = able.flat_map(|a| plans(self, caps, a));
        let mut costs: Vec<_> = plans.map(|plan| (cost(&plan, self, caps), plan)).collect();
        costs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        costs.into_iter().map(|(_, plan)| plan).collect()
    }

    fn shapes(&self) -> [Shape; 3] {
        [self.input_shape(), self.weight_shape(), self.output_shape()]
    }

    /// Output voxels, output channels, and terms of a sum of one group.
    fn product(&self) -> [usize; 3] {
        let [n, co, od, oh, ow] = self.output_shape();
        [n * od * oh * ow, co, self.weight_shape()[1..].iter().product()]
    }

    fn key(&self, caps: &DeviceCaps) -> String {
        let p = self.params();
        let (x, w) = (self.input_shape(), self.weight_shape());
        let steps =
            format!("stride {:?} padding {:?} dilation {:?} groups {}", p.stride, p.padding, p.dilation, p.groups);
        let step = caps.step(caps.vector_width(w[1]));
        format!("conv3d {} {x:?} by {w:?} {steps}, {step:?}", caps.dtype)
    }
}

/// What an algorithm cannot do about this problem, whatever its tiles.
fn obstacle(problem: &Conv3dProblem, caps: &DeviceCaps, algorithm: Conv3dAlgorithm) -> Option<Error> {
    use Conv3dAlgorithm as By;
    let groups = problem.params().groups;
    let [_, ci, kernel @ ..] = problem.weight_shape();
    let taps: usize = kernel.iter().sum();
    match algorithm {
        By::Naive | By::Direct => None,
        _ if groups != 1 => algorithm.refuse("groups", "1", groups),
        By::Stem => stem_tiling::obstacle(problem, caps),
        By::Pointwise => pointwise_obstacle(problem, caps),
        // Ordinary arithmetic over these tiles is for devices without matrix instructions.
        By::ImplicitGemm | By::Halo if caps.copy_async && !caps.multiplies(caps.vector_width(ci)) => {
            let expected = "f16, bf16, or f32 in multiples of 4 input channels with tf32 allowed";
            algorithm.refuse("dtype", expected, caps.dtype)
        }
        By::Halo => halo_tiling::obstacle(problem),
        By::RegisterBlocked | By::ImplicitGemm if taps > MAX_TAPS => {
            algorithm.refuse("taps along z, y and x together", format!("at most {MAX_TAPS}"), taps)
        }
        By::RegisterBlocked | By::ImplicitGemm => None,
    }
}

/// What the pointwise kernel cannot do with this problem of one group.
fn pointwise_obstacle(problem: &Conv3dProblem, caps: &DeviceCaps) -> Option<Error> {
    let ([co, ci, kernel @ ..], params) = (problem.weight_shape(), problem.params());
    let refuse = |what: &str, expected: String, found: String| Conv3dAlgorithm::Pointwise.refuse(what, expected, found);
    let bytes = pointwise::shared_bytes(ci, co);
    match () {
        () if co > MAX_POINTWISE_CHANNELS => {
            refuse("output channels", format!("at most {MAX_POINTWISE_CHANNELS}"), co.to_string())
        }
        () if kernel != [1; 3] => refuse("kernel", "[1, 1, 1]".into(), format!("{kernel:?}")),
        () if params.stride != [1; 3] => refuse("stride", "[1, 1, 1]".into(), format!("{:?}", params.stride)),
        () if params.padding != [0; 3] => refuse("padding", "[0, 0, 0]".into(), format!("{:?}", params.padding)),
        () if bytes > caps.shared_bytes => {
            refuse("bytes of weights", format!("at most {}", caps.shared_bytes), bytes.to_string())
        }
        () => None,
    }
}

/// The plans of an algorithm that [`obstacle`] lets through, with every tile that fits the device.
fn plans(problem: &Conv3dProblem, caps: &DeviceCaps, algorithm: Conv3dAlgorithm) -> Vec<Conv3dPlan> {
    let ([m, co, k], ci) = (problem.product(), problem.weight_shape()[1]);
    let planned = |kernel, grid| Conv3dPlan { kernel, grid, finish_width: caps.vector_width(co) };
    let per_channels = |kernel, channels: usize| vec![planned(kernel, Grid::of_threads(m * co / channels))];
    let split = |t: &Tiles| splits([m, co, k], t, caps).into_iter();
    let tiled = |t: &Tiles, splits: usize| Grid { cubes: m.div_ceil(t.m) * co.div_ceil(t.n) * splits, units: t.units };
    match algorithm {
        Conv3dAlgorithm::Naive => per_channels(Conv3dKernel::Naive, 1),
        Conv3dAlgorithm::Direct => {
            let channels = output_channels_per_thread(co / problem.params().groups);
            per_channels(Conv3dKernel::Direct { channels }, channels)
        }
        Conv3dAlgorithm::Stem => {
            let plan = |t: StemTile| {
                let grid = Grid { cubes: stem_tiling::cubes(&t.brick, problem), units: t.brick.units() };
                planned(Conv3dKernel::Stem(t), grid)
            };
            stem_tiling::tile(problem, caps).map(plan).into_iter().collect()
        }
        Conv3dAlgorithm::Pointwise => {
            vec![planned(Conv3dKernel::Pointwise { width: caps.vector_width(ci) }, Grid::of_threads(m))]
        }
        Conv3dAlgorithm::RegisterBlocked => {
            let tiles = register_blocked_tiles(caps, [ci, co]).into_iter();
            let tiles = tiles.flat_map(|t| split(&t.tiles).map(move |s| t.split(k, s)));
            tiles.map(|t| planned(Conv3dKernel::RegisterBlocked(t), tiled(&t.tiles, t.splits))).collect()
        }
        Conv3dAlgorithm::ImplicitGemm => {
            let tiles = implicit_gemm_tiles(caps, [ci, co]).into_iter();
            let tiles = tiles.flat_map(|t| split(&t.tiles).map(move |s| t.split(k, s)));
            tiles.map(|t| planned(Conv3dKernel::ImplicitGemm(t), tiled(&t.tiles, t.splits))).collect()
        }
        Conv3dAlgorithm::Halo => {
            let plan = |t: HaloTile| {
                let images = problem.output_shape()[0];
                let cubes = images * t.per_image(problem) * co.div_ceil(t.bricks.n);
                planned(Conv3dKernel::Halo(t), Grid { cubes, units: t.bricks.units })
            };
            halo_tiling::tile(problem, caps).map(plan).into_iter().collect()
        }
    }
}

/// The numbers of parts that the sums of a tiled product may be cut into: one, and as many as give every multiprocessor one
/// cube, or two.
fn splits([m, n, k]: [usize; 3], t: &Tiles, caps: &DeviceCaps) -> Vec<usize> {
    let tiles = m.div_ceil(t.m) * n.div_ceil(t.n);
    let most = k.div_ceil(t.k) / MIN_STEPS;
    let some = [1, 2].map(|cubes| (cubes * caps.multiprocessors / tiles).min(most)).into_iter().filter(|s| *s > 1);
    let small = some.filter(|s| s.saturating_mul(m).saturating_mul(n) < MAX_PARTS);
    iter::once(1).chain(small).collect()
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
