//! What an opened device remembers of the kernels it chose.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::conv3d::facts::Facts;
use super::conv3d::{Conv3dProblem, Plan};

/// The `tracing` target of what is said about the choice of kernels: DEBUG for a choice, WARN for an override that could
/// not be followed.
pub const TARGET: &str = "nephron::kernels";

/// The plans made so far: a network's layers come again, and the candidates of one are some dozens.
#[derive(Default)]
pub(crate) struct Choices {
    conv3d: Mutex<HashMap<(Conv3dProblem, Facts), Plan>>,
    logged: Mutex<HashSet<String>>,
}

impl Choices {
    /// The plan made for this problem before, or the one that `make` makes now. No lock is held while it does.
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
