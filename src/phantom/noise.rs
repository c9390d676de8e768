//! Smooth random fields: sums of plane waves with random directions, wavelengths and phases.

use std::f64::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::shape::{V3, dot, unit};

/// The field f(p) = sqrt(2/n) sum_i sin(k_i . p + phi_i), with mean 0 and standard deviation 1 over space.
#[derive(Debug, Clone)]
pub(super) struct Waves(Vec<(V3, f64)>);

impl Waves {
    /// A field of `count` waves with wavelengths within a factor of 1.4 of `wavelength` (mm).
    pub(super) fn draw(rng: &mut ChaCha8Rng, wavelength: f64, count: usize) -> Self {
        Self((0..count).map(|_| plane_wave(rng, wavelength)).collect())
    }

    /// The value at a point p (mm).
    pub(super) fn at(&self, p: V3) -> f64 {
        let sum: f64 = self.0.iter().map(|&(k, phase)| (dot(k, p) + phase).sin()).sum();
        sum * (2.0 / self.0.len() as f64).sqrt()
    }
}

/// A random wave vector (radians per mm) and phase.
pub(super) fn plane_wave(rng: &mut ChaCha8Rng, wavelength: f64) -> (V3, f64) {
    let length = wavelength * rng.random_range(1.0 / 1.4..1.4);
    let direction = direction(rng);
    (direction.map(|d| d * TAU / length), rng.random_range(0.0..TAU))
}

/// What a stream of random numbers is for. Streams of their own let one part of a patient change without another; the noise of slices
/// uses the streams below 2^35.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The structure of a tumour, by its number.
    Structure(u64),
    /// The enhancement of a tumour, by its number.
    Enhancement(u64),
    /// Whether there is a second tumour, and where.
    SecondTumour,
    /// Cysts.
    Cysts,
    /// The size of the kidneys.
    KidneySize,
    /// The time of the arterial phase.
    Timing,
    /// The strength of the noise.
    NoiseLevel,
    /// The phases and grids of a patient of a cohort.
    Acquisition,
    /// The subtype of a patient of a cohort.
    Subtype,
    /// What a simulated reader is like, whose number is the seed.
    Reader,
    /// A patient as the simulated reader of this number sees it.
    Reading(u64),
}

/// The stream of random numbers of a seed for a purpose.
pub(super) fn stream(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let number = match purpose {
        Purpose::Structure(n) => n,
        Purpose::Enhancement(n) => 0x100 + n,
        Purpose::SecondTumour => 0x200,
        Purpose::Cysts => 0x300,
        Purpose::KidneySize => 0x400,
        Purpose::Timing => 0x410,
        Purpose::NoiseLevel => 0x420,
        Purpose::Acquisition => 0x500,
        Purpose::Subtype => 0x600,
        Purpose::Reader => 0x700,
        Purpose::Reading(n) => 0x1_0000 + n,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(1 << 40 | number);
    rng
}

/// A standard normal number, within 2.5 standard deviations.
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let z: f64 = rng.sample(StandardNormal);
    z.clamp(-2.5, 2.5)
}

/// A random direction, uniform on the sphere.
pub(super) fn direction(rng: &mut ChaCha8Rng) -> V3 {
    loop {
        let v: V3 = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
        let square = dot(v, v);
        if square > 1e-3 && square < 1.0 {
            return unit(v);
        }
    }
}
