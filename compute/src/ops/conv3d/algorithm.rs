//! Which of the convolution kernels runs: a small model of their costs over the shape and the device.
//!
//! A cube's time is what takes it longest, in cycles of a multiprocessor: its multiplications, those of tiles' padding
//! included, or what it fetches from the L2 cache; and a little of the other. Cubes are dealt to the multiprocessors in rounds, and a last round that
//! is not full counts as one. What matters is the order of the candidates, not the numbers.

use std::fmt;
use std::iter;
use std::str::FromStr;

use nephron_kernels::conv3d::stem::{Brick, RUN};

use super::bricks::{self, HaloTiling};
use super::facts::Facts;
use super::tiling::{self, Tiling};
use super::{Conv3dProblem, pointwise, stem};
use crate::error::{Error, Result};
use crate::ops::choices::Choices;

/// The ways to convolve on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// On tile-matrix instructions with the inputs of all taps kept in shared memory; stride 1.
    Halo,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Naive, Self::Direct, Self::Stem, Self::Pointwise, Self::RegisterBlocked, Self::ImplicitGemm, Self::Halo];
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
            Self::Halo => "halo",
        })
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|a| a.to_string() == text).ok_or_else(|| {
            let names = Self::ALL.map(|a| a.to_string()).join(", ");
            Error::argument("conv3d algorithm", format!("one of {names}"), format!("'{text}'"))
        })
    }
}

/// A kernel and the tiles it runs with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Plan {
    Naive,
    Direct,
    Stem(Brick),
    Pointwise,
    RegisterBlocked(Tiling),
    ImplicitGemm(Tiling),
    Halo(HaloTiling),
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
            Self::Halo(_) => Algorithm::Halo,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.algorithm().fmt(f)?;
        match self {
            Self::Naive | Self::Direct | Self::Pointwise => Ok(()),
            Self::Stem(b) => write!(f, " {} x {} x {} by {}, {} units", b.z, b.y, b.x, b.groups * RUN, b.units()),
            Self::RegisterBlocked(t) | Self::ImplicitGemm(t) => write!(f, " {t}"),
            Self::Halo(t) => write!(f, " {t}"),
        }
    }
}

/// Multiply-adds a cycle of a multiprocessor. On matrix instructions an H100 does 1058 of 16 bits (490 TFLOP/s by
/// `mma.sync`) and half as many of tf32, of which the kernels' other instructions leave about this much; of 128 ordinary
/// ones likewise. With few channels in a vector the time goes to gathering them.
fn rate(algorithm: Algorithm, facts: &Facts) -> f64 {
    let bytes = facts.dtype.size();
    let gathered = (facts.width * bytes).min(16) as f64 / 16.0;
    match (algorithm, facts.matrix) {
        (Algorithm::Naive, _) => 5.0,
        (Algorithm::Direct, _) => 10.0,
        (Algorithm::Stem, _) => 110.0,
        (Algorithm::Pointwise, _) => 120.0,
        (Algorithm::RegisterBlocked, _) => 40.0 + 40.0 * gathered,
        (Algorithm::ImplicitGemm | Algorithm::Halo, true) => 1600.0 / bytes as f64 * gathered,
        (Algorithm::ImplicitGemm | Algorithm::Halo, false) => 4.0,
    }
}

/// Bytes a cycle from L2 to a multiprocessor, while all of them ask.
const L2_BYTES: f64 = 24.0;

/// How much of the shorter of the two is not hidden behind the longer.
const SHOWS: f64 = 0.25;

/// A launch in cycles, about 2 us.
const LAUNCH_CYCLES: f64 = 3500.0;

/// Elements of all parts together: 64 MiB, what stays in the caches of the GPUs that have few cubes to share out.
const MOST_PARTS: usize = 1 << 24;

/// m, n and k of the matrix product that a convolution of one group is.
fn product(problem: &Conv3dProblem) -> [usize; 3] {
    let [n, co, od, oh, ow] = problem.output_shape();
    [n * od * oh * ow, co, problem.weight_shape()[1..].iter().product()]
}

