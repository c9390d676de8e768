//! Adam.

/// Decays of the moments and the term that keeps the division finite, as PyTorch's `Adam`.
const DECAY: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// Adam (Kingma and Ba, 2015) on any number of parameters, as PyTorch's with its defaults.
#[derive(Debug, Clone)]
pub struct Adam {
    learning_rate: f64,
    first: Vec<f64>,
    second: Vec<f64>,
    decayed: [f64; 2],
}

impl Adam {
    /// Before the first step of `count` parameters.
    pub fn new(learning_rate: f64, count: usize) -> Self {
        Self { learning_rate, first: vec![0.0; count], second: vec![0.0; count], decayed: [1.0; 2] }
    }

    /// One step against `gradient`, both as long as was said.
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
