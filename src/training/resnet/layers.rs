//! The layers of a ResNet in training: each keeps what its gradient needs.

use crate::error::Result;
use crate::models::BATCH_NORM_EPS;
use crate::ops::{
    add, add_leaky_relu, add_scaled, batch_norm_train, batch_norm_train_backward, leaky_relu_backward, relu, scale,
};
use crate::tensor::Tensor;
use crate::training::network::Gradients;
use crate::training::network::layers::{Conv, Wanted};
use crate::training::network::parameters::Id;

const EPS: f32 = BATCH_NORM_EPS as f32;
/// The share of a batch's statistics in the running ones: PyTorch's default.
const MOMENTUM: f32 = 0.1;

/// A convolution without bias, a batch norm by the statistics of the batch, and a ReLU or none.
#[derive(Debug, Clone)]
pub(super) struct ConvNorm {
    pub(super) conv: Conv,
    /// Weight and bias of the norm.
    pub(super) norm: [Id; 2],
    /// The index of the running mean among the statistics; the running variance is behind it.
    pub(super) statistics: usize,
    pub(super) relu: bool,
}

/// What the gradient of a [`ConvNorm`] needs: its input and the convolution's output.
pub(super) struct SavedConvNorm {
    x: Tensor,
    y: Tensor,
}

impl ConvNorm {
    pub(super) fn forward(
        &self,
        x: Tensor,
        weights: &[Tensor],
        statistics: &mut [Tensor],
    ) -> Result<(Tensor, SavedConvNorm)> {
        let y = self.conv.forward(&x, weights)?;
        let [weight, bias] = self.norm.map(|id| &weights[id.0]);
        let normed = batch_norm_train(&y, Some(weight), Some(bias), EPS)?;
        for (running, own) in statistics[self.statistics..].iter_mut().zip([&normed.mean, &normed.var]) {
            *running = add_scaled(&scale(running, 1.0 - MOMENTUM)?, own, MOMENTUM)?;
        }
        let out = if self.relu { relu(&normed.y)? } else { normed.y };
        Ok((out, SavedConvNorm { x, y }))
    }

    pub(super) fn backward(
        &self,
        saved: SavedConvNorm,
        dout: &Tensor,
        weights: &[Tensor],
        wanted: Wanted,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let [weight, bias] = self.norm.map(|id| &weights[id.0]);
        let slope = if self.relu { 0.0 } else { 1.0 };
        let found = batch_norm_train_backward(&saved.y, Some(weight), Some(bias), EPS, slope, dout)?;
        for (id, gradient) in self.norm.into_iter().zip([found.dweight, found.dbias]) {
            gradients.set(id, gradient);
        }
        drop(saved.y);
        self.conv.backward(&saved.x, &found.dx, weights, wanted, gradients)
    }
}

/// A residual block: the ReLU of the convolutions' output and the input, or its strided 1x1 projection.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) convs: Vec<ConvNorm>,
    pub(super) projection: Option<ConvNorm>,
}

/// What the gradient of a block needs.
pub(super) struct SavedBlock {
    convs: Vec<SavedConvNorm>,
    projection: Option<SavedConvNorm>,
    /// The block's output, whose signs are those of the sum.
    out: Tensor,
}

impl Block {
    pub(super) fn forward(
        &self,
        x: Tensor,
        weights: &[Tensor],
        statistics: &mut [Tensor],
    ) -> Result<(Tensor, SavedBlock)> {
        let (mut skip, mut projection) = (x.clone(), None);
        if let Some(conv) = &self.projection {
            let (projected, saved) = conv.forward(skip, weights, statistics)?;
            (skip, projection) = (projected, Some(saved));
        }
        let (mut y, mut convs) = (x, Vec::with_capacity(self.convs.len()));
        for conv in &self.convs {
            let (out, saved) = conv.forward(y, weights, statistics)?;
            convs.push(saved);
            y = out;
        }
        let out = add_leaky_relu(&y, &skip, 0.0)?;
        Ok((out.clone(), SavedBlock { convs, projection, out }))
    }

    /// The gradient by the block's input.
    pub(super) fn backward(
        &self,
        saved: SavedBlock,
        dout: &Tensor,
        weights: &[Tensor],
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let dsum = leaky_relu_backward(&saved.out, 0.0, dout)?;
        drop(saved.out);
        let mut dskip = dsum.clone();
        if let (Some(conv), Some(kept)) = (&self.projection, saved.projection)
            && let Some(dx) = conv.backward(kept, &dsum, weights, Wanted::All, gradients)?
        {
            dskip = dx;
        }
        let mut dx = dsum;
        for (conv, kept) in self.convs.iter().zip(saved.convs).rev() {
            if let Some(found) = conv.backward(kept, &dx, weights, Wanted::All, gradients)? {
                dx = found;
            }
        }
        add(&dx, &dskip)
    }
}
