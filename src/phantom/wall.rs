//! The outline of the body, its wall of skin, fat, muscle and ribs, the spine and the muscles next to it.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::noise::Waves;
use super::shape::{V3, capsule, ellipse, smoothstep};

/// Thickness of the skin, mm.
const SKIN: f64 = 2.2;
/// Distance of neighbouring ribs along the spine, mm.
const RIB_STEP: f64 = 25.0;
/// Distance of neighbouring vertebrae, mm.
const VERTEBRA: f64 = 36.0;
/// Height of the disc between them, mm.
const DISC: f64 = 8.0;

#[derive(Debug, Clone)]
pub(super) struct Wall {
    /// Half of the width and half of the depth of the body, mm.
    axes: [f64; 2],
    fat: f64,
    muscle: f64,
    /// The y of the spine's centre line, mm; negative is towards the back.
    pub(super) spine_y: f64,
    vertebra_phase: f64,
    rib_phase: f64,
    contour: Waves,
}

impl Wall {
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            axes: [rng.random_range(136.0..142.0), rng.random_range(98.0..106.0)],
            fat: rng.random_range(9.0..19.0),
            muscle: rng.random_range(8.0..11.0),
            spine_y: rng.random_range(-44.0..-40.0),
            vertebra_phase: rng.random_range(0.0..VERTEBRA),
            rib_phase: rng.random_range(-8.0..8.0),
            contour: Waves::draw(rng, 150.0, 4),
        }
    }

    /// The depth below the surface of the skin along the radius, mm. The outline is a superellipse of exponent 2.5.
    pub(super) fn depth(&self, p: V3) -> f64 {
        let power = |t: f64| t * t * t.abs().sqrt();
        let rho = (power(p[0] / self.axes[0]) + power(p[1] / self.axes[1])).powf(0.4);
        let radius = p[0].hypot(p[1]);
        if rho < 0.2 {
            return 0.8 * self.axes[1];
        }
        radius * (1.0 / rho - 1.0) + 1.2 * self.contour.at(p)
    }

    /// The depths at which fat and muscle end, mm: there is more fat in the flanks and more muscle at the back.
    fn layers(&self, p: V3) -> [f64; 2] {
        let radius = p[0].hypot(p[1]).max(1.0);
        let (side, back) = ((p[0] / radius).abs(), (-p[1] / radius).max(0.0));
        let fat = self.fat * (0.8 + 0.35 * side * back * 2.0);
        [SKIN + fat, SKIN + fat + self.muscle * (1.0 + 0.4 * back)]
    }

    /// The depth inside the abdominal cavity of a point that is `depth` below the skin, mm.
    pub(super) fn cavity(&self, p: V3, depth: f64) -> f64 {
        depth - self.layers(p)[1]
    }

    /// The tissue at p where it belongs to the wall; None in the cavity.
    pub(super) fn tissue(&self, p: V3, depth: f64) -> Option<Tissue> {
        if depth <= 0.0 {
            return Some(Tissue::Air);
        }
        if depth < SKIN {
            return Some(Tissue::Skin);
        }
        let [fat, muscle] = self.layers(p);
        if let Some(bone) = self.rib(p, depth - 0.5 * (fat + muscle) - 2.0) {
            return Some(bone);
        }
        if depth >= muscle {
            return None;
        }
        // The linea alba: a gap of fat between the two straight muscles.
        let gap = p[1] > 0.0 && p[0].abs() < 4.0 && depth < fat + 0.5 * (muscle - fat);
        Some(if depth < fat || gap { Tissue::Fat } else { Tissue::Muscle })
    }

    /// The tissue of ribs 8-12, which slope down from the spine towards the front; `off` is the distance from the surface of the rib
    /// cage, mm.
    fn rib(&self, p: V3, off: f64) -> Option<Tissue> {
        if off.abs() > 4.0 {
            return None;
        }
        let angle = p[0].abs().atan2(-p[1]);
        if !(0.45..2.2).contains(&angle) {
            return None;
        }
        let height = p[2] + 46.0 * (angle - 0.4) - self.rib_phase;
        let number = (height / RIB_STEP).round();
        // The twelfth rib starts at height 0 and is short, the eleventh a little longer.
        let reach = [0.85, 1.35].get(number as usize).copied().unwrap_or(2.2);
        if number < 0.0 || angle > reach {
            return None;
        }
        let depth = ellipse(height - number * RIB_STEP, off, [6.5, 3.8]);
        (depth > 0.0).then_some(if depth < 1.6 { Tissue::CorticalBone } else { Tissue::SpongyBone })
    }

    /// The depth inside the outline of the vertebral column (body and arch), mm; the tumour and the organs keep away from it.
    pub(super) fn spine(&self, p: V3) -> f64 {
        ellipse(p[0], p[1] - self.spine_y, [23.0, 17.0]).max(ellipse(p[0], p[1] - self.spine_y + 27.0, [14.0, 14.0]))
    }

    /// The tissue of the spine (bone, disc, canal) and of the muscles along it; None elsewhere.
    pub(super) fn spine_tissue(&self, p: V3) -> Option<Tissue> {
        let (x, y) = (p[0], p[1] - self.spine_y);
        let z = (p[2] + self.vertebra_phase).rem_euclid(VERTEBRA) - 0.5 * VERTEBRA;
        let endplate = 0.5 * (VERTEBRA - DISC) - z.abs();
        // The body narrows at its waist, as vertebrae do.
        let waist = 2.5 * smoothstep(0.0, 12.0, endplate);
        let body = ellipse(x, y, [23.0 - waist, 17.0 - 0.7 * waist]);
        if body > 0.0 {
            let shell = body.min(endplate);
            return Some(match shell {
                s if s < 0.0 => Tissue::Disc,
                s if s < 1.8 => Tissue::CorticalBone,
                _ => Tissue::SpongyBone,
            });
        }
        let arch_y = y + 26.0;
        let canal = ellipse(x, arch_y, [10.0, 8.0]);
        if canal > 0.0 {
            return Some(Tissue::SpinalCanal);
        }
        if z.abs() < 12.0 {
            let ring = ellipse(x, arch_y, [15.0, 13.0]);
            let spinous = capsule([x, arch_y, z], [0.0, -10.0, 0.0], [0.0, -28.0, -6.0], 3.8);
            let transverse = capsule([x.abs(), arch_y, z], [10.0, 3.0, 2.0], [38.0, -3.0, 2.0], 4.0);
            let bone = ring.max(spinous).max(transverse);
            if bone > 0.0 {
                return Some(if bone < 1.8 { Tissue::CorticalBone } else { Tissue::SpongyBone });
            }
        }
        self.muscle(p).then_some(Tissue::Muscle)
    }

    /// Whether p is in psoas (which widens downwards), quadratus lumborum or erector spinae of either side.
    fn muscle(&self, p: V3) -> bool {
        let (x, y) = (p[0].abs(), p[1] - self.spine_y);
        let low = smoothstep(45.0, -80.0, p[2]);
        let psoas = ellipse(x - 29.0 - 6.0 * low, y + 3.0, [5.0 + 13.0 * low, 8.0 + 11.0 * low]);
        let quadratus = ellipse(x - 57.0, y + 27.0, [20.0, 7.0]);
        let erector = ellipse(x - 31.0, y + 38.0, [31.0, 17.0]);
        psoas.max(quadratus).max(erector) > 0.0
    }
}
