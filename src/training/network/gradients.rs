//! The gradients of all weights of a network.

use super::parameters::Id;
use crate::tensor::Tensor;

/// A gradient for each weight; None for one that had no part in the loss.
#[derive(Debug, Clone)]
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    pub(in crate::training) fn none(count: usize) -> Self {
        Self(vec![None; count])
    }

    pub(in crate::training) fn set(&mut self, id: Id, gradient: Tensor) {
        self.0[id.0] = Some(gradient);
    }

    /// The gradients in the order of the weights.
    pub fn all(&self) -> &[Option<Tensor>] {
        &self.0
    }
}
