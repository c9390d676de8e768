//! Which of the transposed convolution's kernels runs, and with which tiles.

use std::fmt;
use std::str::FromStr;

use nephron_kernels::conv_transpose3d::gemm::{SEATS, shared_bytes};
use nephron_kernels::conv3d::implicit_gemm::{PLANE, Planes, Step};
use nephron_kernels::conv3d::staging::{Tiles, Transfer};

use super::ConvTranspose3dProblem;
use crate::error::{Error, Result};
use crate::ops::choices::Choices;
use crate::ops::conv3d::facts::Facts;

/// The ways to convolve transposed on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// A unit an output, or a few neighbouring channels: any shape.
    Direct,
    /// One matrix product, for kernels that are their stride.
    Gemm,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Gemm];
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Gemm => "gemm",
        })
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|a| a.to_string() == text);
        found.ok_or_else(|| Error::argument("conv_transpose3d algorithm", "direct or gemm", format!("'{text}'")))
    }
}

/// A kernel and what it runs with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Plan {
    Direct,
    Gemm(Tiling),
}

/// Tiles, how planes share them, and what multiplies them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tiling {
    pub(super) tiles: Tiles,
    pub(super) planes: Planes,
    pub(super) step: Step,
}

/// Voxels in, columns (tap, channel) and terms of the matrix product.
pub(super) fn product(problem: &ConvTranspose3dProblem) -> [usize; 3] {
    let [n, ci, d, h, w] = problem.input_shape();
    [n * d * h * w, problem.weight_shape()[1..].iter().product(), ci]
}

/// Columns loaded at once.
pub(super) fn pair(problem: &ConvTranspose3dProblem) -> usize {
    if product(problem)[1].is_multiple_of(2) { 2 } else { 1 }
}

/// What the matrix product cannot do: footprints that overlap or leave voxels out, and cut edges.
fn obstacle(problem: &ConvTranspose3dProblem) -> Option<Error> {
    let refuse = |what: &str, expected: String, found: String| {
        Some(Error::argument(format!("conv_transpose3d by gemm: {what}"), expected, found))
    };
    let kernel = &problem.weight_shape()[2..];
    let (stride, dilation) = (problem.stride(), problem.dilation());
    let whole: Vec<_> = (0..3).map(|a| problem.input_shape()[2 + a].saturating_mul(stride[a])).collect();
    match problem {
        _ if problem.groups() != 1 => refuse("groups", "1".into(), problem.groups().to_string()),
        _ if kernel != stride => refuse("kernel", format!("the stride {stride:?}"), format!("{kernel:?}")),
        _ if problem.padding() != [0; 3] => refuse("padding", "none".into(), format!("{:?}", problem.padding())),
        _ if (0..3).any(|a| kernel[a] > 1 && dilation[a] > 1) => {
            refuse("dilation", "1".into(), format!("{dilation:?}"))
        }
        // The gradient of a convolution that left voxels at the end out.
        _ if problem.output_shape()[2..] != whole => {
            refuse("output", format!("{whole:?}"), format!("{:?}", &problem.output_shape()[2..]))
        }
        _ => None,
    }
}

/// The tiles that the device allows, largest first.
pub(super) fn tilings(facts: &Facts, pair: usize) -> impl Iterator<Item = Tiling> {
    let facts = *facts;
    let bytes = facts.dtype.size();
    // cp.async copies 4, 8 or 16 bytes.
    let asynchronous = facts.copy_async && facts.width.min(pair) * bytes >= 4;
    let transfer = if asynchronous { Transfer::Async } else { Transfer::Direct };
    // Ordinary arithmetic takes longer than a copy: one step ahead is enough, and a third costs registers.
    let stages = if asynchronous && facts.matrix { 3 } else { 2 };
    // m, n, k and the planes along m and n.
    let shapes: &[[usize; 5]] = match (facts.matrix, facts.software) {
        (true, _) => &[[128, 64, 32, 2, 2], [64, 64, 32, 2, 2], [64, 32, 32, 4, 1]],
        // On a processor every load is a gather, a lane at a time: few, large blocks.
        (_, true) => &[[128, 64, 16, 2, 1], [64, 32, 16, 2, 1]],
        _ => &[[128, 64, 16, 2, 2], [64, 64, 16, 2, 2]],
    };
    let tiling = move |&[m, n, k, planes_m, planes_n]: &[usize; 5]| Tiling {
        tiles: Tiles { m, n, k, stages, units: planes_m * planes_n * PLANE, bytes, transfer },
        planes: Planes { m: planes_m, n: planes_n },
        step: if facts.matrix { Step::Mma } else { Step::Plain },
    };
    shapes.iter().map(tiling).filter(move |t| fits(t, &facts, pair))
}

