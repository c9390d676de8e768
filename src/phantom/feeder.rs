//! The vessels of a hypervascular tumour: an artery and a vein from the hilum, and vessels on its surface.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::noise::direction;
use super::shape::{V3, add_scaled, capsule, dot, middle, norm, sub, unit};
use crate::phase::Subtype;

/// Tubes along segments, and a sphere round all of them.
#[derive(Debug, Clone)]
pub(super) struct Feeder {
    tubes: Vec<Tube>,
    centre: V3,
    reach: f64,
}

#[derive(Debug, Clone)]
struct Tube {
    from: V3,
    to: V3,
    radius: f64,
    tissue: Tissue,
}

/// Segments of a vessel on the surface.
const SEGMENTS: usize = 5;

impl Feeder {
    /// The vessels of a tumour with this centre and radius (mm) on a kidney with this hilum; None for most tumours that enhance little
    /// and for small ones. The number of random numbers does not depend on the subtype.
    pub(super) fn draw(rng: &mut ChaCha8Rng, subtype: Subtype, centre: V3, radius: f64, hilum: V3) -> Option<Self> {
        let chance: f64 = rng.random_range(0.0..1.0);
        let aside = direction(rng);
        let starts = [direction(rng), direction(rng)];
        let share = match subtype {
            Subtype::ClearCell => 0.8,
            Subtype::Oncocytoma | Subtype::Angiomyolipoma => 0.6,
            Subtype::Chromophobe | Subtype::Papillary => 0.1,
        };
        if chance > share || radius < 10.0 {
            return None;
        }
        let inward = unit(sub(hilum, centre));
        let bend = add_scaled(middle(hilum, centre), 5.0, aside);
        let end = add_scaled(centre, 0.8 * radius, inward);
        let mut tubes = Vec::new();
        for (shift, radius, tissue) in [([0.0; 3], 1.4, Tissue::Artery), ([1.5, 3.0, -3.0], 2.0, Tissue::RenalVein)] {
            let [a, b, c] = [hilum, bend, end].map(|p| add_scaled(p, 1.0, shift));
            tubes.extend([(a, b), (b, c)].map(|(from, to)| Tube { from, to, radius, tissue }));
        }
        // On the surface: arcs of a hundred degrees, from the side of the kidney outwards.
        for (start, tissue) in starts.into_iter().zip([Tissue::Artery, Tissue::RenalVein]) {
            let across = unit(add_scaled(start, -dot(start, inward), inward));
            let at = |step: usize| {
                let angle = (50.0 + 100.0 * step as f64 / SEGMENTS as f64).to_radians();
                let outward = add_scaled(inward.map(|x| x * angle.cos()), angle.sin(), across);
                add_scaled(centre, 1.08 * radius + 1.5, outward)
            };
            tubes.extend((0..SEGMENTS).map(|step| Tube { from: at(step), to: at(step + 1), radius: 1.2, tissue }));
        }
        let middle = middle(hilum, centre);
        Some(Self { tubes, centre: middle, reach: norm(sub(hilum, middle)) + 1.2 * radius + 8.0 })
    }

    /// The vessel at a point.
    pub(super) fn tissue(&self, p: V3) -> Option<Tissue> {
        let q = sub(p, self.centre);
        if dot(q, q) > self.reach * self.reach {
            return None;
        }
        self.tubes.iter().find(|t| capsule(p, t.from, t.to, t.radius) > 0.0).map(|tube| tube.tissue)
    }
}
