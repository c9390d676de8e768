//! Times of an operation: batches of runs with one wait for the device at the end of each. A GPU works while the host prepares the next
//! launch; a wait behind every run would time the host.

use std::time::Instant;

use crate::error::Result;
use nephron::device::Device;
use nephron::error::Result as LibraryResult;

/// Seconds that a batch lasts at least, beside which a wait of about 0.05 ms is nothing.
const BATCH: f64 = 0.01;
/// Most runs of a batch.
const MAX_RUNS: usize = 10_000;
/// Smallest number of batches; the median of fewer is not reliable.
const MIN_BATCHES: usize = 5;

/// Milliseconds of a run, one value for each batch, in ascending order.
pub(crate) struct Samples {
    pub(crate) ms: Vec<f64>,
    /// Runs of a batch.
    pub(crate) runs: usize,
}

impl Samples {
    /// Times `run` for about `seconds` and in five batches at least, after runs to warm up.
    ///
    /// # Errors
    /// A run or a device that fails.
    pub(crate) fn for_seconds(run: &dyn Fn() -> LibraryResult<()>, device: &Device, seconds: f64) -> Result<Self> {
        Self::until(run, device, |ms, total| ms.len() >= MIN_BATCHES && total >= seconds)
    }

    /// Times `run` in so many batches, after runs to warm up.
    ///
    /// # Errors
    /// A run or a device that fails.
    pub(crate) fn in_batches(run: &dyn Fn() -> LibraryResult<()>, device: &Device, batches: usize) -> Result<Self> {
        Self::until(run, device, |ms, _| ms.len() >= batches.max(1))
    }

    /// `is_enough` is asked with the times so far and their total in seconds.
    fn until(
        run: &dyn Fn() -> LibraryResult<()>,
        device: &Device,
        is_enough: impl Fn(&[f64], f64) -> bool,
    ) -> Result<Self> {
        let batch = |runs: usize| -> Result<f64> {
            let start = Instant::now();
            for _ in 0..runs {
                run()?;
            }
            device.synchronize()?;
            Ok(start.elapsed().as_secs_f64())
        };
        batch(1)?;
        // The first guess counts a wait for each run, so that the batch is made longer until it lasts.
        let (mut runs, mut took) = (1, batch(1)?);
        while took < BATCH && runs < MAX_RUNS {
            let wanted = 1.2 * BATCH / (took / runs as f64).max(1e-9);
            runs = (wanted.ceil() as usize).clamp(runs + 1, MAX_RUNS);
            took = batch(runs)?;
        }
        let (mut ms, mut total) = (Vec::new(), 0.0);
        while !is_enough(&ms, total) {
            let took = batch(runs)?;
            total += took;
            ms.push(took * 1e3 / runs as f64);
        }
        Ok(Self::sorted(ms, runs))
    }

    pub(crate) fn sorted(mut ms: Vec<f64>, runs: usize) -> Self {
        ms.sort_by(f64::total_cmp);
        Self { ms, runs }
    }

    pub(crate) fn median(&self) -> f64 {
        (self.ms[(self.ms.len() - 1) / 2] + self.ms[self.ms.len() / 2]) / 2.0
    }

    /// The 10th and the 90th percentile.
    pub(crate) fn spread(&self) -> [f64; 2] {
        let tenth = self.ms.len() / 10;
        [self.ms[tenth], self.ms[self.ms.len() - 1 - tenth]]
    }

    /// The values between which the median lies with a probability of about 95 %, whatever the distribution: those of the ranks
    /// (n -+ 1.96 sqrt n) / 2 (the binomial distribution of values below the median, approximated by a normal one).
    pub(crate) fn interval(&self) -> [f64; 2] {
        let n = self.ms.len() as f64;
        let half = 1.96 * n.sqrt();
        let rank = |r: f64| (r as usize).clamp(1, self.ms.len()) - 1;
        [self.ms[rank(((n - half) / 2.0).floor())], self.ms[rank(((n + half) / 2.0).ceil() + 1.0)]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_their_intervals() {
        let of = |n: usize| Samples::sorted((0..n).rev().map(|i| i as f64).collect(), 1);
        let five = of(5);
        assert_eq!((five.median(), five.spread(), five.interval()), (2.0, [0.0, 4.0], [0.0, 4.0]));
        // Of 100 values the 40th and the 61st (Conover, Practical Nonparametric Statistics, 3.2).
        let hundred = of(100);
        assert_eq!((hundred.median(), hundred.spread(), hundred.interval()), (49.5, [10.0, 89.0], [39.0, 60.0]));
    }
}
