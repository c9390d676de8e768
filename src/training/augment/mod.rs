//! Patches for training and their augmentation, with the order, the probabilities and the ranges of nnU-Net's trainer.
//!
//! Source: nnU-Net v2.8.1, `nnUNetTrainer.get_training_transforms`. Random numbers are others (ChaCha8), their distributions the same.

mod filter;
mod geometry;
mod intensity;
mod spatial;

use rand::Rng;

pub use filter::{blur, low_resolution};
pub use geometry::{PatchGeometry, Placement};
pub use intensity::{add_noise, brightness, contrast, factor, gamma};
pub use spatial::{Patch, cut};

use crate::error::Result;
use crate::training::data::{NO_LABEL, Sample};

/// What is done to patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augmentation {
    /// All of nnU-Net's.
    #[default]
    Full,
    /// Mirroring alone.
    Mirror,
    /// Nothing.
    None,
}

/// Draws patches of samples.
#[derive(Debug, Clone)]
pub struct PatchSource {
    /// Where patches lie and how they turn.
    pub geometry: PatchGeometry,
    /// What is done to them.
    pub augmentation: Augmentation,
    /// The axes (z, y, x) that patches are mirrored along.
    pub mirrored: [bool; 3],
    /// The channels that are 0 outside the image's non-zero part.
    pub masked: Vec<usize>,
}

impl PatchSource {
    /// A patch of a sample, on a voxel of a drawn class if `foreground`; its labels are 0 where there is none.
    ///
    /// # Errors
    /// A patch that does not fit in memory; a sample's file that cannot be read.
    pub fn draw(&self, sample: &Sample, foreground: bool, rng: &mut impl Rng) -> Result<Patch> {
        let centre = self.geometry.place(sample, foreground, rng);
        let full = self.augmentation == Augmentation::Full;
        let matrix = if full { self.geometry.transform(rng) } else { None };
        let mut patch = cut(sample, &Placement { centre, matrix }, self.geometry.patch)?;
        if full {
            self.change_intensities(&mut patch, rng);
        }
        if self.augmentation != Augmentation::None {
            let axes = self.mirrored.map(|allowed| rng.random_bool(0.5) && allowed);
            mirror(&mut patch, axes);
        }
        let voxels = patch.labels.len();
        for &channel in &self.masked {
            let Some(values) = patch.image.get_mut(channel * voxels..(channel + 1) * voxels) else { continue };
            values.iter_mut().zip(&patch.labels).filter(|(_, label)| **label == NO_LABEL).for_each(|(v, _)| *v = 0.0);
        }
        patch.labels.iter_mut().filter(|label| **label == NO_LABEL).for_each(|label| *label = 0);
        Ok(patch)
    }

    fn change_intensities(&self, patch: &mut Patch, rng: &mut impl Rng) {
        let Patch { image, labels, shape } = patch;
        let voxels = labels.len();
        if rng.random_bool(0.1) {
            let sd = rng.random_range(0.0..=0.1);
            add_noise(image, sd, rng);
        }
        if rng.random_bool(0.2) {
            for values in image.chunks_exact_mut(voxels) {
                if rng.random_bool(0.5) {
                    let sigmas = [(); 3].map(|()| rng.random_range(0.5..=1.0));
                    blur(values, *shape, sigmas);
                }
            }
        }
        if rng.random_bool(0.15) {
            image.chunks_exact_mut(voxels).for_each(|values| brightness(values, factor(0.75, 1.25, rng)));
        }
        if rng.random_bool(0.15) {
            image.chunks_exact_mut(voxels).for_each(|values| contrast(values, factor(0.75, 1.25, rng)));
        }
        if rng.random_bool(0.25) {
            let scaled = [!self.geometry.in_plane, true, true];
            for values in image.chunks_exact_mut(voxels) {
                if rng.random_bool(0.5) {
                    low_resolution(values, *shape, rng.random_range(0.5..=1.0), scaled);
                }
            }
        }
        for (probability, inverted) in [(0.1, true), (0.3, false)] {
            if rng.random_bool(probability) {
                image.chunks_exact_mut(voxels).for_each(|values| gamma(values, factor(0.7, 1.5, rng), inverted));
            }
        }
    }
}

