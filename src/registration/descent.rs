//! The iterations: Adam on the loss until it stops falling.

use super::adam::Adam;
use crate::error::{Error, Result};
use crate::ops::affine_dice::{AffineDice, Frame, Matrix};

/// Iterations between two looks at the loss. On a GPU nothing comes back in between.
const STRIDE: usize = 10;

/// What is minimised, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Objective {
    pub smooth: f64,
    /// Of the channels {2} and {1, 2}.
    pub weights: [f64; 2],
    pub learning_rate: f64,
    pub max_iterations: usize,
    pub window: usize,
    pub tolerance: f64,
}

/// Where the iterations ended.
#[derive(Debug, Clone)]
pub(super) struct Minimum {
    /// The parameters of the lowest loss met.
    pub parameters: Matrix,
    pub loss: f64,
    pub iterations: usize,
    pub converged: bool,
}

/// Minimises the loss from `start` until its lowest value has not fallen by `tolerance` within the last `window`
/// iterations, or `max_iterations`.
pub(super) fn minimise(masks: &AffineDice, frame: &Frame, start: &Matrix, objective: &Objective) -> Result<Minimum> {
    let mut iterate = Iterate::new(masks, frame, start, objective)?;
    // The lowest loss up to each iteration.
    let mut lowest: Vec<f64> = Vec::new();
    let mut minimum = Minimum { parameters: *start, loss: f64::INFINITY, iterations: 0, converged: false };
    while minimum.iterations < objective.max_iterations && !minimum.converged {
        let (losses, best) = iterate.run(STRIDE.min(objective.max_iterations - minimum.iterations))?;
        for loss in losses {
            if !loss.is_finite() {
                return Err(Error::Data(format!(
                    "registration: the loss is {loss} at iteration {} with learning rate {}; expected finite numbers",
                    lowest.len(),
                    objective.learning_rate
                )));
            }
            minimum.loss = minimum.loss.min(loss);
            lowest.push(minimum.loss);
        }
        minimum.parameters = best;
        minimum.iterations = lowest.len();
        minimum.converged = lowest.len() > objective.window
            && lowest[lowest.len() - 1 - objective.window] - minimum.loss < objective.tolerance;
    }
    Ok(minimum)
}

/// Adam where the masks are.
enum Iterate<'a> {
    Host(Host<'a>),
    #[cfg(feature = "gpu")]
    Gpu(crate::ops::affine_dice::steps::AdamSteps<'a>),
}

struct Host<'a> {
    masks: &'a AffineDice,
    frame: Frame,
    objective: Objective,
    adam: Adam,
    parameters: Matrix,
    best: (f64, Matrix),
}

impl<'a> Iterate<'a> {
    fn new(masks: &'a AffineDice, frame: &Frame, start: &Matrix, objective: &Objective) -> Result<Self> {
        #[cfg(feature = "gpu")]
        {
            use crate::ops::affine_dice::steps;
            let Objective { smooth, weights, learning_rate, .. } = *objective;
            let own = steps::Objective { smooth, weights, learning_rate };
            if let Some(steps) = steps::AdamSteps::new(masks, frame, start, &own)? {
                return Ok(Self::Gpu(steps));
            }
        }
        Ok(Self::Host(Host {
            masks,
            frame: *frame,
            objective: *objective,
            adam: Adam::new(objective.learning_rate),
            parameters: *start,
            best: (f64::INFINITY, *start),
        }))
    }

    /// The losses before each of `count` steps, and the parameters of the lowest loss so far.
    fn run(&mut self, count: usize) -> Result<(Vec<f64>, Matrix)> {
        match self {
            Self::Host(host) => host.run(count),
            #[cfg(feature = "gpu")]
            Self::Gpu(steps) => steps.run(count),
        }
    }
}

impl Host<'_> {
    fn run(&mut self, count: usize) -> Result<(Vec<f64>, Matrix)> {
        let mut losses = Vec::with_capacity(count);
        for _ in 0..count {
            let sums = self.masks.sums(&self.frame.matrix(&self.parameters))?;
            let value = sums.value(self.objective.smooth, self.objective.weights);
            losses.push(value.loss);
            if value.loss < self.best.0 {
                self.best = (value.loss, self.parameters);
            }
            self.adam.step(&mut self.parameters, &self.frame.gradient(&value.by_matrix));
        }
        Ok((losses, self.best.1))
    }
}
