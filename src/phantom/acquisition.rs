//! The acquisition: the scanner, and the phases and grids of a patient of a cohort.

use rand::Rng;

use super::PhantomOptions;
use super::noise::{Purpose, stream};
use crate::error::{Error, Result};
use crate::phase::{Phase, Subtype};
use crate::volume::Affine;

/// The scanner and its protocol, which differ between hospitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scanner {
    /// The scanner of the hospital that a model is trained in.
    #[default]
    Internal,
    /// That of other hospitals: more noise with a coarser grain, a sharper kernel, less contrast medium, an arterial phase that varies
    /// more in time, and other slice thicknesses.
    External,
}

/// What a scanner does to an image.
pub(super) struct Protocol {
    /// The standard deviation of the noise, HU.
    pub(super) noise: f64,
    /// The weights of a voxel's two neighbours along each axis in its slice, and across slices: the point spread function.
    pub(super) blur: [f32; 2],
    /// The weight of neighbours in the noise of a slice: reconstruction kernels leave it slightly correlated.
    pub(super) grain: f32,
    /// The range of the factor of a patient's enhancement.
    pub(super) uptake: [f64; 2],
    /// The range of another factor of the arterial phase, which depends on the time of the scan.
    pub(super) arterial: [f64; 2],
    /// Slice thicknesses, mm, with their weights.
    thickness: &'static [(f64, u32)],
    /// The range of the size of pixels, mm.
    pixel: [f64; 2],
}

impl Scanner {
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Internal => Protocol {
                noise: 11.0,
                blur: [0.22, 0.08],
                grain: 0.18,
                uptake: [0.88, 1.12],
                arterial: [1.0, 1.0],
                thickness: &[(1.0, 2), (2.0, 4), (2.5, 6), (3.0, 16), (4.0, 8), (5.0, 56), (6.0, 3), (7.0, 5)],
                pixel: [0.53, 0.98],
            },
            Self::External => Protocol {
                noise: 14.0,
                blur: [0.15, 0.08],
                grain: 0.26,
                uptake: [0.75, 1.05],
                arterial: [0.8, 1.1],
                thickness: &[(1.25, 4), (2.5, 22), (3.0, 14), (3.75, 8), (5.0, 46), (7.0, 6)],
                pixel: [0.62, 0.98],
            },
        }
    }
}

impl std::str::FromStr for Scanner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "internal" => Ok(Self::Internal),
            "external" => Ok(Self::External),
            other => Err(Error::argument("scanner", "internal or external", format!("{other:?}"))),
        }
    }
}

/// How often each subtype is in a cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SubtypeMix {
    /// All equally often: the seed modulo five is the class.
    #[default]
    Balanced,
    /// As in the external set of Uhm et al. 2021: 163 ccRCC, 14 pRCC, 7 chRCC; drawn from the seed.
    External,
}

impl SubtypeMix {
    /// The subtype of a seed.
    pub fn subtype(self, seed: u64) -> Subtype {
        match self {
            Self::Balanced => Subtype::ALL[(seed % Subtype::ALL.len() as u64) as usize],
            Self::External => match stream(seed, Purpose::Subtype).random_range(0..184) {
                0..163 => Subtype::ClearCell,
                163..177 => Subtype::Papillary,
                _ => Subtype::Chromophobe,
            },
        }
    }
}

impl std::str::FromStr for SubtypeMix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "balanced" => Ok(Self::Balanced),
            "external" => Ok(Self::External),
            other => Err(Error::argument("subtypes", "balanced or external", format!("{other:?}"))),
        }
    }
}

/// The grid of one phase, in place of [`PhantomOptions::spacing`] and [`PhantomOptions::size`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhaseGrid {
    /// The phase.
    pub phase: Phase,
    /// The voxel size in millimetres along x, y, z; 0.3-20.
    pub spacing: [f64; 3],
    /// The field of view in millimetres along x, y, z; 40-600.
    pub size: [f64; 3],
    /// The height of the middle of the field of view above that of the body, mm; -200 to 200.
    pub height: f64,
}

/// The share of scans whose field of view ends near or in a pole.
const CUT: f64 = 0.05;
/// The share of scans with the slice thickness of the patient's others.
const SAME_THICKNESS: f64 = 0.8;
/// The share of patients with four and three phases; the others have two.
const PHASES: [f64; 2] = [0.5, 0.36];
/// The share of incomplete patients without a portal phase.
const WITHOUT_PORTAL: f64 = 0.04;

