//! Options of registration.

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
    /// The iterations begin at the translation between the masks' centres of mass.
    #[default]
    CentreOfMass,
    /// The iterations begin at the identity: the scans as they are.
    Identity,
    /// The iterations begin at this map from a point of the fixed scan to a point of the moving scan, RAS millimetres.
    Given(Affine),
}

impl Start {
    /// The map from a point of the fixed scan to a point of the moving scan, RAS millimetres.
    pub(super) fn map(self, fixed: &Mask, moving: &Mask) -> Affine {
        match self {
            Self::CentreOfMass => fixed.onto(moving),
            Self::Identity => Affine::IDENTITY,
            Self::Given(transform) => transform,
        }
    }
}

/// The coordinates in which the identity means "no motion".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Space {
    /// The patient's space: the identity keeps the position in millimetres, whatever the grids.
    #[default]
    World,
    /// Normalised coordinates of the grids: the identity keeps the coordinate between -1 and 1 along each axis. This is what
    /// the authors' code does, which ignores the spacing.
    Grid,
}

/// Options of [`register`](super::register).
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegistrationOptions {
    /// The family of transforms that is searched.
    pub transformation: Transformation,
    /// The sets of labels whose overlap is maximised.
    pub channels: Channels,
    /// Where the iterations begin.
    pub start: Start,
    /// The coordinates in which the identity means "no motion".
    pub space: Space,
    /// The value of the moving mask outside its grid.
    pub padding: PaddingMode,
    /// Whether the normalised coordinates -1 and 1 are the centres of a grid's outer voxels, rather than their outer edges.
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
    /// The voxel size in millimetres to which finer masks are resampled for the first iterations; with None all iterations run
    /// on the masks as they are.
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
    /// The objective of the optimiser, with a weight for each channel.
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

    /// Checks that every option is in range. [`register`](super::register) does so itself.
    ///
    /// # Errors
    /// [`Error::Argument`] with the option and the values that are expected; a given transform that is singular.
    pub fn ensure_valid(&self) -> Result<()> {
        self.objective(Vec::new()).ensure_valid("registration")?;
        // Adam's first step is as long as the learning rate, and 1 is half of the grid.
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
