//! Batches of patches, each a function of the seed and its number alone, made ahead of the device.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::augment::{PatchGeometry, PatchSource};
use super::data::Sample;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Where batches come from.
#[derive(Debug, Clone)]
pub struct BatchSource {
    /// The samples; a patch is of any of them with the same probability.
    pub samples: Vec<Sample>,
    /// How patches are drawn.
    pub patches: PatchSource,
    /// Patches of a batch.
    pub size: usize,
    /// The sizes (z, y, x) of the labels, the patch's own first: those of the network's heads.
    pub heads: Vec<[usize; 3]>,
    /// The seed.
    pub seed: u64,
}

/// A batch in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The images [n, c, d, h, w], in that order.
    pub image: Vec<f32>,
    /// Their shape.
    pub shape: [usize; 5],
    /// The labels for each head, [n, 1, d, h, w].
    pub labels: Vec<([usize; 5], Vec<u8>)>,
    /// The index of each patch's sample.
    pub samples: Vec<usize>,
}

impl BatchSource {
    /// Batch number `iteration`. Every patch has random numbers of its own, a stream of the seed's generator, so that a batch is the
    /// same whatever was drawn before it.
    ///
    /// # Errors
    /// No sample; a sample's file that cannot be read; a batch that does not fit in memory.
    pub fn batch(&self, iteration: u64) -> Result<Batch> {
        let (Some(first), false) = (self.samples.first(), self.size == 0) else {
            let found = format!("{} and {}", self.samples.len(), self.size);
            return Err(Error::argument("training: samples and patches of a batch", "at least one each", found));
        };
        let [d, h, w] = self.patches.geometry.patch;
        let shape = [self.size, first.channels(), d, h, w];
        let mut batch = Batch { image: Vec::new(), shape, labels: Vec::new(), samples: Vec::new() };
        batch.labels = self.heads.iter().map(|[d, h, w]| ([self.size, 1, *d, *h, *w], Vec::new())).collect();
        for index in 0..self.size {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(iteration.wrapping_mul(self.size as u64).wrapping_add(index as u64));
            let chosen = rng.random_range(0..self.samples.len());
            let foreground = PatchGeometry::forces_foreground(index, self.size);
            let patch = self.patches.draw(&self.samples[chosen], foreground, &mut rng)?;
            batch.image.extend_from_slice(&patch.image);
            for (size, (_, labels)) in self.heads.iter().zip(&mut batch.labels) {
                labels.extend(downsampled(&patch.labels, patch.shape, *size));
            }
            batch.samples.push(chosen);
        }
        Ok(batch)
    }
}

/// The nearest label of each voxel of a smaller grid: PyTorch's `nearest-exact`.
fn downsampled(labels: &[u8], from: [usize; 3], to: [usize; 3]) -> Vec<u8> {
    let source = |a: usize, i: usize| (((i as f64 + 0.5) * from[a] as f64 / to[a] as f64) as usize).min(from[a] - 1);
    let axes: [Vec<usize>; 3] = std::array::from_fn(|a| (0..to[a]).map(|i| source(a, i)).collect());
    let mut out = Vec::with_capacity(to.iter().product());
    for z in &axes[0] {
        for y in &axes[1] {
            out.extend(axes[2].iter().map(|x| labels[(z * from[1] + y) * from[2] + x]));
        }
    }
    out
}

impl Batch {
    /// The images and the labels of each head on a device.
    ///
    /// # Errors
    /// A device that fails.
    pub fn upload(&self, device: &Device) -> Result<(Tensor, Vec<Tensor>)> {
        let image = Tensor::from_ncdhw(device, self.shape, DType::F32, &self.image)?;
        let labels = |(shape, labels): &([usize; 5], Vec<u8>)| Tensor::from_u8(device, *shape, labels.clone());
        Ok((image, self.labels.iter().map(labels).collect::<Result<_>>()?))
    }
}

/// Threads that make batches ahead of their use, handed out in order.
pub struct Loader<B = Batch> {
    /// One for each thread; the threads take turns.
    receivers: Vec<Receiver<Result<B>>>,
    next: u64,
    first: u64,
    waited: Duration,
}

/// Batches that each thread may be ahead.
const AHEAD: usize = 2;

impl Loader {
    /// Threads that make the batches of a source from number `first` on. They end when the loader is dropped.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn new(source: &Arc<BatchSource>, first: u64, threads: usize) -> Result<Self> {
        let source = Arc::clone(source);
        Self::of(move |number| source.batch(number), first, threads)
    }
}

