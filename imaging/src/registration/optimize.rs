//! The optimisation of many pairs at once: their masks are prepared together and their losses minimised together.

use rayon::prelude::*;

use super::RegistrationOptions;
use super::family::SearchSpace;
use super::mask::Mask;
use super::pair::{Level, Pair};
use nephron_compute::device::Device;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::{AffineDice, AffineDiceSums, Channels};
use nephron_compute::ops::affine_dice_optimizer::{Minimum, Objective, StopReason, Task, minimize_on_host};

/// A pair that is to be optimised on a level.
struct Candidate {
    /// The index of the pair among all pairs.
    index: usize,
    objective: Objective,
    /// The warning that the masks are too large for the device.
    too_large: Option<String>,
}

/// A pair whose masks are on the device.
struct Prepared {
    /// The index of the pair among all pairs.
    index: usize,
    objective: Objective,
    masks: AffineDice,
    space: SearchSpace,
}

/// Optimises every pair on a level, all at once. A pair that fails becomes an error and does not affect the others.
pub(super) fn optimize(pairs: &mut [Result<Pair>], device: &Device, options: &RegistrationOptions, level: Level) {
    let prepared = prepare(pairs, device, options, level);
    let tasks: Vec<Task<'_>> = prepared
        .iter()
        .map(|Prepared { masks, space, objective, .. }| Task {
            masks,
            parametrization: &space.parametrization,
            start: &space.start,
            objective,
        })
        .collect();
    let (minima, one_by_one) = minimize(&tasks);
    for (own, minimum) in prepared.iter().zip(minima) {
        update(&mut pairs[own.index], |pair| {
            pair.warn(one_by_one.as_ref());
            pair.take(&own.space, finite(minimum?, own.objective.learning_rate)?, level)
        });
    }
}

/// Applies `change` to a pair that has not failed; if that fails, the pair becomes the error.
fn update<T>(slot: &mut Result<Pair>, change: impl FnOnce(&mut Pair) -> Result<T>) -> Option<T> {
    let pair = slot.as_mut().ok()?;
    match change(pair) {
        Ok(value) => Some(value),
        Err(e) => {
            *slot = Err(e);
            None
        }
    }
}

/// The pairs that are to be optimised on a level, with their masks on the device. The host waits for the device once for the
/// masks of all pairs and, on the thinned level, once more to find out which pairs overlap.
fn prepare(pairs: &mut [Result<Pair>], device: &Device, options: &RegistrationOptions, level: Level) -> Vec<Prepared> {
    let mut candidates = Vec::new();
    for (index, slot) in pairs.iter_mut().enumerate() {
        let Ok(pair) = slot else { continue };
        if let Some(objective) = pair.objective(options, level) {
            let too_large = too_large(pair.masks(level), device, options);
            pair.warn(too_large.as_ref());
            candidates.push(Candidate { index, objective, too_large });
        }
    }
    let masks = on_device(pairs, &candidates, device, options, level);
    let mut ready: Vec<(Candidate, AffineDice)> = Vec::new();
    for (candidate, masks) in candidates.into_iter().zip(masks) {
        if let Some(masks) = update(&mut pairs[candidate.index], |_| masks) {
            ready.push((candidate, masks));
        }
    }
    if level == Level::Thinned {
        let sums = sums_at_start(pairs, &ready);
        for ((candidate, _), sums) in ready.iter().zip(sums) {
            update(&mut pairs[candidate.index], |pair| pair.ensure_overlap(&sums?, options));
        }
    }
    let mut prepared = Vec::new();
    for (Candidate { index, objective, .. }, masks) in ready {
        if let Some(space) = update(&mut pairs[index], |pair| pair.search_space(options, level)) {
            prepared.push(Prepared { index, objective, masks, space });
        }
    }
    prepared
}

