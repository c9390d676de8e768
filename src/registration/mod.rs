//! Affine registration driven by masks (Uhm et al., npj Precision Oncology 5:54, 2021).
//!
//! A free 3 x 4 matrix theta maps normalised coordinates of the fixed grid to those of the moving grid. It starts at the
//! difference of the centres of mass and is improved by Adam on minus the mean soft Dice of the tumour and of kidney and
//! tumour together, the moving mask warped trilinearly ([`affine_dice`](crate::ops::affine_dice())).
//!
//! The two masks may differ in shape, spacing and orientation: their affines are part of the map from index to index, so
//! nothing is resampled onto a common grid, and "no motion" means the same millimetre, not the same voxel ([`Space`] has
//! the authors' way too). Masks finer
//! than `resolution` are thinned out to it for the iterations; results are reported on the full grid.

mod adam;
mod affine;
mod descent;
mod loss;
mod mask;
mod model;
mod options;
mod overlap;
pub mod transform;

pub use adam::Adam;
pub use loss::Loss;
pub use model::Transformation;
pub use options::{RegistrationOptions, Space, Start};
pub use overlap::{Dice, Overlap};

use std::time::Instant;

use serde::Serialize;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::affine_dice::{AffineDice, Matrix};
use crate::volume::{Affine, Volume};
use affine::{frame, index_map, parameters, world_map};
use descent::{Minimum, Objective};
use mask::Mask;
use model::Model;
use overlap::Comparison;

/// The learning rate on the full grid, relative to that on the thinned one: the map is a fraction of a voxel off there.
const FINE_RATE: f64 = 0.1;
/// And the window at most.
const FINE_WINDOW: usize = 20;

/// A found map and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registration {
    /// Of which family it is.
    pub transformation: Transformation,
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
/// not meet at the start; a map that turns space inside out; options out of range; a loss that is not finite; a device
/// that fails.
pub fn register(
    fixed: &Volume,
    moving: &Volume,
    device: &Device,
    options: &RegistrationOptions,
) -> Result<Registration> {
    let clock = Instant::now();
    options.validate()?;
    let (mut fixed, mut moving) = (Mask::new("fixed", fixed)?, Mask::new("moving", moving)?);
    let own = [fixed.grid, moving.grid];
    if options.space == Space::Grid {
        let frame = frame(&fixed.grid, &moving.grid, options.align_corners);
        fixed.grid.affine = affine::affine(&frame.input);
        moving.grid.affine = affine::affine(&frame.output).inverse()?;
    }
    let mut found = between(&fixed, &moving, device, options)?;
    if options.space == Space::Grid {
        let matrix = index_map(&fixed.grid, &moving.grid, &found.transform)?;
        found.transform = world_map(&own[0], &own[1], &matrix)?;
    }
    found.seconds = clock.elapsed().as_secs_f64();
    Ok(found)
}

