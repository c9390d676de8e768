//! Bootstrap confidence intervals.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use nephron_compute::error::{Error, Result};

/// The number of draws in one round after which a statistic that never has a value is an error.
const MAX_DRAWS: usize = 1000;

/// A statistic with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The statistic of the cases as they are.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

/// The percentile interval of a statistic at `level` (such as 0.95): its (1 - level) / 2 and (1 + level) / 2 quantiles over
/// `rounds` resamples of `cases` cases with replacement (Efron and Tibshirani 1993, chapter 13). `statistic` is called with the
/// number of times that each case was drawn; where it returns None (a class was not drawn) the round is drawn again.
///
/// # Errors
/// A level outside (0, 1); no rounds; a statistic without a value on the cases as they are, or on 1000 draws of one round.
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
        for _ in 0..MAX_DRAWS {
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

/// The quantile `q` (0 to 1) of sorted values, linearly interpolated (NumPy's default). NaN for an empty slice.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (at - at.floor()) * (high - low)
}
