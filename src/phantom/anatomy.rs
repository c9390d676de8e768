//! The anatomy of the patient in the space of the portal phase: the tissue and the label of a point.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::kidney::{Kidney, Side};
use super::noise::{Purpose, Waves, stream};
use super::organs::Organs;
use super::place::Cyst;
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
/// The factor of the size of both kidneys of a patient.
const KIDNEY_SIZE: std::ops::Range<f64> = 0.95..1.08;
/// The share of patients with a second tumour.
const SECOND_TUMOUR: f64 = 0.05;
/// The distance that is kept between the spheres of a tumour and of another one or a cyst, mm. Lobes may reach over it.
const APART: f64 = 2.0;

#[derive(Debug, Clone)]
pub(super) struct Anatomy {
    wall: Wall,
    organs: Organs,
    kidneys: [Kidney; 2],
    /// The main tumour, and in some patients a second one.
    pub(super) tumours: Vec<Tumour>,
    pub(super) cysts: Vec<Cyst>,
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
    /// The anatomy of a seed, of which `rng` is the main stream.
    pub(super) fn draw(rng: &mut ChaCha8Rng, seed: u64, subtype: Subtype) -> Self {
        let wall = Wall::draw(rng);
        let organs = Organs::draw(rng, wall.spine_y);
        let size = stream(seed, Purpose::KidneySize).random_range(KIDNEY_SIZE);
        let kidneys = [Side::Right, Side::Left].map(|side| Kidney::draw(rng, side, size));
        let side = if rng.random_bool(0.5) { Side::Right } else { Side::Left };
        let room = |p: V3| {
            let [aorta, cava] = organs.vessels(p);
            let occupied = wall.spine(p).max(aorta).max(cava);
            wall.cavity(p, wall.depth(p)).min(-occupied).min(REACH - p[2].abs())
        };
        let mut structure = stream(seed, Purpose::Structure(0));
        let main = Tumour::draw(rng, &mut structure, subtype, (side, &kidneys[side as usize]), room);
        let (fine, coarse) = (Waves::draw(rng, 9.0, 4), Waves::draw(rng, 40.0, 4));
        let mut tumours = vec![main];
        tumours.extend(second_tumour(seed, subtype, &kidneys, &tumours[0], room));
        let free = |p: V3| tumours.iter().map(|t| -t.depth(p) - APART).fold(room(p), f64::min);
        let cysts = Cyst::draw(&mut stream(seed, Purpose::Cysts), &kidneys, free);
        Self { wall, organs, kidneys, tumours, cysts, fine, coarse }
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
        let mut lesion = f64::NEG_INFINITY;
        for (number, tumour) in self.tumours.iter().enumerate() {
            let depth = tumour.depth(p);
            if depth > 0.0 {
                return Sample { tissue: tumour.tissue(number, p, depth), label: TUMOUR };
            }
            lesion = lesion.max(depth);
        }
        for (cyst, tissue) in self.cysts.iter().zip(Cyst::TISSUES) {
            let depth = cyst.depth(p);
            if depth > 0.0 {
                return Sample { tissue, label: KIDNEY };
            }
            lesion = lesion.max(depth);
        }
        let kidney = &self.kidneys[if p[0] > 0.0 { Side::Right } else { Side::Left } as usize];
        let near = kidney.depth(p);
        if let Some((tissue, parenchyma)) = kidney.tissue(p, near) {
            // The vessels of a tumour have no label of their own.
            return Sample {
                tissue: self.feeder(p).unwrap_or(tissue),
                label: if parenchyma { KIDNEY } else { BACKGROUND },
            };
        }
        let other = self.vessel(p).or_else(|| self.wall.spine_tissue(p)).or_else(|| self.feeder(p));
        let tissue = other.unwrap_or_else(|| {
            let fat = near.max(lesion) > -PERIRENAL_FAT || self.wall.cavity(p, depth) < 2.0;
            if fat { Tissue::Fat } else { self.organs.tissue(p).unwrap_or(Tissue::Fat) }
        });
        Sample { tissue, label: BACKGROUND }
    }

    /// The vessels of the tumours.
    fn feeder(&self, p: V3) -> Option<Tissue> {
        self.tumours.iter().filter_map(|tumour| tumour.feeder.as_ref()).find_map(|feeder| feeder.tissue(p))
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

/// The second tumour of some patients: of the same subtype, in either kidney, a quarter to two thirds as large.
fn second_tumour(
    seed: u64,
    subtype: Subtype,
    kidneys: &[Kidney; 2],
    main: &Tumour,
    room: impl Fn(V3) -> f64,
) -> Option<Tumour> {
    let mut rng = stream(seed, Purpose::SecondTumour);
    if !rng.random_bool(SECOND_TUMOUR) {
        return None;
    }
    let side = if rng.random_bool(0.5) { Side::Right } else { Side::Left };
    let radius = (main.axes[0] * rng.random_range(0.25..0.67)).max(4.0);
    let free = |p: V3| room(p).min(-main.depth(p) - APART);
    let mut structure = stream(seed, Purpose::Structure(1));
    let kidney = (side, &kidneys[side as usize]);
    let (tumour, margin) = Tumour::of_radius(radius, &mut rng, &mut structure, subtype, kidney, free);
    (margin > 0.5).then_some(tumour)
}
