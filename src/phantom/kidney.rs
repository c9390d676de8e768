//! A kidney in a coordinate frame of its own: cortex, pyramids, sinus with pelvis and calyces, ureter.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::enhancement::Tissue;
use super::noise::Waves;
use super::shape::{V3, add_scaled, capsule, dot, ellipsoid, norm, smoothstep, sub, unit};

/// The side of the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The right side, x > 0.
    Right,
    /// The left side, x < 0.
    Left,
}

impl Side {
    /// The sign of x on this side.
    pub(super) fn sign(self) -> f64 {
        match self {
            Self::Right => 1.0,
            Self::Left => -1.0,
        }
    }
}

/// A kidney: its frame (u lateral and slightly posterior, v anterior, w superior), the half axes along it, and random details.
#[derive(Debug, Clone)]
pub(super) struct Kidney {
    pub(super) centre: V3,
    frame: [V3; 3],
    axes: V3,
    /// The displacement of the poles towards the midline, mm.
    bend: f64,
    cortex: f64,
    pyramids: [f64; 2],
    surface: Waves,
    ureter_end: V3,
}

impl Kidney {
    /// A random kidney, scaled by `size`.
    pub(super) fn draw(rng: &mut ChaCha8Rng, side: Side, size: f64) -> Self {
        let s = side.sign();
        let (turn, tilt, pitch) = (
            rng.random_range(18f64..34.0).to_radians(),
            rng.random_range(8f64..16.0).to_radians(),
            rng.random_range(3f64..12.0).to_radians(),
        );
        // The upper pole leans to the midline (tilt) and to the back (pitch); the hilum faces forward by `turn`.
        let w = unit([-s * tilt.sin(), -pitch.sin(), tilt.cos() * pitch.cos()]);
        let lateral = [s * turn.cos(), -turn.sin(), 0.0];
        let u = unit(add_scaled(lateral, -dot(lateral, w), w));
        let cross = [w[1] * u[2] - w[2] * u[1], w[2] * u[0] - w[0] * u[2], w[0] * u[1] - w[1] * u[0]];
        let v = cross.map(|x| x * s);
        let low = if side == Side::Right { -4.0 } else { 3.0 };
        Self {
            centre: [
                s * rng.random_range(62.0..67.0),
                rng.random_range(-35.0..-30.0),
                low + rng.random_range(-3.0..3.0),
            ],
            frame: [u, v, w],
            axes: [rng.random_range(26.0..30.0), rng.random_range(21.0..25.0), rng.random_range(45.0..51.0)]
                .map(|axis: f64| size * axis),
            bend: rng.random_range(6.0..11.0),
            cortex: rng.random_range(6.0..8.0),
            pyramids: [rng.random_range(0.0..6.0), rng.random_range(0.0..6.0)],
            surface: Waves::draw(rng, 38.0, 6),
            ureter_end: [s * 36.0, -24.0, -140.0],
        }
    }

    /// The point p in the kidney's frame after straightening, which turns the bean shape into an ellipsoid.
    fn local(&self, p: V3) -> V3 {
        let q = sub(p, self.centre);
        let w = dot(q, self.frame[2]);
        let bent = w / self.axes[2];
        [dot(q, self.frame[0]) + self.bend * (bent * bent - 0.35), dot(q, self.frame[1]), w]
    }

    fn world(&self, [u, v, w]: V3) -> V3 {
        let bent = w / self.axes[2];
        let u = u - self.bend * (bent * bent - 0.35);
        (0..3).fold(self.centre, |p, i| add_scaled(p, [u, v, w][i], self.frame[i]))
    }

    /// The point of the surface in a direction (u, v, w) of the frame.
    pub(super) fn surface_point(&self, direction: V3) -> V3 {
        let scale = 1.0 / norm(std::array::from_fn(|i| direction[i] / self.axes[i]));
        self.world(direction.map(|d| d * scale))
    }

    /// The hilum, where the vessels enter.
    pub(super) fn hilum(&self) -> V3 {
        self.world([-0.75 * self.axes[0], 0.1 * self.axes[1], 0.0])
    }

    /// The depth below the outer surface, sinus included, mm.
    pub(super) fn depth(&self, p: V3) -> f64 {
        let q = self.local(p);
        let rough = ellipsoid(q, self.axes);
        if rough < -12.0 { rough } else { rough + 0.9 * self.surface.at(p) }
    }

    /// The tissue at p, which is `depth` below the surface, and whether it is parenchyma. None outside the kidney.
    pub(super) fn tissue(&self, p: V3, depth: f64) -> Option<(Tissue, bool)> {
        if depth <= 0.0 {
            return None;
        }
        let [ax, ay, az] = self.axes;
        let q = self.local(p);
        let [u, v, w] = q;
        let sinus = ellipsoid([u + 0.55 * ax, v - 0.05 * ay, w], [0.8 * ax, 0.42 * ay, 0.52 * az]);
        if self.collecting(q) > 0.0 {
            return Some((Tissue::Urine, false));
        }
        if sinus > 0.0 {
            return Some((Tissue::Fat, false));
        }
        // Pyramids narrow towards the sinus, with columns of cortex between them.
        let around = v.atan2(u + 0.5 * ax);
        let pyramid =
            (std::f64::consts::TAU * w / 25.0 + self.pyramids[0]).cos() + (3.0 * around + self.pyramids[1]).cos();
        let narrowing = 0.7 * smoothstep(2.0 + self.cortex, 17.0, depth);
        let medulla = depth > self.cortex && pyramid > narrowing - 0.55 && sinus < -1.5;
        Some((if medulla { Tissue::Medulla } else { Tissue::Cortex }, true))
    }

    /// The depth inside pelvis and calyces of a point q in the straightened frame, mm.
    fn collecting(&self, q: V3) -> f64 {
        let [ax, ay, az] = self.axes;
        let pelvis = [-0.7 * ax, 0.0, -0.03 * az];
        let mut depth = ellipsoid(sub(q, pelvis), [0.42 * ax, 0.17 * ay, 0.2 * az]);
        for (u, v, w) in [(0.1, 0.1, 0.38), (0.2, -0.15, 0.16), (0.22, 0.15, -0.1), (0.1, -0.05, -0.38)] {
            depth = depth.max(capsule(q, pelvis, [u * ax, v * ay, w * az], 2.6));
        }
        depth
    }

    /// The depth inside the ureter, which runs down along the psoas, mm.
    pub(super) fn ureter(&self, p: V3) -> f64 {
        let start = self.world([-0.95 * self.axes[0], 0.0, -0.12 * self.axes[2]]);
        let bend = [start[0] * 0.85, start[1] + 4.0, start[2] - 32.0];
        capsule(p, start, bend, 2.4).max(capsule(p, bend, self.ureter_end, 2.2))
    }
}