/// Cycles, up to a factor that all candidates share.
fn cost(plan: &Plan, problem: &Conv3dProblem, facts: &Facts) -> f64 {
    let [m, n, k] = product(problem);
    let rate = rate(plan.algorithm(), facts);
    let bytes = facts.dtype.size() as f64;
    // Cubes, multiplications of one, and elements it fetches.
    let (cubes, multiplications, fetched) = match plan {
        Plan::Stem(brick) => {
            return stem::multiplications(brick, problem, facts.processors) / rate / facts.processors as f64;
        }
        Plan::Pointwise => {
            return pointwise::multiplications(problem, facts.processors) / rate / facts.processors as f64;
        }
        Plan::Naive | Plan::Direct => return m as f64 * n as f64 * k as f64 / rate / facts.processors as f64,
        Plan::RegisterBlocked(tiling) | Plan::ImplicitGemm(tiling) => {
            let (t, splits) = (tiling.tiles, tiling.splits);
            let k = k.div_ceil(t.k).div_ceil(splits) * t.k;
            (m.div_ceil(t.m) * n.div_ceil(t.n) * splits, t.m * t.n * k, (t.m + t.n) * k)
        }
        Plan::Halo(tiling) => {
            let t = tiling.bricks;
            let [images, _, spatial @ ..] = problem.output_shape();
            let bricks: usize = (0..3).map(|a| spatial[a].div_ceil(t.voxels[a])).product();
            let ci = problem.weight_shape()[1].next_multiple_of(t.chunk);
            let taps: usize = t.kernel.iter().product();
            let halo: usize = t.halo().iter().product();
            (images * bricks * n.div_ceil(t.n), t.m() * t.n * taps * ci, (halo + taps * t.n) * ci)
        }
    };
    let (multiply, fetch) = (multiplications as f64 / rate, fetched as f64 * bytes / L2_BYTES);
    let cycles = multiply.max(fetch) + SHOWS * multiply.min(fetch);
    // Parts of sums are f32, written once and read once, by a launch of its own.
    let parts = match plan {
        Plan::RegisterBlocked(t) | Plan::ImplicitGemm(t) if t.splits > 1 => {
            LAUNCH_CYCLES + (t.splits * m * n * 8) as f64 / (L2_BYTES * facts.processors as f64)
        }
        _ => 0.0,
    };
    cubes.div_ceil(facts.processors) as f64 * cycles + parts
}

/// Steps of a split at least: what fills a pipeline of stages and leaves a multiple of that.
const LEAST_STEPS: usize = 8;

/// The ways to cut the sums of `tiling`: not at all, and so that every multiprocessor has one cube, or two.
fn splits(tiling: Tiling, problem: &Conv3dProblem, facts: &Facts) -> impl Iterator<Item = Tiling> {
    let [m, n, k] = product(problem);
    let tiles = m.div_ceil(tiling.tiles.m) * n.div_ceil(tiling.tiles.n);
    let most = k.div_ceil(tiling.tiles.k) / LEAST_STEPS;
    let some = [1, 2].map(|a| (a * facts.processors / tiles).min(most)).into_iter().filter(|s| *s > 1);
    let small = some.filter(move |s| s.saturating_mul(m).saturating_mul(n) < MOST_PARTS);
    iter::once(1).chain(small).map(move |s| tiling.split(k, s))
}

/// The error of an algorithm that cannot do a problem.
pub(super) fn refuse(algorithm: Algorithm, what: &str, expected: &str, found: &dyn fmt::Display) -> Option<Error> {
    Some(Error::argument(format!("conv3d by {algorithm}: {what}"), expected, found))
}

