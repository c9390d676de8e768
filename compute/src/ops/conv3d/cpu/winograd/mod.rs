//! Convolution by Winograd's minimal filtering F(2, 3) along every axis with three taps: kernels 3x3x3 and 1x3x3 of stride 1.
//!
//! A tile of two outputs along an axis reads four inputs d and is Aᵀ((G g) ⊙ (Bᵀ d)) for the taps g:
//!
//! ```text
//! Bᵀ d = [d0 - d2, d1 + d2, d2 - d1, d1 - d3]
//! G g  = [g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2]
//! Aᵀ m = [m0 + m1 + m2, m1 - m2 - m3]
//! ```
//!
//! Applied along three axes, a tile of 2x2x2 outputs takes 64 products a pair of channels instead of 216; along two, 16
//! instead of 36. For each of the 64 (16) points the products over the channels are a matrix product of the tiles' transformed
//! inputs V [tiles, ci] and the transformed weights U [ci, co]. Weights are transformed once, in f64.
//!
//! An output combines only inputs of its own receptive field, so that a voxel that is not finite reaches the same outputs as in the
//! direct sum, as NaN where that may be infinite; V adds up to eight inputs, which overflow from 4e37 on. With u = 2^-24 and
//! gamma(k) = k u / (1 - k u) the error is at most gamma(ci + 3 axes + 3) times |A|ᵀ((|G| |g|) ⊙ (|B|ᵀ |d|)) summed over the channels,
//! plus the bias: each axis adds one rounding in V and two in the output, U is rounded once, and so are the products and the bias. A
//! prototype's errors were half the direct sum's on average, since a sum is over ci products and not 27 ci. Sources: Winograd 1980;
//! Lavin and Gray 2016.
//!
//! Tiles are worked on in blocks. A block is transformed, multiplied in place and transformed back, so that V stays in the cache of the
//! core. Where the weights are too large to be read again for every block, all threads share one large block and divide its points
//! among them. Which of the two is chosen, and what a block is, depends on the shapes and the instruction set, and no sum spans two tiles
//! but those of the outputs, which are added in the order of the blocks: results have the same bits for any number of threads. Counts,
//! sizes that were tried and times are in docs/performance-log.md ("CPU convolution, minimal filtering").

mod block;
pub(super) mod gradient;
mod gradient_blocks;
mod gradient_taps;
#[cfg(test)]
mod gradient_tests;
mod grid;
mod input;
mod output;
mod product;
#[cfg(test)]
mod tests;
mod weights;

use rayon::prelude::*;

use super::sums::Shared;
use crate::memory::Scratch;
use crate::ops::conv_problem::Conv3dProblem;
use crate::ops::simd::{Kernel, Simd};
use block::{Layout, Step, Task, Winograd};
use grid::Grid;
use input::Input;
pub(in crate::ops) use weights::TransformedWeights;

/// Channels, of the input and of the output, from which the transforms cost less than they save.
const LEAST_CHANNELS: usize = 16;
/// The same of a gradient by the input, beside the transposed convolution.
const LEAST_CHANNELS_OF_GRADIENT: usize = 8;

/// Whether minimal filtering applies to the problem and is expected to be faster. That hangs on the weights and the parameters alone, not on
/// the size of the images, so that transformed weights serve images of every size. The worst sizes, 1 and 3 along every axis, compute 8 and 2.4
/// times the outputs, of which there are few.
pub(super) fn suits(problem: &Conv3dProblem) -> bool {
    grid::applies(problem, LEAST_CHANNELS)
}

/// As [`suits`] of a convolution that gives a gradient by the input.
pub(super) fn suits_gradient(problem: &Conv3dProblem) -> bool {
    grid::applies(problem, LEAST_CHANNELS_OF_GRADIENT)
}

/// Writes the convolution of the channels-last inputs `xs`, whose channels follow each other, into `y` [n, od, oh, ow, co].
pub(super) fn convolve(
    problem: &Conv3dProblem,
    xs: &[&[f32]],
    weights: &TransformedWeights,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let grid = Grid::of(problem, problem.input_shape()[0]);
    run(grid, &Layout::of(weights, &grid), xs, weights, bias, y, false);
}

