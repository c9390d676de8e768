//! Sampling at the points of a grid, and grids of affine maps, as PyTorch's `grid_sample` and `affine_grid`.

pub(super) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

pub use super::sampling::{PaddingMode, SampleMode};
use super::sampling::{ensure_f32, ensure_sampleable};
use super::span::op_span;
use super::{ensure_float, ensure_same_device};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, checked_len};

/// A sampling at the points of a grid. Build with [`GridSampleProblem::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GridSampleProblem {
    /// The image [n, c, d, h, w].
    pub input: Shape,
    /// [d, h, w] of the grid.
    pub size: [usize; 3],
    /// The interpolation between voxels.
    pub mode: SampleMode,
    /// The values outside the image.
    pub padding: PaddingMode,
    /// Whether -1 and 1 are the outermost voxel centres, rather than the outer faces.
    pub align_corners: bool,
}

impl GridSampleProblem {
    /// The problem of sampling an image at a grid [n, 3, d, h, w].
    ///
    /// # Errors
    /// Shapes that do not fit; an image without voxels; an axis over 2^24 voxels.
    pub fn new(input: Shape, grid: Shape, mode: SampleMode, padding: PaddingMode, align_corners: bool) -> Result<Self> {
        let [n, three, d, h, w] = grid;
        if n != input[0] || three != 3 {
            let expected = format!("[{}, 3, d, h, w] for an image of {input:?}", input[0]);
            return Err(Error::shape("grid_sample3d: grid", expected, format!("{grid:?}")));
        }
        let problem = Self { input, size: [d, h, w], mode, padding, align_corners };
        ensure_sampleable("grid_sample3d", input, problem.output_shape())?;
        Ok(problem)
    }

    /// [n, c, d, h, w] with the grid's axes.
    pub fn output_shape(&self) -> Shape {
        let ([n, c, ..], [d, h, w]) = (self.input, self.size);
        [n, c, d, h, w]
    }
}

/// y[n, c, p] = x[n, c, at grid[n, p]]: PyTorch's 5D `grid_sample`.
///
/// `x` is [n, c, D, H, W] of any float type. `grid` is f32, logically [n, 3, d, h, w], which is stored [n, d, h, w, 3]
/// as PyTorch's: the last axis (x, y, z) in [-1, 1]. On an axis of S voxels g is the voxel index (g + 1) / 2 * (S - 1) with
/// `align_corners`, else ((g + 1) * S - 1) / 2. The result is [n, c, d, h, w] of the dtype of `x`. A NaN coordinate
/// counts as below the image.
///
/// # Errors
/// Shapes that do not fit, an image without voxels, an axis over 2^24 voxels, dtypes or devices that do not fit, a
/// device that fails.
pub fn grid_sample3d(
    x: &Tensor,
    grid: &Tensor,
    mode: SampleMode,
    padding: PaddingMode,
    align_corners: bool,
) -> Result<Tensor> {
    let _span = op_span!("grid_sample3d", &[x, grid]);
    ensure_float("grid_sample3d", x)?;
    ensure_same_device("grid_sample3d: grid", x, grid)?;
    ensure_f32("grid_sample3d: grid", grid)?;
    let problem = GridSampleProblem::new(x.shape(), grid.shape(), mode, padding, align_corners)?;
    let shape = problem.output_shape();
    match x.device() {
        Device::Cpu => Ok(Tensor::host_f32(shape, cpu::grid_sample(x.host_floats()?, grid.host_floats()?, &problem))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("grid_sample3d", &[x.shape(), grid.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, x.dtype())?;
            let (input, points, output) = (x.gpu_handle(&device)?, grid.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.grid_sample(x.dtype(), &input, &points, &output, &problem))?;
            Ok(y)
        }
    }
}

/// grid[n, p] = theta[n] (base(p), 1): PyTorch's 5D `affine_grid`.
///
/// `theta` is f32 [n, 1, 1, 3, 4], rows and columns (x, y, z). `size` is the shape [n, c, d, h, w] to sample (c does not
/// matter). Base coordinates are -1 and 1 at the outermost voxel centres when `align_corners`, else at the outer faces,
/// and 0 on an axis of one voxel. The result is f32, logically [n, 3, d, h, w] as [`grid_sample3d`] takes it.
///
/// # Errors
/// A theta of another shape or dtype, an axis over 2^24 voxels, a device that fails.
pub fn affine_grid3d(theta: &Tensor, size: Shape, align_corners: bool) -> Result<Tensor> {
    let _span = op_span!("affine_grid3d", &[theta]);
    let [n, _, d, h, w] = size;
    ensure_theta("affine_grid3d: theta", theta, n)?;
    let shape = [n, 3, d, h, w];
    ensure_sampleable("affine_grid3d: size", [n, 3, 1, 1, 1], shape)?;
    checked_len("affine_grid3d: size", size)?;
    match theta.device() {
        Device::Cpu => Ok(Tensor::host_f32(shape, cpu::affine_grid(theta.host_floats()?, [d, h, w], align_corners))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("affine_grid3d", &[shape])?;
            let grid = Tensor::gpu_alloc(&device, shape, crate::tensor::DType::F32)?;
            let (input, output) = (theta.gpu_handle(&device)?, grid.gpu_handle(&device)?);
            device.run(|client| client.affine_grid(&input, &output, size, align_corners))?;
            Ok(grid)
        }
    }
}

/// Checks that there is one affine matrix for each image: f32 [n, 1, 1, 3, 4].
pub(super) fn ensure_theta(what: &str, theta: &Tensor, n: usize) -> Result<()> {
    let expected = [n, 1, 1, 3, 4];
    if theta.shape() != expected {
        return Err(Error::shape(what, format!("{expected:?}"), format!("{:?}", theta.shape())));
    }
    ensure_f32(what, theta)
}