/// [`register`] in the space of the masks' grids.
fn between(fixed: &Mask, moving: &Mask, device: &Device, options: &RegistrationOptions) -> Result<Registration> {
    let mut warnings = Vec::new();
    let centred = fixed.onto(moving);
    let (start, at_start) = match options.start {
        Start::CentreOfMass => {
            let (from, to) = (fixed.centre(), moving.centre());
            (centred, format!("with their centres of mass ({from:.1?} and {to:.1?} mm) on one another"))
        }
        Start::Identity => (Affine::IDENTITY, "as the scans lie".to_owned()),
        Start::Given(transform) => (transform, "under the given transform".to_owned()),
    };

    let coarse = |mask: &Mask| options.resolution.map_or_else(|| Ok(mask.clone()), |mm| mask.coarse(mm));
    let (small_fixed, small_moving) = (coarse(fixed)?, coarse(moving)?);
    let weights = if small_fixed.counts[0] > 0 && small_moving.counts[0] > 0 {
        [0.5, 0.5]
    } else {
        warnings.push(no_tumour(fixed, moving));
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
    let pair = Pair::new(&small_fixed, &small_moving, device, options)?;
    let comparison = Comparison::new(fixed, moving)?;
    // Border padding draws a mask that touches its grid's edge out to infinity: voxels must meet too.
    if pair.intersection(&start)? <= 0.0 || comparison.under(&start)?.kidney.hard <= 0.0 {
        return Err(Error::Data(format!(
            "registration: the masks do not meet {at_start}; expected masks of the same organs"
        )));
    }
    let (mut transform, mut minimum) = pair.improve(&start, &objective)?;
    let thinned = [(fixed, &small_fixed), (moving, &small_moving)].iter().any(|(all, small)| all.grid != small.grid);
    if thinned && minimum.converged && minimum.iterations < options.max_iterations {
        let refined = Objective {
            learning_rate: options.learning_rate * FINE_RATE,
            max_iterations: options.max_iterations - minimum.iterations,
            window: options.window.min(FINE_WINDOW),
            ..objective
        };
        let coarse_iterations = minimum.iterations;
        let pair = Pair::new(fixed, moving, device, options)?;
        (transform, minimum) = pair.improve(&transform, &refined)?;
        minimum.iterations += coarse_iterations;
    }

    if !minimum.converged {
        warnings.push(format!(
            "the loss was still falling by {:e} or more every {} iterations after {}",
            options.tolerance, options.window, minimum.iterations
        ));
    }
    let volume = transform.determinant();
    if volume <= 0.0 && start.determinant() > 0.0 {
        return Err(Error::Data(format!(
            "registration: the map found turns space inside out (determinant {volume:.3}); expected one above 0: the masks \
             are too unlike, or the learning rate of {} is too high",
            options.learning_rate
        )));
    }
    if !(0.5..2.0).contains(&volume.abs()) {
        warnings.push(format!("the map changes volumes by a factor of {volume:.2}, expected 0.5 to 2"));
    }
    let theta = parameters(
        &frame(&fixed.grid, &moving.grid, options.align_corners),
        &index_map(&fixed.grid, &moving.grid, &transform)?,
    )?;
    Ok(Registration {
        transformation: options.transformation,
        theta,
        align_corners: options.align_corners,
        transform,
        identity: comparison.under(&Affine::IDENTITY)?,
        centre_of_mass: comparison.under(&centred)?,
        aligned: comparison.under(&transform)?,
        loss: minimum.loss,
        iterations: minimum.iterations,
        converged: minimum.converged,
        seconds: 0.0,
        warnings,
    })
}

/// Two masks on a device, at one resolution.
struct Pair<'a> {
    fixed: &'a Mask,
    moving: &'a Mask,
    masks: AffineDice,
    options: &'a RegistrationOptions,
}

impl<'a> Pair<'a> {
    /// On `device`, or on the CPU where a buffer of it could not hold these masks or their cells' codes.
    fn new(fixed: &'a Mask, moving: &'a Mask, device: &Device, options: &'a RegistrationOptions) -> Result<Self> {
        let voxels = fixed.labels().len().max(2 * moving.labels().len()) as u64;
        let device = if voxels < device.max_buffer_bytes() / 2 { device } else { &Device::Cpu };
        let masks = AffineDice::new(&fixed.tensor(device)?, &moving.tensor(device)?, options.padding)?;
        Ok(Self { fixed, moving, masks, options })
    }

    /// Sum of p g of kidney and tumour together.
    fn intersection(&self, world: &Affine) -> Result<f64> {
        let matrix = index_map(&self.fixed.grid, &self.moving.grid, world)?;
        Ok(self.masks.sums(&matrix)?.0[1].intersection)
    }

    /// The map of the patient's space that the iterations make of `world`.
    fn improve(&self, world: &Affine, objective: &Objective) -> Result<(Affine, Minimum)> {
        let (fixed, moving) = (&self.fixed.grid, &self.moving.grid);
        let RegistrationOptions { transformation, align_corners, .. } = *self.options;
        let model = Model::new(transformation, [fixed, moving], world, self.fixed.centre(), align_corners)?;
        let minimum = descent::minimise(&self.masks, &model, objective)?;
        Ok((world_map(fixed, moving, &model.matrix(&minimum.parameters))?, minimum))
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
