//! Choosing the kernel of a convolution by timing: the few candidates that the planner prefers, each on the shape in
//! question, on scratch buffers, taking turns. This happens only where the device's options ask for it, since the choice
//! then depends on more than the shape and the device, and with it the last bits of the result.
//!
//! What was found is kept in a file that the device's options name, under the device, its driver and this crate's version.
//! A plan is kept as its text, so one that the crate no longer offers is never taken for another.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use cubecl::server::Handle;

use super::capabilities::DeviceCaps;
use super::plan::Convolution;
use crate::device::gpu::Gpu;
use crate::error::Result;
use crate::files::write_atomic;
use crate::tensor::Shape;

/// Candidates that are timed at most. Those further down the list have not been seen to win.
const CANDIDATES: usize = 4;
/// Rounds of timing. The shortest time of a candidate counts, since disturbances only add to it.
const ROUNDS: usize = 3;
/// Time that a candidate runs for in a round at least: long beside a synchronisation.
const ROUND: Duration = Duration::from_millis(2);

/// Launches a plan over buffers of input, weight and output.
pub(crate) type LaunchOn<'a, P> = &'a dyn Fn([&Handle; 3], &P) -> Result<()>;

/// The texts of plans, by device and key of the problem.
type Found = BTreeMap<String, BTreeMap<String, String>>;

/// The plan that `cache` names, else the fastest, which is then written there.
pub(super) fn tuned_plan<C: Convolution>(
    device: &Gpu,
    problem: &C,
    caps: &DeviceCaps,
    cache: Option<&Path>,
    launch: LaunchOn<'_, C::Plan>,
) -> Result<C::Plan> {
    let candidates = likely(problem, caps);
    let (identity, key) = (device.identity().to_owned(), problem.key(caps));
    let found: Found = cache.map(read).unwrap_or_default();
    let kept = found.get(&identity).and_then(|plans| plans.get(&key));
    if let Some(plan) = candidates.iter().find(|p| kept == Some(&p.to_string())) {
        device.choices().log_choice(|| format!("{key}: {plan}, as timed before"));
        return Ok(*plan);
    }
    let plan = fastest(device, problem, caps, &candidates, launch)?;
    if let Some(file) = cache
        && let Err(error) = remember(file, &identity, &key, &plan.to_string())
    {
        device.choices().warn(format!("{}: what was timed is not kept: {error}", file.display()));
    }
    Ok(plan)
}

/// The candidates that are timed, the best guess first.
fn likely<C: Convolution>(problem: &C, caps: &DeviceCaps) -> Vec<C::Plan> {
    let mut all = problem.candidates(caps, None);
    all.truncate(CANDIDATES);
    all
}

/// Times `candidates`, the best guess first. One that fails is out. If all fail the first is taken: its failure is then the
/// caller's.
fn fastest<C: Convolution>(
    device: &Gpu,
    problem: &C,
    caps: &DeviceCaps,
    candidates: &[C::Plan],
    launch: LaunchOn<'_, C::Plan>,
) -> Result<C::Plan> {
    let buffer = |shape: Shape| device.alloc(shape.iter().product::<usize>() * caps.dtype.size());
    let [x, w, y] = problem.shapes();
    let (x, w, y) = (buffer(x)?, buffer(w)?, buffer(y)?);
    let run = |plan: &C::Plan, times: u32| -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..times {
            launch([&x, &w, &y], plan)?;
        }
        device.synchronize()?;
        Ok(start.elapsed() / times)
    };
    let mut left = Vec::new();
    for plan in candidates {
        // The first run compiles, the second tells how many make a round.
        if let Ok(once) = run(plan, 1).and_then(|_| run(plan, 1)) {
            let times = ROUND.as_nanos() / once.as_nanos().max(1);
            left.push((plan, times.clamp(1, 100) as u32, once));
        }
    }
    for _ in 0..ROUNDS {
        left.retain_mut(|(plan, times, best)| run(plan, *times).map(|took| *best = took.min(*best)).is_ok());
    }
    for (plan, _, best) in &left {
        let milliseconds = best.as_secs_f64() * 1e3;
        device.choices().log_choice(|| format!("{}: {plan} takes {milliseconds:.3} ms", problem.key(caps)));
    }
    let best = left.iter().min_by_key(|(.., best)| *best).map(|(plan, ..)| **plan);
    Ok(best.unwrap_or(candidates[0]))
}

/// What the file holds: nothing where it does not exist or cannot be read. It is then written anew.
fn read(file: &Path) -> Found {
    std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Adds a plan to the file. A lock keeps two processes from losing each other's plans: the file is read again under it.
fn remember(file: &Path, identity: &str, key: &str, plan: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let lock = std::fs::File::create(file.with_extension("lock"))?;
    lock.lock()?;
    let mut found = read(file);
    found.entry(identity.to_owned()).or_default().insert(key.to_owned(), plan.to_owned());
    write(file, &found)
}

fn write(file: &Path, found: &Found) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(found)?;
    write_atomic(file, |out| out.write_all(text.as_bytes())).map_err(std::io::Error::other)
}

#[cfg(test)]
#[path = "autotune_tests.rs"]
mod tests;