/// As [`convolve`] of a single image, and the sum of y and of its squares per output channel, in f64.
pub(super) fn convolve_and_sum(
    problem: &Conv3dProblem,
    xs: &[&[f32]],
    weights: &TransformedWeights,
    bias: Option<&[f32]>,
    y: &mut [f32],
) -> Vec<[f64; 2]> {
    let grid = Grid::of(problem, 1);
    run(grid, &Layout::of(weights, &grid), xs, weights, bias, y, true)
}

fn run(
    grid: Grid,
    layout: &Layout,
    xs: &[&[f32]],
    weights: &TransformedWeights,
    bias: Option<&[f32]>,
    y: &mut [f32],
    summed: bool,
) -> Vec<[f64; 2]> {
    let co = weights.co;
    let blocks = grid.tiles().div_ceil(layout.group);
    let mut parts = vec![[0.0; 2]; if summed { blocks * co } else { 0 }];
    let winograd = Winograd {
        grid,
        weights,
        bias: weights.padded(bias),
        xs,
        zeros: vec![0.0; weights.lanes()],
        output: Shared(y.as_mut_ptr()),
        sums: summed.then_some(Shared(parts.as_mut_ptr())),
    };
    if layout.shared {
        winograd.in_shared_blocks(layout)
    } else {
        winograd.in_own_blocks(layout)
    }
    let mut sums = vec![[0.0; 2]; co];
    for part in parts.chunks_exact(co) {
        for (sum, part) in sums.iter_mut().zip(part) {
            *sum = [sum[0] + part[0], sum[1] + part[1]];
        }
    }
    sums
}

impl Winograd<'_> {
    /// Each thread computes blocks of its own.
    fn in_own_blocks(&self, layout: &Layout) {
        let tiles = self.grid.tiles();
        let floats = self.weights.points() * layout.point;
        (0..tiles.div_ceil(layout.block)).into_par_iter().for_each_init(
            || Scratch::unwritten(floats),
            |v, block| {
                let start = block * layout.block;
                let count = layout.block.min(tiles - start);
                self.step(layout, start, Shared(v.as_mut_ptr()), Step::All { count });
            },
        );
    }

    /// All threads compute one block after the other.
    fn in_shared_blocks(&self, layout: &Layout) {
        let (tiles, points) = (self.grid.tiles(), self.weights.points());
        let mut v = Scratch::unwritten(points * layout.point);
        let v = Shared(v.as_mut_ptr());
        for start in (0..tiles).step_by(layout.block) {
            let tiles = layout.block.min(tiles - start);
            let groups = (0..tiles.div_ceil(layout.group)).into_par_iter().map(|group| {
                let first = group * layout.group;
                (first, layout.group.min(tiles - first))
            });
            groups.clone().for_each(|(first, count)| self.step(layout, start, v, Step::Input { first, count }));
            (0..points).into_par_iter().for_each(|point| {
                self.step(layout, start, v, Step::Product { point, count: tiles });
            });
            groups.for_each(|(first, count)| self.step(layout, start, v, Step::Output { first, count }));
        }
    }

    fn step(&self, layout: &Layout, start: usize, v: Shared<f32>, step: Step) {
        self.weights.isa.run(Task { winograd: self, layout: *layout, start, v, step });
    }
}

impl Kernel for Task<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.winograd.grid.deep { self.depth::<S, 4>(simd) } else { self.depth::<S, 1>(simd) }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn input(&self) -> Input<'_> {
        let Winograd { grid, weights, xs, zeros, .. } = self.winograd;
        let channels = weights.ci / xs.len();
        Input { grid, xs, channels, zeros, v: self.v, row: self.layout.row, point: self.layout.point }
    }

    /// With `D` points along z.
    #[inline(always)]
    fn depth<S: Simd, const D: usize>(self, simd: S) {
        match self.step {
            Step::Input { first, count } => self.input().transform::<S, D>(simd, self.start, first, count),
            Step::Product { point, count } => self.products(simd, point..point + 1, count),
            Step::Output { first, count } => self.output::<S, D>(simd, first, count),
            Step::All { count } => {
                self.input().transform::<S, D>(simd, self.start, 0, count);
                self.products(simd, 0..16 * D, count);
                self.output::<S, D>(simd, 0, count);
            }
        }
    }
}
