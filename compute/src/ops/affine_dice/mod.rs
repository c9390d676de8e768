//! The registration loss and its gradient in one pass over the masks.
//!
//! With I = sum p g, P = sum p, G = sum g, D = P + G + s: Dice = (2 I + s) / D and
//! d Dice / d theta = 2 / D sum g grad p (x) [x, 1] - (2 I + s) / D^2 sum grad p (x) [x, 1].
//! Both sums are computed together with I and P, without a warped mask, a sampling grid or a second pass.

mod channels;
mod cpu;
#[cfg(feature = "gpu")]
pub(in crate::ops) mod gather;
mod geometry;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "gpu")]
pub(in crate::ops) mod launches;
mod parametrization;
#[cfg(feature = "gpu")]
pub(in crate::ops) mod prepare;
pub mod reference;
mod sums;

pub use channels::{Channels, MAX_CHANNELS};
pub use geometry::{Bounds, Diagonal, Frame, Matrix};
pub use parametrization::{Parameters, Parametrization};
pub use sums::{AffineDiceSums, AffineDiceValue, ChannelSums};

use super::ensure_same_device;
use super::grid_sample::PaddingMode;
use super::span::op_span;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use geometry::Limits;

/// The parameters of [`affine_dice`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffineDiceParams {
    /// Whether -1 and 1 are the centres of the outer voxels, rather than their outer edges.
    pub align_corners: bool,
    /// The smoothing term s of the equation, a finite number, 0 or more.
    pub smooth: f64,
    /// The value of the moving mask outside its grid.
    pub padding: PaddingMode,
    /// The sets of labels that make up the channels.
    pub channels: Channels,
}

impl Default for AffineDiceParams {
    /// The parameters of the paper: aligned corners, s = 1, border padding, channels {2} and {1, 2}.
    fn default() -> Self {
        Self { align_corners: true, smooth: 1.0, padding: PaddingMode::Border, channels: Channels::default() }
    }
}

/// The result of [`affine_dice`].
#[derive(Debug, Clone, PartialEq)]
pub struct AffineDiceOutput {
    /// Minus the mean of `dice`.
    pub loss: f64,
    /// The gradient d loss / d theta.
    pub dtheta: Matrix,
    /// The Dice (2 I + s) / (P + G + s) of each channel.
    pub dice: Vec<f64>,
}

/// loss = - mean over the channels of (2 I + s) / (P + G + s), with g the channel of `fixed` as 0 and 1, and p that of
/// `moving` sampled trilinearly at theta [x, y, z, 1]; and d loss / d theta. Channels are sets of labels, by default
/// {2} (tumour) and {1, 2} (kidney and tumour).
///
/// fixed u8 [1, 1, d, h, w] and moving u8 [1, 1, D, H, W]; labels in no channel are background. theta maps
/// normalised coordinates of the fixed grid to those of the moving grid, rows and columns in (x, y, z) order:
/// `grid_sample(moving, affine_grid(theta))` of PyTorch. With border padding the gradient is 0 along an axis where the
/// position was clamped, as there. Where both masks of a channel are empty and s = 0, its Dice counts as 1.
/// Source: Uhm et al., npj Precision Oncology 5:54 (2021).
///
/// # Errors
/// Shapes, dtypes or devices that do not fit; an axis of size 0; 2^31 voxels or more on a GPU; theta not finite;
/// `smooth` negative or not finite; a device that fails.
pub fn affine_dice(
    fixed: &Tensor,
    moving: &Tensor,
    theta: &Matrix,
    params: &AffineDiceParams,
) -> Result<AffineDiceOutput> {
    let _span = op_span!("affine_dice", &[fixed, moving]);
    if !theta.as_flattened().iter().all(|v| v.is_finite()) {
        return Err(Error::argument("affine_dice: theta", "finite numbers", format!("{theta:?}")));
    }
    ensure_smooth("affine_dice: smooth", params.smooth)?;
    let masks = AffineDice::new(fixed, moving, params.padding, &params.channels)?;
    let frame = Frame::normalised(masks.fixed_size, masks.moving_size, params.align_corners);
    let value = masks.sums(&frame.matrix(theta))?.value(params.smooth, &params.channels.mean());
    Ok(AffineDiceOutput { loss: value.loss, dtheta: frame.gradient(&value.by_matrix), dice: value.dice })
}

