//! Affine registration driven by masks (Uhm et al., npj Precision Oncology 5:54, 2021).
//!
//! A 3 x 4 matrix theta maps normalised coordinates of the fixed grid to those of the moving grid. It starts at the translation
//! between the centres of mass, and Adam minimises minus the mean soft Dice of the channels. A channel is a set of labels, by
//! default the tumour, and kidney and tumour together; the moving mask is warped trilinearly
//! ([`affine_dice`](nephron_compute::ops::affine_dice())).
//!
//! The two masks may differ in shape, spacing and orientation. Their affines are part of the map from index to index, so that
//! nothing is resampled onto a common grid, and the identity means the same millimetre, not the same voxel; [`Space::Grid`]
//! gives the authors' convention. The first iterations run on masks that are resampled to voxels of at least `resolution`, the
//! last ones on the full grids, where the results are reported.

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
/// The largest number of bytes that their masks may take on the device.
const MAX_BYTES: u64 = 1 << 30;

/// The transform that aligns two masks, with the overlap before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// The family of the transform.
    pub transformation: Transformation,
    /// The map from normalised coordinates (x, y, z) of the fixed grid to those of the moving grid, as the theta of PyTorch's
    /// `affine_grid`.
    pub theta: Matrix,
    /// Whether the coordinates -1 and 1 of theta are the centres of the outer voxels, rather than their outer edges; along an
    /// axis of size 1 they are always the edges.
    pub align_corners: bool,
    /// The map from a point of the fixed scan to a point of the moving scan, RAS millimetres, as rows of [A | t].
    #[serde(serialize_with = "rows", deserialize_with = "from_rows")]
    pub transform: Affine,
    /// The overlap of the masks as they were scanned, without a transform.
    pub identity: Overlap,
    /// The overlap after the translation between the centres of mass.
    pub centre_of_mass: Overlap,
    /// The overlap under the transform that was found.
    pub aligned: Overlap,
    /// The lowest loss, that of the transform.
    pub loss: f64,
    /// The channels of the loss at its lowest.
    pub channels: Vec<Channel>,
    /// The number of iterations done.
    pub iterations: usize,
    /// Whether the outcome is [`Outcome::Converged`].
    pub converged: bool,
    /// Why the iterations ended.
    pub outcome: Outcome,
    /// Wall-clock seconds of the registration; on a GPU the time of all pairs that were registered together.
    pub seconds: f64,
    /// One line for each condition that the caller should know of and that did not prevent a result.
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

/// How the optimisation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The loss stopped falling, near its lowest value.
    Converged,
    /// The loss was still falling when the limit of iterations was reached, or no iterations were left for the full grids.
    Stopped,
    /// The loss ended far above its lowest value: the learning rate is too high, or the masks no longer overlap.
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

/// Finds the transform T that aligns `moving` to `fixed`: moving(T(p)) matches fixed(p) for points p in RAS millimetres.
///
/// Both volumes hold labels, by default 1 (kidney) and 2 (tumour); labels that are in no channel of
/// [`RegistrationOptions::channels`] are background. Each mask has its own grid. Outside its grid the moving mask continues its
/// outermost voxels or is background ([`RegistrationOptions::padding`]). A channel of which one mask has no voxel is left out,
/// with a warning.
///
/// # Errors
/// A volume that holds something other than labels; a mask without a voxel in any channel; masks that do not overlap at the
/// start; a transform that mirrors space (determinant of 0 or less); options out of range; a loss that is not finite; a device
/// that fails.
pub fn register(
    fixed: &Volume,
    moving: &Volume,
    device: &Device,
    options: &RegistrationOptions,
) -> Result<Registration> {
    let found = register_all(&[[fixed, moving]], device, options)?.pop();
    found.unwrap_or_else(|| Err(Error::Data("registration: expected a result, found none".into())))
}

/// [`register`] for many pairs [fixed, moving]; the results are in the order of the pairs.
///
/// On a GPU one launch evaluates the loss of all pairs and another takes all their optimiser steps, and the host waits for the
/// device three times to prepare them, whatever their number. On the CPU pairs run in parallel. The result of a pair has the same
/// bits as alone, and an error of one pair does not affect the others.
///
/// # Errors
/// Options out of range. An error of a pair is its element of the result.
pub fn register_all(
    pairs: &[[&Volume; 2]],
    device: &Device,
    options: &RegistrationOptions,
) -> Result<Vec<Result<Registration>>> {
    options.ensure_valid()?;
    if *device == Device::Cpu {
        let alone = |pair: &[&Volume; 2]| batch(std::slice::from_ref(pair), device, options);
        return Ok(pairs.par_iter().flat_map_iter(alone).collect());
    }
    let room = MAX_BYTES.min(device.max_buffer_bytes() / 2);
    // Labels and channel memberships of both masks and the codes of the moving mask's cells; memberships and codes are copied
    // once more to put the pairs into one buffer.
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
