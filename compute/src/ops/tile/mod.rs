//! Tiles of a sliding window: cropping a tile, adding its weighted logits, and resampling their mean directly to labels.

mod accumulator;
mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;
mod taps;

pub use accumulator::Accumulator;
pub use taps::{AxisSampling, AxisTaps};

use super::ensure_float;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor, checked_len};

/// The position of a tile in the image, and the axes along which it is mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePlacement {
    /// The tile's first voxel (z, y, x) in the image; negative where the tile hangs over the edge.
    pub start: [isize; 3],
    /// Whether the tile is reversed along each axis (z, y, x).
    pub mirrored: [bool; 3],
}

impl TilePlacement {
    /// A tile at `start`, not reversed.
    pub fn at(start: [isize; 3]) -> Self {
        Self { start, mirrored: [false; 3] }
    }

    /// Checks that the start fits into i32, with which kernels compute.
    fn checked(&self, what: &str) -> Result<()> {
        let limit = 1isize << 30;
        if self.start.iter().any(|s| !(-limit..=limit).contains(s)) {
            return Err(Error::argument(format!("{what}: start"), format!("-{limit} to {limit}"), list(&self.start)));
        }
        Ok(())
    }
}

/// The problem of cropping or accumulating a tile: channels, and sizes (z, y, x) of image and tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileProblem {
    /// The size of the image.
    pub image: [usize; 3],
    /// The size of the tile.
    pub tile: [usize; 3],
    /// Number of channels of both.
    pub channels: usize,
    /// Where the tile lies.
    pub placement: TilePlacement,
}

/// The problem of resampling logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResampleLogitsProblem {
    /// The size (z, y, x) of the logits.
    pub input: [usize; 3],
    /// The size (z, y, x) of the result.
    pub output: [usize; 3],
    /// Number of classes.
    pub channels: usize,
}

/// y[n, c, p] = x[n, c, start + m(p)] for p in `size`, zero outside x; m reverses the mirrored axes. x is
/// [n, c, d, h, w] of any float type; y is [n, c, size] stored as `dtype`, rounded to nearest.
///
/// # Errors
/// x that is no float; an axis of size 0; a dtype the device cannot store; a device that fails.
pub fn crop(x: &Tensor, placement: TilePlacement, size: [usize; 3], dtype: DType) -> Result<Tensor> {
    ensure_float("crop: x", x)?;
    placement.checked("crop")?;
    let [n, channels, d, h, w] = x.shape();
    let shape = [n, channels, size[0], size[1], size[2]];
    ensure_no_empty_axis("crop: x", x.shape())?;
    ensure_no_empty_axis("crop: size", shape)?;
    let device = x.device();
    if !dtype.is_float() || !device.supports(dtype) {
        return Err(Error::argument("crop: dtype", format!("a float type of {}", device.name()), dtype));
    }
    let problem = TileProblem { image: [d, h, w], tile: size, channels, placement };
    checked_len("crop: y", shape)?;
    match device {
        Device::Cpu => Ok(Tensor::host_f32(shape, cpu::crop(x.host_floats()?, n, &problem))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("crop", &[x.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, dtype)?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.crop([x.dtype(), dtype], &input, &output, n, &problem))?;
            Ok(y)
        }
    }
}

/// y[i] = x[indices[i]] along n: x f32 [n, c, d, h, w] to [indices, c, d, h, w]. With the slices of a volume along n this is a
/// nearest-neighbour resampling across slices.
///
/// # Errors
/// x that is not f32; an axis of size 0, no index, or an index that is not below n; a device that fails.
pub fn select(x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    ensure_f32("select: x", x)?;
    ensure_no_empty_axis("select: x", x.shape())?;
    let [n, c, d, h, w] = x.shape();
    if indices.is_empty() {
        return Err(Error::argument("select: indices", "at least one", 0));
    }
    if let Some(index) = indices.iter().find(|&&i| i as usize >= n) {
        return Err(Error::argument("select: indices", format!("below {n}"), index));
    }
    let shape = [indices.len(), c, d, h, w];
    checked_len("select: y", shape)?;
    let image = c * d * h * w;
    match x.device() {
        Device::Cpu => Ok(Tensor::host_f32(shape, cpu::select(x.host_floats()?, indices, image))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("select", &[x.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, DType::F32)?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.select(&input, indices, &output, n, image))?;
            Ok(y)
        }
    }
}

/// How logits become labels and probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads<'a> {
    /// Classes exclude one another: the label is the class of the largest logit, probabilities are the softmax.
    Softmax,
    /// Regions may overlap: each has a value, and the label is the value of the last region whose sigmoid is above a half, 0
    /// where there is none; probabilities are the sigmoids. One value of at most 254 a channel.
    Sigmoid(&'a [u8]),
}

