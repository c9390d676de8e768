//! The tumour: a lobulated ellipsoid on or in a kidney, with the second component of its subtype.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::feeder::Feeder;
use super::kidney::{Kidney, Side};
use super::noise::{Waves, direction};
use super::place::place;
use super::shape::{V3, dot, ellipsoid, norm, smoothstep, sub};
use crate::phase::Subtype;

#[derive(Debug, Clone)]
pub(super) struct Tumour {
    pub(super) side: Side,
    pub(super) centre: V3,
    pub(super) axes: V3,
    second: Second,
    pub(super) feeder: Option<Feeder>,
    surface: Waves,
    pattern: Waves,
    spokes: [V3; 4],
}

/// The second component.
#[derive(Debug, Clone, Copy)]
enum Second {
    None,
    /// A stellate scar: a small centre with spokes that thin out, this large against the typical one.
    Scar(f64),
    /// Fat, where the pattern exceeds the threshold.
    Fat(f64),
    /// Necrosis, where the pattern exceeds the threshold, away from the rim.
    Necrosis(f64),
}

/// The range of the height of the tumour's centre above the surface of the kidney, in radii.
const HEIGHT: std::ops::Range<f64> = -0.35..0.5;

impl Tumour {
    /// A random main tumour of 15-60 mm diameter, log-uniform; `structure` is the stream of what depends on the subtype.
    pub(super) fn draw(
        rng: &mut ChaCha8Rng,
        structure: &mut ChaCha8Rng,
        subtype: Subtype,
        (side, kidney): (Side, &Kidney),
        room: impl Fn(V3) -> f64,
    ) -> Self {
        let radius = 7.5 * 4f64.powf(rng.random_range(0.0..1.0));
        Self::of_radius(radius, rng, structure, subtype, (side, kidney), room).0
    }

    /// A random tumour of a radius (mm), and the distance that it keeps from what `room` excludes, mm. `room` is the depth of a point
    /// in the free space.
    pub(super) fn of_radius(
        radius: f64,
        rng: &mut ChaCha8Rng,
        structure: &mut ChaCha8Rng,
        subtype: Subtype,
        (side, kidney): (Side, &Kidney),
        room: impl Fn(V3) -> f64,
    ) -> (Self, f64) {
        let axes: V3 = std::array::from_fn(|_| radius * rng.random_range(0.88..1.1));
        let (centre, margin) = place(rng, radius, HEIGHT, kidney, room);
        let surface = Waves::draw(rng, 1.3 * radius, 6);
        let pattern = Waves::draw(rng, (0.9 * radius).max(9.0), 8);
        let spokes = std::array::from_fn(|_| direction(rng));
        let second = Second::draw(structure, subtype, 2.0 * radius);
        let feeder = Feeder::draw(structure, subtype, centre, radius, kidney.hilum());
        (Self { side, centre, axes, second, feeder, surface, pattern, spokes }, margin)
    }

    /// The depth below the surface, mm.
    pub(super) fn depth(&self, p: V3) -> f64 {
        let rough = ellipsoid(sub(p, self.centre), self.axes);
        let lobes = 0.05 * self.axes[0];
        if rough < -4.0 * lobes - 6.0 { rough } else { rough + lobes * self.surface.at(p) }
    }

    /// Whether a point that is `depth` below the surface belongs to the second component.
    pub(super) fn is_second(&self, p: V3, depth: f64) -> bool {
        let q = sub(p, self.centre);
        let share = norm(q) / self.axes[0];
        match self.second {
            Second::None => false,
            Second::Scar(size) => {
                let along = self.spokes.iter().map(|s| dot(*s, q).abs() / norm(q).max(1e-6)).fold(0.0, f64::max);
                share < size * (0.14 + 0.42 * along.powi(24))
            }
            Second::Fat(threshold) => self.pattern.at(p) > threshold,
            // Necrosis is in the middle: a rim of 2 mm stays viable.
            Second::Necrosis(threshold) => {
                self.pattern.at(p) - 1.2 * smoothstep(0.5, 1.0, share) > threshold && depth > 2.0
            }
        }
    }

    /// The tissue of a point that is `depth` below the surface, for the patient's tumour of this number.
    pub(super) fn tissue(&self, number: usize, p: V3, depth: f64) -> Tissue {
        match (number, self.is_second(p, depth)) {
            (0, false) => Tissue::Tumour,
            (0, true) => Tissue::TumourSecond,
            (_, false) => Tissue::OtherTumour,
            (_, true) => Tissue::OtherTumourSecond,
        }
    }
}

impl Second {
    /// The second component of a tumour of a diameter (mm): whether there is one, and how much.
    fn draw(rng: &mut ChaCha8Rng, subtype: Subtype, diameter: f64) -> Self {
        let (chance, level): (f64, f64) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
        let is_large = diameter > 30.0;
        match subtype {
            // Half of all oncocytomas have a scar, the large ones more often.
            Subtype::Oncocytoma if chance < if is_large { 0.65 } else { 0.35 } => Self::Scar(0.8 + 0.5 * level),
            // Three quarters of the AML have 15-60 % of fat, the others at most 3 %.
            Subtype::Angiomyolipoma if chance < 0.75 => Self::Fat(1.0 - 1.25 * level),
            Subtype::Angiomyolipoma => Self::Fat(1.9 + level),
            Subtype::ClearCell if chance < smoothstep(16.0, 42.0, diameter) => Self::Necrosis(0.3 + 0.9 * level),
            Subtype::Papillary if is_large && chance < 0.45 => Self::Necrosis(0.6 + 0.8 * level),
            Subtype::Chromophobe if is_large && chance < 0.3 => Self::Necrosis(0.6 + 0.8 * level),
            _ => Self::None,
        }
    }
}
