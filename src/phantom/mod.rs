//! Synthetic patients: a multi-phase abdominal CT with two kidneys and a tumour, generated from a seed, with its ground truth.
//!
//! Analytic solids in RAS+ millimetres describe the anatomy of the portal phase. Every other phase shows it after a motion (an affine
//! map after a small smooth deformation), so that image and mask agree exactly. docs/phantom.md describes the anatomy and the
//! attenuation values with their sources.
//!
//! ```
//! use nephron::phantom::{PhantomOptions, generate};
//! use nephron::phase::Phase;
//!
//! let options = PhantomOptions { phases: vec![Phase::Portal], spacing: [8.0, 8.0, 12.0], ..Default::default() };
//! let patient = generate(&options)?;
//! assert_eq!(patient.phases[0].image.shape(), [15, 30, 38]); // (d, h, w)
//! # Ok::<(), nephron::Error>(())
//! ```

mod anatomy;
mod breathing;
mod enhancement;
mod kidney;
mod noise;
mod organs;
mod render;
mod shape;
mod tumour;
mod wall;
mod write;

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use breathing::{Deformation, Mode};
pub use kidney::Side;

use crate::error::{Error, Result};
use crate::phase::{Phase, PhaseSet, Subtype};
use crate::volume::{Affine, LabelVolume, Volume, Voxels};
use anatomy::Anatomy;
use breathing::Motion;
use enhancement::Enhancement;
use render::Scene;

/// Options of [`generate`].
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, PartialEq)]
pub struct PhantomOptions {
    /// The seed. The same seed and options give the same bytes, whatever the number of threads.
    pub seed: u64,
    /// The subtype of the tumour; None for a random one from the seed.
    pub subtype: Option<Subtype>,
    /// The phases, each at most once, in the order of the result.
    pub phases: Vec<Phase>,
    /// The voxel size in millimetres along x, y, z; 0.3-20.
    pub spacing: [f64; 3],
    /// The field of view in millimetres along x, y, z; 40-600. The default contains both whole kidneys in every phase.
    pub size: [f64; 3],
}

impl Default for PhantomOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            subtype: None,
            phases: Phase::ALL.to_vec(),
            spacing: [1.6, 1.6, 3.0],
            size: [300.0, 240.0, 174.0],
        }
    }
}

/// A synthetic patient.
#[derive(Debug, Clone)]
pub struct Patient {
    /// The seed.
    pub seed: u64,
    /// The subtype of the tumour.
    pub subtype: Subtype,
    /// The position and size of the tumour.
    pub tumour: TumourTruth,
    /// The phases, in the order of the options.
    pub phases: Vec<PhasePhantom>,
}

/// The position and size of the tumour in the portal phase.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct TumourTruth {
    /// The kidney it grows on.
    pub side: Side,
    /// The centre, RAS+ mm.
    pub centre: [f64; 3],
    /// The diameters along x, y, z, mm.
    pub diameters: [f64; 3],
}

/// One phase of a patient. A point p of the portal phase is the point `transform(p + deformation(p))` of this phase, both in RAS+
/// mm.
#[derive(Debug, Clone)]
pub struct PhasePhantom {
    /// The phase.
    pub phase: Phase,
    /// The CT in Hounsfield units, i16.
    pub image: Volume,
    /// The mask on the image's grid: 0 background, 1 kidney (parenchyma), 2 tumour.
    pub mask: LabelVolume,
    /// The affine part of the motion; the identity for the portal phase.
    pub transform: Affine,
    /// The deformation, which is applied before the affine part.
    pub deformation: Deformation,
}

impl PhasePhantom {
    /// The point of this phase that is the point p of the portal phase, RAS+ mm.
    pub fn from_portal(&self, p: [f64; 3]) -> [f64; 3] {
        let u = self.deformation.displacement(p);
        self.transform.apply(std::array::from_fn(|i| p[i] + u[i]))
    }
}

