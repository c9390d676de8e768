//! The problem of a transposed convolution.

use super::forward::{AXES, Conv3dProblem, ensure_no_empty_axis, ensure_steps, padded_extent};
use crate::error::{Error, Result};
use crate::tensor::{Shape, checked_len};

/// How the input is spread over the output. Every triple is (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvTranspose3dParams {
    /// Output voxels between the footprints of neighbouring inputs.
    pub stride: [usize; 3],
    /// Output voxels cut off at both ends.
    pub padding: [usize; 3],
}

impl Default for ConvTranspose3dParams {
    fn default() -> Self {
        Self { stride: [1; 3], padding: [0; 3] }
    }
}

/// Shapes and parameters that fit together. Wider than [`ConvTranspose3dParams`], so that the data gradient of every
/// convolution is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvTranspose3dProblem {
    input: Shape,
    weight: Shape,
    output: Shape,
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
}

impl ConvTranspose3dProblem {
    /// Checks `input` [n, ci, d, h, w] against `weight` [ci, co, kd, kh, kw].
    ///
    /// # Errors
    /// An axis of size 0; a weight for other channels; a padding that cuts everything off; an output that does not fit
    /// in memory.
    pub fn new(input: Shape, weight: Shape, params: ConvTranspose3dParams) -> Result<Self> {
        let ConvTranspose3dParams { stride, padding } = params;
        ensure_no_empty_axis("conv_transpose3d: input", input)?;
        ensure_no_empty_axis("conv_transpose3d: weight", weight)?;
        ensure_steps("conv_transpose3d: stride", stride)?;
        if weight[0] != input[1] {
            return Err(Error::shape(
                "conv_transpose3d: weight",
                format!("{} input channels", input[1]),
                format!("{} in {weight:?}", weight[0]),
            ));
        }
        let mut output = [input[0], weight[1], 0, 0, 0];
        for axis in 0..3 {
            let spread = (input[2 + axis] - 1).saturating_mul(stride[axis]);
            let full = padded_extent("conv_transpose3d", axis, spread.saturating_add(weight[2 + axis]), 0)?;
            output[2 + axis] = padding[axis].checked_mul(2).and_then(|p| full.checked_sub(p)).unwrap_or(0);
            if output[2 + axis] == 0 {
                return Err(Error::shape(
                    format!("conv_transpose3d: padding along {}", AXES[axis]),
                    format!("less than half of the {full} voxels before it"),
                    padding[axis],
                ));
            }
        }
        checked_len("conv_transpose3d: output", output)?;
        Ok(Self { input, weight, output, stride, padding, dilation: [1; 3], groups: 1 })
    }

    /// The transposed convolution that takes the gradient by the output of `forward` back to its input, with the same
    /// weight.
    pub fn data_gradient(forward: &Conv3dProblem) -> Self {
        let params = forward.params();
        Self {
            input: forward.output_shape(),
            weight: forward.weight_shape(),
            output: forward.input_shape(),
            stride: params.stride,
            padding: params.padding,
            dilation: params.dilation,
            groups: params.groups,
        }
    }

    /// Shape of the input, [n, ci, d, h, w].
    pub fn input_shape(&self) -> Shape {
        self.input
    }

    /// Shape of the weight, [ci, co / groups, kd, kh, kw].
    pub fn weight_shape(&self) -> Shape {
        self.weight
    }

    /// Shape of the output, [n, co, od, oh, ow]: od = (d - 1) stride - 2 padding + kd, or the input of the convolution that
    /// it is the gradient of.
    pub fn output_shape(&self) -> Shape {
        self.output
    }

    /// Stride along (z, y, x).
    pub fn stride(&self) -> [usize; 3] {
        self.stride
    }

    /// Padding along (z, y, x).
    pub fn padding(&self) -> [usize; 3] {
        self.padding
    }

    /// Dilation along (z, y, x): 1 unless the problem is a gradient.
    pub fn dilation(&self) -> [usize; 3] {
        self.dilation
    }

    /// Groups of channels: 1 unless the problem is a gradient.
    pub fn groups(&self) -> usize {
        self.groups
    }
}
