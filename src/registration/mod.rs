//! Affine registration driven by masks (Uhm et al., npj Precision Oncology 5:54, 2021).
//!
//! A free 3 x 4 matrix theta maps normalised coordinates of the fixed grid to those of the moving grid. It starts at the
//! difference of the centres of mass and is improved by Adam on minus the mean soft Dice of the tumour and of kidney and
//! tumour together, the moving mask warped trilinearly ([`affine_dice`](crate::ops::affine_dice())).
//!
//! The two masks may differ in shape, spacing and orientation: their affines are part of the map from index to index, so
//! nothing is resampled onto a common grid, and "no motion" means the same millimetre, not the same voxel. Masks finer
//! than `resolution` are thinned out to it for the iterations; results are reported on the full grid.

mod adam;
mod affine;
mod descent;
mod mask;
mod overlap;
pub mod transform;

pub use adam::Adam;
pub use overlap::{Dice, Overlap};

use std::time::Instant;

use serde::Serialize;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::PaddingMode;
use crate::ops::affine_dice::{AffineDice, Matrix, check_smooth};
use crate::volume::{Affine, Volume};
use affine::{frame, index_map, parameters, world_map};
use descent::{Minimum, Objective};
use mask::Mask;
use overlap::Comparison;

/// How to register.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegistrationOptions {
    /// Do -1 and 1 mean the centres of a grid's outer voxels, or their outer edges?
    pub align_corners: bool,
    /// The smoothing term of Dice.
    pub smooth: f64,
    /// Adam's.
    pub learning_rate: f64,
    /// Stop here at the latest.
    pub max_iterations: usize,
    /// Converged when the lowest loss fell by less than this ...
    pub tolerance: f64,
    /// ... over so many iterations.
    pub window: usize,
    /// Millimetres: finer axes are thinned out to it for the iterations. None: the masks as they are.
    pub resolution: Option<f64>,
}

impl Default for RegistrationOptions {
    fn default() -> Self {
        Self {
            align_corners: true,
            smooth: 1.0,
            learning_rate: 0.01,
            max_iterations: 1000,
            tolerance: 1e-4,
            window: 30,
            resolution: Some(2.0),
        }
    }
}

impl RegistrationOptions {
    /// Refuses values out of range; [`register`] does too.
    pub fn validate(&self) -> Result<()> {
        let positive = |what: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(Error::argument(format!("registration: {what}"), "a finite number above 0", value))
            }
        };
        check_smooth("registration: smooth", self.smooth)?;
        positive("learning rate", self.learning_rate)?;
        // A first step of 1 is half the grid.
        if self.learning_rate > 1.0 {
            return Err(Error::argument("registration: learning rate", "at most 1", self.learning_rate));
        }
        if let Some(resolution) = self.resolution {
            positive("resolution", resolution)?;
        }
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::argument("registration: tolerance", "0 or more", self.tolerance));
        }
        for (what, value) in [("max_iterations", self.max_iterations), ("window", self.window)] {
            if value == 0 {
                return Err(Error::argument(format!("registration: {what}"), "1 or more", value));
            }
        }
        Ok(())
    }
}

/// The learning rate on the full grid, relative to that on the thinned one: the map is a fraction of a voxel off there.
const FINE_RATE: f64 = 0.1;
/// And the window at most.
const FINE_WINDOW: usize = 20;

/// A found map and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registration {
    /// Normalised coordinates (x, y, z) of the fixed grid to those of the moving grid: `affine_grid`'s theta.
    pub theta: Matrix,
    /// Which normalised coordinates those are. (Along an axis of size 1 they are always the edges'.)
    pub align_corners: bool,
    /// Point of the fixed scan to point of the moving scan, RAS millimetres, rows of [A | t].
    #[serde(serialize_with = "rows")]
    pub transform: Affine,
    /// Agreement as the scans lie.
    pub identity: Overlap,
    /// Agreement with the centres of mass on one another, which is where the iterations start.
    pub centre_of_mass: Overlap,
    /// Agreement at the end.
    pub aligned: Overlap,
    /// The lowest loss.
    pub loss: f64,
    /// Iterations taken.
    pub iterations: usize,
    /// Did the loss stop falling, or did the iterations end?
    pub converged: bool,
    /// Wall-clock seconds, all told.
    pub seconds: f64,
    /// One line for each thing that is odd but usable.
    pub warnings: Vec<String>,
}

fn rows<S: serde::Serializer>(affine: &Affine, serializer: S) -> Result<S::Ok, S::Error> {
    affine.0.serialize(serializer)
}

