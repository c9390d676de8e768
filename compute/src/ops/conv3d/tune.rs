//! Choosing a convolution's kernel by timing: the few that the model of costs thinks best, each on the shape in question,
//! on scratch buffers, taking turns. Only where it was asked for, since the choice then depends on more than the shape and
//! the device, and with it the last bits of the result.
//!
//! What was found is kept in a file of the user's cache, under the device, its driver and this crate's version; a plan is
//! kept as what it says of itself, so one that the crate no longer offers is never taken for another.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Conv3dProblem;
use super::algorithm::{self, Algorithm, Plan};
use super::facts::{Facts, facts};
use super::gpu::{self, Conv3dHandles};
use crate::device::gpu::{Gpu, with_client};
use crate::error::Result;
use crate::ops::trace;
use crate::tensor::DType;

static ON: AtomicBool = AtomicBool::new(false);

/// From now on the first convolution of each shape on a GPU times the likely kernels and keeps the fastest, also for later
/// runs (in NEPHRON_CACHE, else the user's cache folder). Off at first. NEPHRON_CONV goes before.
pub fn tune_convolutions(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// Candidates that are timed at most: what the model puts further down has not been seen to win.
const CANDIDATES: usize = 4;
/// Rounds; the shortest time of a candidate counts, since what disturbs only adds.
const ROUNDS: usize = 3;
/// What a candidate runs for in a round, at the least: long beside a synchronisation.
const ROUND: Duration = Duration::from_millis(2);

/// Shapes and their plans' descriptions, by device.
type Found = BTreeMap<String, BTreeMap<String, String>>;

/// The plan for a problem on a device: by `algorithm`, by NEPHRON_CONV, by timing if that is on, else by the model.
pub(in crate::ops) fn plan(
    device: &Gpu,
    dtype: DType,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<Plan> {
    let wish = algorithm.is_some() || std::env::var_os("NEPHRON_CONV").is_some_and(|name| !name.is_empty());
    if wish || !ON.load(Ordering::Relaxed) || device.compiles_only() {
        return with_client!(device, client => gpu::plan(client, dtype, problem, algorithm));
    }
    type Tuned = HashMap<(String, Conv3dProblem, Facts), Plan>;
    static TUNED: Mutex<Option<Tuned>> = Mutex::new(None);
    let facts = with_client!(device, client => facts(client, dtype, problem.weight_shape()[1]));
    let key = (device.name().to_owned(), *problem, facts);
    let mut tuned = TUNED.lock().unwrap_or_else(PoisonError::into_inner);
    let tuned = tuned.get_or_insert_default();
    if let Some(plan) = tuned.get(&key) {
        return Ok(*plan);
    }
    let plan = tuned_plan(device, problem, &facts, cache_file().as_deref())?;
    tuned.insert(key, plan);
    Ok(plan)
}

/// The plan that `cache` names, else the fastest, which is then written there.
fn tuned_plan(device: &Gpu, problem: &Conv3dProblem, facts: &Facts, cache: Option<&Path>) -> Result<Plan> {
    let candidates = candidates(problem, facts);
    let (identity, shape) = (device.identity().to_owned(), shape(problem, facts));
    let mut found: Found = cache.map(read).unwrap_or_default();
    let kept = found.get(&identity).and_then(|shapes| shapes.get(&shape));
    if let Some(plan) = candidates.iter().find(|p| kept == Some(&p.to_string())) {
        trace::choice(|| format!("{shape}: {plan}, as timed before"));
        return Ok(*plan);
    }
    let plan = fastest(device, facts, problem, &candidates)?;
    found.entry(identity).or_default().insert(shape, plan.to_string());
    if let Some(file) = cache
        && let Err(error) = write(file, &found)
    {
        trace::once(&format!("{}: what was timed is not kept: {error}", file.display()));
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
            with_client!(device, client => gpu::launch_planned(client, dtype, buffers, 1.0, problem, plan));
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
        trace::choice(|| format!("{}: {plan} takes {:.3} ms", shape(problem, facts), best.as_secs_f64() * 1e3));
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

fn cache_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = set("NEPHRON_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").or_else(|| set("LOCALAPPDATA")).map(|f| f.join("nephron")))
        .or_else(|| set("HOME").map(|f| f.join(".cache").join("nephron")))?;
    Some(folder.join("conv3d.json"))
}

/// Nothing where there is no file, or one that cannot be read: it is written anew.
fn read(file: &Path) -> Found {
    std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn write(file: &Path, found: &Found) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(serde_json::to_string_pretty(found)?.as_bytes())?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
#[path = "tune_tests.rs"]
mod tests;
