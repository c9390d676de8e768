//! A network in training out of its architecture: the layers that [`UNet`](crate::models::UNet) has, under the same names, and the
//! heads of deep supervision.

use super::layers::{Block, Conv, Norm, Up};
use super::parameters::{Id, Initial, Slot};
use super::residual::Residual;
use super::{Decoder, Encoder, TrainableUNet};
use crate::error::{Error, Result};
use crate::models::{ResidualEncoder, UNetArchitecture, UNetEncoder, UNetNorm};
use crate::ops::Conv3dParams;

/// Layers and weights of an architecture.
///
/// # Errors
/// An invalid architecture; what inference knows and training does not: norms by running statistics, no norm, activations before
/// the norm, squeeze-excitations.
pub(super) fn build(a: &UNetArchitecture) -> Result<TrainableUNet> {
    a.ensure_valid()?;
    let UNetNorm::Instance { affine, eps } = a.norm else {
        return Err(Error::argument("training: norm", "instance norm", format!("{:?}", a.norm)));
    };
    if a.nonlin_first {
        return Err(Error::argument("training: activation", "behind the norm", "before the norm"));
    }
    let mut builder = Builder { a, affine, eps, slots: Vec::new() };
    let mut channels = a.input_channels;
    let mut stem = None;
    if let UNetEncoder::Residual(residual) = &a.encoder {
        if residual.squeeze_excitation.is_some() {
            return Err(Error::argument(
                "training: encoder",
                "residual blocks without squeeze-excitation",
                "one with it",
            ));
        }
        stem = Some(builder.block("encoder.stem.convs.0", [channels, residual.stem], a.kernels[0], [1; 3]));
        channels = residual.stem;
    }
    let mut encoder = Vec::new();
    for (stage, &features) in a.features.iter().enumerate() {
        encoder.push(match &a.encoder {
            UNetEncoder::Plain(convs) => {
                let name = format!("encoder.stages.{stage}.0");
                let shape = ([channels, features], a.kernels[stage], a.strides[stage]);
                Encoder::Plain(builder.blocks(&name, convs[stage], shape))
            }
            UNetEncoder::Residual(residual) => Encoder::Residual(builder.residual(residual, stage, channels)),
        });
        channels = features;
    }
    let mut decoder = Vec::new();
    for (level, &convs) in a.decoder_convs.iter().enumerate() {
        let stage = a.features.len() - 2 - level;
        let features = a.features[stage];
        let up = builder.up(&format!("decoder.transpconvs.{level}"), [channels, features], a.strides[stage + 1]);
        let name = format!("decoder.stages.{level}");
        let convs = builder.blocks(&name, convs, ([2 * features, features], a.kernels[stage], [1; 3]));
        let name = format!("decoder.seg_layers.{level}");
        let head = builder.conv(&name, [features, a.classes], [1; 3], [1; 3], true);
        decoder.push(Decoder { up, convs, head, features });
        channels = features;
    }
    let slots = builder.slots;
    Ok(TrainableUNet { architecture: a.clone(), slots, stem, encoder, decoder, weights: Vec::new() })
}

struct Builder<'a> {
    a: &'a UNetArchitecture,
    affine: bool,
    eps: f32,
    slots: Vec<Slot>,
}

/// nnU-Net starts the weight of a residual block's last norm at 0, so that the block starts as its skip.
const LAST_NORM: f32 = 0.0;

