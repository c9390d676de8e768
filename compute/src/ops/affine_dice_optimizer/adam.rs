//! The optimiser Adam.

/// The decays of the two moments, as PyTorch's `Adam`.
const DECAY: [f64; 2] = [0.9, 0.999];
/// The term that keeps the division finite, as PyTorch's `Adam`.
const EPSILON: f64 = 1e-8;

/// The constants of the kernels are not available without the feature `gpu`; these are the same numbers.
#[cfg(feature = "gpu")]
const _: () = {
    use nephron_kernels::affine_dice::{BETA_1, BETA_2, EPSILON as EPSILON_F32};
    assert!(BETA_1 == DECAY[0] as f32 && BETA_2 == DECAY[1] as f32 && EPSILON_F32 == EPSILON as f32);
};

/// Adam (Kingma and Ba, 2015) on any number of parameters, as PyTorch's with its defaults.
#[derive(Debug, Clone)]
pub struct Adam {
    learning_rate: f64,
    first: Vec<f64>,
    second: Vec<f64>,
    decayed: [f64; 2],
}

impl Adam {
    /// The state before the first step, for `count` parameters.
    pub fn new(learning_rate: f64, count: usize) -> Self {
        Self { learning_rate, first: vec![0.0; count], second: vec![0.0; count], decayed: [1.0; 2] }
    }

    /// Takes one step against `gradient`; both slices have the length given to [`Adam::new`].
    pub fn step(&mut self, parameters: &mut [f64], gradient: &[f64]) {
        for (decayed, decay) in self.decayed.iter_mut().zip(DECAY) {
            *decayed *= decay;
        }
        let moments = self.first.iter_mut().zip(&mut self.second);
        let values = parameters.iter_mut().zip(gradient);
        for ((value, gradient), (first, second)) in values.zip(moments) {
            *first = DECAY[0] * *first + (1.0 - DECAY[0]) * gradient;
            *second = DECAY[1] * *second + (1.0 - DECAY[1]) * gradient * gradient;
            let spread = (*second / (1.0 - self.decayed[1])).sqrt() + EPSILON;
            *value -= self.learning_rate * (*first / (1.0 - self.decayed[0])) / spread;
        }
    }
}
