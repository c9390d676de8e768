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

mod acquisition;
mod anatomy;
mod breathing;
mod enhancement;
mod feeder;
mod kidney;
mod noise;
mod organs;
mod place;
mod readers;
mod render;
mod shape;
mod truth;
mod tumour;
mod wall;
mod write;

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use acquisition::{PhaseGrid, Scanner, SubtypeMix};
pub use breathing::{Deformation, Mode};
pub use kidney::Side;
pub use readers::{Diagnoses, Reader};
pub use truth::{CystTruth, Truth, TumourTruth};

use crate::error::{Error, Result};
use crate::phase::{Phase, PhaseSet, Subtype};
use crate::volume::{Affine, LabelVolume, Volume, Voxels};
use anatomy::Anatomy;
use breathing::Motion;
use enhancement::Enhancement;
use noise::{Purpose, normal, stream};
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
    /// The field of view in millimetres along x, y, z; 40-600. The default contains both whole kidneys in nearly every phase.
    pub size: [f64; 3],
    /// The scanner, which also determines the noise and the patient's uptake of contrast medium.
    pub scanner: Scanner,
    /// The grids of single phases, in place of `spacing` and `size`.
    pub grids: Vec<PhaseGrid>,
}

impl Default for PhantomOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            subtype: None,
            phases: Phase::ALL.to_vec(),
            spacing: [1.6, 1.6, 3.0],
            size: [300.0, 240.0, 174.0],
            scanner: Scanner::Internal,
            grids: Vec::new(),
        }
    }
}

/// A synthetic patient.
#[derive(Debug, Clone)]
pub struct Patient {
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
    /// The phases, in the order of the options.
    pub phases: Vec<PhasePhantom>,
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
/// [`Error::Argument`] for an empty list of phases and for a spacing, a size or a height out of range, [`Error::Inputs`] for a phase that
/// is given twice or has two grids.
pub fn generate(options: &PhantomOptions) -> Result<Patient> {
    options.ensure_valid()?;
    let body = Body::draw(options)?;
    let mut phases = Vec::with_capacity(options.phases.len());
    for &phase in &options.phases {
        let motion = &body.motions[phase as usize];
        let grid = options.grid(phase);
        let (shape, affine) = (grid.shape()?, grid.affine(body.offsets[phase as usize])?);
        let (anatomy, enhancement, protocol) = (&body.anatomy, &body.enhancement, options.scanner.protocol());
        let scene = Scene {
            anatomy,
            enhancement,
            motion,
            phase,
            shape,
            affine,
            seed: options.seed,
            noise: body.noise,
            protocol,
        };
        let (image, mask) = scene.render();
        phases.push(PhasePhantom {
            phase,
            image: Volume::new(shape, Voxels::I16(Arc::new(image)), affine)?,
            mask: LabelVolume::new(shape, mask, affine)?,
            transform: motion.affine,
            deformation: motion.deformation.clone(),
        });
    }
    let Truth { seed, subtype, noise, tumours, cysts } = body.truth();
    Ok(Patient { seed, subtype, noise, tumours, cysts, phases })
}

/// The tumours and cysts of a patient, without its images: a thousand patients take seconds.
///
/// # Errors
/// As [`generate`].
pub fn truth(options: &PhantomOptions) -> Result<Truth> {
    options.ensure_valid()?;
    Ok(Body::draw(options)?.truth())
}

/// Everything of a patient but its images.
struct Body {
    seed: u64,
    subtype: Subtype,
    /// The standard deviation of the noise, HU.
    noise: f64,
    motions: Vec<Motion>,
    offsets: [[f64; 3]; 4],
    anatomy: Anatomy,
    enhancement: Enhancement,
}

impl Body {
    fn draw(options: &PhantomOptions) -> Result<Self> {
        let seed = options.seed;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The subtype is drawn even where it is given, and every subtype draws the same number of random numbers, so that another subtype
        // changes nothing else of the patient.
        let drawn = Subtype::ALL[rng.random_range(0..Subtype::ALL.len())];
        let subtype = options.subtype.unwrap_or(drawn);
        let motions = Phase::ALL.iter().map(|&phase| Motion::draw(&mut rng, phase)).collect::<Result<Vec<_>>>()?;
        let offsets: [[f64; 3]; 4] = std::array::from_fn(|_| [4.0, 4.0, 2.0].map(|r| rng.random_range(-r..r)));
        let anatomy = Anatomy::draw(&mut rng, seed, subtype);
        let protocol = options.scanner.protocol();
        let enhancement = Enhancement::draw(&mut rng, seed, subtype, &anatomy, &protocol);
        // The dose depends on the patient: a sixth more or less noise is one standard deviation.
        let noise = protocol.noise * (0.16 * normal(&mut stream(seed, Purpose::NoiseLevel))).exp();
        Ok(Self { seed, subtype, noise, motions, offsets, anatomy, enhancement })
    }
}

impl PhantomOptions {
    /// Checks that every option is in range, without generating anything.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn ensure_valid(&self) -> Result<()> {
        if self.phases.is_empty() {
            return Err(Error::argument("phantom: phases", "at least one", "none"));
        }
        PhaseSet::new(self.phases.iter().copied())?;
        PhaseSet::new(self.grids.iter().map(|grid| grid.phase))?;
        self.phases.iter().try_for_each(|phase| self.grid(*phase).shape().map(|_| ()))
    }

    /// The grid of a phase.
    fn grid(&self, phase: Phase) -> PhaseGrid {
        let own = self.grids.iter().find(|grid| grid.phase == phase).copied();
        own.unwrap_or(PhaseGrid { phase, spacing: self.spacing, size: self.size, height: 0.0 })
    }
}