/// The masks of every candidate, in their order: prepared together on the device, or on the CPU where they are too large for it.
fn on_device(
    pairs: &mut [Result<Pair>],
    candidates: &[Candidate],
    device: &Device,
    options: &RegistrationOptions,
    level: Level,
) -> Vec<Result<AffineDice>> {
    let (fitting, too_large): (Vec<usize>, Vec<usize>) =
        (0..candidates.len()).partition(|&i| candidates[i].too_large.is_none());
    let upload = |which: &[usize], device: &Device| {
        let masks = which.iter().map(|&i| pairs[candidates[i].index].as_ref().ok().map(|pair| pair.masks(level)));
        prepare_masks(&masks.flatten().collect::<Vec<_>>(), device, options)
    };
    let mut results: Vec<Option<Result<AffineDice>>> = candidates.iter().map(|_| None).collect();
    for i in too_large {
        results[i] = upload(&[i], &Device::Cpu).map(|mut one| one.pop()).transpose();
    }
    let (prepared, one_by_one) = together_or_one_by_one(&fitting, |which| upload(which, device));
    fitting.iter().zip(prepared).for_each(|(&i, masks)| results[i] = Some(masks));
    for candidate in candidates {
        update(&mut pairs[candidate.index], |pair| {
            pair.warn(one_by_one.as_ref().filter(|_| candidate.too_large.is_none()));
            Ok(())
        });
    }
    results.into_iter().map(|result| result.unwrap_or_else(|| Err(nothing()))).collect()
}

/// Prepares pairs of masks (fixed, moving) on a device, so that their sums can be computed for any matrix.
pub(super) fn prepare_masks(
    masks: &[[&Mask; 2]],
    device: &Device,
    options: &RegistrationOptions,
) -> Result<Vec<AffineDice>> {
    let upload = |[fixed, moving]: &[&Mask; 2]| Ok([fixed.tensor(device)?, moving.tensor(device)?]);
    let tensors = masks.iter().map(upload).collect::<Result<Vec<_>>>()?;
    let pairs: Vec<_> = tensors.iter().map(|pair| pair.each_ref()).collect();
    AffineDice::new_all(&pairs, options.padding, &options.channels)
}

/// The Dice sums of every pair at its start, in their order.
fn sums_at_start(pairs: &[Result<Pair>], ready: &[(Candidate, AffineDice)]) -> Vec<Result<AffineDiceSums>> {
    let all: Vec<usize> = (0..ready.len()).collect();
    let sums = |which: &[usize]| {
        let at = |&i: &usize| {
            let (candidate, masks) = &ready[i];
            let pair = pairs[candidate.index].as_ref().map_err(|_| nothing())?;
            Ok((masks, pair.index_map()?))
        };
        AffineDice::sums_all(&which.iter().map(at).collect::<Result<Vec<_>>>()?)
    };
    together_or_one_by_one(&all, sums).0
}

