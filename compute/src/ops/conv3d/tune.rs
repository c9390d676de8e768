//! Choosing a convolution's kernel by timing: the few that the model of costs thinks best, each on the shape in question,
//! on scratch buffers, taking turns. Only where it was asked for, since the choice then depends on more than the shape and
//! the device, and with it the last bits of the result.
//!
//! What was found is kept in a file that the device's options name, under the device, its driver and this crate's version; a plan is
//! kept as what it says of itself, so one that the crate no longer offers is never taken for another.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Conv3dProblem;
use super::algorithm::{self, Algorithm, Plan};
use super::facts::Facts;
use super::gpu::Conv3dHandles;
use crate::device::Autotune;
use crate::device::gpu::Gpu;
use crate::error::Result;
use crate::tensor::DType;

/// Candidates that are timed at most: what the model puts further down has not been seen to win.
const CANDIDATES: usize = 4;
/// Rounds; the shortest time of a candidate counts, since what disturbs only adds.
const ROUNDS: usize = 3;
/// What a candidate runs for in a round, at the least: long beside a synchronisation.
const ROUND: Duration = Duration::from_millis(2);

/// Shapes and their plans' descriptions, by device.
type Found = BTreeMap<String, BTreeMap<String, String>>;

/// The plan for a problem on a device: by `algorithm`, by the kernel that the device's options prefer, by timing if its
/// options ask for that, else by the cost model.
pub(in crate::ops) fn plan(
    device: &Gpu,
    dtype: DType,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<Plan> {
    let (options, choices) = (device.options(), device.choices());
    let facts = device.launches().conv_facts(dtype, problem.weight_shape()[1], options.tf32);
    if algorithm.is_some() {
        return algorithm::plan(problem, &facts, algorithm);
    }
    choices.conv3d(problem, &facts, || match &options.autotune {
        Autotune::InMemory if options.conv3d.is_none() => tuned_plan(device, problem, &facts, None),
        Autotune::Cached(file) if options.conv3d.is_none() => tuned_plan(device, problem, &facts, Some(file)),
        _ => algorithm::choose(problem, &facts, options.conv3d, choices),
    })
}

/// The plan that `cache` names, else the fastest, which is then written there.
fn tuned_plan(device: &Gpu, problem: &Conv3dProblem, facts: &Facts, cache: Option<&Path>) -> Result<Plan> {
    let candidates = candidates(problem, facts);
    let (identity, shape) = (device.identity().to_owned(), shape(problem, facts));
    let found: Found = cache.map(read).unwrap_or_default();
    let kept = found.get(&identity).and_then(|shapes| shapes.get(&shape));
    if let Some(plan) = candidates.iter().find(|p| kept == Some(&p.to_string())) {
        device.choices().log_choice(|| format!("{shape}: {plan}, as timed before"));
        return Ok(*plan);
    }
    let plan = fastest(device, facts, problem, &candidates)?;
    if let Some(file) = cache
        && let Err(error) = remember(file, &identity, &shape, &plan)
    {
        device.choices().warn(format!("{}: what was timed is not kept: {error}", file.display()));
    }
    Ok(plan)
}

/// The likely plans, best guess first; never the yardstick.
fn candidates(problem: &Conv3dProblem, facts: &Facts) -> Vec<Plan> {
    let mut all = algorithm::ranked(problem, facts);
    all.retain(|plan| *plan != Plan::Naive);
    all.truncate(CANDIDATES);
    all
}

/// Times `candidates`, best guess first; one that fails is out. The first if all do: its failure is then the caller's.
fn fastest(device: &Gpu, facts: &Facts, problem: &Conv3dProblem, candidates: &[Plan]) -> Result<Plan> {
    let dtype = facts.dtype;
    let buffer = |shape: crate::tensor::Shape| device.alloc(shape.iter().product::<usize>() * dtype.size());
    let (x, w, y) = (buffer(problem.input_shape())?, buffer(problem.weight_shape())?, buffer(problem.output_shape())?);
    let run = |plan: &Plan, times: u32| -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..times {
            let buffers = Conv3dHandles { x: &x, w: &w, b: None, residual: None, y: &y };
            device.run(|client| client.conv3d_planned(dtype, buffers, 1.0, problem, plan))?;
        }
        device.synchronize()?;
        Ok(start.elapsed() / times)
    };
    let mut left = Vec::new();
    for plan in candidates {
        // The first run compiles, the second says how many make a round.
        if let Ok(once) = run(plan, 1).and_then(|_| run(plan, 1)) {
            let times = ROUND.as_nanos() / once.as_nanos().max(1);
            left.push((plan, times.clamp(1, 100) as u32, once));
        }
    }
    for _ in 0..ROUNDS {
        left.retain_mut(|(plan, times, best)| run(plan, *times).map(|took| *best = took.min(*best)).is_ok());
    }
    for (plan, _, best) in &left {
        device
            .choices()
            .log_choice(|| format!("{}: {plan} takes {:.3} ms", shape(problem, facts), best.as_secs_f64() * 1e3));
    }
    let best = left.iter().min_by_key(|(.., best)| *best).map(|(plan, ..)| **plan);
    Ok(best.unwrap_or(candidates[0]))
}

/// What a plan may depend on.
fn shape(problem: &Conv3dProblem, facts: &Facts) -> String {
    let p = problem.params();
    let (x, w) = (problem.input_shape(), problem.weight_shape());
    let steps = format!("stride {:?} padding {:?} dilation {:?} groups {}", p.stride, p.padding, p.dilation, p.groups);
    format!("conv3d {} {x:?} by {w:?} {steps}, {:?}", facts.dtype, facts.step())
}

/// Nothing where there is no file, or one that cannot be read: it is written anew.
fn read(file: &Path) -> Found {
    std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Adds a plan to the file. A lock keeps two processes from losing each other's: the file is read again under it.
fn remember(file: &Path, identity: &str, shape: &str, plan: &Plan) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let lock = std::fs::File::create(file.with_extension("lock"))?;
    lock.lock()?;
    let mut found = read(file);
    found.entry(identity.to_owned()).or_default().insert(shape.to_owned(), plan.to_string());
    write(file, &found)
}

fn write(file: &Path, found: &Found) -> std::io::Result<()> {
    let mut temporary = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
    temporary.write_all(serde_json::to_string_pretty(found)?.as_bytes())?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
#[path = "tune_tests.rs"]
mod tests;
