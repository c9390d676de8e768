//! nnU-Net's networks in training: forward with what the gradients need, and backward.

mod build;
mod gradients;
pub(super) mod layers;
pub(super) mod parameters;
mod residual;

use std::path::Path;

use super::checkpoint::Named;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::{self, TrainingNotes, Weights};
use crate::models::{UNet, UNetArchitecture};
use crate::ops::{add, concat, ensure_same_device, split};
use crate::tensor::{DType, Tensor};

pub use gradients::Gradients;
use layers::{Block, Conv, SavedBlock, Up, Wanted};
use parameters::Slot;
use residual::{Residual, SavedResidual};

/// A U-Net in training: the network of [`UNet`] with a head at every resolution of the decoder (deep supervision), in f32.
#[derive(Debug, Clone)]
pub struct TrainableUNet {
    architecture: UNetArchitecture,
    slots: Vec<Slot>,
    stem: Option<Block>,
    encoder: Vec<Encoder>,
    /// The lowest level first.
    decoder: Vec<Decoder>,
    weights: Vec<Tensor>,
}

#[derive(Debug, Clone)]
enum Encoder {
    Plain(Vec<Block>),
    Residual(Vec<Residual>),
}

#[derive(Debug, Clone)]
struct Decoder {
    up: Up,
    convs: Vec<Block>,
    head: Conv,
    /// Channels of the level.
    features: usize,
}

/// What a forward pass keeps for the backward pass.
pub struct Tape {
    stem: Option<SavedBlock>,
    encoder: Vec<SavedStage>,
    decoder: Vec<SavedDecoder>,
}

enum SavedStage {
    Plain(Vec<SavedBlock>),
    Residual(Vec<SavedResidual>),
}

struct SavedDecoder {
    below: Tensor,
    convs: Vec<SavedBlock>,
    out: Tensor,
}

impl TrainableUNet {
    /// A network with weights from `seed`, drawn as nnU-Net draws them: kernels after He et al. 2015, biases 0, norms 1 and 0, and
    /// the last norm of a residual block 0. A seed gives the same weights on every machine.
    ///
    /// # Errors
    /// An invalid architecture; what inference knows and training does not: a norm other than instance norm, activations before
    /// the norm, squeeze-excitations; a device that fails.
    pub fn seeded(architecture: &UNetArchitecture, seed: u64, device: &Device) -> Result<Self> {
        let network = build::build(architecture)?;
        let values = parameters::drawn(&network.slots, seed);
        network.with_values(&values, device)
    }

    /// A network with weights out of a file, whose names are nnU-Net's. Heads of deep supervision that the file lacks, as those
    /// that [`UNet::save`] writes do, are drawn from `seed`.
    ///
    /// # Errors
    /// As [`TrainableUNet::seeded`]; a tensor that is missing, of another shape or not finite.
    pub fn from_weights(a: &UNetArchitecture, weights: &Weights, seed: u64, device: &Device) -> Result<Self> {
        let network = build::build(a)?;
        let values = parameters::read(&network.slots, weights, seed)?;
        network.with_values(&values, device)
    }

    fn with_values(self, values: &[Vec<f32>], device: &Device) -> Result<Self> {
        Ok(Self { weights: parameters::upload(&self.slots, values, device)?, ..self })
    }

    /// The architecture.
    pub fn architecture(&self) -> &UNetArchitecture {
        &self.architecture
    }

