//! The block on the CPU: a convolution that sums up what it writes, then norm and activation in one pass in place.

use super::ConvBlockNorm;
use crate::error::Result;
use crate::memory::Buffer;
use crate::ops::conv_problem::Conv3dProblem;
use crate::ops::conv3d::cpu as conv;
use crate::ops::norm::NormProblem;
use crate::ops::norm::cpu as norm;
use crate::tensor::Tensor;

/// `problem` is the convolution of all `xs` as one; operands are validated.
pub(super) fn conv_block(
    problem: &Conv3dProblem,
    xs: &[&Tensor],
    w: &Tensor,
    b: Option<&Tensor>,
    block: &ConvBlockNorm<'_>,
) -> Result<Buffer> {
    let weights = w.host_derived(|p| conv::fits(problem, p), |w| conv::pack(problem, w))?;
    let xs = xs.iter().map(|x| x.host_floats()).collect::<Result<Vec<_>>>()?;
    let bias = b.map(Tensor::host_floats).transpose()?;
    let (mut y, sums) = conv::conv3d_with_sums(problem, &xs, &weights, bias);
    let [groups, channels, d, h, w] = problem.output_shape();
    let problem = NormProblem { groups, positions: d * h * w, channels };
    let statistics = norm::Statistics::from_sums(&sums, problem.positions);
    let (weight, bias) =
        (block.weight.map(Tensor::host_floats).transpose()?, block.bias.map(Tensor::host_floats).transpose()?);
    norm::apply_in_place(&mut y, &statistics, weight, bias, block.eps, problem, block.slope);
    Ok(y)
}
