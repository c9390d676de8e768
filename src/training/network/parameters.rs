//! The weights of a network in training: by name, in the order of the network.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::tensor::{DType, Tensor};

/// A weight's place in a list of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::training) struct Id(pub(in crate::training) usize);

/// A weight: its name is nnU-Net's.
#[derive(Debug, Clone)]
pub(in crate::training) struct Slot {
    pub(in crate::training) name: String,
    /// The shape of its tensor: [co, ci, kd, kh, kw], or [1, c, 1, 1, 1] of a vector.
    pub(in crate::training) shape: [usize; 5],
    /// The shape in files: PyTorch's.
    pub(in crate::training) stored: Vec<usize>,
    pub(in crate::training) initial: Initial,
}

/// What a weight starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::training) enum Initial {
    /// Normal with mean 0 and variance 2 / ((1 + 0.01^2) * fan-in) (He et al. 2015), as nnU-Net draws kernels, whatever the slope of
    /// the activation. PyTorch counts the fan-in of a transposed convolution from its outputs.
    He { fan_in: usize },
    /// One value.
    Constant(f32),
}

/// The slope that nnU-Net's initialisation assumes.
const SLOPE: f64 = 0.01;

impl Slot {
    fn drawn(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let len = self.shape.iter().product();
        match self.initial {
            Initial::Constant(value) => vec![value; len],
            Initial::He { fan_in } => {
                let sd = (2.0 / ((1.0 + SLOPE * SLOPE) * fan_in as f64)).sqrt();
                let value = |_| {
                    let value: f64 = StandardNormal.sample(rng);
                    (sd * value) as f32
                };
                (0..len).map(value).collect()
            }
        }
    }
}

/// Values of all weights, drawn from a seed: in PyTorch's order, the same on every machine.
pub(in crate::training) fn drawn(slots: &[Slot], seed: u64) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    slots.iter().map(|slot| slot.drawn(&mut rng)).collect()
}

/// Values of all weights out of a file. Heads of deep supervision that it lacks are drawn.
///
/// # Errors
/// Another tensor that is missing; one of another shape or with a value that is not finite.
pub(in crate::training) fn read(slots: &[Slot], weights: &Weights, seed: u64) -> Result<Vec<Vec<f32>>> {
    let drawn = drawn(slots, seed);
    slots
        .iter()
        .zip(drawn)
        .map(|(slot, drawn)| {
            let is_head = slot.name.starts_with("decoder.seg_layers.");
            if is_head && weights.shape(&slot.name).is_none() {
                return Ok(drawn);
            }
            let (shape, values) = weights.get(&slot.name)?;
            if shape != slot.stored {
                let reason = format!("tensor '{}': expected shape {:?}, found {shape:?}", slot.name, slot.stored);
                return Err(Error::file(weights.path(), reason));
            }
            match values.iter().find(|v| !v.is_finite()) {
                None => Ok(values),
                Some(bad) => {
                    let reason = format!("tensor '{}': expected finite values, found {bad}", slot.name);
                    Err(Error::file(weights.path(), reason))
                }
            }
        })
        .collect()
}

/// The tensors of values in PyTorch's order.
///
/// # Errors
/// A device that fails.
pub(in crate::training) fn upload(slots: &[Slot], values: &[Vec<f32>], device: &Device) -> Result<Vec<Tensor>> {
    let tensor = |(slot, values): (&Slot, &Vec<f32>)| Tensor::from_ncdhw(device, slot.shape, DType::F32, values);
    slots.iter().zip(values).map(tensor).collect()
}
