//! Max and average pooling over (d, h, w).

mod backward;
mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

#[cfg(feature = "gpu")]
pub use backward::gpu as backward_gpu;
pub use backward::reference as backward_reference;
pub use backward::{avg_pool3d_backward, max_pool3d_backward};

use super::ensure_float;
use super::span::op_span;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, checked_len};

/// The parameters of a pooling, each along (z, y, x).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool3dParams {
    /// The size of the window, 1 to 65535.
    pub kernel: [usize; 3],
    /// The step between windows, 1 to 65535.
    pub stride: [usize; 3],
    /// Number of voxels added on either side, at most half the window.
    pub padding: [usize; 3],
}

/// A validated problem of pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolProblem {
    /// [n, c, d, h, w].
    input: Shape,
    /// [n, c, d', h', w'].
    output: Shape,
    params: Pool3dParams,
}

/// Largest window and stride, which keeps products of window sizes and indices far from overflow.
const MAX_WINDOW: usize = 65_535;

impl PoolProblem {
    /// The problem of pooling an input of that shape; `what` names the op in errors.
    ///
    /// # Errors
    /// An axis of d, h, w of size 0; a window or stride outside 1 to 65535; a padding over half the window; a window
    /// larger than the padded input.
    pub fn new(what: &str, input: Shape, params: &Pool3dParams) -> Result<Self> {
        let Pool3dParams { kernel, stride, padding } = *params;
        for (name, values) in [("kernel", kernel), ("stride", stride)] {
            if values.iter().any(|v| !(1..=MAX_WINDOW).contains(v)) {
                return Err(Error::argument(format!("{what}: {name}"), "1 to 65535 along each axis", list(values)));
            }
        }
        if (0..3).any(|i| padding[i] > kernel[i] / 2) {
            let most = format!("at most half the kernel {}", list(kernel));
            return Err(Error::argument(format!("{what}: padding"), most, list(padding)));
        }
        let size = [input[2], input[3], input[4]];
        if (0..3).any(|i| size[i] == 0 || size[i].saturating_add(2 * padding[i]) < kernel[i]) {
            let least = format!("d, h, w of at least 1 and, padded by {}, of {}", list(padding), list(kernel));
            return Err(Error::shape(format!("{what}: input"), least, list(size)));
        }
        let mut output = input;
        for i in 0..3 {
            output[i + 2] = (size[i] + 2 * padding[i] - kernel[i]) / stride[i] + 1;
        }
        checked_len(what, output)?;
        Ok(Self { input, output, params: *params })
    }

    /// [n, c, d', h', w'] with d' = (d + 2 padding - kernel) / stride + 1, rounded down.
    pub fn output_shape(&self) -> Shape {
        self.output
    }

    /// Number of voxels of a window, padding included.
    fn volume(&self) -> f32 {
        self.params.kernel.iter().map(|&k| k as f32).product()
    }
}

fn list(values: [usize; 3]) -> String {
    format!("{values:?}")
}

#[derive(Debug, Clone, Copy)]
enum Pooling {
    Max,
    Average,
}

/// The largest value of each window; padding never wins and NaN always does. As PyTorch's `max_pool3d` without dilation
/// and ceil mode: output size (size + 2 padding - kernel) / stride + 1, rounded down.
///
/// # Errors
/// A dtype that is not a float type; the errors of [`PoolProblem::new`]; a device that fails.
pub fn max_pool3d(x: &Tensor, params: &Pool3dParams) -> Result<Tensor> {
    let _span = op_span!("max_pool3d", &[x]);
    pool("max_pool3d", Pooling::Max, x, params)
}

/// The mean of each window, padding counted as zeros. As PyTorch's `avg_pool3d` with its defaults; sizes as
/// [`max_pool3d`].
///
/// # Errors
/// As [`max_pool3d`].
pub fn avg_pool3d(x: &Tensor, params: &Pool3dParams) -> Result<Tensor> {
    let _span = op_span!("avg_pool3d", &[x]);
    pool("avg_pool3d", Pooling::Average, x, params)
}

fn pool(what: &str, pooling: Pooling, x: &Tensor, params: &Pool3dParams) -> Result<Tensor> {
    ensure_float(what, x)?;
    let problem = PoolProblem::new(what, x.shape(), params)?;
    match x.device() {
        Device::Cpu => {
            let data = x.host_floats()?;
            let y = match pooling {
                Pooling::Max => cpu::max_pool(data, &problem),
                Pooling::Average => cpu::avg_pool(data, &problem),
            };
            Ok(Tensor::host_f32(problem.output, y))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable(what, &[x.shape(), problem.output])?;
            let y = Tensor::gpu_alloc(&device, problem.output, x.dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| match pooling {
                Pooling::Max => client.max_pool(x.dtype(), &input, &output, &problem),
                Pooling::Average => client.avg_pool(x.dtype(), &input, &output, &problem),
            })?;
            Ok(y)
        }
    }
}