/// Finds the affine map that lays `moving` on `fixed`: masks with label 1 (kidney) and 2 (tumour), every other value
/// background, each on its own grid.
///
/// Where one of the masks has no tumour, the tumour's channel is left out and a warning says so.
///
/// # Errors
/// A volume that is not sound, or holds something other than labels; a mask without kidney and tumour; masks that do
/// not meet even with their centres of mass on one another; options out of range; a loss that is not finite; a device
/// that fails.
pub fn register(
    fixed: &Volume,
    moving: &Volume,
    device: &Device,
    options: &RegistrationOptions,
) -> Result<Registration> {
    let clock = Instant::now();
    options.validate()?;
    let (fixed, moving) = (Mask::new("fixed", fixed)?, Mask::new("moving", moving)?);
    let mut warnings = Vec::new();
    let (from, to) = (fixed.centre(), moving.centre());
    let mut centred = Affine::IDENTITY;
    for k in 0..3 {
        centred.0[k][3] = to[k] - from[k];
    }

    let coarse = |mask: &Mask| options.resolution.map_or_else(|| Ok(mask.clone()), |mm| mask.coarse(mm));
    let (small_fixed, small_moving) = (coarse(&fixed)?, coarse(&moving)?);
    let weights = if small_fixed.counts[0] > 0 && small_moving.counts[0] > 0 {
        [0.5, 0.5]
    } else {
        warnings.push(no_tumour(&fixed, &moving));
        [0.0, 1.0]
    };
    let objective = Objective {
        smooth: options.smooth,
        weights,
        learning_rate: options.learning_rate,
        max_iterations: options.max_iterations,
        window: options.window,
        tolerance: options.tolerance,
    };
    let pair = Pair::new(&small_fixed, &small_moving, Pair::device(&small_fixed, &small_moving, device))?;
    if pair.intersection(&centred)? <= 0.0 {
        return Err(Error::Data(format!(
            "registration: the masks do not meet with their centres of mass ({from:.1?} and {to:.1?} mm) on one another; \
             expected masks of the same organs"
        )));
    }
    let (mut transform, mut minimum) = pair.improve(&centred, options.align_corners, &objective)?;
    let thinned = [(&fixed, &small_fixed), (&moving, &small_moving)].iter().any(|(all, small)| all.grid != small.grid);
    if thinned && minimum.converged && minimum.iterations < options.max_iterations {
        let refined = Objective {
            learning_rate: options.learning_rate * FINE_RATE,
            max_iterations: options.max_iterations - minimum.iterations,
            window: options.window.min(FINE_WINDOW),
            ..objective
        };
        let coarse_iterations = minimum.iterations;
        let pair = Pair::new(&fixed, &moving, Pair::device(&fixed, &moving, device))?;
        (transform, minimum) = pair.improve(&transform, options.align_corners, &refined)?;
        minimum.iterations += coarse_iterations;
    }

    if !minimum.converged {
        warnings.push(format!(
            "the loss was still falling by {:e} or more every {} iterations after {}",
            options.tolerance, options.window, minimum.iterations
        ));
    }
    let volume = transform.determinant();
    if !(0.5..2.0).contains(&volume) {
        warnings.push(format!("the map changes volumes by a factor of {volume:.2}, expected 0.5 to 2"));
    }
    let theta = parameters(
        &frame(&fixed.grid, &moving.grid, options.align_corners),
        &index_map(&fixed.grid, &moving.grid, &transform)?,
    )?;
    let comparison = Comparison::new(&fixed, &moving)?;
    Ok(Registration {
        theta,
        align_corners: options.align_corners,
        transform,
        identity: comparison.under(&Affine::IDENTITY)?,
        centre_of_mass: comparison.under(&centred)?,
        aligned: comparison.under(&transform)?,
        loss: minimum.loss,
        iterations: minimum.iterations,
        converged: minimum.converged,
        seconds: clock.elapsed().as_secs_f64(),
        warnings,
    })
}

/// Two masks on a device, at one resolution.
struct Pair<'a> {
    fixed: &'a Mask,
    moving: &'a Mask,
    masks: AffineDice,
}

impl<'a> Pair<'a> {
    fn new(fixed: &'a Mask, moving: &'a Mask, device: &Device) -> Result<Self> {
        let masks = AffineDice::new(&fixed.tensor(device)?, &moving.tensor(device)?, PaddingMode::Border)?;
        Ok(Self { fixed, moving, masks })
    }

    /// The device, or the CPU where a buffer of it could not hold these masks or their cells' codes.
    fn device<'d>(fixed: &Mask, moving: &Mask, device: &'d Device) -> &'d Device {
        let voxels = fixed.labels().len().max(2 * moving.labels().len()) as u64;
        if voxels < device.max_buffer_bytes() / 2 { device } else { &Device::Cpu }
    }

    /// Sum of p g of kidney and tumour together.
    fn intersection(&self, world: &Affine) -> Result<f64> {
        let matrix = index_map(&self.fixed.grid, &self.moving.grid, world)?;
        Ok(self.masks.sums(&matrix)?.0[1].intersection)
    }

    /// The map of the patient's space that the iterations make of `world`.
    fn improve(&self, world: &Affine, align_corners: bool, objective: &Objective) -> Result<(Affine, Minimum)> {
        let (fixed, moving) = (&self.fixed.grid, &self.moving.grid);
        let frame = frame(fixed, moving, align_corners);
        let start = parameters(&frame, &index_map(fixed, moving, world)?)?;
        let minimum = descent::minimise(&self.masks, &frame, &start, objective)?;
        Ok((world_map(fixed, moving, &frame.matrix(&minimum.parameters))?, minimum))
    }
}

fn no_tumour(fixed: &Mask, moving: &Mask) -> String {
    let who = match (fixed.counts[0] > 0, moving.counts[0] > 0) {
        (false, false) => "neither mask has",
        (false, true) => "the fixed mask does not have",
        (true, false) => "the moving mask does not have",
        (true, true) => "at this resolution a mask does not have",
    };
    format!("{who} a tumour (label 2): aligned by kidney and tumour together alone")
}
