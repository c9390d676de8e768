//! The ground truth of tumours and cysts: where they lie, and what their attenuation is before blur and noise.

use serde::Serialize;

use super::Body;
use super::enhancement::Tissue;
use super::kidney::Side;
use super::shape::V3;
use super::tumour::Tumour;
use crate::phase::{Phase, Subtype};

/// The tumours and cysts of a patient.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Truth {
    /// The seed.
    pub seed: u64,
    /// The subtype of the tumours.
    pub subtype: Subtype,
    /// The standard deviation of the noise, HU.
    pub noise: f64,
    /// The tumours, the main one first.
    pub tumours: Vec<TumourTruth>,
    /// The cysts.
    pub cysts: Vec<CystTruth>,
}

/// The position, size and attenuation of a tumour; positions are those of the portal phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TumourTruth {
    /// The kidney it grows on.
    pub side: Side,
    /// The centre, RAS+ mm.
    pub centre: [f64; 3],
    /// The diameters along x, y, z, mm.
    pub diameters: [f64; 3],
    /// The mean HU of the whole tumour in the phases N, A, P, D, before blur and noise.
    pub hu: [f64; 4],
    /// The standard deviation of the texture of its main component, HU.
    pub texture: f64,
    /// The fraction of its volume that is scar, fat or necrosis.
    pub second_fraction: f64,
}

/// The position, size and attenuation of a cyst in the portal phase. Its label is that of the kidney.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CystTruth {
    /// The kidney it grows in.
    pub side: Side,
    /// The centre, RAS+ mm.
    pub centre: [f64; 3],
    /// The diameter, mm.
    pub diameter: f64,
    /// The HU, the same in every phase.
    pub hu: f64,
}

/// Points along each axis of the lattice on which a tumour is measured.
const LATTICE: usize = 22;
/// Half of the lattice's width in half axes of the tumour, which its lobes exceed.
const EXTENT: f64 = 1.25;

impl Body {
    pub(super) fn truth(&self) -> Truth {
        let tumours = self.anatomy.tumours.iter().enumerate().map(|(n, tumour)| self.measure(n, tumour)).collect();
        let cyst =
            |c: &super::place::Cyst| CystTruth { side: c.side, centre: c.centre, diameter: 2.0 * c.radius, hu: c.hu };
        let cysts = self.anatomy.cysts.iter().map(cyst).collect();
        Truth { seed: self.seed, subtype: self.subtype, noise: self.noise, tumours, cysts }
    }

    /// Samples the tumour of this number on a lattice of its own.
    fn measure(&self, number: usize, tumour: &Tumour) -> TumourTruth {
        let [main, second] = match number {
            0 => [Tissue::Tumour, Tissue::TumourSecond],
            _ => [Tissue::OtherTumour, Tissue::OtherTumourSecond],
        };
        let (mut sum, mut count, mut seconds) = ([0.0; 4], 0.0, 0.0);
        for n in 0..LATTICE.pow(3) {
            let index = [n % LATTICE, n / LATTICE % LATTICE, n / LATTICE / LATTICE];
            let p: V3 = std::array::from_fn(|i| {
                tumour.centre[i] + EXTENT * tumour.axes[i] * ((2 * index[i] + 1) as f64 / LATTICE as f64 - 1.0)
            });
            let tissue = self.anatomy.sample(p).tissue;
            if tissue != main && tissue != second {
                continue;
            }
            let texture = self.anatomy.texture(p);
            for (sum, phase) in sum.iter_mut().zip(Phase::ALL) {
                let (mean, sd) = self.enhancement.hu(tissue, phase);
                *sum += mean + sd * texture;
            }
            count += 1.0;
            seconds += f64::from(u8::from(tissue == second));
        }
        TumourTruth {
            side: tumour.side,
            centre: tumour.centre,
            diameters: tumour.axes.map(|a| 2.0 * a),
            hu: sum.map(|sum| sum / count),
            texture: self.enhancement.hu(main, Phase::Portal).1,
            second_fraction: seconds / count,
        }
    }
}
