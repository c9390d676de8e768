//! The parameters of a ResNet in training under torchvision's names, and their values out of files.

use super::layers::{Block, ConvNorm};
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::models::ConvSpec;
use crate::models::resnet::{BlockLayout, FUSION, PREFIX, ResNetConfig, fusion_conv, seeded_weights};
use crate::training::network::layers::Conv;
use crate::training::network::parameters::Id;

/// A tensor of the network.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: String,
    /// The shape of its tensor: [co, ci, 1, kh, kw], or [1, c, 1, 1, 1] of a vector.
    pub(super) shape: [usize; 5],
    /// The shape in files: PyTorch's.
    pub(super) stored: Vec<usize>,
}

/// The layers of a network; its weights are in PyTorch's order.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    pub(super) parameters: Vec<Parameter>,
    /// Running means and variances, one behind the other.
    pub(super) statistics: Vec<Parameter>,
    pub(super) fusion: Option<Conv>,
    pub(super) stem: ConvNorm,
    pub(super) blocks: Vec<Block>,
    /// Weight and bias of the last layer.
    pub(super) head: [Id; 2],
}

struct Builder {
    prefix: &'static str,
    parameters: Vec<Parameter>,
    statistics: Vec<Parameter>,
}

pub(super) fn build(config: &ResNetConfig) -> Result<Layers> {
    let prefix = if config.fusion { PREFIX } else { "" };
    let mut builder = Builder { prefix, parameters: Vec::new(), statistics: Vec::new() };
    let fusion = config.fusion.then(|| builder.conv(FUSION.to_owned(), fusion_conv()));
    let stem = builder.conv_norm("conv1", "bn1", config.stem(), true);
    let layout = config.layout()?;
    let blocks = layout.iter().map(|block| builder.block(block)).collect();
    let channels = layout.last().map_or(config.width, |block| block.out);
    let weight = builder.parameter(
        format!("{prefix}fc.weight"),
        [config.classes, channels, 1, 1, 1],
        vec![config.classes, channels],
    );
    let head = [weight, builder.vector(format!("{prefix}fc.bias"), config.classes)];
    let Builder { parameters, statistics, .. } = builder;
    Ok(Layers { parameters, statistics, fusion, stem, blocks, head })
}

impl Builder {
    fn parameter(&mut self, name: String, shape: [usize; 5], stored: Vec<usize>) -> Id {
        self.parameters.push(Parameter { name, shape, stored });
        Id(self.parameters.len() - 1)
    }

    fn vector(&mut self, name: String, len: usize) -> Id {
        self.parameter(name, [1, len, 1, 1, 1], vec![len])
    }

    fn conv(&mut self, name: String, spec: ConvSpec) -> Conv {
        let [co, ci, kh, kw] = spec.shape;
        let weight = self.parameter(name, [co, ci, 1, kh, kw], spec.shape.to_vec());
        Conv { weight, bias: None, params: spec.params() }
    }

    fn conv_norm(&mut self, conv: &str, norm: &str, spec: ConvSpec, relu: bool) -> ConvNorm {
        let prefix = self.prefix;
        let conv = self.conv(format!("{prefix}{conv}.weight"), spec);
        let channels = spec.shape[0];
        let norm_weights = ["weight", "bias"].map(|part| self.vector(format!("{prefix}{norm}.{part}"), channels));
        let statistics = self.statistics.len();
        for part in ["running_mean", "running_var"] {
            let (shape, stored) = ([1, channels, 1, 1, 1], vec![channels]);
            self.statistics.push(Parameter { name: format!("{prefix}{norm}.{part}"), shape, stored });
        }
        ConvNorm { conv, norm: norm_weights, statistics, relu }
    }

    fn block(&mut self, block: &BlockLayout) -> Block {
        let (name, last) = (&block.name, block.convs.len());
        let mut convs = Vec::with_capacity(last);
        for (i, conv) in (1..).zip(&block.convs) {
            convs.push(self.conv_norm(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), *conv, i != last));
        }
        let projection = block
            .projection
            .map(|conv| self.conv_norm(&format!("{name}.downsample.0"), &format!("{name}.downsample.1"), conv, false));
        Block { convs, projection }
    }
}

/// The values of tensors out of a file that has all of them.
///
/// # Errors
/// A tensor that is missing, of another shape or with a value that is not finite.
pub(super) fn read(parameters: &[Parameter], weights: &Weights) -> Result<Vec<Vec<f32>>> {
    parameters.iter().map(|parameter| values(weights, &parameter.name, &parameter.stored)).collect()
}

fn values(weights: &Weights, name: &str, stored: &[usize]) -> Result<Vec<f32>> {
    let (shape, values) = weights.get(name)?;
    if shape != stored {
        let reason = format!("tensor '{name}': expected shape {stored:?}, found {shape:?}");
        return Err(Error::file(weights.path(), reason));
    }
    match values.iter().find(|v| !v.is_finite()) {
        None => Ok(values),
        Some(bad) => Err(Error::file(weights.path(), format!("tensor '{name}': expected finite values, found {bad}"))),
    }
}

/// Weights to begin a fine-tuning with: those of `file`, with the authors' prefix or without. A last layer for other classes, and a fusion
/// convolution that the file lacks, are drawn from `seed` as [`seeded_weights`] draws them.
///
/// # Errors
/// As [`read`].
pub(super) fn pretrained(config: &ResNetConfig, layers: &Layers, file: &Weights, seed: u64) -> Result<Weights> {
    let mut weights = seeded_weights(config, seed)?;
    let prefixed = file.names().any(|name| name.starts_with(PREFIX));
    for Parameter { name, stored, .. } in layers.parameters.iter().chain(&layers.statistics) {
        let plain = name.strip_prefix(PREFIX).unwrap_or(name);
        let theirs = if prefixed && plain != FUSION { format!("{PREFIX}{plain}") } else { plain.to_owned() };
        let found = file.shape(&theirs);
        let drawn = match plain {
            FUSION => found.is_none(),
            // ImageNet's head has a thousand classes.
            "fc.weight" | "fc.bias" => found.is_none_or(|shape| shape.first() != stored.first()),
            _ => false,
        };
        if !drawn {
            weights.insert(name.clone(), stored.clone(), &values(file, &theirs, stored)?)?;
        }
    }
    Ok(weights)
}
