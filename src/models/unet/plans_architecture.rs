//! A network's shape out of a configuration of plans.json: the `architecture` object that nnU-Net writes since 2.5, or the
//! loose keys (`UNet_class_name`, ...) that it wrote before.

use super::architecture::{MAX_STAGES, ResidualEncoder, UNetArchitecture, UNetEncoder, UNetNorm};
use crate::error::Result;
use crate::models::json::Node;

/// Keys of `arch_kwargs` that both networks take.
const KEYS: [&str; 16] = [
    "n_stages",
    "features_per_stage",
    "conv_op",
    "kernel_sizes",
    "strides",
    "n_conv_per_stage_decoder",
    "conv_bias",
    "norm_op",
    "norm_op_kwargs",
    "dropout_op",
    "dropout_op_kwargs",
    "nonlin",
    "nonlin_kwargs",
    "deep_supervision",
    "input_channels",
    "num_classes",
];
const PLAIN_KEYS: [&str; 2] = ["n_conv_per_stage", "nonlin_first"];
const RESIDUAL_KEYS: [&str; 7] = [
    "n_blocks_per_stage",
    "block",
    "bottleneck_channels",
    "stem_channels",
    // nnU-Net's own network does not hand these on to its encoder, which has them; networks derived from it do.
    "squeeze_excitation",
    "squeeze_excitation_reduction_ratio",
    "stochastic_depth_p",
];
/// The encoder's default.
const REDUCTION_RATIO: f64 = 1.0 / 16.0;

/// nnU-Net's own trainer that replaces the plans' norm by batch norm.
const BATCH_NORM_TRAINER: &str = "nnUNetTrainerBN";

/// The network of `configuration`, trained by `trainer`, for so many channels in and out.
///
/// # Errors
/// A network, module or setting that is not understood, settings that do not fit each other: the message names the key.
pub(super) fn read(
    configuration: &Node<'_>,
    trainer: Option<&str>,
    input_channels: usize,
    classes: usize,
) -> Result<UNetArchitecture> {
    let mut architecture = match configuration.optional("architecture") {
        None if configuration.has("UNet_class_name") => before_2_5(configuration, input_channels, classes)?,
        _ => current(&configuration.key("architecture")?, input_channels, classes)?,
    };
    if trainer == Some(BATCH_NORM_TRAINER) {
        architecture.norm = UNetNorm::Running { affine: true, eps: 1e-5 };
    }
    architecture.ensure_valid().map_err(|e| configuration.mismatch(e))?;
    Ok(architecture)
}

enum Network {
    Plain,
    Residual,
}

fn network(class: &Node<'_>) -> Result<Network> {
    match class.text()?.rsplit('.').next() {
        Some("PlainConvUNet") => Ok(Network::Plain),
        Some("ResidualEncoderUNet") => Ok(Network::Residual),
        _ => Err(class.mismatch("PlainConvUNet or ResidualEncoderUNet (nnU-Net's other networks are not supported)")),
    }
}

fn current(node: &Node<'_>, input_channels: usize, classes: usize) -> Result<UNetArchitecture> {
    let network = network(&node.key("network_class_name")?)?;
    let kwargs = node.key("arch_kwargs")?;
    let more: &[&str] = match network {
        Network::Plain => &PLAIN_KEYS,
        Network::Residual => &RESIDUAL_KEYS,
    };
    kwargs.expect_keys(&[&KEYS, more].concat())?;
    let planar = match module(&kwargs.key("conv_op")?)? {
        "Conv3d" => false,
        "Conv2d" => true,
        _ => return Err(kwargs.key("conv_op")?.mismatch("torch's Conv2d or Conv3d")),
    };
    let stages = kwargs.key("n_stages")?.count()?;
    let sizes = |key: &str| per_stage(&kwargs.key(key)?, stages, |n| axes(n, planar));
    let counts = |key: &str, stages: usize| per_stage(&kwargs.key(key)?, stages, Node::count);
    let features = counts("features_per_stage", stages)?;
    let encoder = match network {
        Network::Plain => UNetEncoder::Plain(counts("n_conv_per_stage", stages)?),
        Network::Residual => UNetEncoder::Residual(residual(&kwargs, stages, &features)?),
    };
    let nonlin_first = kwargs.optional("nonlin_first").map_or(Ok(false), |n| n.boolean())?;
    let (norm, slope) = (norm(&kwargs, planar)?, slope(&kwargs)?);
    Ok(UNetArchitecture {
        input_channels,
        classes,
        kernels: sizes("kernel_sizes")?,
        strides: sizes("strides")?,
        encoder,
        decoder_convs: counts("n_conv_per_stage_decoder", stages.saturating_sub(1))?,
        features,
        conv_bias: kwargs.optional("conv_bias").map_or(Ok(false), |n| n.boolean())?,
        norm,
        slope,
        // Without both a norm and an activation, their order does not matter.
        nonlin_first: nonlin_first && norm != UNetNorm::None && slope != 1.0,
        planar,
    })
}

