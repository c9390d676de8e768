//! Which of the convolution kernels runs: a small model of their costs over the shape and the device.
//!
//! A kernel's time is taken as the multiplications it does, those of tiles' padding included, over a rate. Tiles are dealt
//! to the device's multiprocessors in rounds, and a last round that is not full counts as one. What matters is the order
//! of the candidates, not the numbers.

use std::fmt;
use std::str::FromStr;

use nephron_kernels::conv3d::stem::{Brick, RUN};

use super::tiling::{self, Tiling};
use super::{Conv3dProblem, pointwise, stem};
use crate::error::{Error, Result};
use crate::ops::trace;
use crate::tensor::DType;

/// The ways to convolve on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// A unit an output: the yardstick of the others, chosen only on request.
    Naive,
    /// A unit an output, or a few neighbouring channels: any shape.
    Direct,
    /// Few input channels: a register block of voxels and channels a unit over the input in shared memory.
    Stem,
    /// 1x1x1 to few output channels: a unit a voxel.
    Pointwise,
    /// A matrix product by ordinary multiplications over shared-memory tiles.
    RegisterBlocked,
    /// The same on tile-matrix instructions; where there are none, their plain twin, which is slow.
    ImplicitGemm,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Naive, Self::Direct, Self::Stem, Self::Pointwise, Self::RegisterBlocked, Self::ImplicitGemm];
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Naive => "naive",
            Self::Direct => "direct",
            Self::Stem => "stem",
            Self::Pointwise => "pointwise",
            Self::RegisterBlocked => "register_blocked",
            Self::ImplicitGemm => "implicit_gemm",
        })
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|a| a.to_string() == text).ok_or_else(|| {
            Error::Usage(format!(
                "NEPHRON_CONV: expected naive, direct, stem, pointwise, register_blocked or implicit_gemm, found '{text}'"
            ))
        })
    }
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Facts {
    /// `mma.sync`, `ldmatrix` and cp.async for the problem's type?
    pub(in crate::ops) matrix: bool,
    /// cp.async?
    pub(in crate::ops) copy_async: bool,
    /// A processor that plays a GPU (lavapipe)?
    pub(in crate::ops) software: bool,
    /// Bytes of shared memory a cube may have.
    pub(in crate::ops) shared_bytes: usize,
    /// Units a cube may have.
    pub(in crate::ops) units: usize,
    /// Cubes that run side by side, at least.
    pub(in crate::ops) processors: usize,
    /// Elements loaded at once: a divisor of the input channels.
    pub(in crate::ops) width: usize,
    /// A tensor's type.
    pub(in crate::ops) dtype: DType,
}

/// A kernel and the tiles it runs with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Plan {
    Naive,
    Direct,
    Stem(Brick),
    Pointwise,
    RegisterBlocked(Tiling),
    ImplicitGemm(Tiling),
}

impl Plan {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Naive => Algorithm::Naive,
            Self::Direct => Algorithm::Direct,
            Self::Stem(_) => Algorithm::Stem,
            Self::Pointwise => Algorithm::Pointwise,
            Self::RegisterBlocked(_) => Algorithm::RegisterBlocked,
            Self::ImplicitGemm(_) => Algorithm::ImplicitGemm,
        }
    }
}

/// Multiplications a multiprocessor does in the time of one by the direct kernel.
fn rate(algorithm: Algorithm, facts: &Facts) -> f64 {
    match (algorithm, facts.matrix) {
        (Algorithm::Naive, _) => 0.5,
        (Algorithm::Direct, _) => 1.0,
        (Algorithm::Stem, _) => 16.0,
        (Algorithm::Pointwise, _) => 24.0,
        (Algorithm::RegisterBlocked, _) => 8.0,
        // With few channels its time goes to gathering elements, a vector at a time.
        (Algorithm::ImplicitGemm, true) => 10.0 * facts.width.min(8) as f64,
        (Algorithm::ImplicitGemm, false) => 0.5,
    }
}

/// m, n and k of the matrix product that a convolution of one group is.
fn product(problem: &Conv3dProblem) -> [usize; 3] {
    let [n, co, od, oh, ow] = problem.output_shape();
    [n * od * oh * ow, co, problem.weight_shape()[1..].iter().product()]
}

