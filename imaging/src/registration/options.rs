//! How to register.

use super::Transformation;
use super::mask::Mask;
use crate::volume::Affine;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::PaddingMode;
use nephron_compute::ops::affine_dice::{Channels, check_smooth};

/// Where the iterations begin.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Start {
    /// With the masks' centres of mass on one another.
    #[default]
    CentreOfMass,
    /// As the scans lie.
    Identity,
    /// Point of the fixed scan to point of the moving scan, RAS millimetres.
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegistrationOptions {
    /// Which maps are looked for.
    pub transformation: Transformation,
    /// The sets of labels that are laid on one another.
    pub channels: Channels,
    /// Where to begin.
    pub start: Start,
    /// In which coordinates.
    pub space: Space,
    /// What the moving mask is outside its grid.
    pub padding: PaddingMode,
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

/// Iterations at most.
const MOST: usize = 1_000_000;

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
        if let Start::Given(transform) = &self.start {
            if !transform.0.as_flattened().iter().all(|v| v.is_finite()) {
                let found = format!("{:?}", transform.0);
                return Err(Error::argument("registration: given transform", "finite numbers", found));
            }
            transform.inverse().map_err(|e| Error::Data(format!("registration: given transform: {e}")))?;
        }
        if self.space == Space::Grid && (self.start != Start::CentreOfMass || self.resolution.is_some()) {
            let expected = "the centre of mass as the start and full resolution";
            return Err(Error::argument(
                "registration: grid space",
                expected,
                "a start or a resolution in millimetres",
            ));
        }
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::argument("registration: tolerance", "0 or more", self.tolerance));
        }
        for (what, value) in [("max_iterations", self.max_iterations), ("window", self.window)] {
            if value == 0 {
                return Err(Error::argument(format!("registration: {what}"), "1 or more", value));
            }
            // A GPU counts them in f32 and keeps a loss for each of the window.
            if value > MOST {
                return Err(Error::argument(format!("registration: {what}"), format!("at most {MOST}"), value));
            }
        }
        Ok(())
    }
}