fn residual(kwargs: &Node<'_>, stages: usize, features: &[usize]) -> Result<ResidualEncoder> {
    let bottlenecks = match kwargs.optional("block") {
        None => false,
        Some(block) => match module(&block)? {
            "BasicBlockD" => false,
            "BottleneckD" => true,
            _ => return Err(block.mismatch("BasicBlockD or BottleneckD")),
        },
    };
    let inner = kwargs.optional("bottleneck_channels");
    let bottleneck = match (bottlenecks, inner) {
        (false, _) => None,
        (true, Some(node)) => Some(per_stage(&node, stages, Node::count)?),
        (true, None) => return Err(kwargs.mismatch("bottleneck_channels for blocks of BottleneckD")),
    };
    let stem = match kwargs.optional("stem_channels") {
        Some(node) => node.count()?,
        None => features.first().copied().unwrap_or(0),
    };
    // In training, whole blocks are left out by chance; what is predicted has all of them, as they are.
    if let Some(node) = kwargs.optional("stochastic_depth_p")
        && !(0.0..=1.0).contains(&node.number()?)
    {
        return Err(node.mismatch("a probability from 0 to 1"));
    }
    let squeezes = kwargs.optional("squeeze_excitation").map_or(Ok(false), |n| n.boolean())?;
    let ratio = kwargs.optional("squeeze_excitation_reduction_ratio").map_or(Ok(REDUCTION_RATIO), |n| n.number())?;
    Ok(ResidualEncoder {
        blocks: per_stage(&kwargs.key("n_blocks_per_stage")?, stages, Node::count)?,
        stem,
        bottleneck,
        squeeze_excitation: squeezes.then_some(ratio),
    })
}

/// PyTorch's norms in evaluation: a batch norm or an instance norm that tracks its statistics applies them; one that does not
/// computes them anew, over the one tile that is predicted at a time.
fn norm(kwargs: &Node<'_>, planar: bool) -> Result<UNetNorm> {
    let Some(op) = kwargs.optional("norm_op") else { return Ok(UNetNorm::None) };
    let settings = kwargs.optional("norm_op_kwargs");
    if let Some(settings) = &settings {
        settings.expect_keys(&["eps", "affine", "track_running_stats", "momentum"])?;
    }
    let setting = |key: &str| settings.as_ref().and_then(|s| s.optional(key));
    let dimensions = if planar { "2d" } else { "3d" };
    let name = module(&op)?;
    let batch = match name.strip_suffix(dimensions) {
        Some("InstanceNorm") => false,
        Some("BatchNorm") => true,
        _ => return Err(op.mismatch(format!("torch's InstanceNorm{dimensions} or BatchNorm{dimensions}, or null"))),
    };
    // PyTorch's defaults, where the plans leave a setting out.
    let affine = setting("affine").map_or(Ok(batch), |n| n.boolean())?;
    let eps = setting("eps").map_or(Ok(1e-5), |n| n.number())? as f32;
    let tracks = setting("track_running_stats").map_or(Ok(batch), |n| n.boolean())?;
    Ok(if tracks { UNetNorm::Running { affine, eps } } else { UNetNorm::Instance { affine, eps } })
}