/// Checks the smoothing term s of a Dice, named `what` in the error.
///
/// # Errors
/// A value that is not finite, or below 0.
pub fn ensure_smooth(what: &str, smooth: f64) -> Result<()> {
    if smooth.is_finite() && smooth >= 0.0 {
        Ok(())
    } else {
        Err(Error::argument(what, "a finite number, 0 or more", smooth))
    }
}

/// A pair of masks that is prepared for evaluations at many maps: the part of [`affine_dice`] that does not depend on theta.
/// [`AffineDice::sums`] evaluates it at a map.
#[derive(Debug)]
pub struct AffineDice {
    fixed_size: [usize; 3],
    moving_size: [usize; 3],
    padding: PaddingMode,
    channels: usize,
    fixed: Stats,
    moving: Stats,
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    /// The channel memberships of the fixed voxels, and the cells of the moving mask.
    Cpu(Vec<u8>, cpu::Cells),
    #[cfg(feature = "gpu")]
    Gpu(Box<prepare::Prepared>),
    /// The moving mask has no voxel in any channel, so that there is nothing to compute.
    Empty,
}

/// The number of voxels of each channel, and the box around all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Stats {
    counts: [f64; MAX_CHANNELS],
    bounds: Option<Bounds>,
}

impl AffineDice {
    /// Prepares a pair of masks with the shapes of [`affine_dice`].
    ///
    /// # Errors
    /// As [`affine_dice`].
    pub fn new(fixed: &Tensor, moving: &Tensor, padding: PaddingMode, channels: &Channels) -> Result<Self> {
        let mut all = Self::new_all(&[[fixed, moving]], padding, channels)?;
        all.pop().ok_or_else(|| Error::argument("affine_dice: pairs", "one prepared pair", "none"))
    }

    /// [`AffineDice::new`] for many pairs [fixed, moving] on one device; the results are in the order of the pairs. The host waits for a GPU
    /// once, whatever the number of pairs.
    ///
    /// # Errors
    /// As [`AffineDice::new`], for any of the pairs; pairs on different devices.
    pub fn new_all(pairs: &[[&Tensor; 2]], padding: PaddingMode, channels: &Channels) -> Result<Vec<Self>> {
        let Some([first, _]) = pairs.first() else { return Ok(Vec::new()) };
        let sizes = pairs
            .iter()
            .map(|[fixed, moving]| {
                let size = [ensure_mask("affine_dice: fixed", fixed)?, ensure_mask("affine_dice: moving", moving)?];
                ensure_same_device("affine_dice: moving", fixed, moving)?;
                ensure_same_device("affine_dice: masks of another pair", first, fixed)?;
                Ok(size)
            })
            .collect::<Result<Vec<[[usize; 3]; 2]>>>()?;
        let masks = pairs.iter().zip(&sizes).map(|([a, b], [of_a, of_b])| [(*a, *of_a), (*b, *of_b)]);
        let prepared: Vec<([Stats; 2], Backend)> = match first.device() {
            Device::Cpu => masks.map(|pair| prepare_on_host(pair, channels)).collect::<Result<_>>()?,
            #[cfg(feature = "gpu")]
            Device::Gpu(device) => {
                let backend = |prepared| Backend::Gpu(Box::new(prepared));
                prepare::prepare(&device, &masks.collect::<Vec<_>>(), padding, channels)?
                    .into_iter()
                    .map(|(stats, prepared)| (stats, prepared.map_or(Backend::Empty, backend)))
                    .collect()
            }
        };
        let of = |(sizes, (stats, backend)): ([[usize; 3]; 2], ([Stats; 2], Backend))| Self {
            fixed_size: sizes[0],
            moving_size: sizes[1],
            padding,
            channels: channels.count(),
            fixed: stats[0],
            moving: stats[1],
            backend,
        };
        Ok(sizes.into_iter().zip(prepared).map(of).collect())
    }

    /// The sums at a map from indices of the fixed grid to indices of the moving grid: finite numbers in (x, y, z) order.
    ///
    /// # Errors
    /// A device that fails.
    pub fn sums(&self, matrix: &Matrix) -> Result<AffineDiceSums> {
        let mut all = Self::sums_all(&[(self, *matrix)])?;
        all.pop().ok_or_else(|| Error::argument("affine_dice: sums", "those of one pair", "none"))
    }