/// What an algorithm cannot do with this problem.
fn obstacle(problem: &Conv3dProblem, facts: &Facts, algorithm: Algorithm) -> Option<Error> {
    let groups = problem.params().groups;
    let taps: usize = problem.weight_shape()[2..].iter().sum();
    match algorithm {
        Algorithm::Naive | Algorithm::Direct => None,
        _ if groups != 1 => refuse(algorithm, "groups", "1", &groups),
        Algorithm::Stem => stem::obstacle(problem, facts),
        Algorithm::Pointwise => pointwise::obstacle(problem, facts),
        // The twins are for devices without matrix instructions.
        Algorithm::ImplicitGemm | Algorithm::Halo if facts.copy_async && !facts.matrix => {
            let expected = "f16, bf16, or f32 in multiples of 4 input channels with tf32 allowed";
            refuse(algorithm, "dtype", expected, &facts.dtype)
        }
        Algorithm::Halo => bricks::obstacle(problem),
        _ if taps > 32 => refuse(algorithm, "taps along z, y and x together", "at most 32", &taps),
        _ => None,
    }
}

/// What could do the problem, the cheapest first.
pub(super) fn ranked(problem: &Conv3dProblem, facts: &Facts) -> Vec<Plan> {
    let split = |tiling| splits(tiling, problem, facts);
    let tiled = tiling::register_blocked(facts)
        .flat_map(split)
        .map(Plan::RegisterBlocked)
        .chain(tiling::implicit_gemm(facts).flat_map(split).map(Plan::ImplicitGemm))
        .chain(bricks::tiling(facts, problem).map(Plan::Halo));
    let stem = stem::brick(problem, facts).map(Plan::Stem);
    let candidates = [Plan::Naive, Plan::Direct, Plan::Pointwise].into_iter().chain(stem).chain(tiled);
    let mut able: Vec<_> = candidates.filter(|p| obstacle(problem, facts, p.algorithm()).is_none()).collect();
    let mut costs: Vec<_> = able.drain(..).map(|p| (cost(&p, problem, facts), p)).collect();
    costs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    costs.into_iter().map(|(_, p)| p).collect()
}

/// The cheapest plan of `algorithm`, or of all.
pub(super) fn plan(problem: &Conv3dProblem, facts: &Facts, algorithm: Option<Algorithm>) -> Result<Plan> {
    if let Some(refused) = algorithm.and_then(|a| obstacle(problem, facts, a)) {
        return Err(refused);
    }
    let cheapest = ranked(problem, facts).into_iter().find(|p| algorithm.is_none_or(|a| a == p.algorithm()));
    cheapest.ok_or_else(|| {
        let found = format!("{} bytes and {} units", facts.shared_bytes, facts.units);
        Error::argument("conv3d: what a cube may have on this device", "enough for a tile", found)
    })
}

/// As [`plan`], by the kernel that the device's options name where it can do the problem; the choice is logged.
pub(super) fn choose(
    problem: &Conv3dProblem,
    facts: &Facts,
    preferred: Option<Algorithm>,
    choices: &Choices,
) -> Result<Plan> {
    let chosen = plan(problem, facts, preferred);
    let refused = preferred.and(chosen.as_ref().err().map(ToString::to_string));
    let chosen = if refused.is_some() { plan(problem, facts, None)? } else { chosen? };
    choices.log_choice(|| describe(&chosen, problem, facts, refused.as_deref()));
    if let Some(reason) = refused {
        choices.warn(format!("{reason}; {} instead", chosen.algorithm()));
    }
    Ok(chosen)
}

fn describe(plan: &Plan, problem: &Conv3dProblem, facts: &Facts, refused: Option<&str>) -> String {
    let [m, n, k] = product(problem);
    let why = if refused.is_some() { ", the preferred kernel cannot" } else { "" };
    let (x, w, dtype) = (problem.input_shape(), problem.weight_shape(), facts.dtype);
    format!("conv3d {dtype} {x:?} by {w:?} ({m} x {n} x {k}): {plan}{why}")
}

#[cfg(test)]
#[path = "algorithm_tests.rs"]
mod tests;
