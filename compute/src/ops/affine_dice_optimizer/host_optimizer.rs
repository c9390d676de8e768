//! The iterations of one pair with the optimiser on the host, in f64.

use super::{Adam, CHECK_EVERY, Minimum, StopReason, Task};
use crate::error::Result;

/// Minimises the loss of a task with masks on any device: each iteration is one pass over the masks on their device, and a step of Adam in
/// f64 on the host.
///
/// A loss that is not finite ends the iterations and is not an error, see [`Minimum::reason`].
///
/// # Errors
/// A task out of range or whose parts do not fit together; a device that fails.
pub fn minimize_on_host(task: &Task<'_>) -> Result<Minimum> {
    task.ensure_valid()?;
    let Task { masks, parametrization, start, objective } = task;
    let mut adam = Adam::new(objective.learning_rate, start.len());
    let mut parameters = start.to_vec();
    // The lowest loss up to each iteration.
    let mut lowest: Vec<f64> = Vec::new();
    let mut minimum = Minimum {
        parameters: parameters.clone(),
        loss: f64::INFINITY,
        dice: vec![0.0; objective.weights.len()],
        ends: [f64::INFINITY; 2],
        iterations: 0,
        reason: StopReason::Stopped,
    };
    while minimum.iterations < objective.max_iterations {
        let sums = masks.sums(&parametrization.matrix(&parameters))?;
        let value = sums.value(objective.smooth, &objective.weights);
        minimum.iterations += 1;
        minimum.ends = if lowest.is_empty() { [value.loss; 2] } else { [minimum.ends[0], value.loss] };
        if !value.loss.is_finite() {
            minimum.reason = StopReason::NotFinite;
            break;
        }
        let gradient = parametrization.gradient(&parameters, &value.by_matrix);
        if value.loss < minimum.loss {
            (minimum.loss, minimum.dice) = (value.loss, value.dice);
            minimum.parameters.clone_from(&parameters);
        }
        lowest.push(minimum.loss);
        adam.step(&mut parameters, &gradient);
        let asked = lowest.len().is_multiple_of(CHECK_EVERY) || lowest.len() == objective.max_iterations;
        if asked
            && lowest.len() > objective.window
            && lowest[lowest.len() - 1 - objective.window] - minimum.loss < objective.tolerance
        {
            minimum.reason = StopReason::Converged;
            break;
        }
    }
    Ok(minimum)
}
