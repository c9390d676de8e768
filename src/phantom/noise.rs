//! Smooth random fields: sums of plane waves with random directions, wavelengths and phases.

use std::f64::consts::TAU;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

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