    /// [`AffineDice::sums`] for many pairs, each at its own map; the results are in the order of the pairs. The host waits for a GPU once,
    /// whatever the number of pairs.
    ///
    /// # Errors
    /// Pairs on more than one GPU; a device that fails.
    pub fn sums_all(pairs: &[(&Self, Matrix)]) -> Result<Vec<AffineDiceSums>> {
        #[cfg(feature = "gpu")]
        let mut on_gpu = {
            let own = pairs.iter().filter_map(|&(pair, matrix)| Some((pair.prepared()?, matrix)));
            gather::sums(&own.collect::<Vec<_>>())?.into_iter()
        };
        let sums = |(pair, matrix): &(&Self, Matrix)| {
            let mut sums = match (&pair.backend, &pair.moving.bounds) {
                (Backend::Cpu(fixed, cells), Some(bounds)) => {
                    let limits = Limits::new(bounds, pair.moving_size, pair.padding);
                    let sweep = cpu::Sweep { fixed, size: pair.fixed_size, cells, limits };
                    sweep.run(pair.channels, pair.padding, &into_cells(matrix, bounds))
                }
                #[cfg(feature = "gpu")]
                (Backend::Gpu(_), _) => on_gpu.next().unwrap_or_default(),
                _ => vec![ChannelSums::default(); pair.channels],
            };
            sums.truncate(pair.channels);
            for (sums, count) in sums.iter_mut().zip(pair.fixed.counts) {
                sums.g = count;
            }
            AffineDiceSums(sums)
        };
        Ok(pairs.iter().map(sums).collect())
    }

    /// The number of voxels of each channel in the fixed and in the moving mask.
    pub fn counts(&self) -> [&[f64]; 2] {
        [&self.fixed.counts[..self.channels], &self.moving.counts[..self.channels]]
    }

    /// The value of the moving mask outside its grid.
    pub fn padding(&self) -> PaddingMode {
        self.padding
    }

    /// The buffers on a GPU; None on the CPU and for an empty moving mask.
    #[cfg(feature = "gpu")]
    pub(in crate::ops) fn prepared(&self) -> Option<&prepare::Prepared> {
        match &self.backend {
            Backend::Gpu(prepared) => Some(prepared),
            _ => None,
        }
    }
}

fn prepare_on_host(
    [(fixed, fixed_size), (moving, moving_size)]: [(&Tensor, [usize; 3]); 2],
    channels: &Channels,
) -> Result<([Stats; 2], Backend)> {
    let members = |mask: &Tensor| Ok::<_, Error>(cpu::members(mask.host_labels()?, channels));
    let (fixed, moving) = (members(fixed)?, members(moving)?);
    let stats = [cpu::stats(&fixed, fixed_size), cpu::stats(&moving, moving_size)];
    let cells = stats[1].bounds.map(|bounds| cpu::Cells::new(&moving, moving_size, &bounds, channels.count()));
    Ok((stats, cells.map_or(Backend::Empty, |cells| Backend::Cpu(fixed, cells))))
}

/// The map to cells instead of voxels; cells start one voxel before the box of the labels.
fn into_cells(matrix: &Matrix, bounds: &Bounds) -> Matrix {
    let mut matrix = *matrix;
    for (row, low) in matrix.iter_mut().zip(bounds.low) {
        row[3] += 1.0 - low as f64;
    }
    matrix
}

/// Checks a label map and returns its size as (x, y, z).
fn ensure_mask(what: &str, mask: &Tensor) -> Result<[usize; 3]> {
    let shape @ [n, c, d, h, w] = mask.shape();
    if n != 1 || c != 1 || mask.is_empty() {
        return Err(Error::shape(what, "[1, 1, d, h, w] without an axis of size 0", format!("{shape:?}")));
    }
    if mask.dtype() != DType::U8 {
        return Err(Error::argument(format!("{what}: dtype"), DType::U8, mask.dtype()));
    }
    // Kernels index with 32 bits, and the last step of a unit goes beyond the end.
    if mask.device() != Device::Cpu && mask.len() > (u32::MAX >> 1) as usize {
        return Err(Error::shape(what, format!("{} voxels at most", u32::MAX >> 1), mask.len()));
    }
    Ok([w, h, d])
}
