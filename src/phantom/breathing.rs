//! The motion between the portal phase and another phase: an affine map after a small smooth deformation.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::noise::{direction, plane_wave};
use super::shape::{V3, add_scaled, dot, norm, sub};
use crate::error::Result;
use crate::phase::Phase;
use crate::volume::Affine;

/// The deformation u(p) = sum_i amplitude_i sin(wave_i . p + phase_i), in RAS+ millimetres.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deformation {
    /// The modes; empty for the portal phase.
    pub modes: Vec<Mode>,
}

/// One plane wave of displacement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mode {
    /// The displacement at the crest, mm.
    pub amplitude: [f64; 3],
    /// The wave vector, radians per mm.
    pub wave: [f64; 3],
    /// The phase, radians.
    pub phase: f64,
}

impl Deformation {
    /// The displacement u(p) at a point, mm.
    pub fn displacement(&self, p: [f64; 3]) -> [f64; 3] {
        self.modes.iter().fold([0.0; 3], |u, m| add_scaled(u, (dot(m.wave, p) + m.phase).sin(), m.amplitude))
    }

    /// The point p with p + u(p) = q, to 0.001 mm. Each step of the fixed-point iteration reduces the error by |grad u| < 0.25.
    fn undo(&self, q: V3) -> V3 {
        let mut p = q;
        for _ in 0..12 {
            let next = sub(q, self.displacement(p));
            let step = norm(sub(next, p));
            p = next;
            if step < 1e-3 {
                break;
            }
        }
        p
    }
}

/// The motion of a phase: a point p of the portal phase is the point q = affine(p + u(p)) of this phase.
#[derive(Debug, Clone)]
pub(super) struct Motion {
    pub(super) affine: Affine,
    inverse: Affine,
    pub(super) deformation: Deformation,
}

impl Motion {
    /// A random motion. The portal phase does not move. The others move by 6-16 mm up or down, rotate by up to 2.5 degrees about each
    /// axis, scale by 0.97-1.03 along each, and deform by at most 3.9 mm in waves of 107-210 mm.
    pub(super) fn draw(rng: &mut ChaCha8Rng, phase: Phase) -> Result<Self> {
        if phase == Phase::Portal {
            let (affine, deformation) = (Affine::IDENTITY, Deformation { modes: Vec::new() });
            return Ok(Self { affine, inverse: affine, deformation });
        }
        let angles: V3 = std::array::from_fn(|_| rng.random_range(-2.5f64..2.5).to_radians());
        let scale: V3 = std::array::from_fn(|_| rng.random_range(0.97..1.03));
        let up = rng.random_range(6.0..16.0) * if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        let shift = [rng.random_range(-3.0..3.0), rng.random_range(-4.0..4.0), up];
        let stretch =
            Affine([[scale[0], 0.0, 0.0, shift[0]], [0.0, scale[1], 0.0, shift[1]], [0.0, 0.0, scale[2], shift[2]]]);
        let affine = (0..3).fold(stretch, |map, axis| rotation(axis, angles[axis]).after(&map));
        let modes = (0..3)
            .map(|_| {
                let (wave, phase) = plane_wave(rng, 150.0);
                let size = rng.random_range(0.7..1.3);
                Mode { amplitude: direction(rng).map(|d| d * size), wave, phase }
            })
            .collect();
        Ok(Self { affine, inverse: affine.inverse()?, deformation: Deformation { modes } })
    }

    /// The point of the portal phase that is the point q of this phase.
    pub(super) fn to_portal(&self, q: V3) -> V3 {
        self.deformation.undo(self.inverse.apply(q))
    }
}

/// The rotation about the x, y or z axis by an angle in radians.
fn rotation(axis: usize, angle: f64) -> Affine {
    let (a, b, (sin, cos)) = ((axis + 1) % 3, (axis + 2) % 3, angle.sin_cos());
    let mut map = Affine::IDENTITY;
    map.0[a][a] = cos;
    map.0[a][b] = -sin;
    map.0[b][a] = sin;
    map.0[b][b] = cos;
    map
}
