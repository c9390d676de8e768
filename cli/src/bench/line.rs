//! The result of one case, and where it lies under the roof of the device (Williams, Waterman, Patterson 2009, "Roofline: an insightful
//! visual performance model").

use serde::{Deserialize, Serialize};

use super::cases::Case;
use super::ceilings::{Ceilings, rate};
use super::record::Comparison;
use crate::error::Result;
use crate::samples::Samples;

/// A case that takes less than this many launches' time is bound by the host.
const LAUNCHES: f64 = 3.0;

/// What limits a case, if it were perfect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Bound {
    /// Its arithmetic takes longer than its bytes, each at the device's ceiling.
    Compute,
    /// Its bytes take longer.
    Memory,
    /// It takes less than three times what a launch costs.
    Launch,
}

impl Bound {
    fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Launch => "launch",
        }
    }
}

/// The result of one case. Times are those of one run; rates count the arithmetic and the bytes that the operation needs at least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) op: String,
    pub(super) name: String,
    /// The storage type; None for an operation that has types of its own.
    pub(super) dtype: Option<String>,
    /// Number of batches.
    pub(super) repeats: usize,
    /// Runs of a batch, behind which the host waits once.
    pub(super) runs_per_wait: usize,
    pub(super) median_ms: f64,
    /// The 10th and the 90th percentile.
    pub(super) spread_ms: [f64; 2],
    /// Between which the median lies with a probability of 95 %.
    pub(super) interval_ms: [f64; 2],
    pub(super) gflops: f64,
    /// None for a network, which reads and writes more than its ends.
    pub(super) gbs: Option<f64>,
    pub(super) flops_per_byte: Option<f64>,
    pub(super) bound: Option<Bound>,
    pub(super) percent_of_matrix: f64,
    pub(super) percent_of_copy: Option<f64>,
    /// Of what the nearer ceiling allows.
    pub(super) percent_of_roof: Option<f64>,
    /// Beside the record of `--baseline`, where that has the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) baseline: Option<Comparison>,
}

impl Line {
    pub(super) fn new(case: &Case, samples: &Samples, ceilings: &Ceilings) -> Self {
        let median_ms = samples.median();
        let gflops = rate(case.flops, median_ms);
        let gbs = case.bytes.map(|bytes| rate(bytes, median_ms));
        let percent_of_matrix = 100.0 * gflops / ceilings.matrix_gflops;
        let percent_of_copy = gbs.map(|gbs| 100.0 * gbs / ceilings.copy_gbs);
        let is_launch = median_ms * 1e3 < LAUNCHES * ceilings.launch_us;
        let bound = percent_of_copy.map(|copy| match copy > percent_of_matrix {
            _ if is_launch => Bound::Launch,
            true => Bound::Memory,
            false => Bound::Compute,
        });
        Self {
            op: case.op.into(),
            name: case.name.clone(),
            dtype: case.dtype.map(|dtype| dtype.to_string()),
            repeats: samples.ms.len(),
            runs_per_wait: samples.runs,
            median_ms,
            spread_ms: samples.spread(),
            interval_ms: samples.interval(),
            gflops,
            gbs,
            flops_per_byte: case.bytes.map(|bytes| case.flops / bytes),
            bound,
            percent_of_matrix,
            percent_of_copy,
            // Both per cents have the same time, so the larger one belongs to the lower roof.
            percent_of_roof: percent_of_copy.map(|copy| copy.max(percent_of_matrix)),
            baseline: None,
        }
    }

    pub(super) fn print_head() -> Result<()> {
        say!(
            "{:16} {:34} {:>10} {:>21} {:>9} {:>8} {:>8} {:>8} {:>7}",
            "op",
            "case",
            "median ms",
            "10 %..90 %",
            "GFLOP/s",
            "GB/s",
            "FLOP/B",
            "bound",
            "roof"
        )
    }

    pub(super) fn print(&self) -> Result<()> {
        let [low, high] = self.spread_ms;
        let or_dash = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        // A network's roof is that of its arithmetic.
        let roof = self.percent_of_roof.unwrap_or(self.percent_of_matrix);
        let beside = self.baseline.as_ref().map_or(String::new(), Comparison::shown);
        say!(
            "{:16} {:34} {:>10.4} {:>10.4}..{:<9.4} {:>9.1} {:>8} {:>8} {:>8} {:>5.0} %{beside}",
            self.op,
            self.name,
            self.median_ms,
            low,
            high,
            self.gflops,
            or_dash(self.gbs, 1),
            or_dash(self.flops_per_byte, 1),
            self.bound.map_or("-", Bound::name),
            roof
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILINGS: Ceilings = Ceilings {
        array_bytes: 1 << 20,
        read_gbs: 1000.0,
        copy_gbs: 1000.0,
        triad_gbs: 1000.0,
        matrix_gflops: 100_000.0,
        launch_us: 5.0,
        launch_and_wait_us: 50.0,
    };

    fn line(flops: f64, bytes: Option<f64>, ms: f64) -> Line {
        let (run, check) = (Box::new(|| Ok(())), Box::new(|| Ok(())));
        let case = Case { op: "an op", name: "a case".into(), dtype: None, flops, bytes, run, check };
        Line::new(&case, &Samples::sorted(vec![ms], 1), &CEILINGS)
    }

    #[test]
    fn the_roof_is_the_nearer_ceiling() {
        // The ridge of these ceilings lies at 100 FLOP/B.
        let memory = line(1e9, Some(1e9), 2.0);
        assert_eq!(
            (memory.flops_per_byte, memory.bound, memory.percent_of_roof),
            (Some(1.0), Some(Bound::Memory), Some(50.0))
        );
        let compute = line(1e12, Some(1e9), 20.0);
        assert_eq!((compute.bound, compute.percent_of_roof), (Some(Bound::Compute), Some(50.0)));
        assert_eq!(line(1e3, Some(1e3), 0.014).bound, Some(Bound::Launch));
        let network = line(1e12, None, 20.0);
        assert_eq!((network.bound, network.gbs, network.percent_of_matrix), (None, None, 50.0));
    }
}
