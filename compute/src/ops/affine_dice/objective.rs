//! What iterations minimise, and when they end.

/// Iterations between two questions whether the loss has stopped falling.
pub const CHECK_EVERY: usize = 10;

/// What is minimised, how fast, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The smoothing term of Dice.
    pub smooth: f64,
    /// Weight of each channel in the loss.
    pub weights: Vec<f64>,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Stop here at the latest; 1 or more.
    pub max_iterations: usize,
    /// Converged when the lowest loss fell by less than `tolerance` over so many iterations, 1 or more; asked every
    /// [`CHECK_EVERY`].
    pub window: usize,
    /// See `window`.
    pub tolerance: f64,
}

/// Where iterations ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimum {
    /// The parameters of the lowest loss met.
    pub parameters: Vec<f64>,
    /// That loss.
    pub loss: f64,
    /// Dice of each channel there.
    pub dice: Vec<f64>,
    /// The losses of the first and the last iteration.
    pub ends: [f64; 2],
    /// Iterations taken.
    pub iterations: usize,
    /// Why they ended.
    pub reason: Reason,
}

/// Why iterations end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The loss has stopped falling.
    Converged,
    /// There were as many as allowed.
    Stopped,
    /// The loss is not a finite number.
    NotFinite,
}
