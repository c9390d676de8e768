//! Intervals by resampling the cases.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use nephron_compute::error::{Error, Result};

/// Draws of one round until a statistic exists.
const PATIENCE: usize = 1000;

/// A figure with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Of the cases as they are.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The percentile interval of a statistic at `level` (0.95): its quantiles over `rounds` resamples of `cases` cases with
/// replacement. `statistic` gets how often each case was drawn; where it has no value (a class was not drawn) the round is
/// drawn again. Efron and Tibshirani 1993, chapter 13.
///
/// # Errors
/// A level outside (0, 1); no rounds; a statistic without a value on the cases as they are, or in a round again and again.
pub fn bootstrap(
    cases: usize,
    rounds: usize,
    seed: u64,
    level: f64,
    statistic: impl Fn(&[u32]) -> Option<f64> + Sync,
) -> Result<Interval> {
    if !(level > 0.0 && level < 1.0) {
        return Err(Error::argument("bootstrap: level", "a number between 0 and 1", level));
    }
    if rounds == 0 {
        return Err(Error::argument("bootstrap: rounds", "1 or more", rounds));
    }
    let none = || Error::Data("bootstrap: the statistic has no value: a class is missing".into());
    let value = statistic(&vec![1; cases]).ok_or_else(none)?;
    let round = |round: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(round as u64);
        let mut counts = vec![0u32; cases];
        for _ in 0..PATIENCE {
            counts.fill(0);
            for _ in 0..cases {
                counts[rng.random_range(0..cases)] += 1;
            }
            if let Some(value) = statistic(&counts) {
                return Ok(value);
            }
        }
        Err(none())
    };
    let mut values = (0..rounds).into_par_iter().map(round).collect::<Result<Vec<f64>>>()?;
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Ok(Interval { value, low: quantile(&values, tail), high: quantile(&values, 1.0 - tail) })
}

/// The quantile of sorted values, linear between neighbours (NumPy's default). NaN of none.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (at - at.floor()) * (high - low)
}
