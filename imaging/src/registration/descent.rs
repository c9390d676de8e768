//! The iterations: Adam on the loss until it stops falling.

use rayon::prelude::*;

use super::adam::Adam;
use super::model::Model;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::{AffineDice, CHECK_EVERY, Minimum, Objective, Reason};

/// A pair of masks and what is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task<'a> {
    pub masks: &'a AffineDice,
    pub model: &'a Model,
    pub objective: &'a Objective,
}

/// Minimises each task's loss from its model's start until its lowest value has not fallen by `tolerance` within the
/// last `window` iterations, or `max_iterations`. Tasks do not touch one another: each ends as it would alone. With
/// them what is to be said where a GPU would not take them together.
pub(super) fn minimise(tasks: &[Task<'_>]) -> (Vec<Result<Minimum>>, Option<String>) {
    let mut results: Vec<Option<Result<Minimum>>> = tasks.iter().map(|_| None).collect();
    let apart = on_gpu(tasks, &mut results);
    let host = |(task, result): (&Task<'_>, Option<Result<Minimum>>)| {
        result.unwrap_or_else(|| on_host(task)).and_then(|minimum| finite(task, minimum))
    };
    (tasks.par_iter().zip(results).map(host).collect(), apart)
}

/// Fills in the results of tasks whose masks are on a GPU: all in one launch.
#[cfg(feature = "gpu")]
fn on_gpu(tasks: &[Task<'_>], results: &mut [Option<Result<Minimum>>]) -> Option<String> {
    use nephron_compute::ops::affine_dice::steps;
    let there: Vec<usize> = (0..tasks.len()).filter(|&i| steps::on_gpu(tasks[i].masks)).collect();
    let own = |i: usize| {
        let Task { masks, model, objective } = tasks[i];
        steps::Task { masks, chain: &model.chain, start: &model.start, objective }
    };
    let run = |which: &[usize]| steps::minimise(&which.iter().map(|&i| own(i)).collect::<Vec<_>>());
    let (minima, apart) = together_or_apart(&there, run);
    there.iter().zip(minima).for_each(|(&i, minimum)| results[i] = Some(minimum));
    apart
}

/// What `run` makes of all of them, or, where it fails, of one by one, so that each has an answer or an error of its own;
/// then with what is to be said of it.
#[cfg(feature = "gpu")]
fn together_or_apart<T>(which: &[usize], run: impl Fn(&[usize]) -> Result<Vec<T>>) -> (Vec<Result<T>>, Option<String>) {
    match run(which) {
        Ok(all) if all.len() == which.len() => (all.into_iter().map(Ok).collect(), None),
        Ok(_) => (which.iter().map(|_| Err(nothing())).collect(), None),
        Err(e) if which.len() > 1 => {
            let alone = |i: &usize| run(&[*i]).and_then(|mut one| one.pop().ok_or_else(nothing));
            let why = format!("registered one by one: {} pairs together failed: {e}", which.len());
            (which.iter().map(alone).collect(), Some(why))
        }
        Err(e) => (vec![Err(e)], None),
    }
}

#[cfg(feature = "gpu")]
fn nothing() -> Error {
    Error::Data("registration: expected a result from the device, found none".into())
}

#[cfg(not(feature = "gpu"))]
fn on_gpu(_: &[Task<'_>], _: &mut [Option<Result<Minimum>>]) -> Option<String> {
    None
}

fn finite(task: &Task<'_>, minimum: Minimum) -> Result<Minimum> {
    if minimum.reason == Reason::NotFinite {
        return Err(Error::Data(format!(
            "registration: the loss is {} at iteration {} with learning rate {}; expected finite numbers",
            minimum.ends[1], minimum.iterations, task.objective.learning_rate
        )));
    }
    Ok(minimum)
}

fn on_host(task: &Task<'_>) -> Result<Minimum> {
    let Task { masks, model, objective } = task;
    let mut adam = Adam::new(objective.learning_rate, model.start.len());
    let mut parameters = model.start.clone();
    // The lowest loss up to each iteration.
    let mut lowest: Vec<f64> = Vec::new();
    let mut minimum = Minimum {
        parameters: parameters.clone(),
        loss: f64::INFINITY,
        dice: vec![0.0; objective.weights.len()],
        ends: [f64::INFINITY; 2],
        iterations: 0,
        reason: Reason::Stopped,
    };
    while minimum.iterations < objective.max_iterations {
        let sums = masks.sums(&model.chain.matrix(&parameters))?;
        let value = sums.value(objective.smooth, &objective.weights);
        minimum.iterations += 1;
        minimum.ends = if lowest.is_empty() { [value.loss; 2] } else { [minimum.ends[0], value.loss] };
        if !value.loss.is_finite() {
            minimum.reason = Reason::NotFinite;
            break;
        }
        let gradient = model.chain.gradient(&parameters, &value.by_matrix);
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
            minimum.reason = Reason::Converged;
            break;
        }
    }
    Ok(minimum)
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;

    #[test]
    fn what_fails_together_is_run_one_by_one() {
        let full = |which: &[usize]| match which {
            [3] | [_, _, ..] => Err(Error::Data(format!("no room for {which:?}"))),
            _ => Ok(which.iter().map(|i| i * 10).collect()),
        };
        let (results, said) = together_or_apart(&[1, 3, 4], full);
        let results: Vec<_> = results.into_iter().map(|r| r.map_err(|e| e.to_string())).collect();
        assert_eq!(results, [Ok(10), Err("no room for [3]".into()), Ok(40)]);
        assert_eq!(said.as_deref(), Some("registered one by one: 3 pairs together failed: no room for [1, 3, 4]"));
        let (results, said) = together_or_apart(&[3], full);
        assert!(results.len() == 1 && results[0].is_err() && said.is_none());
        let (results, _) = together_or_apart(&[1, 3, 4], |_| Ok(vec![1]));
        assert!(results.len() == 3 && results.iter().all(Result::is_err));
        let (results, said) = together_or_apart(&[1, 3, 4], |which: &[usize]| Ok(which.to_vec()));
        assert!(results.into_iter().map(|r| r.expect("an answer")).eq([1, 3, 4]) && said.is_none());
    }
}
