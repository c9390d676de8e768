//! ResNets in training: forward by the statistics of the batch with what the gradients need, and backward.

mod build;
mod layers;

use std::path::Path;

use super::checkpoint::Named;
use super::network::Gradients;
use super::network::layers::Wanted;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::{self, TrainingNotes, Weights};
use crate::models::resnet::{ResNet, ResNetConfig, seeded_weights};
use crate::ops::{
    Pool3dParams, avg_pool3d, avg_pool3d_backward, ensure_same_device, linear, linear_backward, max_pool3d,
    max_pool3d_backward,
};
use crate::tensor::{DType, Shape, Tensor};
use build::{Layers, Parameter};
use layers::{SavedBlock, SavedConvNorm};

/// A [`ResNet`] in training, in f32: batch norms take mean and variance of the batch, and keep running ones for inference, to which each
/// batch contributes a tenth (its variance unbiased), as PyTorch's do.
#[derive(Debug, Clone)]
pub struct TrainableResNet {
    config: ResNetConfig,
    layers: Layers,
    weights: Vec<Tensor>,
    statistics: Vec<Tensor>,
}

/// What a forward pass of a [`TrainableResNet`] keeps for the backward pass.
pub struct ResNetTape {
    images: Tensor,
    stem: SavedConvNorm,
    /// The output of the stem, before the pooling.
    pooled: Tensor,
    blocks: Vec<SavedBlock>,
    /// The shape of the last block's output.
    last: Shape,
    /// Its mean over each channel.
    features: Tensor,
}

/// The pooling behind the first convolution.
const POOL: Pool3dParams = Pool3dParams { kernel: [1, 3, 3], stride: [1, 2, 2], padding: [0, 1, 1] };

fn mean_of([_, _, _, h, w]: Shape) -> Pool3dParams {
    Pool3dParams { kernel: [1, h, w], stride: [1; 3], padding: [0; 3] }
}

impl TrainableResNet {
    /// A network with weights from a seed, those of [`seeded_weights`].
    ///
    /// # Errors
    /// As [`ResNetConfig::ensure_valid`]; a device that fails.
    pub fn seeded(config: &ResNetConfig, seed: u64, device: &Device) -> Result<Self> {
        Self::from_weights(config, &seeded_weights(config, seed)?, device)
    }

    /// A network with all weights and running statistics out of a file, under the names that [`TrainableResNet::save`] writes.
    ///
    /// # Errors
    /// As [`TrainableResNet::seeded`]; a tensor that is missing, of another shape or not finite.
    pub fn from_weights(config: &ResNetConfig, weights: &Weights, device: &Device) -> Result<Self> {
        let layers = build::build(config)?;
        let upload = |parameters: &[Parameter]| {
            let values = build::read(parameters, weights)?;
            let tensor = |(p, values): (&Parameter, Vec<f32>)| Tensor::from_ncdhw(device, p.shape, DType::F32, &values);
            parameters.iter().zip(values).map(tensor).collect::<Result<Vec<_>>>()
        };
        let (weights, statistics) = (upload(&layers.parameters)?, upload(&layers.statistics)?);
        Ok(Self { config: *config, layers, weights, statistics })
    }

    /// A network to fine-tune: with the weights of torchvision's or of another classifier's file. A last layer for other classes (that of
    /// ImageNet) and a fusion convolution that the file lacks are those of [`TrainableResNet::seeded`].
    ///
    /// # Errors
    /// As [`TrainableResNet::from_weights`].
    pub fn pretrained(config: &ResNetConfig, weights: &Weights, seed: u64, device: &Device) -> Result<Self> {
        let all = build::pretrained(config, &build::build(config)?, weights, seed)?;
        Self::from_weights(config, &all, device)
    }

