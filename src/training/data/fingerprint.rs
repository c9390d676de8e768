//! What nnU-Net calls the fingerprint of a data set: the geometry of its images and the intensities of their foreground.

use std::ops::ControlFlow;

use super::dataset::{Case, RawDataset};
use crate::error::{Error, Result};
use crate::models::OrientationRule;
use crate::pipeline::training_case::CroppedScan;

/// Largest number of values of a channel that are kept for one case: the order statistics at evenly spaced ranks.
const MAX_VALUES: usize = 1 << 16;

/// The fingerprint of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Fingerprint {
    /// Millimetres between voxels of each case along (z, y, x), as its reader turns it.
    pub spacings: Vec<[f64; 3]>,
    /// Voxels of each case along the same axes, after the crop to the voxels that are not 0.
    pub shapes: Vec<[usize; 3]>,
    /// The median of the shares of voxels that the crop left.
    pub relative_size: f64,
    /// The foreground's intensities, for each channel.
    pub intensities: Vec<IntensityProperties>,
}

/// The intensities of a channel in the foreground, where every case weighs the same.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct IntensityProperties {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Standard deviation, divided by the count.
    pub std: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
    /// The 99.5 percentile.
    pub percentile_99_5: f64,
    /// The 0.5 percentile.
    pub percentile_00_5: f64,
}

