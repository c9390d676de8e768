//! The registration loss and its gradient in one sweep.
//!
//! With I = sum p g, P = sum p, G = sum g, D = P + G + s: Dice = (2 I + s) / D and
//! d Dice / d theta = 2 / D sum g grad p (x) [x, 1] - (2 I + s) / D^2 sum grad p (x) [x, 1].
//! Both sums are gathered together with I and P, so there is no warped mask, no sampling grid and no second pass.

mod cpu;
mod geometry;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;
#[cfg(feature = "gpu")]
pub mod steps;
mod sums;

pub use geometry::{Bounds, Diagonal, Frame, Matrix};
pub use sums::{AffineDiceSums, AffineDiceValue, ChannelSums};

use super::expect_same_device;
use super::grid_sample::PaddingMode;
use super::timeline;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use geometry::Limits;

/// How [`affine_dice`] samples and smooths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffineDiceParams {
    /// Do -1 and 1 mean the centres of the outer voxels, or their outer edges?
    pub align_corners: bool,
    /// s of the equation: finite, 0 or more.
    pub smooth: f64,
    /// What the moving mask is outside its grid.
    pub padding: PaddingMode,
}

impl Default for AffineDiceParams {
    /// The paper's: corners aligned, s = 1, border.
    fn default() -> Self {
        Self { align_corners: true, smooth: 1.0, padding: PaddingMode::Border }
    }
}

/// What [`affine_dice`] returns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffineDiceOutput {
    /// Minus the mean of `dice`.
    pub loss: f64,
    /// d loss / d theta.
    pub dtheta: Matrix,
    /// (2 I + s) / (P + G + s) of the channels {2} and {1, 2}.
    pub dice: [f64; 2],
}

/// loss = - mean over the channels {2} (tumour) and {1, 2} (kidney and tumour) of (2 I + s) / (P + G + s), with g the
/// channel of `fixed` as 0 and 1, and p that of `moving` sampled trilinearly at theta [x, y, z, 1]; and d loss / d theta.
///
/// fixed u8 [1, 1, d, h, w] and moving u8 [1, 1, D, H, W]; labels other than 1 and 2 are background. theta maps
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
    let _span = timeline::op("affine_dice", &[fixed, moving]);
    if !theta.as_flattened().iter().all(|v| v.is_finite()) {
        return Err(Error::argument("affine_dice: theta", "finite numbers", format!("{theta:?}")));
    }
    check_smooth("affine_dice: smooth", params.smooth)?;
    let masks = AffineDice::new(fixed, moving, params.padding)?;
    let frame = Frame::normalised(masks.fixed_size, masks.moving_size, params.align_corners);
    let value = masks.sums(&frame.matrix(theta))?.value(params.smooth, [0.5, 0.5]);
    Ok(AffineDiceOutput { loss: value.loss, dtheta: frame.gradient(&value.by_matrix), dice: value.dice })
}

/// s of a Dice is finite and 0 or more.
pub(crate) fn check_smooth(what: &str, smooth: f64) -> Result<()> {
    if smooth.is_finite() && smooth >= 0.0 {
        Ok(())
    } else {
        Err(Error::argument(what, "a finite number, 0 or more", smooth))
    }
}

/// A pair of masks prepared for many sweeps: what [`affine_dice`] does once is done here, what it does for a theta in
/// [`AffineDice::sums`].
#[derive(Debug)]
pub struct AffineDice {
    pub(crate) fixed_size: [usize; 3],
    pub(crate) moving_size: [usize; 3],
    padding: PaddingMode,
    fixed: Stats,
    moving: Stats,
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    /// The fixed mask and the moving mask's cells.
    Cpu(Tensor, cpu::Cells),
    #[cfg(feature = "gpu")]
    Gpu(gpu::Prepared),
    /// No moving label: nothing to sweep.
    Empty,
}

/// Voxels of the channels {2} and {1, 2}, and the box around the second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Stats {
    counts: [f64; 2],
    bounds: Option<Bounds>,
}

