//! The input indices that each output index of an axis reads.

use std::ops::Range;

use crate::error::{Error, Result};

/// The interpolation along one axis. In both cases the position of output i is (i + 0.5) * input / output - 0.5, clamped to the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AxisSampling {
    /// Linear between the two neighbours.
    Linear,
    /// The nearest neighbour, the upper one half way.
    Nearest,
}

/// For each output index of an axis its two neighbours among the input indices, and the weight of the upper one.
///
/// Linear taps along three axes are SciPy's `zoom(order=1, mode="nearest", grid_mode=True)` and PyTorch's trilinear
/// `interpolate` with align_corners false; nearest ones SciPy's `map_coordinates(order=0, mode="nearest")`.
#[derive(Debug, Clone, PartialEq)]
pub struct AxisTaps {
    low: Vec<u32>,
    high: Vec<u32>,
    fraction: Vec<f32>,
}

impl AxisTaps {
    /// The taps for resampling `input` voxels to `output` voxels.
    ///
    /// # Errors
    /// A size of 0, or over 2^30.
    pub fn new(sampling: AxisSampling, input: usize, output: usize) -> Result<Self> {
        if input == 0 || output == 0 || input.max(output) > 1 << 30 {
            return Err(Error::argument(
                "taps: sizes",
                "1 to 1073741824 voxels",
                format!("{input} resampled to {output}"),
            ));
        }
        let mut taps = Self { low: Vec::new(), high: Vec::new(), fraction: Vec::new() };
        let (scale, last) = (input as f64 / output as f64, (input - 1) as f64);
        for i in 0..output {
            let at = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, last);
            let (low, fraction) = match sampling {
                AxisSampling::Linear => (at.floor(), at - at.floor()),
                AxisSampling::Nearest => ((at + 0.5).floor().min(last), 0.0),
            };
            taps.low.push(low as u32);
            taps.high.push(if fraction > 0.0 { (low + 1.0).min(last) } else { low } as u32);
            taps.fraction.push(fraction as f32);
        }
        Ok(taps)
    }

    /// The taps of a range of output indices, relative to input index `first`, for resampling a slab.
    ///
    /// # Errors
    /// Outputs beyond the end; an empty range; outputs that read before `first`.
    pub fn window(&self, outputs: Range<usize>, first: usize) -> Result<Self> {
        let refused = |found: String| Err(Error::argument("taps: window", format!("within 0..{}", self.len()), found));
        if outputs.is_empty() || outputs.end > self.len() {
            return refused(format!("{outputs:?}"));
        }
        // Both neighbours increase with the output index, so the first output reads the lowest input.
        if (self.low[outputs.start] as usize) < first {
            return refused(format!("{outputs:?}, which reads input {} before {first}", self.low[outputs.start]));
        }
        let shifted = |v: &[u32]| v[outputs.clone()].iter().map(|i| i - first as u32).collect();
        Ok(Self {
            low: shifted(&self.low),
            high: shifted(&self.high),
            fraction: self.fraction[outputs.clone()].to_vec(),
        })
    }

    /// Number of the first outputs that read only inputs below `ready`.
    pub fn outputs_before(&self, ready: usize) -> usize {
        self.high.partition_point(|&high| (high as usize) < ready)
    }

    /// Number of output voxels.
    pub fn len(&self) -> usize {
        self.low.len()
    }

    /// Always false, because a size of 0 is an error.
    pub fn is_empty(&self) -> bool {
        self.low.is_empty()
    }

    /// The lower neighbour of each output.
    pub fn low(&self) -> &[u32] {
        &self.low
    }

    /// The upper neighbour of each output, the lower one again where its weight is 0.
    pub fn high(&self) -> &[u32] {
        &self.high
    }

    /// The weight of the upper neighbour.
    pub fn fraction(&self) -> &[f32] {
        &self.fraction
    }

    pub(super) fn ensure_within(&self, what: &str, size: usize) -> Result<()> {
        match self.high.last() {
            Some(&high) if (high as usize) < size => Ok(()),
            Some(high) => Err(Error::argument(what, format!("indices below {size}"), high)),
            None => Err(Error::argument(what, "at least one output", 0)),
        }
    }
}
