//! Affine registration driven by masks (Uhm et al., npj Precision Oncology 5:54, 2021).
//!
//! A free 3 x 4 matrix theta maps normalised coordinates of the fixed grid to those of the moving grid. It starts at
//! the difference of the centres of mass and is improved by Adam on minus the mean soft Dice of channels, each a set of
//! labels (by default the tumour, and kidney and tumour together), the moving mask warped trilinearly
//! ([`affine_dice`](nephron_compute::ops::affine_dice())).
//!
//! The two masks may differ in shape, spacing and orientation: their affines are part of the map from index to index,
//! so nothing is resampled onto a common grid, and "no motion" means the same millimetre, not the same voxel ([`Space`]
//! has the authors' way too). Masks finer than `resolution` are thinned out to it for the iterations; results are
//! reported on the full grid.

mod family;
mod frames;
mod loss;
mod mask;
mod optimize;
mod options;
mod overlap;
mod pair;
pub mod transform;

pub use family::Transformation;
pub use loss::Loss;
pub use nephron_compute::ops::affine_dice::Channels;
pub use nephron_compute::ops::affine_dice_optimizer::Adam;
pub use options::{RegistrationOptions, Space, Start};
pub use overlap::{Dice, Overlap};

use std::fmt;
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};

use crate::volume::{Affine, Volume};
use nephron_compute::device::Device;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::Matrix;
use optimize::{cell_bytes, optimize};
use pair::{Level, Pair};

/// The largest number of pairs that are registered together.
const MAX_PAIRS: usize = 256;
/// The most bytes on the device for their masks.
const MAX_BYTES: u64 = 1 << 30;

/// A found map and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// The family of the map.
    pub transformation: Transformation,
    /// Normalised coordinates (x, y, z) of the fixed grid to those of the moving grid: `affine_grid`'s theta.
    pub theta: Matrix,
    /// Whether -1 and 1 of theta's coordinates mean the centres of the outer voxels; along an axis of size 1 they are always
    /// the edges.
    pub align_corners: bool,
    /// Point of the fixed scan to point of the moving scan, RAS millimetres, rows of [A | t].
    #[serde(serialize_with = "rows", deserialize_with = "from_rows")]
    pub transform: Affine,
    /// Agreement as the scans lie.
    pub identity: Overlap,
    /// Agreement with the centres of mass on one another, which is where the iterations start.
    pub centre_of_mass: Overlap,
    /// Agreement at the end.
    pub aligned: Overlap,
    /// The lowest loss.
    pub loss: f64,
    /// The channels of the loss at its lowest.
    pub channels: Vec<Channel>,
    /// The number of iterations done.
    pub iterations: usize,
    /// Whether the loss stopped falling, and at its lowest.
    pub converged: bool,
    /// Why the iterations ended.
    pub outcome: Outcome,
    /// Wall-clock seconds from the masks to this; on a GPU those of all pairs in its batch.
    pub seconds: f64,
    /// One line for each thing that is odd but usable.
    pub warnings: Vec<String>,
}

/// A channel of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// The labels of the channel.
    pub labels: Vec<u8>,
    /// The weight of the channel in the loss: 0 where a mask has none of its labels.
    pub weight: f64,
    /// The soft Dice of the channel at the lowest loss, the smoothing term included.
    pub dice: f64,
}

/// How iterations end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The loss stopped falling.
    Converged,
    /// It was still falling after as many iterations as allowed, or there were none left for the full grids.
    Stopped,
    /// It ended far above its lowest: the steps are too long, or lost the masks.
    Diverged,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Converged => "converged",
            Self::Stopped => "stopped",
            Self::Diverged => "diverged",
        })
    }
}

fn rows<S: serde::Serializer>(affine: &Affine, serializer: S) -> Result<S::Ok, S::Error> {
    affine.0.serialize(serializer)
}

fn from_rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Affine, D::Error> {
    Matrix::deserialize(deserializer).map(Affine)
}

/// Finds the affine map that lays `moving` on `fixed`: masks with label 1 (kidney) and 2 (tumour) or whatever labels
/// the channels name, every other value background, each on its own grid.
///
/// A channel that one of the masks has nothing of is left out and a warning says so.
///
/// # Errors
/// A volume that is not sound, or holds something other than labels; a mask without any label of the channels; masks
/// that do not meet at the start; a map that turns space inside out; options out of range; a loss that is not finite; a
/// device that fails.
pub fn register(
    fixed: &Volume,
    moving: &Volume,
    device: &Device,
    options: &RegistrationOptions,
) -> Result<Registration> {
    let found = register_all(&[[fixed, moving]], device, options)?.pop();
    found.unwrap_or_else(|| Err(Error::Data("registration: expected a result, found none".into())))
}

/// [`register`] of many pairs [fixed, moving], in their order. On a GPU their sweeps are one launch and their steps
/// another, and preparing them waits for the device three times; on the CPU pairs run side by side. Each pair ends with the same bits as alone, and fails alone.
///
/// # Errors
/// Options out of range. What is wrong with a pair is said in its place.
pub fn register_all(
    pairs: &[[&Volume; 2]],
    device: &Device,
    options: &RegistrationOptions,
) -> Result<Vec<Result<Registration>>> {
    options.validate()?;
    if *device == Device::Cpu {
        let alone = |pair: &[&Volume; 2]| batch(std::slice::from_ref(pair), device, options);
        return Ok(pairs.par_iter().flat_map_iter(alone).collect());
    }
    let room = MAX_BYTES.min(device.max_buffer_bytes() / 2);
    // Labels and members of both masks and the moving mask's cells; members and cells once more where pairs are put
    // together.
    let bytes = |[fixed, moving]: &[&Volume; 2]| {
        let voxels = |volume: &Volume| volume.shape().iter().fold(1, |n: u64, size| n.saturating_mul(*size as u64));
        let cells = cell_bytes(moving.shape(), &options.channels).saturating_mul(2);
        voxels(fixed).saturating_mul(3).saturating_add(voxels(moving).saturating_mul(2)).saturating_add(cells)
    };
    let mut results = Vec::with_capacity(pairs.len());
    let mut rest = pairs;
    while !rest.is_empty() {
        let mut used = 0u64;
        let fits = |pair: &&[&Volume; 2]| {
            used = used.saturating_add(bytes(pair));
            used <= room
        };
        let count = rest.iter().take(MAX_PAIRS).take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        results.extend(batch(now, device, options));
        rest = later;
    }
    Ok(results)
}

fn batch(pairs: &[[&Volume; 2]], device: &Device, options: &RegistrationOptions) -> Vec<Result<Registration>> {
    let clock = Instant::now();
    let mut pairs: Vec<Result<Pair>> = pairs.iter().map(|[fixed, moving]| Pair::new(fixed, moving, options)).collect();
    optimize(&mut pairs, device, options, Level::Thinned);
    optimize(&mut pairs, device, options, Level::Full);
    let mut results: Vec<Result<Registration>> =
        pairs.into_par_iter().map(|pair| pair.and_then(|pair| pair.finish(options))).collect();
    let seconds = clock.elapsed().as_secs_f64();
    results.iter_mut().flatten().for_each(|found| found.seconds = seconds);
    results
}
