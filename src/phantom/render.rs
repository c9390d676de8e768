//! Rendering: point samples of the anatomy, the scanner's blur, and noise.

use rand::SeedableRng;
use rand::distr::Distribution;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use super::acquisition::Protocol;
use super::anatomy::Anatomy;
use super::breathing::Motion;
use super::enhancement::Enhancement;
use crate::phase::Phase;
use crate::volume::Affine;

/// Slices thicker than this are the mean of three samples across them, mm.
const THICK: f64 = 3.5;

/// One phase to render.
pub(super) struct Scene<'a> {
    pub(super) anatomy: &'a Anatomy,
    pub(super) enhancement: &'a Enhancement,
    pub(super) motion: &'a Motion,
    pub(super) phase: Phase,
    /// The shape [d, h, w].
    pub(super) shape: [usize; 3],
    /// The map from an index (i, j, k) to millimetres.
    pub(super) affine: Affine,
    pub(super) seed: u64,
    /// The standard deviation of the noise, HU.
    pub(super) noise: f64,
    pub(super) protocol: Protocol,
}

impl Scene<'_> {
    /// HU and labels, w fastest. Slices are independent and each has its own stream of random numbers, so that the result does not
    /// depend on the number of threads.
    pub(super) fn render(&self) -> (Vec<i16>, Vec<u8>) {
        let [d, h, w] = self.shape;
        let (mut hu, mut labels) = (vec![0.0f32; d * h * w], vec![0u8; d * h * w]);
        hu.par_chunks_mut(h * w).zip(labels.par_chunks_mut(h * w)).enumerate().for_each(|(k, (hu, labels))| {
            self.sample_slice(k, hu, labels);
            blur(hu, w, self.protocol.blur[0]);
        });
        let mut image = vec![0i16; d * h * w];
        image.par_chunks_mut(h * w).enumerate().for_each(|(k, out)| {
            let slice = |k: usize| &hu[k * h * w..(k + 1) * h * w];
            let (below, here, above) = (slice(k.saturating_sub(1)), slice(k), slice((k + 1).min(d - 1)));
            let noise = self.grain(k);
            for (i, out) in out.iter_mut().enumerate() {
                let value = here[i] + self.protocol.blur[1] * (below[i] - 2.0 * here[i] + above[i]) + noise[i];
                *out = value.round().clamp(-1024.0, 3071.0) as i16;
            }
        });
        (image, labels)
    }

    fn sample_slice(&self, k: usize, hu: &mut [f32], labels: &mut [u8]) {
        let w = self.shape[2];
        for (n, (hu, label)) in hu.iter_mut().zip(labels).enumerate() {
            let at = |k: f64| {
                let p = self.motion.to_portal(self.affine.apply([(n % w) as f64, (n / w) as f64, k]));
                let sample = self.anatomy.sample(p);
                let (mean, sd) = self.enhancement.hu(sample.tissue, self.phase);
                let texture = if sd > 0.0 { sd * self.anatomy.texture(p) } else { 0.0 };
                (mean + texture, sample.label)
            };
            // The label is that of the voxel's centre.
            let (mut value, centre) = at(k as f64);
            if self.affine.0[2][2] > THICK {
                let beside = |offset: f64| at(k as f64 + offset).0;
                value = (value + beside(-1.0 / 3.0) + beside(1.0 / 3.0)) / 3.0;
            }
            (*hu, *label) = (value as f32, centre);
        }
    }

    /// The noise of slice k: Gaussian with the patient's standard deviation, slightly correlated in the slice.
    fn grain(&self, k: usize) -> Vec<f32> {
        let [_, h, w] = self.shape;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(1 + ((self.phase as u64) << 32 | k as u64));
        let mut noise: Vec<f32> = StandardNormal.sample_iter(&mut rng).take(h * w).collect();
        let grain = self.protocol.grain;
        blur(&mut noise, w, grain);
        // The variance of white noise after the blur along one axis, which is the standard deviation after both.
        let left = (1.0 - 2.0 * grain).powi(2) + 2.0 * grain * grain;
        noise.iter_mut().for_each(|x| *x *= self.noise as f32 / left);
        noise
    }
}

/// Blurs a slice: each pixel is mixed with its two neighbours, first along w, then along h; edge pixels are repeated.
fn blur(plane: &mut [f32], w: usize, weight: f32) {
    let h = plane.len() / w;
    let mix = |a: f32, b: f32, c: f32| b + weight * (a - 2.0 * b + c);
    for row in plane.chunks_exact_mut(w) {
        let mut before = row[0];
        for i in 0..w {
            let here = row[i];
            row[i] = mix(before, here, row[(i + 1).min(w - 1)]);
            before = here;
        }
    }
    let mut before = plane[..w].to_vec();
    for j in 0..h {
        for i in 0..w {
            let here = plane[j * w + i];
            plane[j * w + i] = mix(before[i], here, plane[(j + 1).min(h - 1) * w + i]);
            before[i] = here;
        }
    }
}
