//! The iterations: Adam on the loss until it stops falling.

use super::adam::Adam;
use super::model::Model;
use crate::error::{Error, Result};
use crate::ops::affine_dice::AffineDice;

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
    pub parameters: Vec<f64>,
    pub loss: f64,
    pub iterations: usize,
    pub converged: bool,
}

/// Minimises the loss from the model's start until its lowest value has not fallen by `tolerance` within the last `window`
/// iterations, or `max_iterations`.
pub(super) fn minimise(masks: &AffineDice, model: &Model, objective: &Objective) -> Result<Minimum> {
    let mut iterate = Iterate::new(masks, model, objective)?;
    // The lowest loss up to each iteration.
    let mut lowest: Vec<f64> = Vec::new();
    let mut minimum = Minimum { parameters: model.start(), loss: f64::INFINITY, iterations: 0, converged: false };
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
    Gpu(Box<crate::ops::affine_dice::steps::AdamSteps<'a>>),
}

struct Host<'a> {
    masks: &'a AffineDice,
    model: &'a Model,
    objective: Objective,
    adam: Adam,
    parameters: Vec<f64>,
    best: (f64, Vec<f64>),
}

impl<'a> Iterate<'a> {
    fn new(masks: &'a AffineDice, model: &'a Model, objective: &Objective) -> Result<Self> {
        // The device's own loop knows theta; motions go through the host, which makes a matrix of them.
        #[cfg(feature = "gpu")]
        if let Model::Affine { frame, start } = model {
            use crate::ops::affine_dice::steps;
            let Objective { smooth, weights, learning_rate, .. } = *objective;
            let own = steps::Objective { smooth, weights, learning_rate };
            if let Some(steps) = steps::AdamSteps::new(masks, frame, start, &own)? {
                return Ok(Self::Gpu(Box::new(steps)));
            }
        }
        Ok(Self::Host(Host {
            masks,
            model,
            objective: *objective,
            adam: Adam::new(objective.learning_rate, model.start().len()),
            parameters: model.start(),
            best: (f64::INFINITY, model.start()),
        }))
    }

    /// The losses before each of `count` steps, and the parameters of the lowest loss so far.
    fn run(&mut self, count: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        match self {
            Self::Host(host) => host.run(count),
            #[cfg(feature = "gpu")]
            Self::Gpu(steps) => steps.run(count).map(|(losses, best)| (losses, best.as_flattened().to_vec())),
        }
    }
}

impl Host<'_> {
    fn run(&mut self, count: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let mut losses = Vec::with_capacity(count);
        for _ in 0..count {
            let sums = self.masks.sums(&self.model.matrix(&self.parameters))?;
            let value = sums.value(self.objective.smooth, self.objective.weights);
            losses.push(value.loss);
            if value.loss < self.best.0 {
                self.best = (value.loss, self.parameters.clone());
            }
            let gradient = self.model.gradient(&self.parameters, &value.by_matrix);
            self.adam.step(&mut self.parameters, &gradient);
        }
        Ok((losses, self.best.1.clone()))
    }
}