/// Minimises every task: those on a GPU together, the others in parallel on the host. Tasks are independent, and each result has
/// the same bits as alone. Also returns a warning when the batch failed on the GPU and the tasks were run one by one.
fn minimize(tasks: &[Task<'_>]) -> (Vec<Result<Minimum>>, Option<String>) {
    let mut results: Vec<Option<Result<Minimum>>> = tasks.iter().map(|_| None).collect();
    let one_by_one = minimize_on_device(tasks, &mut results);
    let host = |(task, result): (&Task<'_>, Option<Result<Minimum>>)| result.unwrap_or_else(|| minimize_on_host(task));
    (tasks.par_iter().zip(results).map(host).collect(), one_by_one)
}

/// Fills in the results of tasks whose masks are on a GPU.
#[cfg(feature = "gpu")]
fn minimize_on_device(tasks: &[Task<'_>], results: &mut [Option<Result<Minimum>>]) -> Option<String> {
    use nephron_compute::ops::affine_dice_optimizer::DeviceOptimizer;
    let accepted: Vec<usize> = (0..tasks.len()).filter(|&i| DeviceOptimizer::accepts(tasks[i].masks)).collect();
    let run = |which: &[usize]| DeviceOptimizer::new(&which.iter().map(|&i| tasks[i]).collect::<Vec<_>>())?.run();
    let (minima, one_by_one) = together_or_one_by_one(&accepted, run);
    accepted.iter().zip(minima).for_each(|(&i, minimum)| results[i] = Some(minimum));
    one_by_one
}

#[cfg(not(feature = "gpu"))]
fn minimize_on_device(_: &[Task<'_>], _: &mut [Option<Result<Minimum>>]) -> Option<String> {
    None
}

/// The results of `run` for all indices at once. Where that fails, `run` is called for each index alone, so that each has its
/// own result or error, and a warning is returned too.
fn together_or_one_by_one<T>(
    which: &[usize],
    run: impl Fn(&[usize]) -> Result<Vec<T>>,
) -> (Vec<Result<T>>, Option<String>) {
    if which.is_empty() {
        return (Vec::new(), None);
    }
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

fn nothing() -> Error {
    Error::Data("registration: expected a result from the device, found none".into())
}

fn finite(minimum: Minimum, learning_rate: f64) -> Result<Minimum> {
    if minimum.reason == StopReason::NotFinite {
        return Err(Error::Data(format!(
            "registration: the loss is {} at iteration {} with learning rate {learning_rate}; expected finite numbers",
            minimum.ends[1], minimum.iterations
        )));
    }
    Ok(minimum)
}

/// The warning that a pair of masks (fixed, moving) is registered on the CPU, because the masks or the codes of their cells do
/// not fit into a buffer of the device. None where they fit.
pub(super) fn too_large([fixed, moving]: [&Mask; 2], device: &Device, options: &RegistrationOptions) -> Option<String> {
    let bytes = (fixed.labels().len() as u64).max(cell_bytes(moving.grid.shape, &options.channels));
    exceeds(bytes, device.max_buffer_bytes() / 2, &device.name())
}

fn exceeds(bytes: u64, limit: u64, device: &str) -> Option<String> {
    (bytes >= limit).then(|| {
        format!("registered on the CPU: the masks need {bytes} bytes in a buffer, expected below {limit} on {device}")
    })
}

/// Bytes of the codes of a mask's cells on a GPU, for labels that reach every edge of the grid [d, h, w].
pub(super) fn cell_bytes(shape: [usize; 3], channels: &Channels) -> u64 {
    let width = if channels.count() > 2 { 4 } else { 2 };
    shape.iter().fold(width, |bytes: u64, size| bytes.saturating_mul((*size as u64).saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_together_is_run_one_by_one() {
        let full = |which: &[usize]| match which {
            [3] | [_, _, ..] => Err(Error::Data(format!("no room for {which:?}"))),
            _ => Ok(which.iter().map(|i| i * 10).collect()),
        };
        let (results, warning) = together_or_one_by_one(&[1, 3, 4], full);
        let results: Vec<_> = results.into_iter().map(|r| r.map_err(|e| e.to_string())).collect();
        assert_eq!(results, [Ok(10), Err("no room for [3]".into()), Ok(40)]);
        assert_eq!(warning.as_deref(), Some("registered one by one: 3 pairs together failed: no room for [1, 3, 4]"));
        let (results, warning) = together_or_one_by_one(&[3], full);
        assert!(results.len() == 1 && results[0].is_err() && warning.is_none());
        let (results, _) = together_or_one_by_one(&[1, 3, 4], |_| Ok(vec![1]));
        assert!(results.len() == 3 && results.iter().all(Result::is_err));
        let (results, warning) = together_or_one_by_one(&[1, 3, 4], |which: &[usize]| Ok(which.to_vec()));
        assert!(results.into_iter().map(|r| r.expect("a result")).eq([1, 3, 4]) && warning.is_none());
    }

    #[test]
    fn masks_go_to_the_cpu_where_a_buffer_cannot_hold_them() {
        assert_eq!(exceeds(99, 100, "cuda:0"), None);
        let warning = exceeds(100, 100, "cuda:0").expect("masks that do not fit");
        assert!(
            warning.contains("on the CPU") && warning.contains("100 bytes") && warning.contains("cuda:0"),
            "{warning}"
        );
        // One more cell than voxels along each axis, two bytes each; four for more than two channels.
        let two = Channels::default();
        assert_eq!(cell_bytes([3, 4, 5], &two), 2 * 4 * 5 * 6);
        assert_eq!(cell_bytes([3, 4, 5], &"1/2/3".parse().expect("channels")), 4 * 4 * 5 * 6);
        assert_eq!(cell_bytes([usize::MAX; 3], &two), u64::MAX);
    }
}