fn slope(kwargs: &Node<'_>) -> Result<f32> {
    let Some(op) = kwargs.optional("nonlin") else { return Ok(1.0) };
    let settings = kwargs.optional("nonlin_kwargs");
    match module(&op)? {
        "LeakyReLU" => {
            if let Some(settings) = &settings {
                settings.expect_keys(&["inplace", "negative_slope"])?;
            }
            let slope = settings.and_then(|s| s.optional("negative_slope"));
            Ok(slope.map_or(Ok(0.01), |n| n.number())? as f32)
        }
        "ReLU" => {
            if let Some(settings) = &settings {
                settings.expect_keys(&["inplace"])?;
            }
            Ok(0.0)
        }
        _ => Err(op.mismatch("torch's LeakyReLU or ReLU, or null")),
    }
}

/// The plans of nnU-Net 2.0 to 2.4, which it still reads: instance norm with weights, leaky ReLU, biases.
fn before_2_5(configuration: &Node<'_>, input_channels: usize, classes: usize) -> Result<UNetArchitecture> {
    let network = network(&configuration.key("UNet_class_name")?)?;
    let planar = configuration.key("patch_size")?.list()?.len() == 2;
    let counted = configuration.key("n_conv_per_stage_encoder")?;
    let stages = counted.list()?.len();
    if stages > MAX_STAGES {
        return Err(counted.mismatch(format!("at most {MAX_STAGES} stages")));
    }
    let repeats = counted.list()?.iter().map(Node::count).collect::<Result<Vec<_>>>()?;
    let base = configuration.key("UNet_base_num_features")?.count()?;
    let most = configuration.key("unet_max_num_features")?.count()?;
    let features: Vec<usize> = (0..stages).map(|stage| base.saturating_mul(1 << stage).min(most)).collect();
    let sizes = |key: &str| per_stage(&configuration.key(key)?, stages, |n| axes(n, planar));
    let encoder = match network {
        Network::Plain => UNetEncoder::Plain(repeats),
        Network::Residual => {
            let stem = features.first().copied().unwrap_or(0);
            UNetEncoder::Residual(ResidualEncoder { blocks: repeats, stem, bottleneck: None, squeeze_excitation: None })
        }
    };
    Ok(UNetArchitecture {
        input_channels,
        classes,
        kernels: sizes("conv_kernel_sizes")?,
        strides: sizes("pool_op_kernel_sizes")?,
        encoder,
        decoder_convs: per_stage(
            &configuration.key("n_conv_per_stage_decoder")?,
            stages.saturating_sub(1),
            Node::count,
        )?,
        features,
        conv_bias: true,
        norm: UNetNorm::Instance { affine: true, eps: 1e-5 },
        slope: 0.01,
        nonlin_first: false,
        planar,
    })
}

/// The last part of a module's name.
fn module<'a>(node: &Node<'a>) -> Result<&'a str> {
    let name = node.text()?;
    Ok(name.rsplit('.').next().unwrap_or(name))
}

/// A list with an entry for each of `stages`, or one value for all.
fn per_stage<'a, T: Clone>(node: &Node<'a>, stages: usize, read: impl Fn(&Node<'a>) -> Result<T>) -> Result<Vec<T>> {
    if stages > MAX_STAGES {
        return Err(node.mismatch(format!("at most {MAX_STAGES} stages, not the {stages} of n_stages")));
    }
    if !node.is_list() {
        return Ok(vec![read(node)?; stages]);
    }
    let values = node.list()?.iter().map(read).collect::<Result<Vec<T>>>()?;
    if values.len() != stages {
        return Err(node.mismatch(format!("{stages} entries (n_stages, one fewer in the decoder)")));
    }
    Ok(values)
}

/// One size for all axes, or a list of three; of two in a 2D network, whose depth is 1.
fn axes(node: &Node<'_>, planar: bool) -> Result<[usize; 3]> {
    match (node.is_list(), planar) {
        (false, false) => Ok([node.count()?; 3]),
        (false, true) => {
            let size = node.count()?;
            Ok([1, size, size])
        }
        (true, false) => node.triple(Node::count),
        (true, true) => {
            let [y, x] = node.pair(Node::count)?;
            Ok([1, y, x])
        }
    }
}