/// Generates a patient.
///
/// # Errors
/// [`Error::Argument`] for an empty list of phases and for a spacing or a size out of range, [`Error::Inputs`] for a phase that is
/// given twice.
pub fn generate(options: &PhantomOptions) -> Result<Patient> {
    let shape = options.shape()?;
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    // The subtype is drawn even where it is given, and every subtype draws the same number of random numbers, so that another subtype
    // changes nothing else of the patient.
    let drawn = Subtype::ALL[rng.random_range(0..Subtype::ALL.len())];
    let subtype = options.subtype.unwrap_or(drawn);
    let motions = Phase::ALL.iter().map(|&phase| Motion::draw(&mut rng, phase)).collect::<Result<Vec<_>>>()?;
    let offsets: [[f64; 3]; 4] = std::array::from_fn(|_| [4.0, 4.0, 2.0].map(|r| rng.random_range(-r..r)));
    let anatomy = Anatomy::draw(&mut rng, subtype);
    let enhancement = Enhancement::draw(&mut rng, subtype);
    let mut phases = Vec::with_capacity(options.phases.len());
    for &phase in &options.phases {
        let motion = &motions[phase as usize];
        let affine = options.grid(shape, offsets[phase as usize]);
        let scene =
            Scene { anatomy: &anatomy, enhancement: &enhancement, motion, phase, shape, affine, seed: options.seed };
        let (image, mask) = scene.render();
        phases.push(PhasePhantom {
            phase,
            image: Volume::new(shape, Voxels::I16(Arc::new(image)), affine)?,
            mask: LabelVolume::new(shape, mask, affine)?,
            transform: motion.affine,
            deformation: motion.deformation.clone(),
        });
    }
    let tumour = TumourTruth {
        side: anatomy.side,
        centre: anatomy.tumour.centre,
        diameters: anatomy.tumour.axes.map(|a| 2.0 * a),
    };
    Ok(Patient { seed: options.seed, subtype, tumour, phases })
}

impl PhantomOptions {
    /// Checks that every option is in range, without generating anything.
    ///
    /// # Errors
    /// [`Error::Argument`], as [`generate`].
    pub fn ensure_valid(&self) -> Result<()> {
        self.shape().map(|_| ())
    }

    /// The shape [d, h, w] of every phase.
    ///
    /// # Errors
    /// As [`generate`].
    fn shape(&self) -> Result<[usize; 3]> {
        if self.phases.is_empty() {
            return Err(Error::argument("phantom: phases", "at least one", "none"));
        }
        PhaseSet::new(self.phases.iter().copied())?;
        if !self.spacing.iter().all(|s| (0.3..=20.0).contains(s)) {
            return Err(Error::argument("phantom: spacing", "0.3 to 20 mm", format!("{:?}", self.spacing)));
        }
        if !self.size.iter().all(|s| (40.0..=600.0).contains(s)) {
            return Err(Error::argument("phantom: size", "40 to 600 mm", format!("{:?}", self.size)));
        }
        let [w, h, d] = std::array::from_fn(|i| ((self.size[i] / self.spacing[i]).round() as usize).max(1));
        let voxels = w * h * d;
        const LIMIT: usize = 1 << 29;
        if voxels > LIMIT {
            return Err(Error::argument("phantom: spacing and size", format!("at most {LIMIT} voxels"), voxels));
        }
        Ok([d, h, w])
    }

    /// The affine with axes along R, A, S and the centre of the field of view at `offset` from that of the body.
    fn grid(&self, [d, h, w]: [usize; 3], offset: [f64; 3]) -> Affine {
        let shape = [w, h, d];
        let mut affine = Affine::IDENTITY;
        for axis in 0..3 {
            affine.0[axis][axis] = self.spacing[axis];
            affine.0[axis][3] = offset[axis] - 0.5 * (shape[axis] - 1) as f64 * self.spacing[axis];
        }
        affine
    }
}