impl Heads<'_> {
    fn ensure_valid(&self, what: &str, channels: usize) -> Result<()> {
        let Self::Sigmoid(values) = self else { return Ok(()) };
        if values.len() != channels {
            return Err(Error::argument(
                format!("{what}: regions' values"),
                format!("{channels}, one a channel"),
                values.len(),
            ));
        }
        match values.iter().find(|v| **v == NO_LABEL) {
            Some(value) => Err(Error::argument(format!("{what}: regions' values"), "at most 254", value)),
            None => Ok(()),
        }
    }
}

/// What [`resample_labels`] gives a voxel one of whose logits is NaN or infinite.
pub const NO_LABEL: u8 = u8::MAX;

/// The label of each voxel after resampling each channel along the three axes as `axes` say, without writing the resampled
/// logits: logits f32 [1, c, d, h, w] to u8 [1, 1, D, H, W]. Of equal classes the lowest wins. A voxel one of whose logits is
/// NaN or infinite gets [`NO_LABEL`].
///
/// # Errors
/// Logits that are not f32, n other than 1, no channel or more than 255, taps outside the logits, values that do not fit the
/// channels, a device that fails.
pub fn resample_labels(logits: &Tensor, axes: [&AxisTaps; 3], heads: Heads<'_>) -> Result<Tensor> {
    let problem = resample_problem("resample_labels", logits, axes)?;
    heads.ensure_valid("resample_labels", problem.channels)?;
    let [d, h, w] = problem.output;
    let shape = [1, 1, d, h, w];
    match logits.device() {
        Device::Cpu => {
            let x = logits.host_floats()?;
            let labels = match heads {
                Heads::Softmax => cpu::labels(x, axes, &problem),
                Heads::Sigmoid(values) => cpu::regions(x, axes, values, &problem),
            };
            Ok(Tensor::host_u8(shape, labels))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("resample_labels", &[logits.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, DType::U8)?;
            let (input, output) = (logits.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.labels(&input, axes, &output, &problem, heads))?;
            Ok(y)
        }
    }
}

/// As [`resample_labels`], but the probability of each channel: f32 [1, c, D, H, W].
///
/// # Errors
/// As [`resample_labels`].
pub fn resample_probabilities(logits: &Tensor, axes: [&AxisTaps; 3], heads: Heads<'_>) -> Result<Tensor> {
    let problem = resample_problem("resample_probabilities", logits, axes)?;
    heads.ensure_valid("resample_probabilities", problem.channels)?;
    let [d, h, w] = problem.output;
    let shape = [1, problem.channels, d, h, w];
    checked_len("resample_probabilities", shape)?;
    match logits.device() {
        Device::Cpu => {
            let x = logits.host_floats()?;
            let values = match heads {
                Heads::Softmax => cpu::probabilities(x, axes, &problem),
                Heads::Sigmoid(_) => cpu::sigmoids(x, axes, &problem),
            };
            Ok(Tensor::host_f32(shape, values))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("resample_probabilities", &[logits.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, DType::F32)?;
            let (input, output) = (logits.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.probabilities(&input, axes, &output, &problem, heads))?;
            Ok(y)
        }
    }
}

fn resample_problem(what: &str, logits: &Tensor, axes: [&AxisTaps; 3]) -> Result<ResampleLogitsProblem> {
    ensure_f32(&format!("{what}: logits"), logits)?;
    ensure_no_empty_axis(&format!("{what}: logits"), logits.shape())?;
    let [n, channels, d, h, w] = logits.shape();
    if n != 1 || channels > 255 {
        return Err(Error::shape(format!("{what}: logits"), "[1, 1 to 255, d, h, w]", list(&logits.shape())));
    }
    let input = [d, h, w];
    for (axis, (taps, size)) in ["z", "y", "x"].into_iter().zip(axes.into_iter().zip(input)) {
        taps.ensure_within(&format!("{what}: taps along {axis}"), size)?;
    }
    let output = axes.map(AxisTaps::len);
    let shape = [1, 1, output[0], output[1], output[2]];
    checked_len(what, shape)?;
    Ok(ResampleLogitsProblem { input, output, channels })
}

fn ensure_f32(what: &str, x: &Tensor) -> Result<()> {
    ensure_float(what, x)?;
    if x.dtype() == DType::F32 { Ok(()) } else { Err(Error::argument(format!("{what}: dtype"), DType::F32, x.dtype())) }
}

fn ensure_no_empty_axis(what: &str, shape: Shape) -> Result<()> {
    if shape.contains(&0) {
        return Err(Error::shape(what, "no axis of size 0", list(&shape)));
    }
    Ok(())
}

fn list<T: std::fmt::Debug>(values: &[T]) -> String {
    format!("{values:?}")
}
