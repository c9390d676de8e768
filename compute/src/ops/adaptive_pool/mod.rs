//! Adaptive average pooling over (d, h, w): the output's size is given, and the windows follow from it.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use std::ops::Range;

use super::ensure_float;
use super::span::op_span;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, checked_len};

/// A validated problem of adaptive pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptivePoolProblem {
    /// [n, c, d, h, w].
    input: Shape,
    /// Number of bins along (z, y, x).
    size: [usize; 3],
}

/// Longest axis of the input and of the output: device code multiplies one by the other in 32 bits.
const MAX_AXIS: usize = 65_535;

impl AdaptivePoolProblem {
    /// The problem of pooling an input of that shape into `size` bins along (z, y, x).
    ///
    /// # Errors
    /// An axis of d, h, w or a number of bins outside 1 to 65535; an output that does not fit in memory.
    pub fn new(input: Shape, size: [usize; 3]) -> Result<Self> {
        let what = "adaptive_avg_pool3d";
        let [.., d, h, w] = input;
        let within = |axes: [usize; 3]| axes.iter().all(|axis| (1..=MAX_AXIS).contains(axis));
        if !within([d, h, w]) {
            let found = format!("{:?}", [d, h, w]);
            return Err(Error::shape(format!("{what}: input"), "d, h, w from 1 to 65535", found));
        }
        if !within(size) {
            return Err(Error::argument(format!("{what}: size"), "1 to 65535 along each axis", format!("{size:?}")));
        }
        let problem = Self { input, size };
        checked_len(what, problem.output_shape())?;
        Ok(problem)
    }

    /// [n, c, size].
    pub fn output_shape(&self) -> Shape {
        let ([n, c, ..], [d, h, w]) = (self.input, self.size);
        [n, c, d, h, w]
    }

    /// The voxels of bin `o` along an axis.
    fn bin(&self, axis: usize, o: usize) -> Range<usize> {
        let (size, bins) = (self.input[2 + axis], self.size[axis]);
        o * size / bins..((o + 1) * size).div_ceil(bins)
    }
}

/// The mean of each bin of `x` [n, c, d, h, w], any float type: [n, c, size]. Bin o of an axis holds the voxels from floor(o d / bins) up to,
/// and not including, ceil((o + 1) d / bins), so that neighbouring bins overlap by a voxel where the size does not divide, and voxels are
/// repeated where there are more bins than voxels. As PyTorch's `adaptive_avg_pool3d`; 2D is depth 1 with one bin along z. Sums are f32.
///
/// # Errors
/// A dtype that is not a float type; the errors of [`AdaptivePoolProblem::new`]; a device that fails.
pub fn adaptive_avg_pool3d(x: &Tensor, size: [usize; 3]) -> Result<Tensor> {
    let _span = op_span!("adaptive_avg_pool3d", &[x]);
    ensure_float("adaptive_avg_pool3d", x)?;
    let problem = AdaptivePoolProblem::new(x.shape(), size)?;
    let shape = problem.output_shape();
    match x.device() {
        Device::Cpu => Ok(Tensor::host_f32(shape, cpu::adaptive_avg_pool(x.host_floats()?, &problem))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("adaptive_avg_pool3d", &[x.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, x.dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.adaptive_avg_pool(x.dtype(), &input, &output, &problem))?;
            Ok(y)
        }
    }
}
