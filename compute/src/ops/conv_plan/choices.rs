//! The kernel choices of an opened device.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::capabilities::DeviceCaps;
use super::plan::Convolution;
use crate::ops::conv_problem::{Conv3dProblem, ConvTranspose3dProblem};

/// The `tracing` target of what is logged about the choice of kernels: DEBUG for a choice, WARN for an override that could
/// not be followed.
pub const TARGET: &str = "nephron::kernels";

/// The plans made so far for one kind of problem: the layers of a network come again, and the candidates of one are some
/// dozens.
pub(super) struct Plans<C: Convolution>(Mutex<HashMap<(C, DeviceCaps), C::Plan>>);

impl<C: Convolution> Default for Plans<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Convolution> Plans<C> {
    /// The plan made for this problem before, or the one that `make` makes now. No lock is held while it does.
    pub(super) fn get_or_make<E>(
        &self,
        problem: &C,
        caps: &DeviceCaps,
        make: impl FnOnce() -> Result<C::Plan, E>,
    ) -> Result<C::Plan, E> {
        let key = (*problem, *caps);
        let plans = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans().get(&key) {
            return Ok(*plan);
        }
        let plan = make()?;
        Ok(*plans().entry(key).or_insert(plan))
    }
}

/// The plans made so far on a device, and what was logged about them.
#[derive(Default)]
pub(crate) struct Choices {
    /// Plans of forward convolutions.
    pub(super) conv3d: Plans<Conv3dProblem>,
    /// Plans of transposed convolutions.
    pub(super) conv_transpose3d: Plans<ConvTranspose3dProblem>,
    logged: Mutex<HashSet<String>>,
}

impl Choices {
    /// Logs which kernel was chosen, once for each text: a network has many layers of one shape.
    pub(super) fn log_choice(&self, text: impl FnOnce() -> String) {
        if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            let text = text();
            if self.is_new(&text) {
                tracing::debug!(target: TARGET, "{text}");
            }
        }
    }

    /// Logs a warning, once for each text.
    pub(super) fn warn(&self, text: String) {
        if self.is_new(&text) {
            tracing::warn!(target: TARGET, "{text}");
        }
    }

    fn is_new(&self, text: &str) -> bool {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned())
    }
}