fn cost(plan: &Plan, problem: &Conv3dProblem, facts: &Facts) -> f64 {
    let [m, n, k] = product(problem);
    let rate = rate(plan.algorithm(), facts) * facts.processors as f64;
    if let Plan::Stem(brick) = plan {
        return stem::multiplications(brick, problem, facts.processors) / rate;
    }
    if let Plan::Pointwise = plan {
        return pointwise::multiplications(problem, facts.processors) / rate;
    }
    let (Plan::RegisterBlocked(tiling) | Plan::ImplicitGemm(tiling)) = plan else {
        return m as f64 * n as f64 * k as f64 / rate;
    };
    let t = tiling.tiles;
    let cubes = (m.div_ceil(t.m) * n.div_ceil(t.n)).next_multiple_of(facts.processors);
    cubes as f64 * (t.m * t.n * k.next_multiple_of(t.k)) as f64 / rate
}

/// What an algorithm cannot do with this problem.
fn obstacle(problem: &Conv3dProblem, facts: &Facts, algorithm: Algorithm) -> Option<Error> {
    let groups = problem.params().groups;
    let taps: usize = problem.weight_shape()[2..].iter().sum();
    let refuse = |what: &str, expected: &str, found: &dyn fmt::Display| {
        Some(Error::argument(format!("conv3d by {algorithm}: {what}"), expected, found))
    };
    match algorithm {
        Algorithm::Naive | Algorithm::Direct => None,
        _ if groups != 1 => refuse("groups", "1", &groups),
        Algorithm::Stem => stem::obstacle(problem, facts),
        Algorithm::Pointwise => pointwise::obstacle(problem, facts),
        _ if taps > 32 => refuse("taps along z, y and x together", "at most 32", &taps),
        // The twin is for devices without matrix instructions; where there are some, f32 is not among their types.
        Algorithm::ImplicitGemm if facts.copy_async && !facts.matrix => refuse("dtype", "f16 or bf16", &facts.dtype),
        _ => None,
    }
}

/// The cheapest plan of `algorithm`, or of all.
pub(super) fn plan(problem: &Conv3dProblem, facts: &Facts, algorithm: Option<Algorithm>) -> Result<Plan> {
    if let Some(refused) = algorithm.and_then(|a| obstacle(problem, facts, a)) {
        return Err(refused);
    }
    let tiled = tiling::register_blocked(facts)
        .map(Plan::RegisterBlocked)
        .chain(tiling::implicit_gemm(facts).map(Plan::ImplicitGemm));
    let stem = stem::brick(problem, facts).map(Plan::Stem);
    let candidates = [Plan::Naive, Plan::Direct, Plan::Pointwise].into_iter().chain(stem).chain(tiled);
    let allowed = candidates
        .filter(|p| algorithm.is_none_or(|a| a == p.algorithm()) && obstacle(problem, facts, p.algorithm()).is_none());
    let cheapest = allowed.min_by(|a, b| cost(a, problem, facts).total_cmp(&cost(b, problem, facts)));
    cheapest.ok_or_else(|| {
        let found = format!("{} bytes and {} units", facts.shared_bytes, facts.units);
        Error::argument("conv3d: what a cube may have on this device", "enough for a tile", found)
    })
}

/// As [`plan`], with NEPHRON_CONV obeyed where it can be and the choice said under `-v`, once a shape.
pub(super) fn choose(problem: &Conv3dProblem, facts: &Facts) -> Result<Plan> {
    let wish = match std::env::var("NEPHRON_CONV") {
        Ok(name) if !name.is_empty() => Some(name.parse::<Algorithm>()?),
        _ => None,
    };
    let chosen = plan(problem, facts, wish);
    let refused = wish.and(chosen.as_ref().err().map(ToString::to_string));
    let chosen = if refused.is_some() { plan(problem, facts, None)? } else { chosen? };
    trace::choice(|| describe(&chosen, problem, facts, refused.as_deref()));
    if let Some(reason) = refused {
        trace::once(&format!("NEPHRON_CONV: {reason}; {} instead", chosen.algorithm()));
    }
    Ok(chosen)
}

fn describe(plan: &Plan, problem: &Conv3dProblem, facts: &Facts, refused: Option<&str>) -> String {
    let [m, n, k] = product(problem);
    let why = if refused.is_some() { ", the wish refused" } else { "" };
    let tiles = match plan {
        Plan::Naive | Plan::Direct | Plan::Pointwise => String::new(),
        Plan::Stem(b) => format!(" {} x {} x {} by {}, {} units", b.z, b.y, b.x, b.groups * RUN, b.units()),
        Plan::RegisterBlocked(t) | Plan::ImplicitGemm(t) => format!(" {t}"),
    };
    let (x, w, dtype) = (problem.input_shape(), problem.weight_shape(), facts.dtype);
    format!("conv3d {dtype} {x:?} by {w:?} ({m} x {n} x {k}): {}{tiles}{why}", plan.algorithm())
}

#[cfg(test)]
#[path = "algorithm_tests.rs"]
mod tests;
