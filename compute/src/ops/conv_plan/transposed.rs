//! Which kernels can compute a transposed convolution, and in which order they are preferred: the matrix product where it
//! can be done.

use super::algorithm::ConvTranspose3dAlgorithm;
use super::capabilities::DeviceCaps;
use super::plan::{
    CUBE_LIMITS, ConvTranspose3dKernel, ConvTranspose3dPlan, Convolution, Grid, ROOM_FOR_A_TILE,
    output_channels_per_thread,
};
use super::transposed_tiling::{TransposedTile, tiles};
use crate::error::Error;
use crate::ops::conv_problem::ConvTranspose3dProblem;
use crate::tensor::Shape;

impl ConvTranspose3dAlgorithm {
    /// Why this algorithm cannot compute `problem` on a device of these capabilities, or nothing if it can. The planner,
    /// the autotuner and the tests ask this function alone.
    pub fn unsupported(self, problem: &ConvTranspose3dProblem, caps: &DeviceCaps) -> Option<Error> {
        match self {
            Self::Direct => None,
            Self::Gemm => gemm_obstacle(problem).or_else(|| {
                let none = gemm_plans(problem, caps).is_empty();
                none.then(|| self.refuse(CUBE_LIMITS, ROOM_FOR_A_TILE, caps.limits())).flatten()
            }),
        }
    }
}

impl Convolution for ConvTranspose3dProblem {
    type Algorithm = ConvTranspose3dAlgorithm;
    type Plan = ConvTranspose3dPlan;
    const OP: &'static str = "conv_transpose3d";

    fn algorithm_of(plan: &ConvTranspose3dPlan) -> ConvTranspose3dAlgorithm {
        plan.algorithm()
    }

    fn unsupported_by(&self, algorithm: ConvTranspose3dAlgorithm, caps: &DeviceCaps) -> Option<Error> {
        algorithm.unsupported(self, caps)
    }

    fn candidates(&self, caps: &DeviceCaps, algorithm: Option<ConvTranspose3dAlgorithm>) -> Vec<ConvTranspose3dPlan> {
        let mut all = Vec::new();
        if algorithm != Some(ConvTranspose3dAlgorithm::Direct) && gemm_obstacle(self).is_none() {
            all.extend(gemm_plans(self, caps));
        }
        if algorithm != Some(ConvTranspose3dAlgorithm::Gemm) {
            all.push(direct_plan(self));
        }
        all
    }

    fn shapes(&self) -> [Shape; 3] {
        [self.input_shape(), self.weight_shape(), self.output_shape()]
    }

    /// Input voxels, columns (tap, output channel), and input channels.
    fn product(&self) -> [usize; 3] {
        let [n, ci, d, h, w] = self.input_shape();
        [n * d * h * w, self.weight_shape()[1..].iter().product(), ci]
    }

    fn key(&self, caps: &DeviceCaps) -> String {
        let (x, w, y) = (self.input_shape(), self.weight_shape(), self.output_shape());
        let (stride, padding) = (self.stride(), self.padding());
        let steps =
            format!("stride {stride:?} padding {padding:?} dilation {:?} groups {}", self.dilation(), self.groups());
        format!("conv_transpose3d {} {x:?} by {w:?} to {y:?} {steps}", caps.dtype)
    }
}

/// What the matrix product cannot do: footprints that overlap or leave voxels out, and cut edges.
fn gemm_obstacle(problem: &ConvTranspose3dProblem) -> Option<Error> {
    let refuse =
        |what: &str, expected: String, found: String| ConvTranspose3dAlgorithm::Gemm.refuse(what, expected, found);
    let kernel = &problem.weight_shape()[2..];
    let (stride, dilation) = (problem.stride(), problem.dilation());
    let whole: Vec<_> = (0..3).map(|a| problem.input_shape()[2 + a].saturating_mul(stride[a])).collect();
    match problem {
        _ if problem.groups() != 1 => refuse("groups", "1".into(), problem.groups().to_string()),
        _ if kernel != stride => refuse("kernel", format!("the stride {stride:?}"), format!("{kernel:?}")),
        _ if problem.padding() != [0; 3] => refuse("padding", "none".into(), format!("{:?}", problem.padding())),
        _ if (0..3).any(|a| kernel[a] > 1 && dilation[a] > 1) => {
            refuse("dilation", "1".into(), format!("{dilation:?}"))
        }
        // The gradient of a convolution that left voxels at the end out.
        _ if problem.output_shape()[2..] != whole => {
            refuse("output", format!("{whole:?}"), format!("{:?}", &problem.output_shape()[2..]))
        }
        _ => None,
    }
}

fn direct_plan(problem: &ConvTranspose3dProblem) -> ConvTranspose3dPlan {
    let channels = output_channels_per_thread(problem.weight_shape()[1]);
    let outputs: usize = problem.output_shape().iter().product();
    let grid = Grid::of_threads(outputs / channels);
    ConvTranspose3dPlan { kernel: ConvTranspose3dKernel::Direct { channels }, grid }
}

/// The plans of the matrix product, with every tile that fits the device: first the largest whose cubes keep all
/// multiprocessors busy twice over, or without one the tile with the most cubes; then the others.
fn gemm_plans(problem: &ConvTranspose3dProblem, caps: &DeviceCaps) -> Vec<ConvTranspose3dPlan> {
    let [m, n, k] = problem.product();
    let plan = |t: TransposedTile| {
        let grid = Grid { cubes: m.div_ceil(t.tiles.m) * n.div_ceil(t.tiles.n), units: t.tiles.units };
        ConvTranspose3dPlan { kernel: ConvTranspose3dKernel::Gemm(t), grid }
    };
    let mut all: Vec<_> = tiles(caps, [n, k], problem.output_shape()[1]).into_iter().map(plan).collect();
    let busy = all.iter().position(|p| p.grid.cubes >= 2 * caps.multiprocessors);
    let most = (0..all.len()).max_by_key(|i| all[*i].grid.cubes);
    if let Some(best) = busy.or(most) {
        all[..=best].rotate_right(1);
    }
    all
}

#[cfg(test)]
#[path = "transposed_tests.rs"]
mod tests;
