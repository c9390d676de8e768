//! The loss as a function of a family's parameters, for those who bring an optimiser of their own.

use super::RegistrationOptions;
use super::affine::world_map;
use super::mask::Mask;
use super::model::Model;
use crate::volume::{Affine, Volume};
use nephron_compute::device::Device;
use nephron_compute::error::Result;
use nephron_compute::ops::affine_dice::AffineDice;

/// Minus the mean soft Dice of the channels (by default the tumour, and kidney and tumour together) of two masks under
/// a map.
#[derive(Debug)]
pub struct Loss {
    masks: AffineDice,
    model: Model,
    fixed: Mask,
    moving: Mask,
    smooth: f64,
    weights: Vec<f64>,
}

impl Loss {
    /// Of masks as [`register`](super::register) takes them, at full resolution; of the options those that say which
    /// maps, from where, and how Dice is taken.
    ///
    /// # Errors
    /// As `register`.
    pub fn new(fixed: &Volume, moving: &Volume, device: &Device, options: &RegistrationOptions) -> Result<Self> {
        options.validate()?;
        let (fixed, moving) =
            (Mask::new("fixed", fixed, &options.channels)?, Mask::new("moving", moving, &options.channels)?);
        let start = options.start.map(&fixed, &moving);
        let grids = [&fixed.grid, &moving.grid];
        let model = Model::new(options.transformation, grids, &start, fixed.centre(), options.align_corners)?;
        let masks =
            AffineDice::new(&fixed.tensor(device)?, &moving.tensor(device)?, options.padding, &options.channels)?;
        Ok(Self { masks, model, fixed, moving, smooth: options.smooth, weights: options.channels.mean() })
    }

    /// The parameters of the start: 12 of theta, row by row; or of a motion, all 0: shift (in half the fixed grid's
    /// longest edge), angles about x, y and z (radians), logarithm of the scale.
    pub fn start(&self) -> Vec<f64> {
        self.model.start.clone()
    }

    /// The loss and its derivative by each parameter.
    ///
    /// # Errors
    /// A device that fails.
    ///
    /// # Panics
    /// With fewer parameters than [`Self::start`] has.
    pub fn value_and_gradient(&self, parameters: &[f64]) -> Result<(f64, Vec<f64>)> {
        let value = self.masks.sums(&self.model.chain.matrix(parameters))?.value(self.smooth, &self.weights);
        Ok((value.loss, self.model.chain.gradient(parameters, &value.by_matrix)))
    }

    /// The map that parameters mean: point of the fixed scan to point of the moving scan, RAS millimetres.
    ///
    /// # Errors
    /// A fixed grid whose affine is singular.
    pub fn transform(&self, parameters: &[f64]) -> Result<Affine> {
        world_map(&self.fixed.grid, &self.moving.grid, &self.model.chain.matrix(parameters))
    }
}