impl AffineDice {
    /// Counts, bounds and cell codes of the masks. Shapes and errors as for [`affine_dice`].
    pub fn new(fixed: &Tensor, moving: &Tensor, padding: PaddingMode) -> Result<Self> {
        let fixed_size = check_mask("affine_dice: fixed", fixed)?;
        let moving_size = check_mask("affine_dice: moving", moving)?;
        expect_same_device("affine_dice: moving", fixed, moving)?;
        match fixed.device() {
            Device::Cpu => {
                let labels = moving.host_labels()?;
                let stats = [cpu::stats(fixed.host_labels()?, fixed_size), cpu::stats(labels, moving_size)];
                let backend = match &stats[1].bounds {
                    Some(bounds) => Backend::Cpu(fixed.clone(), cpu::Cells::new(labels, moving_size, bounds)),
                    None => Backend::Empty,
                };
                Ok(Self { fixed_size, moving_size, padding, fixed: stats[0], moving: stats[1], backend })
            }
            #[cfg(feature = "gpu")]
            Device::Gpu(device) => {
                let stats = [gpu::stats(&device, fixed, fixed_size)?, gpu::stats(&device, moving, moving_size)?];
                let backend = match &stats[1].bounds {
                    Some(bounds) => {
                        let limits = Limits::new(bounds, moving_size, padding);
                        Backend::Gpu(gpu::prepare(&device, fixed, moving, moving_size, bounds, &limits)?)
                    }
                    None => Backend::Empty,
                };
                Ok(Self { fixed_size, moving_size, padding, fixed: stats[0], moving: stats[1], backend })
            }
        }
    }

    /// The sums for an index map from the fixed to the moving grid, finite numbers, (x, y, z) order.
    pub fn sums(&self, matrix: &Matrix) -> Result<AffineDiceSums> {
        let mut sums = match (&self.backend, &self.moving.bounds) {
            (Backend::Cpu(fixed, cells), Some(bounds)) => {
                let limits = Limits::new(bounds, self.moving_size, self.padding);
                let matrix = into_cells(matrix, bounds);
                let sweep = cpu::Sweep { fixed: fixed.host_labels()?, size: self.fixed_size, cells, limits };
                match self.padding {
                    PaddingMode::Border => sweep.run::<true>(&matrix),
                    PaddingMode::Zeros => sweep.run::<false>(&matrix),
                }
            }
            #[cfg(feature = "gpu")]
            (Backend::Gpu(prepared), Some(bounds)) => {
                gpu::sums(prepared, self.fixed_size, self.padding, &into_cells(matrix, bounds))?
            }
            _ => AffineDiceSums::default(),
        };
        for (sums, count) in sums.0.iter_mut().zip(self.fixed.counts) {
            sums.g = count;
        }
        Ok(sums)
    }
}

/// The map to cells instead of voxels: they start one voxel before the labels' box.
fn into_cells(matrix: &Matrix, bounds: &Bounds) -> Matrix {
    let mut matrix = *matrix;
    for (row, low) in matrix.iter_mut().zip(bounds.low) {
        row[3] += 1.0 - low as f64;
    }
    matrix
}

/// A label map on its own: its size as (x, y, z).
fn check_mask(what: &str, mask: &Tensor) -> Result<[usize; 3]> {
    let shape @ [n, c, d, h, w] = mask.shape();
    if n != 1 || c != 1 || mask.is_empty() {
        return Err(Error::shape(what, "[1, 1, d, h, w] without an axis of size 0", format!("{shape:?}")));
    }
    if mask.dtype() != DType::U8 {
        return Err(Error::argument(format!("{what}: dtype"), DType::U8, mask.dtype()));
    }
    // Kernels index with 32 bits, and a unit's last step goes past the end.
    if mask.device() != Device::Cpu && mask.len() > (u32::MAX >> 1) as usize {
        return Err(Error::shape(what, format!("{} voxels at most", u32::MAX >> 1), mask.len()));
    }
    Ok([w, h, d])
}
