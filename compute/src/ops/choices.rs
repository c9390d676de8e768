//! The kernel choices of an opened device.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::conv3d::facts::Facts;
use super::conv3d::{Conv3dProblem, Plan};

/// The `tracing` target of messages about the choice of kernels: DEBUG for a choice, WARN for an override that is not supported.
pub const TARGET: &str = "nephron::kernels";

/// The plans made so far. They are kept because the layers of a network repeat and each has some dozens of candidates.
#[derive(Default)]
pub(crate) struct Choices {
    conv3d: Mutex<HashMap<(Conv3dProblem, Facts), Plan>>,
    logged: Mutex<HashSet<String>>,
}

impl Choices {
    /// The plan that was made for this problem before, or a new one from `make`, which is called without holding a lock.
    pub(super) fn conv3d<E>(
        &self,
        problem: &Conv3dProblem,
        facts: &Facts,
        make: impl FnOnce() -> Result<Plan, E>,
    ) -> Result<Plan, E> {
        let key = (*problem, *facts);
        let plans = || self.conv3d.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans().get(&key) {
            return Ok(*plan);
        }
        let plan = make()?;
        Ok(*plans().entry(key).or_insert(plan))
    }

    /// Logs a choice, once for each text, because a network has many layers of one shape.
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