    /// The weights, in the order of the network.
    pub fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// The names of the weights, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| slot.name.as_str())
    }

    /// The weights as files have them.
    pub(super) fn named(&self) -> Vec<Named<'_>> {
        let pairs = self.slots.iter().zip(&self.weights);
        pairs.map(|(slot, tensor)| Named { name: &slot.name, stored: &slot.stored, tensor }).collect()
    }

    /// The shapes of the weights in files, in the same order: PyTorch's.
    pub fn stored_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.slots.iter().map(|slot| slot.stored.as_slice())
    }

    /// Replaces the weights.
    ///
    /// # Errors
    /// Another number of tensors, or one of another shape.
    pub fn set_weights(&mut self, weights: Vec<Tensor>) -> Result<()> {
        if weights.len() != self.slots.len() {
            return Err(Error::argument("training: weights", self.slots.len(), weights.len()));
        }
        for (slot, tensor) in self.slots.iter().zip(&weights) {
            if tensor.shape() != slot.shape || tensor.dtype() != DType::F32 {
                let found = format!("{:?} of {}", tensor.shape(), tensor.dtype());
                return Err(Error::shape(
                    format!("training: weight {}", slot.name),
                    format!("{:?} of f32", slot.shape),
                    found,
                ));
            }
        }
        self.weights = weights;
        Ok(())
    }

    /// The sizes of the logits (z, y, x) for an image of `size`, the full resolution first.
    ///
    /// # Errors
    /// A size that the strides do not divide.
    pub fn head_sizes(&self, size: [usize; 3]) -> Result<Vec<[usize; 3]>> {
        self.architecture.ensure_size("training: patch", size)?;
        let mut sizes = vec![size];
        for stride in &self.architecture.strides[1..self.decoder.len()] {
            let last = sizes[sizes.len() - 1];
            sizes.push(std::array::from_fn(|a| last[a] / stride[a]));
        }
        Ok(sizes)
    }

    /// The logits of every head, the full resolution first, of images x f32 [n, channels, d, h, w], and what the gradients need.
    ///
    /// # Errors
    /// Another device, type or number of channels than the network's; a size that the strides do not divide; a device that fails.
    pub fn forward(&self, x: &Tensor) -> Result<(Vec<Tensor>, Tape)> {
        let [_, channels, d, h, w] = x.shape();
        ensure_same_device("training", &self.weights[0], x)?;
        if x.dtype() != DType::F32 {
            return Err(Error::argument("training: dtype", DType::F32, x.dtype()));
        }
        if channels != self.architecture.input_channels {
            return Err(Error::shape("training: channels", self.architecture.input_channels, channels));
        }
        self.architecture.ensure_size("training: patch", [d, h, w])?;
        x.device().on_device_thread(|| self.layers(x.clone()))
    }

    fn layers(&self, mut x: Tensor) -> Result<(Vec<Tensor>, Tape)> {
        let weights = &self.weights;
        let mut tape = Tape { stem: None, encoder: Vec::new(), decoder: Vec::new() };
        if let Some(stem) = &self.stem {
            let (out, saved) = stem.forward(x, weights)?;
            (x, tape.stem) = (out, Some(saved));
        }
        let mut skips = Vec::new();
        for stage in &self.encoder {
            let saved = match stage {
                Encoder::Plain(blocks) => {
                    let (out, saved) = layers::forward(blocks, x, weights)?;
                    x = out;
                    SavedStage::Plain(saved)
                }
                Encoder::Residual(blocks) => {
                    let mut all = Vec::new();
                    for block in blocks {
                        let (out, saved) = block.forward(x, weights)?;
                        x = out;
                        all.push(saved);
                    }
                    SavedStage::Residual(all)
                }
            };
            tape.encoder.push(saved);
            skips.push(x.clone());
        }
        skips.pop();
        let mut logits = Vec::new();
        for level in &self.decoder {
            let Some(skip) = skips.pop() else { break };
            let raised = level.up.forward(&x, weights)?;
            let joined = concat(&[&raised, &skip])?;
            drop((raised, skip));
            let (out, convs) = layers::forward(&level.convs, joined, weights)?;
            logits.insert(0, level.head.forward(&out, weights)?);
            tape.decoder.push(SavedDecoder { below: x, convs, out: out.clone() });
            x = out;
        }
        Ok((logits, tape))
    }

    /// The gradients of sum(dlogits * logits) over the heads by all weights; None for a head without a gradient, whose weights get
    /// none either.
    ///
    /// # Errors
    /// Another number of gradients than heads, or one of another shape than its logits; a device that fails.
    pub fn backward(&self, tape: Tape, dlogits: &[Option<Tensor>]) -> Result<Gradients> {
        if dlogits.len() != self.decoder.len() {
            return Err(Error::argument("training: gradients of heads", self.decoder.len(), dlogits.len()));
        }
        self.weights[0].device().on_device_thread(|| self.gradients(tape, dlogits))
    }

    fn gradients(&self, tape: Tape, dlogits: &[Option<Tensor>]) -> Result<Gradients> {
        let weights = &self.weights;
        let mut gradients = Gradients::none(weights.len());
        // The gradient by the output of the level that is under way, and those of the skips, the full resolution first.
        let (mut dx, mut skips): (Option<Tensor>, Vec<Option<Tensor>>) = (None, Vec::new());
        for ((level, saved), dlogits) in self.decoder.iter().zip(tape.decoder).rev().zip(dlogits) {
            if let Some(dlogits) = dlogits {
                let own = level.head.backward(&saved.out, dlogits, weights, Wanted::All, &mut gradients)?;
                dx = sum(dx, own)?;
            }
            drop(saved.out);
            let Some(dout) = dx.take() else {
                skips.push(None);
                continue;
            };
            let djoined = layers::backward(&level.convs, saved.convs, dout, weights, Wanted::All, &mut gradients)?;
            let Some(djoined) = djoined else { break };
            let mut parts = split(&djoined, &[level.features; 2])?.into_iter();
            let (Some(draised), Some(dskip)) = (parts.next(), parts.next()) else { break };
            drop(djoined);
            skips.push(Some(dskip));
            dx = Some(level.up.backward(&saved.below, &draised, weights, &mut gradients)?);
        }
        for (number, (stage, saved)) in self.encoder.iter().zip(tape.encoder).enumerate().rev() {
            // The lowest stage has no skip.
            if let Some(skip) = skips.get_mut(number) {
                dx = sum(dx, skip.take())?;
            }
            let Some(dout) = dx.take() else { continue };
            let wanted = if number == 0 && self.stem.is_none() { Wanted::Weights } else { Wanted::All };
            dx = match (stage, saved) {
                (Encoder::Plain(blocks), SavedStage::Plain(saved)) => {
                    layers::backward(blocks, saved, dout, weights, wanted, &mut gradients)?
                }
                (Encoder::Residual(blocks), SavedStage::Residual(saved)) => {
                    let mut dout = Some(dout);
                    for (block, saved) in blocks.iter().zip(saved).rev() {
                        let Some(own) = dout else { break };
                        dout = block.backward(saved, &own, weights, &mut gradients)?;
                    }
                    dout
                }
                // A tape of another network.
                _ => return Err(Error::argument("training: tape", "of this network", "of another one")),
            };
        }
        if let (Some(stem), Some(saved), Some(dout)) = (&self.stem, tape.stem, dx) {
            stem.backward(saved, &dout, weights, Wanted::Weights, &mut gradients)?;
        }
        Ok(gradients)
    }

    /// The network for inference, with the same weights.
    ///
    /// # Errors
    /// As [`UNet::from_weights`].
    pub fn to_unet(&self, device: &Device, dtype: DType) -> Result<UNet> {
        let mut weights = Weights::default();
        for (slot, tensor) in self.slots.iter().zip(&self.weights) {
            weights.insert(slot.name.clone(), slot.stored.clone(), &tensor.to_ncdhw()?)?;
        }
        UNet::from_weights(&self.architecture, &weights, device, dtype)
    }

    /// Writes all weights, heads of deep supervision included, as safetensors under nnU-Net's names; [`UNet::load`] reads them.
    ///
    /// # Errors
    /// A file that cannot be written; a device that fails.
    pub fn save(&self, path: &Path, notes: &TrainingNotes) -> Result<()> {
        let values = self.weights.iter().map(Tensor::to_ncdhw).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<(&str, &[usize], &[f32])> = self
            .slots
            .iter()
            .zip(&values)
            .map(|(slot, values)| (slot.name.as_str(), slot.stored.as_slice(), values.as_slice()))
            .collect();
        weights::write_with(path, &tensors, notes)
    }
}

/// The sum of the gradients that are there.
fn sum(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
    match (a, b) {
        (Some(a), Some(b)) => Ok(Some(add(&a, &b)?)),
        (a, b) => Ok(a.or(b)),
    }
}
