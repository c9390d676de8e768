//! Seeded weights with torchvision's names.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{FUSION, ResNetConfig};
use crate::error::Result;
use crate::io::weights::Weights;

/// The prefix of names in the authors' files.
pub(crate) const PREFIX: &str = "resnet.";

/// Random weights from a seed, with torchvision's names: convolutions are normal after He (fan out); batch norms are the identity,
/// except that the last one of each block has a gain of 0.2, which keeps 33 residual additions from overflowing f16.
///
/// # Errors
/// As [`ResNetConfig::ensure_valid`].
pub fn seeded_weights(config: &ResNetConfig, seed: u64) -> Result<Weights> {
    let mut draw = Draw { rng: ChaCha8Rng::seed_from_u64(seed), weights: Weights::default() };
    let prefix = if config.fusion { PREFIX } else { "" };
    if config.fusion {
        // The fusion convolution is close to the identity, where training starts.
        let identity: [f32; 9] = std::array::from_fn(|i| if i % 4 == 0 { 1.0 } else { 0.0 });
        draw.weights.insert(FUSION, vec![3, 3, 1, 1], &identity)?;
    }
    draw.conv_bn(&format!("{prefix}conv1"), &format!("{prefix}bn1"), config.stem().shape, 1.0)?;
    let layout = config.layout()?;
    for block in &layout {
        let (name, last) = (format!("{prefix}{}", block.name), block.convs.len());
        for (conv, i) in block.convs.iter().zip(1..) {
            let gain = if i == last { 0.2 } else { 1.0 };
            draw.conv_bn(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), conv.shape, gain)?;
        }
        if let Some(conv) = block.projection {
            draw.conv_bn(&format!("{name}.downsample.0"), &format!("{name}.downsample.1"), conv.shape, 1.0)?;
        }
    }
    let channels = layout.last().map_or(config.width, |block| block.out);
    let sd = 1.0 / (channels as f64).sqrt();
    draw.normal(&format!("{prefix}fc.weight"), vec![config.classes, channels], sd)?;
    draw.weights.insert(format!("{prefix}fc.bias"), vec![config.classes], &vec![0.0; config.classes])?;
    Ok(draw.weights)
}

struct Draw {
    rng: ChaCha8Rng,
    weights: Weights,
}

impl Draw {
    fn normal(&mut self, name: &str, shape: Vec<usize>, sd: f64) -> Result<()> {
        let len = shape.iter().product();
        let data: Vec<f32> =
            (0..len).map(|_| (Distribution::<f64>::sample(&StandardNormal, &mut self.rng) * sd) as f32).collect();
        self.weights.insert(name, shape, &data)
    }

    fn conv_bn(&mut self, conv: &str, norm: &str, shape: [usize; 4], gain: f32) -> Result<()> {
        let [co, _, kh, kw] = shape;
        self.normal(&format!("{conv}.weight"), shape.to_vec(), (2.0 / (co * kh * kw) as f64).sqrt())?;
        for (part, value) in [("weight", gain), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            self.weights.insert(format!("{norm}.{part}"), vec![co], &vec![value; co])?;
        }
        Ok(())
    }
}
