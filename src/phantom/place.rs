//! Places of tumours and cysts on a kidney, and simple cysts.

use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::kidney::{Kidney, Side};
use super::noise::direction;
use super::shape::{V3, add_scaled, norm, sub, unit};

/// The first of 200 random positions on a kidney whose surface keeps a distance of 2 mm everywhere from what `room` excludes, or the
/// one with the largest distance; and that distance. `height` is the range of the centre above the kidney's surface, in radii.
pub(super) fn place(
    rng: &mut ChaCha8Rng,
    radius: f64,
    height: Range<f64>,
    kidney: &Kidney,
    room: impl Fn(V3) -> f64,
) -> (V3, f64) {
    let probes: Vec<V3> = (0..40).map(|_| direction(rng)).collect();
    let mut best = ([0.0; 3], f64::NEG_INFINITY);
    for _ in 0..200 {
        let mut towards = direction(rng);
        // The direction is not towards the hilum, and not above or below the poles, so that the default field of view contains the tumour.
        towards[0] = towards[0].abs() * 0.9 + 0.1;
        towards[2] *= 0.8;
        let surface = kidney.surface_point(towards);
        let inward = unit(sub(kidney.centre, surface));
        let centre = add_scaled(surface, -radius * rng.random_range(height.clone()), inward);
        let margin = probes.iter().map(|&d| room(add_scaled(centre, radius, d))).fold(f64::INFINITY, f64::min);
        if margin > best.1 {
            best = (centre, margin);
        }
        if margin > 2.0 {
            break;
        }
    }
    best
}

/// A simple cyst: a smooth sphere of a fluid that does not enhance.
#[derive(Debug, Clone)]
pub(super) struct Cyst {
    pub(super) side: Side,
    pub(super) centre: V3,
    pub(super) radius: f64,
    pub(super) hu: f64,
}

/// The share of patients with cysts.
const PATIENTS: f64 = 0.4;
/// The share of cysts with blood or protein in them, which are dense without contrast medium.
const DENSE: f64 = 0.06;

impl Cyst {
    /// The tissues of a patient's cysts, of which there are as many at most.
    pub(super) const TISSUES: [Tissue; 3] = [Tissue::Cyst, Tissue::SecondCyst, Tissue::ThirdCyst];

    /// The cysts of a patient: none, or 1-3 of 8-40 mm diameter, log-uniform. Those that find no place are left out.
    pub(super) fn draw(rng: &mut ChaCha8Rng, kidneys: &[Kidney; 2], room: impl Fn(V3) -> f64) -> Vec<Self> {
        let count = if rng.random_bool(PATIENTS) { rng.random_range(1..=Self::TISSUES.len()) } else { 0 };
        let mut cysts: Vec<Self> = Vec::with_capacity(count);
        for _ in 0..count {
            let side = if rng.random_bool(0.5) { Side::Right } else { Side::Left };
            let radius = 4.0 * 5f64.powf(rng.random_range(0.0..1.0));
            let hu = if rng.random_bool(DENSE) { rng.random_range(50.0..70.0) } else { rng.random_range(0.0..15.0) };
            let free = |p: V3| cysts.iter().map(|cyst| -cyst.depth(p)).fold(room(p), f64::min);
            let (centre, margin) = place(rng, radius, -0.6..0.6, &kidneys[side as usize], free);
            if margin > 0.5 {
                cysts.push(Self { side, centre, radius, hu });
            }
        }
        cysts
    }

    /// The depth below the surface, mm.
    pub(super) fn depth(&self, p: V3) -> f64 {
        self.radius - norm(sub(p, self.centre))
    }
}
