//! Liver, gallbladder, spleen, pancreas, stomach, bowel and the great vessels.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::noise::Waves;
use super::shape::{V3, capsule, dot, ellipse, ellipsoid, middle, sub};

/// Thickness of the wall of stomach and bowel, mm.
const BOWEL_WALL: f64 = 2.6;

/// A hollow organ with content below the gas level and gas above it (the patient is supine, so that gas rises to the front).
#[derive(Debug, Clone)]
struct Hollow {
    from: V3,
    to: V3,
    radius: f64,
    /// Height of the gas level above the axis, in radii; above 1 there is no gas.
    level: f64,
}

impl Hollow {
    fn tissue(&self, p: V3, ripple: f64) -> Option<Tissue> {
        // Most points are far from most loops; a sphere around the loop excludes them quickly.
        let (from_middle, along) = (sub(p, middle(self.from, self.to)), sub(self.to, self.from));
        let reach = 1.35 * self.radius;
        if dot(from_middle, from_middle) > 0.5 * dot(along, along) + 2.0 * reach * reach {
            return None;
        }
        let depth = capsule(p, self.from, self.to, self.radius) + 0.09 * self.radius * ripple;
        if depth <= 0.0 {
            return None;
        }
        let axis_y = self.from[1].max(self.to[1]);
        Some(match depth {
            d if d < BOWEL_WALL => Tissue::BowelWall,
            _ if p[1] > axis_y + self.level * self.radius => Tissue::Gas,
            _ => Tissue::BowelContent,
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Organs {
    shift: V3,
    size: f64,
    bowel: Vec<Hollow>,
    liver_veins: Vec<[V3; 2]>,
    ripple: Waves,
    aorta: [f64; 3],
    cava: [f64; 2],
}

impl Organs {
    pub(super) fn draw(rng: &mut ChaCha8Rng, spine_y: f64) -> Self {
        let shift = std::array::from_fn(|_| rng.random_range(-4.0..4.0));
        let front = spine_y + 17.0;
        Self {
            shift,
            size: rng.random_range(0.95..1.05),
            bowel: bowel(rng),
            liver_veins: liver_veins(rng),
            ripple: Waves::draw(rng, 34.0, 6),
            aorta: [rng.random_range(-11.0..-7.0), front + 12.0, rng.random_range(8.5..10.5)],
            cava: [rng.random_range(18.0..22.0), front + 9.0],
        }
    }

    pub(super) fn aorta_centre(&self, z: f64) -> V3 {
        [self.aorta[0], self.aorta[1], z]
    }

    pub(super) fn cava_centre(&self, z: f64) -> V3 {
        [self.cava[0], self.cava[1], z]
    }

    /// The depths inside aorta and vena cava, mm.
    pub(super) fn vessels(&self, p: V3) -> [f64; 2] {
        [
            self.aorta[2] - (p[0] - self.aorta[0]).hypot(p[1] - self.aorta[1]),
            ellipse(p[0] - self.cava[0], p[1] - self.cava[1], [12.0, 8.5]),
        ]
    }

    /// The tissue of the organ at p; None where there is no organ but fat.
    pub(super) fn tissue(&self, p: V3) -> Option<Tissue> {
        let ripple = self.ripple.at(p);
        let q = sub(p, self.shift).map(|x| x / self.size);
        self.solid(q, ripple).or_else(|| self.bowel.iter().find_map(|b| b.tissue(p, ripple)))
    }

    fn solid(&self, q: V3, ripple: f64) -> Option<Tissue> {
        let bump = 1.5 * ripple;
        if ellipsoid(sub(q, [46.0, 46.0, 6.0]), [13.0, 15.0, 22.0]) + 0.3 * bump > 0.0 {
            return Some(Tissue::Bile);
        }
        let right = ellipsoid(sub(q, [72.0, 10.0, 62.0]), [56.0, 72.0, 88.0]);
        let left = ellipsoid(sub(q, [16.0, 48.0, 66.0]), [74.0, 34.0, 46.0]);
        if right.max(left) + bump > 0.0 {
            let vein = self.liver_veins.iter().any(|[a, b]| capsule(q, *a, *b, 3.6) > 0.0);
            return Some(if vein { Tissue::LiverVein } else { Tissue::Liver });
        }
        // The spleen is a crescent: an ellipsoid without another one on its inner side.
        let spleen = ellipsoid(sub(q, [-92.0, -22.0, 62.0]), [30.0, 44.0, 50.0]);
        let scoop = ellipsoid(sub(q, [-58.0, -2.0, 62.0]), [26.0, 48.0, 60.0]);
        if spleen.min(-scoop) + bump > 0.0 {
            return Some(Tissue::Spleen);
        }
        let pancreas = capsule(q, [32.0, 8.0, 4.0], [6.0, 14.0, 16.0], 10.5).max(capsule(
            q,
            [6.0, 14.0, 16.0],
            [-62.0, -4.0, 40.0],
            8.5,
        ));
        (pancreas + bump > 0.0).then_some(Tissue::Pancreas)
    }
}

/// The stomach, the colon, and loops of small bowel placed inside it at random.
fn bowel(rng: &mut ChaCha8Rng) -> Vec<Hollow> {
    let mut level = |low: f64| rng.random_range(low..1.3);
    let mut all = vec![
        Hollow { from: [-52.0, 26.0, 72.0], to: [-34.0, 40.0, 38.0], radius: 29.0, level: level(0.3) },
        Hollow { from: [86.0, 12.0, -12.0], to: [84.0, 14.0, -140.0], radius: 20.0, level: level(0.0) },
        Hollow { from: [-97.0, -8.0, 22.0], to: [-92.0, -6.0, -140.0], radius: 14.0, level: level(0.2) },
        Hollow { from: [82.0, 36.0, -18.0], to: [10.0, 56.0, -26.0], radius: 16.0, level: level(0.0) },
        Hollow { from: [10.0, 56.0, -26.0], to: [-84.0, 30.0, 14.0], radius: 15.0, level: level(0.0) },
    ];
    let frame = all.len();
    for _ in 0..4000 {
        let from = [rng.random_range(-78.0..66.0), rng.random_range(0.0..62.0), rng.random_range(-130.0..14.0)];
        let turn: f64 = rng.random_range(0.0..std::f64::consts::TAU);
        let radius = rng.random_range(9.0..14.0);
        let to = [from[0] + 26.0 * turn.cos(), from[1] + rng.random_range(-8.0..8.0), from[2] + 26.0 * turn.sin()];
        let clear = |p: V3| all.iter().all(|o| capsule(p, o.from, o.to, o.radius) < -0.45 * radius);
        if [from, middle(from, to), to].into_iter().all(clear) {
            let level = if rng.random_bool(0.15) { rng.random_range(0.2..0.8) } else { 1.5 };
            all.push(Hollow { from, to, radius, level });
        }
        if all.len() == frame + 60 {
            break;
        }
    }
    all
}

/// The veins of the liver: branches that fan out from its hilum.
fn liver_veins(rng: &mut ChaCha8Rng) -> Vec<[V3; 2]> {
    let hilum = [40.0, 18.0, 44.0];
    let ends = [
        [96.0, -18.0, 30.0],
        [108.0, 22.0, 60.0],
        [76.0, 50.0, 40.0],
        [20.0, 52.0, 66.0],
        [84.0, 8.0, 96.0],
        [88.0, -34.0, 70.0],
    ];
    ends.into_iter().map(|end| [hilum, end.map(|x: f64| x + rng.random_range(-8.0..8.0))]).collect()
}