impl PhantomOptions {
    /// The acquisition of a patient of a cohort, drawn from the seed: two to four phases, nearly always with the portal one; a pixel
    /// size for the patient and a slice thickness for each phase; and, in one of twenty scans, a field of view that ends near
    /// or in a pole of a kidney. docs/phantom.md has the distributions.
    pub fn drawn(seed: u64, scanner: Scanner) -> Self {
        let mut rng = stream(seed, Purpose::Acquisition);
        let base = Self { seed, scanner, ..Self::default() };
        let protocol = scanner.protocol();
        let (share, without_portal) = (rng.random_range(0.0..1.0), rng.random_bool(WITHOUT_PORTAL));
        let dropped = match share {
            s if s < PHASES[0] => 0,
            s if s < PHASES[0] + PHASES[1] => 1,
            _ => 2,
        };
        let mut phases = Phase::ALL.to_vec();
        for n in 0..dropped {
            let portal = n == 0 && without_portal;
            let may = |phase: &Phase| (*phase == Phase::Portal) == portal;
            let candidates: Vec<Phase> = phases.iter().copied().filter(may).collect();
            let gone = candidates[rng.random_range(0..candidates.len())];
            phases.retain(|phase| *phase != gone);
        }
        let [low, high] = protocol.pixel;
        let pixel = rng.random_range(low..high);
        let usual = protocol.thickness(rng.random_range(0.0..1.0));
        // Every phase draws its numbers, so that one does not depend on which others there are.
        let grids = Phase::ALL.map(|phase| {
            let (same, other) = (rng.random_bool(SAME_THICKNESS), protocol.thickness(rng.random_range(0.0..1.0)));
            let (cut, end, upper) = (rng.random_bool(CUT), rng.random_range(22.0..34.0), rng.random_bool(0.5));
            let mut grid = PhaseGrid {
                phase,
                spacing: [pixel, pixel, if same { usual } else { other }],
                size: base.size,
                height: 0.0,
            };
            if cut {
                // The field of view ends `end` above (or below) the kidneys' middle; a pole is 42-54 mm away from it in the portal
                // phase. A phase that breathing moves the other way may keep it whole.
                let half = 0.5 * base.size[2];
                grid.size[2] = half + end;
                grid.height = if upper { 0.5 * (end - half) } else { 0.5 * (half - end) };
            }
            grid
        });
        // Those of the other phases too: a caller may add phases.
        Self { grids: grids.to_vec(), phases, ..base }
    }
}

impl Protocol {
    /// The slice thickness of a share in 0..1 of the distribution.
    fn thickness(&self, share: f64) -> f64 {
        let total: u32 = self.thickness.iter().map(|(_, weight)| weight).sum();
        let mut left = share * f64::from(total);
        for (thickness, weight) in self.thickness {
            left -= f64::from(*weight);
            if left < 0.0 {
                return *thickness;
            }
        }
        self.thickness[self.thickness.len() - 1].0
    }
}

impl PhaseGrid {
    /// The shape [d, h, w].
    ///
    /// # Errors
    /// [`Error::Argument`] for a spacing, a size or a height out of range, and for too many voxels.
    pub(super) fn shape(&self) -> Result<[usize; 3]> {
        if !self.spacing.iter().all(|s| (0.3..=20.0).contains(s)) {
            return Err(Error::argument("phantom: spacing", "0.3 to 20 mm", format!("{:?}", self.spacing)));
        }
        if !self.size.iter().all(|s| (40.0..=600.0).contains(s)) {
            return Err(Error::argument("phantom: size", "40 to 600 mm", format!("{:?}", self.size)));
        }
        if !(-200.0..=200.0).contains(&self.height) {
            return Err(Error::argument("phantom: height", "-200 to 200 mm", self.height));
        }
        let [w, h, d] = std::array::from_fn(|i| ((self.size[i] / self.spacing[i]).round() as usize).max(1));
        let voxels = w * h * d;
        const LIMIT: usize = 1 << 29;
        if voxels > LIMIT {
            return Err(Error::argument("phantom: spacing and size", format!("at most {LIMIT} voxels"), voxels));
        }
        Ok([d, h, w])
    }

    /// The affine with axes along R, A, S and the centre of the field of view at `offset` and the height from that of the body.
    pub(super) fn affine(&self, offset: [f64; 3]) -> Result<Affine> {
        let [d, h, w] = self.shape()?;
        let (shape, height) = ([w, h, d], [0.0, 0.0, self.height]);
        let mut affine = Affine::IDENTITY;
        for axis in 0..3 {
            affine.0[axis][axis] = self.spacing[axis];
            affine.0[axis][3] = offset[axis] + height[axis] - 0.5 * (shape[axis] - 1) as f64 * self.spacing[axis];
        }
        Ok(affine)
    }
}
