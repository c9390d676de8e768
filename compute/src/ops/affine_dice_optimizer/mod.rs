//! Adam on the loss of [`affine_dice`](super::affine_dice()): the objective, the task and the result of both optimisers,
//! [`minimize_on_host`] in f64 and [`DeviceOptimizer`], which runs the iterations of any number of pairs of masks on a GPU.
//!
//! Each iteration computes the loss and its gradient at the parameters, keeps the parameters where the loss is the lowest so far, and takes a
//! step of Adam. Every [`CHECK_EVERY`] iterations, and at the last one, the optimiser has converged if the lowest loss has decreased by less
//! than the tolerance over the window.

mod adam;
#[cfg(feature = "gpu")]
mod device_optimizer;
mod host_optimizer;

pub use adam::Adam;
#[cfg(feature = "gpu")]
pub use device_optimizer::DeviceOptimizer;
pub use host_optimizer::minimize_on_host;

use super::affine_dice::{AffineDice, Parametrization, ensure_smooth};
use crate::error::{Error, Result};

/// Number of iterations between two tests for convergence.
pub const CHECK_EVERY: usize = 10;

/// Largest number of iterations, which a GPU counts in f32.
pub const MAX_ITERATIONS: usize = 1_000_000;

/// Longest window: a GPU keeps a loss for each of its iterations, 256 KiB for each pair.
pub const MAX_WINDOW: usize = 65_536;

/// The objective: the loss, the learning rate and the rules for the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The smoothing term of Dice, a finite number, 0 or more.
    pub smooth: f64,
    /// The weight of each channel in the loss.
    pub weights: Vec<f64>,
    /// Adam's learning rate, above 0.
    pub learning_rate: f64,
    /// The number of iterations after which the optimiser stops, 1 to [`MAX_ITERATIONS`].
    pub max_iterations: usize,
    /// The number of iterations over which the decrease of the lowest loss is measured, 1 to [`MAX_WINDOW`].
    pub window: usize,
    /// The decrease of the lowest loss over `window` iterations below which the optimiser has converged, 0 or more.
    pub tolerance: f64,
}

impl Objective {
    /// Checks that every value is in range; `what` begins the message.
    ///
    /// # Errors
    /// [`Error::Argument`] for a value out of range.
    pub fn ensure_valid(&self, what: &str) -> Result<()> {
        ensure_smooth(&format!("{what}: smooth"), self.smooth)?;
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            let expected = "a finite number above 0";
            return Err(Error::argument(format!("{what}: learning rate"), expected, self.learning_rate));
        }
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::argument(format!("{what}: tolerance"), "0 or more", self.tolerance));
        }
        for (name, value, limit) in
            [("max_iterations", self.max_iterations, MAX_ITERATIONS), ("window", self.window, MAX_WINDOW)]
        {
            if value == 0 {
                return Err(Error::argument(format!("{what}: {name}"), "1 or more", value));
            }
            if value > limit {
                return Err(Error::argument(format!("{what}: {name}"), format!("at most {limit}"), value));
            }
        }
        if !self.weights.iter().all(|w| w.is_finite()) {
            let found = format!("{:?}", self.weights);
            return Err(Error::argument(format!("{what}: weights"), "finite numbers", found));
        }
        Ok(())
    }
}

/// A pair of masks, a parametrisation of maps, a start and an objective.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The prepared pair of masks.
    pub masks: &'a AffineDice,
    /// The parametrisation of the maps.
    pub parametrization: &'a Parametrization,
    /// The parameters of the first iteration, as many as the parametrisation has.
    pub start: &'a [f64],
    /// The objective.
    pub objective: &'a Objective,
}

impl Task<'_> {
    /// Checks that the parts of the task fit together and are in range.
    pub(super) fn ensure_valid(&self) -> Result<()> {
        const WHAT: &str = "affine_dice optimizer";
        self.objective.ensure_valid(WHAT)?;
        let channels = self.masks.counts()[0].len();
        if self.objective.weights.len() != channels {
            let expected = format!("{channels}, one per channel");
            return Err(Error::argument(format!("{WHAT}: weights"), expected, self.objective.weights.len()));
        }
        let count = self.parametrization.parameters.count();
        if self.start.len() != count {
            return Err(Error::argument(format!("{WHAT}: parameters at the start"), count, self.start.len()));
        }
        if !self.start.iter().all(|v| v.is_finite()) {
            let found = format!("{:?}", self.start);
            return Err(Error::argument(format!("{WHAT}: parameters at the start"), "finite numbers", found));
        }
        Ok(())
    }
}

/// The result of the iterations.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimum {
    /// The parameters of the lowest loss.
    pub parameters: Vec<f64>,
    /// The lowest loss.
    pub loss: f64,
    /// The Dice of each channel at the lowest loss.
    pub dice: Vec<f64>,
    /// The losses of the first and of the last iteration.
    pub ends: [f64; 2],
    /// The number of iterations that were done.
    pub iterations: usize,
    /// Why the iterations ended.
    pub reason: StopReason,
}

/// Why the iterations ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The loss has stopped decreasing.
    Converged,
    /// All iterations that were allowed or requested were done.
    Stopped,
    /// The loss is not a finite number.
    NotFinite,
}
