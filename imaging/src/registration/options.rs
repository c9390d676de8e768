//! How to register.

use super::Transformation;
use super::mask::Mask;
use crate::volume::Affine;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::PaddingMode;
use nephron_compute::ops::affine_dice::Channels;
use nephron_compute::ops::affine_dice_optimizer::Objective;

/// Where the iterations begin.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Start {
    /// The iterations begin with the masks' centres of mass on one another.
    #[default]
    CentreOfMass,
    /// The iterations begin as the scans lie.
    Identity,
    /// The iterations begin at this map: point of the fixed scan to point of the moving scan, RAS millimetres.
    Given(Affine),
}

impl Start {
    /// Point of the fixed scan to point of the moving scan.
    pub(super) fn map(self, fixed: &Mask, moving: &Mask) -> Affine {
        match self {
            Self::CentreOfMass => fixed.onto(moving),
            Self::Identity => Affine::IDENTITY,
            Self::Given(transform) => transform,
        }
    }
}

/// In which coordinates "no motion" is the identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Space {
    /// The patient's: the same millimetre, whatever the grids.
    #[default]
    World,
    /// The grids': the same place between -1 and 1 along each axis, as the authors' code has it, which knows no
    /// spacing.
    Grid,
}

/// How to register.
///
/// The struct is open: build it with `..Default::default()`, so that a field that is added later breaks no caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegistrationOptions {
    /// The family of maps that is searched.
    pub transformation: Transformation,
    /// The sets of labels that are laid on one another.
    pub channels: Channels,
    /// Where the iterations begin.
    pub start: Start,
    /// The coordinates in which "no motion" is the identity.
    pub space: Space,
    /// What the moving mask is outside its grid.
    pub padding: PaddingMode,
    /// Whether -1 and 1 mean the centres of a grid's outer voxels, else their outer edges.
    pub align_corners: bool,
    /// The smoothing term of Dice, 0 or more.
    pub smooth: f64,
    /// Adam's learning rate, above 0 and at most 1.
    pub learning_rate: f64,
    /// The number of iterations after which the optimiser stops, 1 to
    /// [`MAX_ITERATIONS`](nephron_compute::ops::affine_dice_optimizer::MAX_ITERATIONS).
    pub max_iterations: usize,
    /// The decrease of the lowest loss over `window` iterations below which the optimiser has converged.
    pub tolerance: f64,
    /// The number of iterations over which the decrease of the loss is measured, 1 to
    /// [`MAX_WINDOW`](nephron_compute::ops::affine_dice_optimizer::MAX_WINDOW).
    pub window: usize,
    /// The voxel size in millimetres to which finer masks are thinned out for the first iterations; none keeps the masks
    /// as they are.
    pub resolution: Option<f64>,
}

impl Default for RegistrationOptions {
    fn default() -> Self {
        Self {
            transformation: Transformation::Affine,
            channels: Channels::default(),
            start: Start::CentreOfMass,
            space: Space::World,
            padding: PaddingMode::Border,
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
    /// What is minimised, and for how long, with a weight per channel.
    pub(super) fn objective(&self, weights: Vec<f64>) -> Objective {
        Objective {
            smooth: self.smooth,
            weights,
            learning_rate: self.learning_rate,
            max_iterations: self.max_iterations,
            window: self.window,
            tolerance: self.tolerance,
        }
    }

    /// Refuses values out of range; [`register`](super::register) does too.
    ///
    /// # Errors
    /// [`Error::Argument`] with the option and the values that are expected; a given transform that is singular.
    pub fn validate(&self) -> Result<()> {
        self.objective(Vec::new()).validate("registration")?;
        // A first step of 1 is half the grid.
        if self.learning_rate > 1.0 {
            return Err(Error::argument("registration: learning rate", "at most 1", self.learning_rate));
        }
        if let Some(resolution) = self.resolution.filter(|r| !(r.is_finite() && *r > 0.0)) {
            return Err(Error::argument("registration: resolution", "a finite number above 0", resolution));
        }
        if let Start::Given(transform) = &self.start {
            if !transform.0.as_flattened().iter().all(|v| v.is_finite()) {
                let found = format!("{:?}", transform.0);
                return Err(Error::argument("registration: given transform", "finite numbers", found));
            }
            transform.inverse().map_err(|e| e.context("registration: given transform"))?;
        }
        if self.space == Space::Grid && (self.start != Start::CentreOfMass || self.resolution.is_some()) {
            let expected = "the centre of mass as the start and full resolution";
            return Err(Error::argument(
                "registration: grid space",
                expected,
                "a start or a resolution in millimetres",
            ));
        }
        Ok(())
    }
}
