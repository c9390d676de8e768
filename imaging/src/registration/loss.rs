//! The loss as a function of a family's parameters, for applications with an optimiser of their own.

use super::RegistrationOptions;
use super::family::SearchSpace;
use super::optimize::{prepare_masks, too_large};
use super::pair::{Level, Pair};
use crate::volume::{Affine, Volume};
use nephron_compute::device::Device;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::AffineDice;

/// The registration loss of two masks as a function of the parameters of a transform: minus the mean soft Dice of the channels
/// (by default the tumour, and kidney and tumour together).
///
/// Start, space, channels and weights are those of [`register`](super::register) with the same options and no `resolution`: the
/// first loss that `register` computes is the value at [`Loss::start`].
#[derive(Debug)]
pub struct Loss {
    masks: AffineDice,
    space: SearchSpace,
    pair: Pair,
    smooth: f64,
}

impl Loss {
    /// The loss of two masks as [`register`](super::register) takes them, at full resolution. The options of the optimiser
    /// (learning rate, iterations, tolerance, window) are checked but not used.
    ///
    /// # Errors
    /// As [`register`](super::register), except that the masks need not overlap at the start.
    pub fn new(fixed: &Volume, moving: &Volume, device: &Device, options: &RegistrationOptions) -> Result<Self> {
        options.ensure_valid()?;
        let options = RegistrationOptions { resolution: None, ..*options };
        let mut pair = Pair::new(fixed, moving, &options)?;
        let masks = pair.masks(Level::Full);
        let warning = too_large(masks, device, &options);
        let device = if warning.is_none() { device } else { &Device::Cpu };
        let Some(masks) = prepare_masks(&[masks], device, &options)?.pop() else {
            return Err(Error::Data("registration: expected prepared masks, found none".into()));
        };
        pair.warn(warning.as_ref());
        let space = pair.search_space(&options, Level::Full)?;
        Ok(Self { masks, space, pair, smooth: options.smooth })
    }

    /// The parameters of the start. For [`Transformation::Affine`](super::Transformation::Affine) the 12 elements of theta, row by
    /// row. For a motion all 0, in the order: translation along x, y, z (in units of half the fixed grid's longest edge), angles
    /// about x, y, z (radians), logarithm of the scale; a family has as many of these as
    /// [`Transformation::parameters`](super::Transformation::parameters).
    pub fn start(&self) -> Vec<f64> {
        self.space.start.clone()
    }

    /// The loss at `parameters`, and its derivative by each parameter.
    ///
    /// # Errors
    /// A device that fails.
    ///
    /// # Panics
    /// With fewer parameters than [`Self::start`] has.
    pub fn value_and_gradient(&self, parameters: &[f64]) -> Result<(f64, Vec<f64>)> {
        let parametrization = &self.space.parametrization;
        let sums = self.masks.sums(&parametrization.matrix(parameters))?;
        let value = sums.value(self.smooth, &self.pair.weights);
        Ok((value.loss, parametrization.gradient(parameters, &value.by_matrix)))
    }

    /// The transform of `parameters`: it maps a point of the fixed scan to a point of the moving scan, RAS millimetres.
    ///
    /// # Errors
    /// A fixed grid whose affine is singular.
    pub fn transform(&self, parameters: &[f64]) -> Result<Affine> {
        self.pair.world_map(&self.space.parametrization.matrix(parameters))
    }

    /// The weight of each channel: 0 where one of the masks has no voxel of it, the same for all others, with sum 1.
    pub fn weights(&self) -> &[f64] {
        &self.pair.weights
    }

    /// The warnings, as [`Registration::warnings`](super::Registration::warnings).
    pub fn warnings(&self) -> &[String] {
        &self.pair.warnings
    }
}
