//! The anatomy of the patient in the space of the portal phase: the tissue and the label of a point.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::kidney::{Kidney, Side};
use super::noise::Waves;
use super::organs::Organs;
use super::shape::{V3, capsule};
use super::tumour::Tumour;
use super::wall::Wall;
use crate::phase::Subtype;
use crate::volume::{BACKGROUND, KIDNEY, TUMOUR};

/// Thickness of the fat between kidneys or tumour and other organs, mm.
const PERIRENAL_FAT: f64 = 5.0;
/// Half of the height in which kidneys and tumour lie, mm. It is chosen such that no breathing shift moves them out of the default
/// field of view.
const REACH: f64 = 60.0;

#[derive(Debug, Clone)]
pub(super) struct Anatomy {
    wall: Wall,
    organs: Organs,
    kidneys: [Kidney; 2],
    pub(super) tumour: Tumour,
    pub(super) side: Side,
    fine: Waves,
    coarse: Waves,
}

/// Tissue and label of a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) tissue: Tissue,
    /// 0 background, 1 kidney, 2 tumour.
    pub(super) label: u8,
}

impl Anatomy {
    pub(super) fn draw(rng: &mut ChaCha8Rng, subtype: Subtype) -> Self {
        let wall = Wall::draw(rng);
        let organs = Organs::draw(rng, wall.spine_y);
        let kidneys = [Kidney::draw(rng, Side::Right), Kidney::draw(rng, Side::Left)];
        let side = if rng.random_bool(0.5) { Side::Right } else { Side::Left };
        let room = |p: V3| {
            let [aorta, cava] = organs.vessels(p);
            let occupied = wall.spine(p).max(aorta).max(cava);
            wall.cavity(p, wall.depth(p)).min(-occupied).min(REACH - p[2].abs())
        };
        let tumour = Tumour::draw(rng, subtype, &kidneys[side as usize], room);
        let (fine, coarse) = (Waves::draw(rng, 9.0, 4), Waves::draw(rng, 40.0, 4));
        Self { wall, organs, kidneys, tumour, side, fine, coarse }
    }

    /// The texture, with mean 0 and standard deviation 1; each tissue scales it by its own standard deviation.
    pub(super) fn texture(&self, p: V3) -> f64 {
        0.8 * self.fine.at(p) + 0.6 * self.coarse.at(p)
    }

    pub(super) fn sample(&self, p: V3) -> Sample {
        let depth = self.wall.depth(p);
        if let Some(tissue) = self.wall.tissue(p, depth) {
            return Sample { tissue, label: BACKGROUND };
        }
        let tumour = self.tumour.depth(p);
        if tumour > 0.0 {
            return Sample { tissue: self.tumour.tissue(p, tumour), label: TUMOUR };
        }
        let kidney = &self.kidneys[if p[0] > 0.0 { Side::Right } else { Side::Left } as usize];
        let near = kidney.depth(p);
        if let Some((tissue, parenchyma)) = kidney.tissue(p, near) {
            return Sample { tissue, label: if parenchyma { KIDNEY } else { BACKGROUND } };
        }
        let tissue = self.vessel(p).or_else(|| self.wall.spine_tissue(p)).unwrap_or_else(|| {
            let fat = near.max(tumour) > -PERIRENAL_FAT || self.wall.cavity(p, depth) < 2.0;
            if fat { Tissue::Fat } else { self.organs.tissue(p).unwrap_or(Tissue::Fat) }
        });
        Sample { tissue, label: BACKGROUND }
    }

    /// Aorta, vena cava, renal vessels and ureters.
    fn vessel(&self, p: V3) -> Option<Tissue> {
        let [aorta, cava] = self.organs.vessels(p);
        if aorta > 0.0 {
            return Some(if aorta < 1.2 { Tissue::Muscle } else { Tissue::Aorta });
        }
        if cava > 0.0 {
            return Some(Tissue::VenaCava);
        }
        for (kidney, side) in self.kidneys.iter().zip([Side::Right, Side::Left]) {
            let hilum = kidney.hilum();
            let (artery_z, vein_z) = (hilum[2] + 6.0, hilum[2] - 2.0);
            if capsule(p, hilum, self.organs.aorta_centre(artery_z), 2.8) > 0.0 {
                return Some(Tissue::Artery);
            }
            // The left vein passes in front of the aorta.
            let crossing = self.organs.aorta_centre(vein_z);
            let over = [crossing[0] - 6.0, crossing[1] + 15.0, crossing[2] + 4.0];
            let vein = match side {
                Side::Right => capsule(p, hilum, self.organs.cava_centre(vein_z), 4.5),
                Side::Left => {
                    capsule(p, hilum, over, 4.5).max(capsule(p, over, self.organs.cava_centre(vein_z + 4.0), 4.2))
                }
            };
            if vein > 0.0 {
                return Some(Tissue::RenalVein);
            }
            if kidney.ureter(p) > 0.0 {
                return Some(Tissue::Urine);
            }
        }
        None
    }
}