/// May a cube have this much, and do its units share both tiles out evenly?
fn fits(tiling: &Tiling, facts: &Facts, pair: usize) -> bool {
    let t = tiling.tiles;
    let (a_columns, b_columns) = (t.k / facts.width, t.n / pair);
    let even = |columns: usize, rows: usize| t.units.is_multiple_of(columns) && rows.is_multiple_of(t.units / columns);
    (t.n / tiling.planes.n).is_multiple_of(SEATS)
        && even(a_columns, t.m)
        && even(b_columns, t.k)
        && shared_bytes(&t) <= facts.shared_bytes
        && t.units <= facts.units
}

/// The plan of `algorithm`; without one, the product where it can be done. Of its tilings the first whose cubes keep all
/// multiprocessors busy twice over, or the one with the most cubes.
pub(super) fn plan(problem: &ConvTranspose3dProblem, facts: &Facts, algorithm: Option<Algorithm>) -> Result<Plan> {
    let refused = obstacle(problem);
    match (algorithm, refused) {
        (Some(Algorithm::Direct), _) | (None, Some(_)) => return Ok(Plan::Direct),
        (Some(Algorithm::Gemm), Some(refused)) => return Err(refused),
        _ => {}
    }
    let [m, n, _] = product(problem);
    let cubes = |t: &Tiling| m.div_ceil(t.tiles.m) * n.div_ceil(t.tiles.n);
    // No more stages than steps and one: no copy is on its way when the kernel ends.
    let terms = product(problem)[2];
    let short = |t: Tiling| Tiling {
        tiles: Tiles { stages: t.tiles.stages.min(terms.div_ceil(t.tiles.k) + 1), ..t.tiles },
        ..t
    };
    let all: Vec<_> = tilings(facts, pair(problem)).map(short).collect();
    let chosen = all.iter().find(|t| cubes(t) >= 2 * facts.processors).or_else(|| all.iter().max_by_key(|t| cubes(t)));
    match (chosen, algorithm) {
        (Some(tiling), _) => Ok(Plan::Gemm(*tiling)),
        (None, None) => Ok(Plan::Direct),
        (None, Some(_)) => {
            let found = format!("{} bytes and {} units", facts.shared_bytes, facts.units);
            Err(Error::argument("conv_transpose3d by gemm: what a cube may have", "enough for a tile", found))
        }
    }
}

/// As [`plan`], by the kernel that the device's options name where it can do the problem; the choice is logged.
pub(super) fn choose(
    problem: &ConvTranspose3dProblem,
    facts: &Facts,
    preferred: Option<Algorithm>,
    choices: &Choices,
) -> Result<Plan> {
    let chosen = plan(problem, facts, preferred).or_else(|reason| {
        choices.warn(format!("{reason}; direct instead"));
        plan(problem, facts, Some(Algorithm::Direct))
    })?;
    choices.log_choice(|| {
        let ([m, n, k], dtype) = (product(problem), facts.dtype);
        let how = match chosen {
            Plan::Direct => "direct".to_owned(),
            Plan::Gemm(Tiling { tiles: t, .. }) => {
                format!("gemm {} x {} x {}, {} stages, {} units", t.m, t.n, t.k, t.stages, t.units)
            }
        };
        let (x, w) = (problem.input_shape(), problem.weight_shape());
        format!("conv_transpose3d {dtype} {x:?} by {w:?} ({m} x {n} x {k}): {how}")
    });
    Ok(chosen)
}

#[cfg(test)]
#[path = "algorithm_tests.rs"]
mod tests;
