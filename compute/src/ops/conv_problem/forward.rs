//! The problem of a convolution.

use crate::error::{Error, Result};
use crate::tensor::{Shape, checked_len};

/// Names of the spatial axes in messages.
pub(super) const AXES: [&str; 3] = ["z", "y", "x"];

/// Padded extents, strides and dilations stay below this, so that device code may count in 32 bits.
const EXTENT_LIMIT: usize = 1 << 31;

/// How the kernel moves over the input. Every triple is (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv3dParams {
    /// Input voxels between neighbouring outputs.
    pub stride: [usize; 3],
    /// Zeros before the first and after the last voxel.
    pub padding: [usize; 3],
    /// Input voxels between neighbouring taps.
    pub dilation: [usize; 3],
    /// Channels are split into this many groups that do not see each other.
    pub groups: usize,
}

impl Default for Conv3dParams {
    fn default() -> Self {
        Self { stride: [1; 3], padding: [0; 3], dilation: [1; 3], groups: 1 }
    }
}

/// Shapes and parameters that fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv3dProblem {
    input: Shape,
    weight: Shape,
    output: Shape,
    params: Conv3dParams,
}

impl Conv3dProblem {
    /// Checks `input` [n, ci, d, h, w] against `weight` [co, ci / groups, kd, kh, kw].
    ///
    /// # Errors
    /// An axis of size 0; channels that the groups do not divide; a weight for other channels; a kernel larger than
    /// the padded input; an output that does not fit in memory.
    pub fn new(input: Shape, weight: Shape, params: Conv3dParams) -> Result<Self> {
        let Conv3dParams { stride, padding, dilation, groups } = params;
        ensure_no_empty_axis("conv3d: input", input)?;
        ensure_no_empty_axis("conv3d: weight", weight)?;
        ensure_steps("conv3d: stride", stride)?;
        ensure_steps("conv3d: dilation", dilation)?;
        expect_groups("conv3d: groups", "input", input[1], groups)?;
        expect_groups("conv3d: groups", "output", weight[0], groups)?;
        if weight[1] != input[1] / groups {
            let expected = format!("{} channels an output ({} / {groups} groups)", input[1] / groups, input[1]);
            return Err(Error::shape("conv3d: weight", expected, format!("{} in {weight:?}", weight[1])));
        }
        let mut output = [input[0], weight[0], 0, 0, 0];
        for axis in 0..3 {
            let padded = padded_extent("conv3d", axis, input[2 + axis], padding[axis])?;
            let extent = (weight[2 + axis] - 1).saturating_mul(dilation[axis]).saturating_add(1);
            if extent > padded {
                return Err(Error::shape(
                    format!("conv3d: kernel along {}", AXES[axis]),
                    format!("at most {padded} voxels ({} and padding {} twice)", input[2 + axis], padding[axis]),
                    format!("{extent} (size {}, dilation {})", weight[2 + axis], dilation[axis]),
                ));
            }
            output[2 + axis] = (padded - extent) / stride[axis] + 1;
        }
        checked_len("conv3d: output", output)?;
        Ok(Self { input, weight, output, params })
    }

    /// Shape of the input, [n, ci, d, h, w].
    pub fn input_shape(&self) -> Shape {
        self.input
    }

    /// Shape of the weight, [co, ci / groups, kd, kh, kw].
    pub fn weight_shape(&self) -> Shape {
        self.weight
    }

    /// Shape of the output, [n, co, od, oh, ow], with od = floor((d + 2 padding - dilation (kd - 1) - 1) / stride) + 1.
    pub fn output_shape(&self) -> Shape {
        self.output
    }

    /// The parameters that the problem was made with.
    pub fn params(&self) -> Conv3dParams {
        self.params
    }

    /// Multiplications and additions of one pass, those with the padding included.
    pub fn flops(&self) -> u64 {
        let macs = self.output.iter().chain(&self.weight[1..]).map(|&d| d as u64);
        2 * macs.fold(1, u64::saturating_mul)
    }
}

/// Refuses shapes without elements: a convolution of nothing has no meaning that libraries agree on.
pub(super) fn ensure_no_empty_axis(what: &str, shape: Shape) -> Result<()> {
    if shape.contains(&0) {
        return Err(Error::shape(what, "at least 1 along every axis", format!("{shape:?}")));
    }
    Ok(())
}

/// Refuses strides and dilations that are 0 or beyond the limit.
pub(super) fn ensure_steps(what: &str, steps: [usize; 3]) -> Result<()> {
    if steps.iter().any(|s| !(1..EXTENT_LIMIT).contains(s)) {
        return Err(Error::argument(
            what,
            format!("from 1 to {} along every axis", EXTENT_LIMIT - 1),
            format!("{steps:?}"),
        ));
    }
    Ok(())
}

fn expect_groups(what: &str, side: &str, channels: usize, groups: usize) -> Result<()> {
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::argument(what, format!("a divisor of the {channels} {side} channels"), groups));
    }
    Ok(())
}

/// `size` + 2 `padding`, refused where it is not below the limit.
pub(super) fn padded_extent(op: &str, axis: usize, size: usize, padding: usize) -> Result<usize> {
    padding.checked_mul(2).and_then(|p| p.checked_add(size)).filter(|&p| p < EXTENT_LIMIT).ok_or_else(|| {
        Error::argument(
            format!("{op}: padding along {}", AXES[axis]),
            format!("a padded size below {EXTENT_LIMIT}"),
            format!("{padding} on both sides of {size}"),
        )
    })
}