impl<B: Send + 'static> Loader<B> {
    /// As [`Loader::new`], of the batches that `make` makes of their numbers.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn of(make: impl Fn(u64) -> Result<B> + Send + Sync + 'static, first: u64, threads: usize) -> Result<Self> {
        let (make, threads) = (Arc::new(make), threads.max(1));
        let start = |thread: usize| {
            let (sender, receiver) = sync_channel(AHEAD);
            let make = Arc::clone(&make);
            let run = move || {
                let mut number = first + thread as u64;
                while sender.send(make(number)).is_ok() {
                    number += threads as u64;
                }
            };
            let named = std::thread::Builder::new().name(format!("batches {thread}"));
            named.spawn(run).map_err(|e| Error::other("training: a thread for batches", e))?;
            Ok(receiver)
        };
        let receivers = (0..threads).map(start).collect::<Result<_>>()?;
        Ok(Self { receivers, next: first, first, waited: Duration::ZERO })
    }

    /// The next batch, with its number.
    ///
    /// # Errors
    /// As [`BatchSource::batch`], or `make` of [`Loader::of`]; a thread that ended.
    pub fn next_batch(&mut self) -> Result<(u64, B)> {
        let turn = ((self.next - self.first) % self.receivers.len() as u64) as usize;
        let started = Instant::now();
        let batch = self.receivers[turn].recv();
        self.waited += started.elapsed();
        let ended = |_| Error::Data(format!("training: the thread that makes batch {} has ended", self.next));
        let batch = batch.map_err(ended)??;
        self.next += 1;
        Ok((self.next - 1, batch))
    }

    /// The time that was spent waiting for batches so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::super::augment::Augmentation;
    use super::*;

    fn source(seed: u64) -> BatchSource {
        let sample = |name: &str, add: usize| {
            let labels: Vec<u8> = (0..4096).map(|i| u8::from((i + add) % 16 > 8)).collect();
            let image = (0..4096).map(|i| ((i * 7 + add) % 31) as f32).collect();
            Sample::new(name, image, labels, [16; 3], 2).expect("a sample")
        };
        let geometry = PatchGeometry::new([8; 3], false);
        let patches =
            PatchSource { geometry, augmentation: Augmentation::Full, mirrored: [true; 3], masked: Vec::new() };
        let samples = vec![sample("a", 0), sample("b", 5), sample("c", 9)];
        BatchSource { samples, patches, size: 2, heads: vec![[8; 3], [4; 3]], seed }
    }

    #[test]
    fn batches_come_in_order_from_any_number_of_threads() {
        let source = Arc::new(source(3));
        for (threads, first) in [(1, 0), (3, 4)] {
            let mut loader = Loader::new(&source, first, threads).expect("a loader");
            for want in first..first + 7 {
                let (number, batch) = loader.next_batch().expect("a batch");
                assert_eq!((number, &batch), (want, &source.batch(want).expect("a batch")));
                assert_eq!((batch.image.len(), batch.labels[0].1.len(), batch.labels[1].1.len()), (1024, 1024, 128));
            }
        }
    }

    #[test]
    fn seeds_and_numbers_make_different_batches() {
        let of = |seed, number| source(seed).batch(number).expect("a batch");
        assert_ne!(of(1, 0), of(2, 0));
        assert_ne!(of(1, 0), of(1, 1));
        // Every sample is drawn.
        let drawn: std::collections::BTreeSet<usize> = (0..20).flat_map(|number| of(1, number).samples).collect();
        assert_eq!(drawn.len(), 3);
    }

    #[test]
    fn a_source_without_samples_is_refused() {
        let empty = Arc::new(BatchSource { samples: Vec::new(), ..source(1) });
        let error = Loader::new(&empty, 0, 2).expect("a loader").next_batch().expect_err("no sample");
        assert!(error.to_string().contains("samples"), "{error}");
    }

    /// PyTorch: interpolate of 0..5 to 2 and 3 voxels, nearest-exact.
    #[test]
    fn labels_are_downsampled_to_the_nearest() {
        let labels: Vec<u8> = (0..5).collect();
        assert_eq!(downsampled(&labels, [1, 1, 5], [1, 1, 2]), [1, 3]);
        assert_eq!(downsampled(&labels, [1, 1, 5], [1, 1, 3]), [0, 2, 4]);
        assert_eq!(downsampled(&labels, [1, 5, 1], [1, 1, 1]), [2]);
    }
}
