//! A prepared case, and where each class lies in it.

use std::borrow::Cow;
use std::ops::Range;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::prepared::PreparedFile;
use crate::error::{Error, Result};
use crate::pipeline::training_case::OUTSIDE;

/// The label of voxels outside the image's non-zero part: background without a vote. nnU-Net's -1.
pub const NO_LABEL: u8 = OUTSIDE;

/// Voxels of a class that are kept for placing patches: all up to this number, a hundredth of more than a hundred times as many.
const LOCATIONS: usize = 10_000;
const SHARE: f64 = 0.01;
/// nnU-Net's seed of their choice; its generator is another one.
const SEED: u64 = 1234;

/// A case in the network's axes and spacing, normalised. Its voxels are in memory or in a file.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The name of the case.
    pub name: String,
    /// Voxels along (z, y, x).
    pub shape: [usize; 3],
    /// For each class but the background the offsets of voxels that have it, drawn uniformly and without repetition; empty for a
    /// class that the case lacks.
    pub locations: Vec<Vec<usize>>,
    channels: usize,
    voxels: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Memory { image: Vec<f32>, labels: Vec<u8> },
    File(PreparedFile),
}

/// A box of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Window<'a> {
    /// The image, in the order c, z, y, x.
    pub image: Cow<'a, [f32]>,
    /// The label of each voxel; [`NO_LABEL`] outside the image's non-zero part.
    pub labels: Cow<'a, [u8]>,
    /// Its first voxel along (z, y, x).
    pub start: [usize; 3],
    /// Its voxels along (z, y, x).
    pub shape: [usize; 3],
}

impl Window<'_> {
    /// The offset of a voxel of the sample, which lies in the window, in the window's labels.
    pub(crate) fn offset(&self, voxel: [usize; 3]) -> usize {
        let [z, y, x] = std::array::from_fn(|a| voxel[a] - self.start[a]);
        (z * self.shape[1] + y) * self.shape[2] + x
    }
}

impl Sample {
    /// A sample in memory: an image in the order c, z, y, x and the label of each voxel, of `classes` classes, the background
    /// included.
    ///
    /// # Errors
    /// Lengths that do not belong to the shape; no channel; a label that is neither a class nor [`NO_LABEL`].
    pub fn new(name: &str, image: Vec<f32>, labels: Vec<u8>, shape: [usize; 3], classes: usize) -> Result<Self> {
        let voxels: usize = shape.iter().product();
        if labels.len() != voxels || image.is_empty() || !image.len().is_multiple_of(voxels.max(1)) {
            let expected = format!("{voxels} labels and that many values a channel for {shape:?}");
            return Err(Error::shape("sample", expected, format!("{} and {}", labels.len(), image.len())));
        }
        let (locations, channels) = (locations(&labels, classes)?, image.len() / voxels.max(1));
        Ok(Self { name: name.to_owned(), shape, locations, channels, voxels: Source::Memory { image, labels } })
    }

    /// A sample whose voxels stay in a file.
    ///
    /// # Errors
    /// As [`Sample::new`]; a file that cannot be read.
    pub(super) fn stored(name: &str, file: PreparedFile, classes: usize) -> Result<Self> {
        let (shape, channels) = (file.shape(), file.channels());
        let labels = file.labels(shape.map(|size| 0..size))?;
        let locations = locations(&labels, classes)?;
        Ok(Self { name: name.to_owned(), shape, locations, channels, voxels: Source::File(file) })
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The voxels in these ranges along (z, y, x), or more: all of a sample in memory.
    ///
    /// # Errors
    /// A range beyond the sample; a file that cannot be read; memory that does not suffice.
    pub fn window(&self, ranges: [Range<usize>; 3]) -> Result<Window<'_>> {
        if (0..3).any(|a| ranges[a].start > ranges[a].end || ranges[a].end > self.shape[a]) {
            return Err(Error::shape(
                "sample: window",
                format!("ranges within {:?}", self.shape),
                format!("{ranges:?}"),
            ));
        }
        match &self.voxels {
            Source::Memory { image, labels } => Ok(Window {
                image: Cow::Borrowed(image),
                labels: Cow::Borrowed(labels),
                start: [0; 3],
                shape: self.shape,
            }),
            Source::File(file) => Ok(Window {
                start: ranges.each_ref().map(|range| range.start),
                shape: ranges.each_ref().map(Range::len),
                image: Cow::Owned(file.image(ranges.clone())?),
                labels: Cow::Owned(file.labels(ranges)?),
            }),
        }
    }
}

/// Where each class but the background lies.
fn locations(labels: &[u8], classes: usize) -> Result<Vec<Vec<usize>>> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut all = vec![Vec::new(); classes.saturating_sub(1)];
    for (offset, &label) in labels.iter().enumerate() {
        match label {
            0 | NO_LABEL => {}
            label => match all.get_mut(usize::from(label) - 1) {
                Some(found) => found.push(offset),
                None => return Err(Error::argument("sample: label", format!("below {classes}"), label)),
            },
        }
    }
    Ok(all.into_iter().map(|found| thinned(found, &mut rng)).collect())
}

fn thinned(found: Vec<usize>, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let kept = found.len().min(LOCATIONS).max((found.len() as f64 * SHARE).ceil() as usize);
    if kept == found.len() {
        return found;
    }
    let mut chosen: Vec<usize> = index::sample(rng, found.len(), kept).into_iter().map(|i| found[i]).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_keeps_its_voxels_or_a_hundredth() {
        let count = 2_000_000;
        let mut labels = vec![1; count];
        labels[..5].copy_from_slice(&[0, NO_LABEL, 2, 2, 0]);
        let sample = Sample::new("a", vec![0.0; count], labels.clone(), [1, 1, count], 4).expect("a sample");
        assert_eq!(sample.locations[1], [2, 3]);
        assert_eq!(sample.locations[2], [0usize; 0]);
        let ones = &sample.locations[0];
        assert_eq!(ones.len(), 20_000);
        assert!(ones.windows(2).all(|w| w[0] < w[1]) && ones.iter().all(|&i| labels[i] == 1));
        // Uniform: half of them lie in the first half, to within six standard deviations.
        let first = ones.iter().filter(|&&i| i < count / 2).count() as f64;
        assert!((first - 10_000.0).abs() < 6.0 * 5000f64.sqrt(), "{first}");
        assert!(Sample::new("a", vec![0.0; 3], vec![0, 1, 4], [1, 1, 3], 4).is_err());
        assert!(Sample::new("a", vec![0.0; 4], vec![0, 1, 2], [1, 1, 3], 4).is_err());
    }

    #[test]
    fn a_window_beyond_the_sample_is_refused() {
        let sample = Sample::new("a", vec![0.0; 24], vec![0; 24], [2, 3, 4], 2).expect("a sample");
        assert!(sample.window([0..2, 1..3, 4..4]).is_ok());
        let message = sample.window([0..2, 1..4, 0..4]).expect_err("beyond").to_string();
        assert!(message.contains("[2, 3, 4]") && message.contains("1..4"), "{message}");
    }
}
