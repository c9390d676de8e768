//! A residual block in training.

use super::gradients::Gradients;
use super::layers::{self, Block, SavedBlock, Wanted};
use crate::error::Result;
use crate::ops::{Pool3dParams, add, add_leaky_relu, avg_pool3d, avg_pool3d_backward, leaky_relu_backward};
use crate::tensor::{Shape, Tensor};

/// The activation of the sum of the convolutions' output and the input, which is pooled and projected where size or channels change.
#[derive(Debug, Clone)]
pub(super) struct Residual {
    pub(super) convs: Vec<Block>,
    pub(super) pool: Option<[usize; 3]>,
    pub(super) projection: Option<Block>,
    pub(super) slope: f32,
}

/// What the gradient of a residual block needs.
pub(super) struct SavedResidual {
    convs: Vec<SavedBlock>,
    input: Shape,
    projection: Option<SavedBlock>,
    /// The block's output, whose signs are those of the sum.
    out: Tensor,
}

impl Residual {
    fn pooling(stride: [usize; 3]) -> Pool3dParams {
        Pool3dParams { kernel: stride, stride, padding: [0; 3] }
    }

    pub(super) fn forward(&self, x: Tensor, weights: &[Tensor]) -> Result<(Tensor, SavedResidual)> {
        let input = x.shape();
        let mut skip = match self.pool {
            Some(stride) => avg_pool3d(&x, &Self::pooling(stride))?,
            None => x.clone(),
        };
        let mut projection = None;
        if let Some(block) = &self.projection {
            let (projected, saved) = block.forward(skip, weights)?;
            (skip, projection) = (projected, Some(saved));
        }
        let (y, convs) = layers::forward(&self.convs, x, weights)?;
        let out = add_leaky_relu(&y, &skip, self.slope)?;
        Ok((out.clone(), SavedResidual { convs, input, projection, out }))
    }

    pub(super) fn backward(
        &self,
        saved: SavedResidual,
        dout: &Tensor,
        weights: &[Tensor],
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let dsum = leaky_relu_backward(&saved.out, self.slope, dout)?;
        let mut dskip = Some(dsum.clone());
        if let (Some(block), Some(kept)) = (&self.projection, saved.projection) {
            dskip = block.backward(kept, &dsum, weights, Wanted::All, gradients)?;
        }
        if let (Some(stride), Some(dpooled)) = (self.pool, &dskip) {
            dskip = Some(avg_pool3d_backward(saved.input, &Self::pooling(stride), dpooled)?);
        }
        let dx = layers::backward(&self.convs, saved.convs, dsum, weights, Wanted::All, gradients)?;
        match (dx, dskip) {
            (Some(dx), Some(dskip)) => Ok(Some(add(&dx, &dskip)?)),
            _ => Ok(None),
        }
    }
}