    /// The configuration.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// The weights, in PyTorch's order.
    pub fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// The names of the weights, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layers.parameters.iter().map(|parameter| parameter.name.as_str())
    }

    /// The running mean and variance of each batch norm, with their names.
    pub fn statistics(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.layers.statistics.iter().map(|parameter| parameter.name.as_str()).zip(&self.statistics)
    }

    /// Replaces the weights.
    ///
    /// # Errors
    /// Another number of tensors, or one of another shape.
    pub fn set_weights(&mut self, weights: Vec<Tensor>) -> Result<()> {
        ensure_shapes(&self.layers.parameters, &weights)?;
        self.weights = weights;
        Ok(())
    }

    pub(super) fn set_statistics(&mut self, statistics: Vec<Tensor>) -> Result<()> {
        ensure_shapes(&self.layers.statistics, &statistics)?;
        self.statistics = statistics;
        Ok(())
    }

    /// Weights and running statistics as files have them.
    pub(super) fn named(&self) -> [Vec<Named<'_>>; 2] {
        let Layers { parameters, statistics, .. } = &self.layers;
        [(parameters, &self.weights), (statistics, &self.statistics)].map(|(parameters, tensors)| {
            let pairs = parameters.iter().zip(tensors);
            pairs.map(|(p, tensor)| Named { name: &p.name, stored: &p.stored, tensor }).collect()
        })
    }

    /// The logits [n, classes, 1, 1, 1] of images f32 [n, 3, 1, h, w], and what the gradients need. The running statistics move.
    ///
    /// # Errors
    /// Images of another shape, type or device; so few or small ones that a batch norm has a single value; a device that fails, which
    /// leaves the statistics.
    pub fn forward(&mut self, images: &Tensor) -> Result<(Tensor, ResNetTape)> {
        let [_, channels, depth, _, _] = images.shape();
        if (channels, depth) != (3, 1) {
            return Err(Error::shape("training: images", "[n, 3, 1, h, w]", format!("{:?}", images.shape())));
        }
        ensure_same_device("training", &self.weights[0], images)?;
        if images.dtype() != DType::F32 {
            return Err(Error::argument("training: dtype", DType::F32, images.dtype()));
        }
        let mut statistics = self.statistics.clone();
        let result = images.device().on_device_thread(|| {
            let found = self.run(images, &mut statistics)?;
            Ok((found, statistics))
        });
        let (found, statistics) = result?;
        self.statistics = statistics;
        Ok(found)
    }

    fn run(&self, images: &Tensor, statistics: &mut [Tensor]) -> Result<(Tensor, ResNetTape)> {
        let (layers, weights) = (&self.layers, &self.weights);
        let x = match &layers.fusion {
            Some(fusion) => fusion.forward(images, weights)?,
            None => images.clone(),
        };
        let (pooled, stem) = layers.stem.forward(x, weights, statistics)?;
        let mut x = max_pool3d(&pooled, &POOL)?;
        let mut blocks = Vec::with_capacity(layers.blocks.len());
        for block in &layers.blocks {
            let (out, saved) = block.forward(x, weights, statistics)?;
            blocks.push(saved);
            x = out;
        }
        let last = x.shape();
        let features = avg_pool3d(&x, &mean_of(last))?;
        let [weight, bias] = layers.head.map(|id| &weights[id.0]);
        let logits = linear(&features, weight, Some(bias))?;
        Ok((logits, ResNetTape { images: images.clone(), stem, pooled, blocks, last, features }))
    }

    /// The gradients of sum(dlogits * logits) by all weights.
    ///
    /// # Errors
    /// A gradient of another shape than the logits; a device that fails.
    pub fn backward(&self, tape: ResNetTape, dlogits: &Tensor) -> Result<Gradients> {
        self.weights[0].device().on_device_thread(|| self.gradients(tape, dlogits))
    }

    fn gradients(&self, tape: ResNetTape, dlogits: &Tensor) -> Result<Gradients> {
        let (layers, weights) = (&self.layers, &self.weights);
        let mut gradients = Gradients::none(weights.len());
        let [weight, bias] = layers.head;
        let found = linear_backward(&tape.features, &weights[weight.0], dlogits)?;
        gradients.set(weight, found.dw);
        gradients.set(bias, found.db);
        let mut dx = avg_pool3d_backward(tape.last, &mean_of(tape.last), &found.dx)?;
        for (block, saved) in layers.blocks.iter().zip(tape.blocks).rev() {
            dx = block.backward(saved, &dx, weights, &mut gradients)?;
        }
        dx = max_pool3d_backward(&tape.pooled, &POOL, &dx)?;
        drop(tape.pooled);
        let wanted = if layers.fusion.is_some() { Wanted::All } else { Wanted::Weights };
        let dimages = layers.stem.backward(tape.stem, &dx, weights, wanted, &mut gradients)?;
        if let (Some(fusion), Some(dy)) = (&layers.fusion, dimages) {
            fusion.backward(&tape.images, &dy, weights, Wanted::Weights, &mut gradients)?;
        }
        Ok(gradients)
    }

    /// The network for inference, with the same weights and the running statistics.
    ///
    /// # Errors
    /// As [`ResNet::new`].
    pub fn to_resnet(&self, device: &Device, dtype: DType) -> Result<ResNet> {
        let mut weights = Weights::default();
        for Named { name, stored, tensor } in self.named().into_iter().flatten() {
            weights.insert(name, stored.to_vec(), &tensor.to_ncdhw()?)?;
        }
        ResNet::new(&self.config, &weights, device, dtype)
    }

    /// Writes weights and running statistics as safetensors under torchvision's names, with the authors' prefix where there is a fusion
    /// convolution.
    ///
    /// # Errors
    /// A file that cannot be written; a device that fails.
    pub fn save(&self, path: &Path, notes: &TrainingNotes) -> Result<()> {
        let named = self.named().concat();
        let values = named.iter().map(|named| named.tensor.to_ncdhw()).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<(&str, &[usize], &[f32])> =
            named.iter().zip(&values).map(|(named, values)| (named.name, named.stored, values.as_slice())).collect();
        weights::write_with(path, &tensors, notes)
    }
}

fn ensure_shapes(parameters: &[Parameter], tensors: &[Tensor]) -> Result<()> {
    if tensors.len() != parameters.len() {
        return Err(Error::argument("training: weights", parameters.len(), tensors.len()));
    }
    for (parameter, tensor) in parameters.iter().zip(tensors) {
        if tensor.shape() != parameter.shape || tensor.dtype() != DType::F32 {
            let found = format!("{:?} of {}", tensor.shape(), tensor.dtype());
            let expected = format!("{:?} of f32", parameter.shape);
            return Err(Error::shape(format!("training: weight {}", parameter.name), expected, found));
        }
    }
    Ok(())
}
