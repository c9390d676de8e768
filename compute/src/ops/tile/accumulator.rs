//! The running weighted mean of overlapping tiles, over a window of slices that moves along z.

use half::f16;

#[cfg(feature = "gpu")]
use super::crop;
use super::{TilePlacement, TileProblem, cpu, ensure_f32, ensure_no_empty_axis, list};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::{ensure_float, ensure_same_device};
use crate::tensor::{DType, Shape, Tensor, checked_len};

/// Sums of weight * logits, f32 or f16, and of weights, f32. It is the only object of this crate that is changed in place, so that adding a tile costs
/// time for the tile and not for the volume.
#[derive(Debug)]
pub struct Accumulator {
    shape: Shape,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Host(HostSums<f32>),
    HalfHost(HostSums<f16>),
    /// The buffers belong to the accumulator only and are never shared, so that they can be changed in place.
    #[cfg(feature = "gpu")]
    Gpu {
        gpu: crate::device::Gpu,
        sum: Tensor,
        total: Tensor,
    },
}

/// Sums in the host's memory, [voxels, c], and the sum of weights of each voxel.
#[derive(Debug)]
struct HostSums<S> {
    sum: Vec<S>,
    total: Vec<f32>,
}

impl<S: cpu::Stored> HostSums<S> {
    fn zeros(len: usize, voxels: usize) -> Self {
        Self { sum: vec![S::default(); len], total: vec![0.0; voxels] }
    }

    fn add(&mut self, tile: &[f32], weight: &[f32], problem: &TileProblem) {
        cpu::accumulate(tile, weight, &mut self.sum, &mut self.total, problem);
    }

    /// The means of the first voxels.
    fn mean(&self, voxels: usize, channels: usize) -> Vec<f32> {
        cpu::mean(&self.sum[..voxels * channels], &self.total[..voxels], channels)
    }

    /// Drops the first voxels and adds as many zeros at the end.
    fn advance(&mut self, voxels: usize, channels: usize) {
        moved_up(&mut self.sum, voxels * channels);
        moved_up(&mut self.total, voxels);
    }
}

impl Accumulator {
    /// Sums of zeros for `channels` classes over a window of `size` (z, y, x), stored as `dtype`: f32, or f16 in half the memory, where a
    /// sum is rounded to 11 bits after each tile and one over 65504 becomes infinite, and with it the mean.
    ///
    /// # Errors
    /// Another type, or one that the device cannot store; an axis of size 0; a buffer over the device's limit.
    pub fn new(device: &Device, channels: usize, size: [usize; 3], dtype: DType) -> Result<Self> {
        // The CPU computes in f32 alone, and stores sums of both.
        let has_f16 = *device == Device::Cpu || device.supports(DType::F16);
        if dtype != DType::F32 && !(dtype == DType::F16 && has_f16) {
            let expected = if has_f16 { "f32 or f16" } else { "f32" };
            return Err(Error::argument("accumulator: sums", format!("{expected} on {}", device.name()), dtype));
        }
        let [d, h, w] = size;
        let shape = [1, channels, d, h, w];
        ensure_no_empty_axis("accumulator", shape)?;
        let (len, voxels) = (checked_len("accumulator", shape)?, d * h * w);
        let storage = match device {
            Device::Cpu if dtype == DType::F16 => Storage::HalfHost(HostSums::zeros(len, voxels)),
            Device::Cpu => Storage::Host(HostSums::zeros(len, voxels)),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => {
                let sum = Tensor::zeros(device, shape, dtype)?;
                let total = Tensor::zeros(device, [1, 1, d, h, w], DType::F32)?;
                crate::ops::launch::ensure_addressable("accumulator", &[sum.shape()])?;
                Storage::Gpu { gpu: gpu.clone(), sum, total }
            }
        };
        Ok(Self { shape, storage })
    }

    /// Number of bytes that the sums of such a window take.
    pub fn bytes(channels: usize, size: [usize; 3], dtype: DType) -> u64 {
        let voxel = channels as u64 * dtype.size() as u64 + size_of::<f32>() as u64;
        size.iter().map(|&s| s as u64).product::<u64>() * voxel
    }

