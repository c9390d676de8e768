//! The recipe of a classifier's training.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::training::SgdOptions;

/// The recipe: the paper's by default, which begins with the weights of ImageNet. Everything in it decides what the weights become.
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassifierOptions {
    /// Number of epochs, over which the learning rate falls to 0. In each epoch every image is seen once.
    pub epochs: u64,
    /// Images of a batch; where there are fewer, all of them.
    pub batch: usize,
    /// Epochs between two validations; the last epoch always ends with one. 0 for that one alone.
    pub validate_every: u64,
    /// The seed of weights, order and augmentation.
    pub seed: u64,
    /// The optimiser.
    pub sgd: SgdOptions,
}

impl ClassifierOptions {
    /// The learning rate of the first epoch for a network that begins with random weights: that of residual networks, 0.1 for a batch
    /// of 256, for one of 32 (He et al. 2016; Goyal et al. 2017 for the proportion).
    pub const RATE_FROM_SCRATCH: f64 = 0.0125;
    /// The paper's, for a network that begins with trained weights.
    pub const RATE_OF_FINE_TUNING: f64 = 1e-4;

    /// Refuses a training of nothing.
    pub(super) fn ensure_valid(&self) -> Result<()> {
        for (name, value, most) in [("epochs", self.epochs, MAX_EPOCHS), ("batch", self.batch as u64, MAX_BATCH)] {
            if !(1..=most).contains(&value) {
                return Err(Error::argument(format!("training: {name}"), format!("1 to {most}"), value));
            }
        }
        Ok(())
    }
}

impl Default for ClassifierOptions {
    fn default() -> Self {
        let sgd = SgdOptions {
            learning_rate: Self::RATE_OF_FINE_TUNING,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 2e-4,
            clip: None,
        };
        Self { epochs: 500, batch: 32, validate_every: 10, seed: 0, sgd }
    }
}

/// Largest number of epochs.
const MAX_EPOCHS: u64 = 1 << 24;
/// Largest number of images of a batch.
const MAX_BATCH: u64 = 4096;
