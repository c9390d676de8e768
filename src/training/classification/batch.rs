//! Batches of the classifier's images, each a function of the seed and its number alone.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::augment::augment;
use super::patients::Patient;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Where batches come from.
#[derive(Debug, Clone)]
pub struct ImageSource {
    patients: Vec<Patient>,
    /// Patient and number of every image.
    images: Vec<(usize, usize)>,
    batch: usize,
    size: usize,
    seed: u64,
}

/// A batch in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBatch {
    /// The images [n, 3, size, size], in that order.
    pub images: Vec<f32>,
    /// The class of each.
    pub labels: Vec<u8>,
    /// The index of each image's patient.
    pub patients: Vec<usize>,
    /// Rows and columns.
    pub size: usize,
}

/// The streams of the generator from this number on shuffle epochs; those below are of images.
const ORDER: u64 = 1 << 63;

impl ImageSource {
    /// Batches of `batch` images of `size` x `size` pixels, or of all images where there are fewer.
    ///
    /// # Errors
    /// No image or a batch of none; crops of another size.
    pub fn new(patients: Vec<Patient>, batch: usize, size: usize, seed: u64) -> Result<Self> {
        for patient in &patients {
            if let Some(crop) = patient.crops.iter().find(|crop| crop.pixels.len() != size * size) {
                let what = format!("training: crop of {} in the {} phase", patient.name, crop.phase);
                return Err(Error::shape(what, format!("{size} x {size} pixels"), crop.pixels.len()));
            }
        }
        let of = |(i, patient): (usize, &Patient)| (0..patient.images.len()).map(move |number| (i, number));
        let images: Vec<(usize, usize)> = patients.iter().enumerate().flat_map(of).collect();
        let batch = batch.min(images.len());
        if batch == 0 {
            return Err(Error::argument("training: images of a batch", "at least one", 0));
        }
        Ok(Self { patients, images, batch, size, seed })
    }

    /// The patients.
    pub fn patients(&self) -> &[Patient] {
        &self.patients
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Steps of an epoch: every image is in one of its batches. The last is filled up with those of the first.
    pub fn iterations(&self) -> u64 {
        self.images.len().div_ceil(self.batch) as u64
    }

    /// Batch number `iteration`, in the random order of its epoch. Every image has random numbers of its own, a stream of the seed's
    /// generator, so that a batch is the same whatever was made before it.
    pub fn batch(&self, iteration: u64) -> ImageBatch {
        let (epoch, within) = (iteration / self.iterations(), (iteration % self.iterations()) as usize);
        let mut order: Vec<usize> = (0..self.images.len()).collect();
        order.shuffle(&mut self.stream(ORDER | epoch));
        let mut batch = ImageBatch { images: Vec::new(), labels: Vec::new(), patients: Vec::new(), size: self.size };
        for index in 0..self.batch {
            let (patient, number) = self.images[order[(within * self.batch + index) % order.len()]];
            let mut image = self.patients[patient].image(number);
            let stream = iteration.wrapping_mul(self.batch as u64).wrapping_add(index as u64) & !ORDER;
            augment(&mut image, self.size, &mut self.stream(stream));
            batch.images.extend(image);
            batch.labels.push(self.patients[patient].subtype as u8);
            batch.patients.push(patient);
        }
        batch
    }

    fn stream(&self, number: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        rng
    }
}

impl ImageBatch {
    /// Images [n, 3, 1, size, size] and labels [n, 1, 1, 1, 1] on a device.
    ///
    /// # Errors
    /// A device that fails.
    pub fn upload(&self, device: &Device) -> Result<(Tensor, Tensor)> {
        let n = self.labels.len();
        let images = Tensor::from_ncdhw(device, [n, 3, 1, self.size, self.size], DType::F32, &self.images)?;
        Ok((images, Tensor::from_u8(device, [n, 1, 1, 1, 1], self.labels.clone())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::{Phase, Subtype};
    use crate::pipeline::PhaseCrop;
    use crate::pipeline::crop::CropBox;

    fn patient(number: usize, phases: &[Phase]) -> Patient {
        let at = CropBox { slice: 0, rows: [0, 1], columns: [0, 1], area: 4 };
        // The mean of a channel names its patient and phase, whatever its orientation.
        let crop =
            |phase: &Phase| PhaseCrop { phase: *phase, at, pixels: vec![(10 * number + *phase as usize) as f32; 4] };
        let images = crate::phase::PhaseSet::new(phases.iter().copied()).and_then(|set| set.images()).expect("images");
        let subtype = Subtype::ALL[number % 5];
        Patient { name: format!("p{number}"), subtype, images, crops: phases.iter().map(crop).collect() }
    }

    fn source(seed: u64) -> ImageSource {
        let patients = vec![patient(0, &Phase::ALL), patient(1, &Phase::ALL[1..]), patient(2, &Phase::ALL)];
        ImageSource::new(patients, 3, 2, seed).expect("a source")
    }

    #[test]
    fn an_epoch_has_every_image_once_but_for_the_filling() {
        let source = source(1);
        assert_eq!((source.images(), source.iterations()), (7, 3));
        for epoch in 0..4 {
            let batches: Vec<ImageBatch> = (0..3).map(|i| source.batch(3 * epoch + i)).collect();
            let mut seen: Vec<(usize, i64)> = Vec::new();
            for batch in &batches {
                assert_eq!((batch.labels.len(), batch.images.len()), (3, 3 * 3 * 4));
                for (image, (patient, label)) in batch.images.chunks(12).zip(batch.patients.iter().zip(&batch.labels)) {
                    assert_eq!(usize::from(*label), *patient);
                    // Noise has a standard deviation of at most 0.1.
                    let channel = |c: usize| (image[4 * c..4 * c + 4].iter().sum::<f32>() / 4.0).round() as i64;
                    seen.push((*patient, 10_000 * channel(0) + 100 * channel(1) + channel(2)));
                }
            }
            assert_eq!(seen[7..], seen[..2]);
            seen.truncate(7);
            seen.sort_unstable();
            let want = [(0, 102), (0, 103), (0, 203), (1, 111_213), (2, 202_122), (2, 202_123), (2, 202_223)];
            assert_eq!(seen, want);
        }
    }

    #[test]
    fn batches_depend_on_seed_and_number_alone() {
        let source = source(3);
        assert_eq!(source.batch(5), source.clone().batch(5));
        assert_ne!(source.batch(5), source.batch(6));
        assert_ne!(source.batch(5), self::source(4).batch(5));
        assert!(ImageSource::new(Vec::new(), 3, 2, 0).is_err());
        let message = ImageSource::new(vec![patient(0, &Phase::ALL)], 3, 5, 0).expect_err("a size").to_string();
        assert!(message.contains("p0") && message.contains("5 x 5"), "{message}");
    }
}
