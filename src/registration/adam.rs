//! Adam.

use crate::ops::affine_dice::Matrix;

/// Decays of the moments and the term that keeps the division finite, as PyTorch's `Adam`.
const DECAY: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// Adam (Kingma and Ba, 2015) on the 12 parameters of an affine map, as PyTorch's with its defaults.
#[derive(Debug, Clone)]
pub struct Adam {
    learning_rate: f64,
    first: [f64; 12],
    second: [f64; 12],
    decayed: [f64; 2],
}

impl Adam {
    /// Before the first step.
    pub fn new(learning_rate: f64) -> Self {
        Self { learning_rate, first: [0.0; 12], second: [0.0; 12], decayed: [1.0; 2] }
    }

    /// One step against `gradient`.
    pub fn step(&mut self, parameters: &mut Matrix, gradient: &Matrix) {
        for (decayed, decay) in self.decayed.iter_mut().zip(DECAY) {
            *decayed *= decay;
        }
        let moments = self.first.iter_mut().zip(&mut self.second);
        let values = parameters.as_flattened_mut().iter_mut().zip(gradient.as_flattened());
        for ((value, gradient), (first, second)) in values.zip(moments) {
            *first = DECAY[0] * *first + (1.0 - DECAY[0]) * gradient;
            *second = DECAY[1] * *second + (1.0 - DECAY[1]) * gradient * gradient;
            let spread = (*second / (1.0 - self.decayed[1])).sqrt() + EPSILON;
            *value -= self.learning_rate * (*first / (1.0 - self.decayed[0])) / spread;
        }
    }
}
