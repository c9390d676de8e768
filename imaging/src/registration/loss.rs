//! The loss as a function of a family's parameters, for those who bring an optimiser of their own.

use super::RegistrationOptions;
use super::family::SearchSpace;
use super::optimize::{prepare_masks, too_large};
use super::pair::{Level, Pair};
use crate::volume::{Affine, Volume};
use nephron_compute::device::Device;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::AffineDice;

/// Minus the mean soft Dice of the channels (by default the tumour, and kidney and tumour together) of two masks under
/// a map.
///
/// Start, space, channels and weights are those of [`register`](super::register) with the same options and `resolution`
/// none: the first loss it computes is the value at [`Loss::start`].
#[derive(Debug)]
pub struct Loss {
    masks: AffineDice,
    space: SearchSpace,
    pair: Pair,
    smooth: f64,
}

impl Loss {
    /// The loss of masks as [`register`](super::register) takes them, at full resolution. The options that say how to
    /// iterate are not used.
    ///
    /// # Errors
    /// As `register`, except that the masks need not overlap at the start.
    pub fn new(fixed: &Volume, moving: &Volume, device: &Device, options: &RegistrationOptions) -> Result<Self> {
        options.validate()?;
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

    /// The parameters of the start: 12 of theta, row by row; or of a motion, all 0: shift (in half the fixed grid's
    /// longest edge), angles about x, y and z (radians), logarithm of the scale.
    pub fn start(&self) -> Vec<f64> {
        self.space.start.clone()
    }

    /// The loss and its derivative by each parameter.
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

    /// The map that parameters mean: point of the fixed scan to point of the moving scan, RAS millimetres.
    ///
    /// # Errors
    /// A fixed grid whose affine is singular.
    pub fn transform(&self, parameters: &[f64]) -> Result<Affine> {
        self.pair.world_map(&self.space.parametrization.matrix(parameters))
    }

    /// The weight of each channel: the same for all that both masks have voxels of, 0 for the others.
    pub fn weights(&self) -> &[f64] {
        &self.pair.weights
    }

    /// One line for each thing that is odd but usable, as [`Registration::warnings`](super::Registration::warnings).
    pub fn warnings(&self) -> &[String] {
        &self.pair.warnings
    }
}
