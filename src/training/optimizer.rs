//! Stochastic gradient descent with momentum.

use super::network::Gradients;
use crate::error::{Error, Result};
use crate::ops::{scale, sgd_step, squared_norm};
use crate::tensor::{DType, Tensor};

/// The settings of the optimiser: nnU-Net's by default.
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SgdOptions {
    /// The learning rate of the first epoch.
    pub learning_rate: f64,
    /// The momentum.
    pub momentum: f32,
    /// Whether it is Nesterov's.
    #[serde(default = "nesterov", skip_serializing_if = "is_nesterov")]
    pub nesterov: bool,
    /// The share of the weights that is added to the gradient.
    pub weight_decay: f32,
    /// The norm that all gradients together are scaled down to where theirs is larger; None for no such limit.
    pub clip: Option<f64>,
}

/// nnU-Net's choice, which is not written, so that checkpoints are those of versions without the setting.
fn nesterov() -> bool {
    true
}

fn is_nesterov(value: &bool) -> bool {
    *value == nesterov()
}

impl Default for SgdOptions {
    fn default() -> Self {
        Self { learning_rate: 0.01, momentum: 0.99, nesterov: nesterov(), weight_decay: 3e-5, clip: Some(12.0) }
    }
}

/// The learning rate of an epoch of `epochs`: rate * (1 - epoch / epochs)^0.9.
pub fn polynomial(rate: f64, epoch: u64, epochs: u64) -> f64 {
    rate * (1.0 - epoch as f64 / epochs.max(1) as f64).max(0.0).powf(0.9)
}

/// The momentum of every weight.
#[derive(Debug, Clone)]
pub struct Sgd {
    options: SgdOptions,
    /// None before a weight's first gradient, which stands for zeros.
    buffers: Vec<Option<Tensor>>,
}

impl Sgd {
    /// An optimiser for the weights of a network, without momentum yet.
    ///
    /// # Errors
    /// Settings that are negative or not finite.
    pub fn new(weights: &[Tensor], options: SgdOptions) -> Result<Self> {
        let SgdOptions { learning_rate, momentum, weight_decay, clip, .. } = options;
        let named = [
            ("learning rate", learning_rate),
            ("momentum", momentum.into()),
            ("weight decay", weight_decay.into()),
            ("gradient norm", clip.unwrap_or(0.0)),
        ];
        for (name, value) in named {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::argument(format!("training: {name}"), "a finite number of at least 0", value));
            }
        }
        Ok(Self { options, buffers: vec![None; weights.len()] })
    }

    /// The settings.
    pub fn options(&self) -> &SgdOptions {
        &self.options
    }

    /// The momentum of every weight; None before its first gradient.
    pub fn buffers(&self) -> &[Option<Tensor>] {
        &self.buffers
    }

    /// Replaces the momentum of every weight.
    ///
    /// # Errors
    /// Another number of buffers than weights.
    pub fn set_buffers(&mut self, buffers: Vec<Option<Tensor>>) -> Result<()> {
        if buffers.len() != self.buffers.len() {
            return Err(Error::argument("training: momentum buffers", self.buffers.len(), buffers.len()));
        }
        self.buffers = buffers;
        Ok(())
    }

    /// The weights after one step, and the norm of all gradients before they were clipped. A weight without a gradient stays as it is,
    /// as in PyTorch. A norm that is not finite changes nothing.
    ///
    /// # Errors
    /// Weights or gradients of another network; a device that fails.
    pub fn step(&mut self, weights: &[Tensor], gradients: &Gradients, rate: f64) -> Result<(Vec<Tensor>, f64)> {
        let all = gradients.all();
        for (what, count) in [("weights", weights.len()), ("gradients", all.len())] {
            if count != self.buffers.len() {
                return Err(Error::argument(format!("training: {what}"), self.buffers.len(), count));
            }
        }
        let mut squares = 0.0;
        for gradient in all.iter().flatten() {
            squares += squared_norm(gradient)?;
        }
        let norm = squares.sqrt();
        if !norm.is_finite() {
            return Ok((weights.to_vec(), norm));
        }
        // PyTorch's clip_grad_norm_.
        let factor = self.options.clip.map_or(1.0, |clip| (clip / (norm + 1e-6)) as f32);
        let mut weights = weights.to_vec();
        for ((weight, buffer), gradient) in weights.iter_mut().zip(&mut self.buffers).zip(all) {
            let Some(gradient) = gradient else { continue };
            let clipped = if factor < 1.0 { &scale(gradient, factor)? } else { gradient };
            let last = match buffer.take() {
                Some(buffer) => buffer,
                None => Tensor::zeros(&weight.device(), weight.shape(), DType::F32)?,
            };
            let SgdOptions { momentum, nesterov, weight_decay, .. } = self.options;
            let (new, kept) = sgd_step(weight, clipped, &last, rate as f32, momentum, nesterov, weight_decay)?;
            (*weight, *buffer) = (new, Some(kept));
        }
        Ok((weights, norm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_to_nothing() {
        assert_eq!(polynomial(0.01, 0, 1000), 0.01);
        assert!((polynomial(0.01, 500, 1000) - 0.01 * 0.5f64.powf(0.9)).abs() < 1e-12);
        assert_eq!(polynomial(0.01, 1000, 1000), 0.0);
    }
}
