//! The tumour: a lobulated ellipsoid on or in a kidney, with the second component of its subtype.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::kidney::Kidney;
use super::noise::{Waves, direction};
use super::shape::{V3, add_scaled, dot, ellipsoid, norm, smoothstep, sub, unit};
use crate::phase::Subtype;

#[derive(Debug, Clone)]
pub(super) struct Tumour {
    pub(super) centre: V3,
    pub(super) axes: V3,
    subtype: Subtype,
    /// The second component fills the points at which the pattern exceeds this value.
    threshold: f64,
    surface: Waves,
    pattern: Waves,
    spokes: [V3; 4],
}

/// The range of the height of the tumour's centre above the surface of the kidney, in radii.
const HEIGHT: std::ops::Range<f64> = -0.35..0.5;

impl Tumour {
    /// A random tumour of 15-60 mm diameter, log-uniform. Random positions are tried until one keeps its distance from the body wall,
    /// the spine and the great vessels; `room` is the depth of a point in the free space, mm. Where no position does, the one
    /// with the largest distance is used.
    pub(super) fn draw(rng: &mut ChaCha8Rng, subtype: Subtype, kidney: &Kidney, room: impl Fn(V3) -> f64) -> Self {
        let radius = 7.5 * 4f64.powf(rng.random_range(0.0..1.0));
        let axes: V3 = std::array::from_fn(|_| radius * rng.random_range(0.88..1.1));
        let centre = place(rng, radius, kidney, room);
        let level = rng.random_range(0.0..1.0);
        let threshold = match subtype {
            // Fat in about 30-60 % of an AML, necrosis in up to about 15 % of a ccRCC.
            Subtype::Angiomyolipoma => 0.75 * level - 0.25,
            Subtype::ClearCell => 0.4 + 0.8 * level,
            _ => f64::INFINITY,
        };
        let surface = Waves::draw(rng, 1.3 * radius, 6);
        let pattern = Waves::draw(rng, (0.9 * radius).max(9.0), 8);
        Self { centre, axes, subtype, threshold, surface, pattern, spokes: std::array::from_fn(|_| direction(rng)) }
    }

    /// The depth below the surface, mm.
    pub(super) fn depth(&self, p: V3) -> f64 {
        let rough = ellipsoid(sub(p, self.centre), self.axes);
        let lobes = 0.05 * self.axes[0];
        if rough < -4.0 * lobes - 6.0 { rough } else { rough + lobes * self.surface.at(p) }
    }

    /// The component at a point that is `depth` below the surface.
    pub(super) fn tissue(&self, p: V3, depth: f64) -> Tissue {
        let q = sub(p, self.centre);
        let share = norm(q) / self.axes[0];
        let second = match self.subtype {
            Subtype::Oncocytoma => {
                // A stellate scar: a small centre with spokes that thin out.
                let along = self.spokes.iter().map(|s| dot(*s, q).abs() / norm(q).max(1e-6)).fold(0.0, f64::max);
                share < 0.14 + 0.42 * along.powi(24)
            }
            Subtype::Angiomyolipoma => self.pattern.at(p) > self.threshold,
            // Necrosis is in the middle: a rim of 2 mm stays viable.
            Subtype::ClearCell => {
                self.pattern.at(p) - 1.2 * smoothstep(0.5, 1.0, share) > self.threshold && depth > 2.0
            }
            Subtype::Chromophobe | Subtype::Papillary => false,
        };
        if second { Tissue::TumourSecond } else { Tissue::Tumour }
    }
}

/// The first of 200 random positions whose surface keeps a distance of 2 mm everywhere, or the one with the largest distance.
fn place(rng: &mut ChaCha8Rng, radius: f64, kidney: &Kidney, room: impl Fn(V3) -> f64) -> V3 {
    let probes: Vec<V3> = (0..40).map(|_| direction(rng)).collect();
    let mut best = (f64::NEG_INFINITY, [0.0; 3]);
    for _ in 0..200 {
        let mut towards = direction(rng);
        // The direction is not towards the hilum, and not above or below the poles, so that the default field of view contains the tumour.
        towards[0] = towards[0].abs() * 0.9 + 0.1;
        towards[2] *= 0.8;
        let surface = kidney.surface_point(towards);
        let inward = unit(sub(kidney.centre, surface));
        let centre = add_scaled(surface, -radius * rng.random_range(HEIGHT), inward);
        let margin = probes.iter().map(|&d| room(add_scaled(centre, radius, d))).fold(f64::INFINITY, f64::min);
        if margin > best.0 {
            best = (margin, centre);
        }
        if margin > 2.0 {
            break;
        }
    }
    best.1
}