impl Builder<'_> {
    fn slot(&mut self, name: String, shape: [usize; 5], stored: Vec<usize>, initial: Initial) -> Id {
        self.slots.push(Slot { name, shape, stored, initial });
        Id(self.slots.len() - 1)
    }

    fn kernel(&mut self, name: String, shape: [usize; 5], fan_in: usize) -> Id {
        let [a, b, _, h, w] = shape;
        // PyTorch's kernels of a 2D network have no depth.
        let stored = if self.a.planar { vec![a, b, h, w] } else { shape.to_vec() };
        self.slot(name, shape, stored, Initial::He { fan_in })
    }

    fn vector(&mut self, name: String, len: usize, value: f32) -> Id {
        self.slot(name, [1, len, 1, 1, 1], vec![len], Initial::Constant(value))
    }

    fn conv(
        &mut self,
        name: &str,
        [input, output]: [usize; 2],
        kernel: [usize; 3],
        stride: [usize; 3],
        bias: bool,
    ) -> Conv {
        let [kd, kh, kw] = kernel;
        let weight = self.kernel(format!("{name}.weight"), [output, input, kd, kh, kw], input * kd * kh * kw);
        let bias = bias.then(|| self.vector(format!("{name}.bias"), output, 0.0));
        let params = Conv3dParams { stride, padding: kernel.map(|k| (k - 1) / 2), ..Default::default() };
        Conv { weight, bias, params }
    }

    fn block_with(
        &mut self,
        name: &str,
        channels: [usize; 2],
        kernel: [usize; 3],
        stride: [usize; 3],
        bias: bool,
        slope: f32,
        norm: f32,
    ) -> Block {
        let conv = self.conv(&format!("{name}.conv"), channels, kernel, stride, bias);
        let vectors = [("weight", norm), ("bias", 0.0)];
        let affine =
            self.affine.then(|| vectors.map(|(part, v)| self.vector(format!("{name}.norm.{part}"), channels[1], v)));
        Block { conv, norm: Norm { affine, eps: self.eps }, slope }
    }

    fn block(&mut self, name: &str, channels: [usize; 2], kernel: [usize; 3], stride: [usize; 3]) -> Block {
        self.block_with(name, channels, kernel, stride, self.a.conv_bias, self.a.slope, 1.0)
    }

    /// `count` blocks: the first from channels[0] to channels[1] with the stride, the others as wide.
    fn blocks(
        &mut self,
        name: &str,
        count: usize,
        (channels, kernel, stride): ([usize; 2], [usize; 3], [usize; 3]),
    ) -> Vec<Block> {
        let [input, output] = channels;
        let mut block = |i: usize| {
            let (input, stride) = if i == 0 { (input, stride) } else { (output, [1; 3]) };
            self.block(&format!("{name}.convs.{i}"), [input, output], kernel, stride)
        };
        (0..count).map(&mut block).collect()
    }

    fn residual(&mut self, residual: &ResidualEncoder, stage: usize, channels: usize) -> Vec<Residual> {
        let a = self.a;
        let (features, kernel) = (a.features[stage], a.kernels[stage]);
        let mut blocks = Vec::new();
        for i in 0..residual.blocks[stage] {
            let name = format!("encoder.stages.{stage}.blocks.{i}");
            let (input, stride) = if i == 0 { (channels, a.strides[stage]) } else { (features, [1; 3]) };
            let shapes = match &residual.bottleneck {
                None => vec![([input, features], kernel, stride), ([features; 2], kernel, [1; 3])],
                Some(inner) => vec![
                    ([input, inner[stage]], [1; 3], [1; 3]),
                    ([inner[stage]; 2], kernel, stride),
                    ([inner[stage], features], [1; 3], [1; 3]),
                ],
            };
            let last = shapes.len() - 1;
            let mut convs = Vec::new();
            for (number, (channels, kernel, stride)) in shapes.into_iter().enumerate() {
                let name = format!("{name}.conv{}", number + 1);
                let (slope, norm) = if number == last { (1.0, LAST_NORM) } else { (a.slope, 1.0) };
                convs.push(self.block_with(&name, channels, kernel, stride, a.conv_bias, slope, norm));
            }
            let pool = (stride != [1; 3]).then_some(stride);
            let projection = (input != features).then(|| {
                let name = format!("{name}.skip.{}", usize::from(pool.is_some()));
                self.block_with(&name, [input, features], [1; 3], [1; 3], false, 1.0, 1.0)
            });
            blocks.push(Residual { convs, pool, projection, slope: a.slope });
        }
        blocks
    }

    fn up(&mut self, name: &str, [input, output]: [usize; 2], stride: [usize; 3]) -> Up {
        let [kd, kh, kw] = stride;
        let weight = self.kernel(format!("{name}.weight"), [input, output, kd, kh, kw], output * kd * kh * kw);
        let bias = self.a.conv_bias.then(|| self.vector(format!("{name}.bias"), output, 0.0));
        Up { weight, bias, stride }
    }
}
