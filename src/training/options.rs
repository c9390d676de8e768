//! The recipe of a training.

use serde::{Deserialize, Serialize};

use super::augment::Augmentation;
use super::optimizer::SgdOptions;
use crate::error::{Error, Result};

/// The recipe: nnU-Net's by default. Everything in it decides what the weights become.
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Number of epochs, over which the learning rate falls to 0.
    pub epochs: u64,
    /// Steps of an epoch.
    pub iterations: u64,
    /// Epochs between two validations; the last epoch always ends with one. 0 for that one alone.
    pub validate_every: u64,
    /// The seed of weights and batches.
    pub seed: u64,
    /// What is done to patches.
    pub augmentation: Augmentation,
    /// The optimiser.
    pub sgd: SgdOptions,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            epochs: 1000,
            iterations: 250,
            validate_every: 50,
            seed: 0,
            augmentation: Augmentation::Full,
            sgd: SgdOptions::default(),
        }
    }
}

impl TrainOptions {
    /// Refuses a training of nothing.
    pub(super) fn ensure_valid(&self) -> Result<()> {
        for (name, value) in [("epochs", self.epochs), ("iterations", self.iterations)] {
            if !(1..=MAX_STEPS).contains(&value) {
                return Err(Error::argument(format!("training: {name}"), format!("1 to {MAX_STEPS}"), value));
            }
        }
        Ok(())
    }

    /// Steps of all epochs.
    pub fn steps(&self) -> u64 {
        self.epochs.saturating_mul(self.iterations)
    }
}

/// Largest number of epochs, and of steps in one.
const MAX_STEPS: u64 = 1 << 24;
