//! The layers of a network in training: each keeps what its gradient needs.

use super::gradients::Gradients;
use super::parameters::Id;
use crate::error::Result;
use crate::ops::{
    Conv3dParams, ConvTranspose3dParams, conv_transpose3d, conv_transpose3d_backward, conv3d, conv3d_backward,
    conv3d_backward_weights, instance_norm, instance_norm_backward, leaky_relu,
};
use crate::tensor::Tensor;

/// A convolution.
#[derive(Debug, Clone)]
pub(in crate::training) struct Conv {
    pub(in crate::training) weight: Id,
    pub(in crate::training) bias: Option<Id>,
    pub(in crate::training) params: Conv3dParams,
}

/// A convolution, an instance norm (or none) and a leaky ReLU; a slope of 1 is no activation.
#[derive(Debug, Clone)]
pub(in crate::training) struct Block {
    pub(in crate::training) conv: Conv,
    pub(in crate::training) norm: Norm,
    pub(in crate::training) slope: f32,
}

/// An instance norm with or without weights.
#[derive(Debug, Clone)]
pub(in crate::training) struct Norm {
    pub(in crate::training) affine: Option<[Id; 2]>,
    pub(in crate::training) eps: f32,
}

/// A transposed convolution whose kernel is its stride.
#[derive(Debug, Clone)]
pub(in crate::training) struct Up {
    pub(in crate::training) weight: Id,
    pub(in crate::training) bias: Option<Id>,
    pub(in crate::training) stride: [usize; 3],
}

/// What the gradient of a block needs: its input and the convolution's output.
pub(in crate::training) struct SavedBlock {
    x: Tensor,
    y: Tensor,
}

/// Which gradients a layer gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::training) enum Wanted {
    /// Those of its weights and of its input.
    All,
    /// Those of its weights: its input is the image.
    Weights,
}

impl Conv {
    pub(in crate::training) fn forward(&self, x: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        conv3d(x, &weights[self.weight.0], self.bias.map(|id| &weights[id.0]), &self.params)
    }

    pub(in crate::training) fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        weights: &[Tensor],
        wanted: Wanted,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let weight = &weights[self.weight.0];
        let (dx, dw, db) = if wanted == Wanted::All {
            let found = conv3d_backward(x, weight, dy, &self.params)?;
            (Some(found.dx), found.dw, found.db)
        } else {
            let (dw, db) = conv3d_backward_weights(x, weight, dy, &self.params)?;
            (None, dw, db)
        };
        gradients.set(self.weight, dw);
        if let Some(bias) = self.bias {
            gradients.set(bias, db);
        }
        Ok(dx)
    }
}

impl Block {
    pub(in crate::training) fn forward(&self, x: Tensor, weights: &[Tensor]) -> Result<(Tensor, SavedBlock)> {
        let y = self.conv.forward(&x, weights)?;
        let [weight, bias] = self.affine(weights);
        let normed = instance_norm(&y, weight, bias, self.norm.eps)?;
        let out = if self.slope == 1.0 { normed } else { leaky_relu(&normed, self.slope)? };
        Ok((out, SavedBlock { x, y }))
    }

    pub(in crate::training) fn backward(
        &self,
        saved: SavedBlock,
        dout: &Tensor,
        weights: &[Tensor],
        wanted: Wanted,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let [weight, bias] = self.affine(weights);
        let found = instance_norm_backward(&saved.y, weight, bias, self.norm.eps, self.slope, dout)?;
        if let Some([weight, bias]) = self.norm.affine {
            gradients.set(weight, found.dweight);
            gradients.set(bias, found.dbias);
        }
        drop(saved.y);
        self.conv.backward(&saved.x, &found.dx, weights, wanted, gradients)
    }

    fn affine<'a>(&self, weights: &'a [Tensor]) -> [Option<&'a Tensor>; 2] {
        match self.norm.affine {
            Some(ids) => ids.map(|id| Some(&weights[id.0])),
            None => [None; 2],
        }
    }
}

impl Up {
    fn params(&self) -> ConvTranspose3dParams {
        ConvTranspose3dParams { stride: self.stride, ..Default::default() }
    }

    pub(in crate::training) fn forward(&self, x: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        conv_transpose3d(x, &weights[self.weight.0], self.bias.map(|id| &weights[id.0]), &self.params())
    }

    pub(in crate::training) fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        weights: &[Tensor],
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let found = conv_transpose3d_backward(x, &weights[self.weight.0], dy, &self.params())?;
        gradients.set(self.weight, found.dw);
        if let Some(bias) = self.bias {
            gradients.set(bias, found.db);
        }
        Ok(found.dx)
    }
}

/// Applies blocks one after the other.
pub(in crate::training) fn forward(
    blocks: &[Block],
    mut x: Tensor,
    weights: &[Tensor],
) -> Result<(Tensor, Vec<SavedBlock>)> {
    let mut saved = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (out, kept) = block.forward(x, weights)?;
        saved.push(kept);
        x = out;
    }
    Ok((x, saved))
}

/// The gradient by the input of the first block, where it is wanted.
pub(in crate::training) fn backward(
    blocks: &[Block],
    saved: Vec<SavedBlock>,
    mut dout: Tensor,
    weights: &[Tensor],
    wanted: Wanted,
    gradients: &mut Gradients,
) -> Result<Option<Tensor>> {
    for (number, (block, saved)) in blocks.iter().zip(saved).enumerate().rev() {
        let own = if number == 0 { wanted } else { Wanted::All };
        match block.backward(saved, &dout, weights, own, gradients)? {
            Some(dx) => dout = dx,
            None => return Ok(None),
        }
    }
    Ok(Some(dout))
}