    /// sum[start + p] += weight[p] * tile[m(p)], total[start + p] += weight[p]. `tile` is [1, c, d, h, w] of a float type
    /// as the network returned it (reversed along the mirrored axes), `weight` is f32 [1, 1, d, h, w], and the placement is relative to
    /// the window; voxels outside the window are dropped.
    ///
    /// # Errors
    /// Shapes, types or devices that do not fit; a device that fails.
    pub fn add(&mut self, tile: &Tensor, weight: &Tensor, placement: TilePlacement) -> Result<()> {
        ensure_float("accumulator: tile", tile)?;
        ensure_f32("accumulator: weight", weight)?;
        ensure_same_device("accumulator: weight", tile, weight)?;
        placement.checked("accumulator")?;
        let [_, channels, d, h, w] = self.shape;
        let [n, c, td, th, tw] = tile.shape();
        if n != 1 || c != channels {
            return Err(Error::shape("accumulator: tile", format!("[1, {channels}, d, h, w]"), list(&tile.shape())));
        }
        ensure_no_empty_axis("accumulator: tile", tile.shape())?;
        if weight.shape() != [1, 1, td, th, tw] {
            return Err(Error::shape("accumulator: weight", list(&[1, 1, td, th, tw]), list(&weight.shape())));
        }
        let problem = TileProblem { image: [d, h, w], tile: [td, th, tw], channels, placement };
        match &mut self.storage {
            Storage::Host(sums) => sums.add(tile.host_floats()?, weight.host_floats()?, &problem),
            Storage::HalfHost(sums) => sums.add(tile.host_floats()?, weight.host_floats()?, &problem),
            #[cfg(feature = "gpu")]
            Storage::Gpu { gpu, sum, total } => {
                crate::ops::launch::ensure_addressable("accumulator: tile", &[tile.shape()])?;
                let dtypes = [tile.dtype(), sum.dtype()];
                let (tile_data, weight) = (tile.gpu_handle(gpu)?, weight.gpu_handle(gpu)?);
                let (sum, total) = (sum.gpu_handle(gpu)?, total.gpu_handle(gpu)?);
                gpu.run(|client| client.accumulate(dtypes, &tile_data, &weight, &sum, &total, &problem))?;
            }
        }
        Ok(())
    }

    /// The weighted mean of the first `slices` slices, f32 [1, c, slices, h, w]; 0 where no tile has been added.
    ///
    /// # Errors
    /// No slices or more than the window has; a device that fails.
    pub fn mean(&self, slices: usize) -> Result<Tensor> {
        let [_, channels, d, h, w] = self.shape;
        if slices == 0 || slices > d {
            return Err(Error::argument("accumulator: slices", format!("1 to {d}"), slices));
        }
        let shape = [1, channels, slices, h, w];
        match &self.storage {
            Storage::Host(sums) => Ok(Tensor::host_f32(shape, sums.mean(slices * h * w, channels))),
            Storage::HalfHost(sums) => Ok(Tensor::host_f32(shape, sums.mean(slices * h * w, channels))),
            #[cfg(feature = "gpu")]
            Storage::Gpu { gpu, sum, total } => {
                let y = Tensor::gpu_alloc(gpu, shape, DType::F32)?;
                let dtype = sum.dtype();
                let (sum, total, output) = (sum.gpu_handle(gpu)?, total.gpu_handle(gpu)?, y.gpu_handle(gpu)?);
                gpu.run(|client| client.mean(dtype, &sum, &total, &output, slices * h * w, channels))?;
                Ok(y)
            }
        }
    }

    /// Moves the window up by `slices`: slice `slices` becomes the first, and zeros are added at the end.
    ///
    /// # Errors
    /// A device that fails.
    pub fn advance(&mut self, slices: usize) -> Result<()> {
        let [_, channels, d, h, w] = self.shape;
        let slices = slices.min(d);
        match &mut self.storage {
            Storage::Host(sums) => sums.advance(slices * h * w, channels),
            Storage::HalfHost(sums) => sums.advance(slices * h * w, channels),
            #[cfg(feature = "gpu")]
            Storage::Gpu { sum, total, .. } => {
                let placement = TilePlacement::at([slices as isize, 0, 0]);
                *sum = crop(sum, placement, [d, h, w], sum.dtype())?;
                *total = crop(total, placement, [d, h, w], DType::F32)?;
            }
        }
        Ok(())
    }
}

/// Drops the first `count` values and adds as many zeros at the end.
fn moved_up<T: Copy + Default>(values: &mut [T], count: usize) {
    let kept = values.len() - count;
    values.copy_within(count.., 0);
    values[kept..].fill(T::default());
}