impl Fingerprint {
    /// Reads every case once.
    ///
    /// nnU-Net draws 10^8 / cases foreground voxels from each case, with replacement. This takes the limit of that sample: the
    /// distribution in which every case that has a foreground weighs the same, so that no seed is needed. Up to 65,536 distinct
    /// values of a case and channel, as CT has, it is exact; of more, order statistics at evenly spaced ranks stand for it, whose
    /// percentiles are those of the case to within 1/65,536.
    ///
    /// # Errors
    /// As [`RawDataset::read`]; no case with a foreground; [`Error::Cancelled`] where `progress`, which is called with the number of
    /// cases that are done and that of all, breaks.
    pub fn of(
        dataset: &RawDataset,
        rule: OrientationRule,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Self> {
        let mut cases = Vec::with_capacity(dataset.cases().len());
        for (number, case) in dataset.cases().iter().enumerate() {
            if progress(number, dataset.cases().len()).is_break() {
                return Err(Error::Cancelled);
            }
            cases.push(CaseFingerprint::of(dataset, case, rule)?);
        }
        let channels = dataset.channels().len();
        let intensities = (0..channels)
            .map(|channel| properties(cases.iter().map(|case| case.foreground[channel].as_slice())))
            .collect::<Option<Vec<_>>>();
        let Some(intensities) = intensities else {
            let reason = "has no case with a foreground label, expected at least one".to_owned();
            return Err(Error::file(dataset.folder(), reason));
        };
        let shares: Vec<f64> = cases.iter().map(|case| case.relative_size).collect();
        Ok(Self {
            spacings: cases.iter().map(|case| case.spacing).collect(),
            shapes: cases.iter().map(|case| case.shape).collect(),
            relative_size: percentile(&shares, 50.0),
            intensities,
        })
    }
}

struct CaseFingerprint {
    spacing: [f64; 3],
    shape: [usize; 3],
    relative_size: f64,
    /// For each channel the distinct values, ascending, each with its share of the case's foreground.
    foreground: Vec<Vec<(f32, f64)>>,
}

impl CaseFingerprint {
    fn of(dataset: &RawDataset, case: &Case, rule: OrientationRule) -> Result<Self> {
        let read = dataset.read(case)?;
        let cropped = CroppedScan::new(&read.channels, Some(read.spacing), rule).map_err(|e| e.context(&case.name))?;
        let labels = cropped.labels(&read.labels)?;
        let all: usize = read.channels[0].shape().iter().product();
        let foreground = (0..read.channels.len())
            .map(|channel| {
                let values = cropped.values(channel)?;
                let inside = values.into_iter().zip(&labels).filter(|(_, label)| **label > 0);
                Ok(distribution(inside.map(|(value, _)| value).collect()))
            })
            .collect::<Result<Vec<_>>>()?;
        let shape = cropped.shape();
        let relative_size = shape.iter().product::<usize>() as f64 / all as f64;
        Ok(Self { spacing: cropped.spacing(), shape, relative_size, foreground })
    }
}

/// The distinct values with their shares.
fn distribution(mut values: Vec<f32>) -> Vec<(f32, f64)> {
    values.sort_unstable_by(f32::total_cmp);
    let count = values.len() as f64;
    let mut found: Vec<(f32, f64)> = Vec::new();
    for value in &values {
        match found.last_mut() {
            Some((last, share)) if last == value => *share += 1.0 / count,
            _ => found.push((*value, 1.0 / count)),
        }
        if found.len() > MAX_VALUES {
            let rank = |i: usize| (i as f64 / (MAX_VALUES - 1) as f64 * (count - 1.0)).round() as usize;
            return (0..MAX_VALUES).map(|i| (values[rank(i)], 1.0 / MAX_VALUES as f64)).collect();
        }
    }
    found
}

/// The statistics of the cases' distributions, those without a foreground left out; None where there is no other.
fn properties<'a>(cases: impl Iterator<Item = &'a [(f32, f64)]>) -> Option<IntensityProperties> {
    let cases: Vec<_> = cases.filter(|case| !case.is_empty()).collect();
    let weight = 1.0 / cases.len() as f64;
    let mut all: Vec<(f64, f64)> =
        cases.into_iter().flatten().map(|(value, share)| (f64::from(*value), share * weight)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (min, max) = (all.first()?.0, all.last()?.0);
    let total: f64 = all.iter().map(|(_, share)| share).sum();
    let mean = all.iter().map(|(value, share)| value * share).sum::<f64>() / total;
    let variance = all.iter().map(|(value, share)| (value - mean).powi(2) * share).sum::<f64>() / total;
    let quantile = |q: f64| {
        let mut below = 0.0;
        let reached = |(_, share): &&(f64, f64)| {
            below += *share;
            below >= q * total
        };
        all.iter().find(reached).map_or(max, |(value, _)| *value)
    };
    Some(IntensityProperties {
        mean,
        median: quantile(0.5),
        std: variance.sqrt(),
        min,
        max,
        percentile_99_5: quantile(0.995),
        percentile_00_5: quantile(0.005),
    })
}

/// NumPy's percentile with its default, linear, interpolation; NaN of nothing.
pub(super) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = percent / 100.0 * last as f64;
    let low = (place.floor() as usize).min(last);
    let (a, b, share) = (sorted[low], sorted[(low + 1).min(last)], place - low as f64);
    // NumPy's lerp, which is exact at both ends.
    if share >= 0.5 { b - (b - a) * (1.0 - share) } else { a + (b - a) * share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_weighs_the_same() {
        let (small, large) = (distribution(vec![3.0]), distribution(vec![1.0, 1.0, 1.0, 5.0]));
        assert_eq!(large, [(1.0, 0.75), (5.0, 0.25)]);
        let found = properties([small.as_slice(), large.as_slice(), &[]].into_iter()).expect("a foreground");
        assert_eq!((found.mean, found.min, found.max), (2.5, 1.0, 5.0));
        // 1 has 3/8, 3 has 4/8, 5 has 1/8.
        assert_eq!((found.median, found.percentile_00_5, found.percentile_99_5), (3.0, 1.0, 5.0));
        assert!((found.std - (0.375 * 2.25 + 0.5 * 0.25 + 0.125 * 6.25f64).sqrt()).abs() < 1e-12);
        assert!(properties([[].as_slice()].into_iter()).is_none());
    }

    #[test]
    fn many_values_are_thinned_out_evenly() {
        let values: Vec<f32> = (0..200_000).rev().map(|v| v as f32).collect();
        let found = distribution(values);
        assert_eq!((found.len(), found[0].0, found[MAX_VALUES - 1].0), (MAX_VALUES, 0.0, 199_999.0));
        let found = properties([found.as_slice()].into_iter()).expect("a foreground");
        let step = 200_000.0 / MAX_VALUES as f64;
        for (got, want) in [(found.percentile_00_5, 1000.0), (found.median, 1e5), (found.percentile_99_5, 199_000.0)] {
            assert!((got - want).abs() <= 2.0 * step, "{got} for {want}");
        }
    }

    #[test]
    fn percentiles_are_numpys() {
        assert_eq!(percentile(&[4.0, 1.0, 3.0, 2.0], 50.0), 2.5);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 10.0), 1.2);
        assert_eq!(percentile(&[7.0], 99.5), 7.0);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