/// Reverses a patch along axes (z, y, x).
fn mirror(patch: &mut Patch, axes: [bool; 3]) {
    if axes == [false; 3] {
        return;
    }
    let shape = patch.shape;
    let voxels = patch.labels.len();
    reverse(&mut patch.labels, shape, axes);
    patch.image.chunks_exact_mut(voxels).for_each(|values| reverse(values, shape, axes));
}

fn reverse<T: Copy>(values: &mut [T], shape: [usize; 3], axes: [bool; 3]) {
    let [d, h, w] = shape;
    let source = values.to_vec();
    for (i, value) in values.iter_mut().enumerate() {
        let at = [i / w / h, i / w % h, i % w];
        let [z, y, x] = std::array::from_fn(|a| if axes[a] { shape[a] - 1 - at[a] } else { at[a] });
        debug_assert!(z < d);
        *value = source[(z * h + y) * w + x];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn sample() -> Sample {
        let labels: Vec<u8> =
            (0..20 * 20 * 20).map(|i| if i % 20 == 19 { NO_LABEL } else { u8::from(i % 20 > 9) }).collect();
        let image: Vec<f32> = (0..2 * 8000).map(|i| (i % 20) as f32 - 8.0).collect();
        Sample::new("a", image, labels, [20; 3], 2).expect("a sample")
    }

    fn source(augmentation: Augmentation) -> PatchSource {
        let geometry = PatchGeometry::new([8, 10, 12], false);
        PatchSource { geometry, augmentation, mirrored: [true; 3], masked: vec![1] }
    }

    #[test]
    fn a_mirrored_patch_is_reversed() {
        let mut patch = Patch { image: (0..8).map(|v| v as f32).collect(), labels: (0..4).collect(), shape: [1, 2, 2] };
        mirror(&mut patch, [true, true, false]);
        assert_eq!(patch.labels, [2, 3, 0, 1]);
        assert_eq!(patch.image, [2.0, 3.0, 0.0, 1.0, 6.0, 7.0, 4.0, 5.0]);
        mirror(&mut patch, [false, false, true]);
        assert_eq!(patch.labels, [3, 2, 1, 0]);
    }

    #[test]
    fn patches_depend_on_the_generator_alone_and_differ() {
        for augmentation in [Augmentation::Full, Augmentation::Mirror, Augmentation::None] {
            let (sample, source) = (sample(), source(augmentation));
            let draw = |seed| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                source.draw(&sample, seed % 2 == 0, &mut rng).expect("a patch")
            };
            let patches: Vec<Patch> = (0..60).map(draw).collect();
            for (seed, patch) in (0..).zip(&patches) {
                assert_eq!(patch, &draw(seed), "{augmentation:?} {seed}");
                assert!(patch.image.iter().all(|v| v.is_finite()) && patch.labels.iter().all(|label| *label < 2));
                assert_eq!((patch.labels.len(), patch.image.len()), (960, 1920));
                // Placed on a voxel of the class, which a rotation about the centre may leave out by little.
                assert!(seed % 2 == 1 || patch.labels.contains(&1), "{augmentation:?} {seed}");
            }
            assert!(patches.windows(2).all(|w| w[0] != w[1]));
        }
    }

    #[test]
    fn a_masked_channel_is_zero_where_there_is_no_label() {
        let sample = sample();
        let draw = |masked: Vec<usize>| {
            let source =
                PatchSource { geometry: PatchGeometry::new([4, 4, 20], false), masked, ..source(Augmentation::Mirror) };
            source.draw(&sample, true, &mut ChaCha8Rng::seed_from_u64(3)).expect("a patch")
        };
        let (masked, as_it_is) = (draw(vec![1]), draw(vec![]));
        assert_eq!(masked.labels, as_it_is.labels);
        assert!(masked.labels.iter().all(|label| *label != NO_LABEL));
        let mut changed = 0;
        for (i, (got, was)) in masked.image.iter().zip(&as_it_is.image).enumerate() {
            // The last column has no label, and the value 11.
            let want = if i >= 320 && *was == 11.0 { 0.0 } else { *was };
            assert_eq!(*got, want, "{i}");
            changed += u32::from(got != was);
        }
        assert!(changed > 0);
    }
}
