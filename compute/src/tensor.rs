//! Dense 5D tensors: logical shape [n, c, d, h, w] as in PyTorch, stored channels-last as [n, d, h, w, c] on every backend.
//!
//! Data is converted between the two orders only here, where it enters and leaves. Weights follow the same rule: a convolution's
//! weight [co, ci, kd, kh, kw] is stored as [co, kd, kh, kw, ci], so that a row of it is the K axis of the implicit GEMM. Tensors of
//! fewer axes get axes of size 1: a bias is [1, c, 1, 1, 1], a label map [n, 1, d, h, w], theta [n, 1, 1, 3, 4].

#[cfg(feature = "gpu")]
mod buffers;
mod dtype;

pub use dtype::DType;

use std::any::Any;
#[cfg(feature = "gpu")]
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use half::{bf16, f16};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::Buffer;
use crate::room::ensure_room;

/// The logical shape [n, c, d, h, w].
pub type Shape = [usize; 5];

/// Host memory of the CPU backend.
#[derive(Debug, Clone)]
pub(crate) enum HostBuffer {
    F32(Arc<Buffer>),
    U8(Arc<Vec<u8>>),
    I16(Arc<Vec<i16>>),
}

#[derive(Debug, Clone)]
enum Storage {
    Host(HostBuffer),
    #[cfg(feature = "gpu")]
    Gpu(crate::device::Gpu, cubecl::server::Handle),
}

/// A tensor on a device. Cloning shares the data; no operation changes a tensor in place.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    dtype: DType,
    storage: Storage,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?} {} on {})", self.shape, self.dtype, self.device().name())
    }
}

/// Shapes of fewer elements than this are not asked for: from 32 MiB on, an allocation is a mapping of its own (of glibc at least),
/// so that asking first does not change where later ones are placed.
const MIN_ASKED: usize = 8 << 20;

/// The number of elements of a shape, or an error where they do not fit into memory. Axes of size 0 are left out of that check, so
/// that the product of any subset of the axes of an accepted shape fits too.
pub(crate) fn checked_len(what: &str, shape: Shape) -> Result<usize> {
    shape
        .iter()
        .filter(|&&d| d > 0)
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize / 8)
        // A reservation costs nothing, and an allocation that fails later would abort the process.
        .filter(|&n| n < MIN_ASKED || ensure_room::<f32>(what, n).is_ok())
        .map(|n| if shape.contains(&0) { 0 } else { n })
        .ok_or_else(|| Error::shape(what, "a shape that fits in memory", format!("{shape:?}")))
}

/// Reorders data of `shape` from [n, c, d, h, w] to [n, d, h, w, c].
pub fn to_channels_last<T: Copy>(shape: Shape, data: &[T]) -> Vec<T> {
    let [n, c, d, h, w] = shape;
    let voxels = d * h * w;
    if c == 1 || voxels == 1 {
        return data.to_vec();
    }
    let mut out = Vec::with_capacity(data.len());
    for image in data.chunks_exact((c * voxels).max(1)).take(n) {
        for v in 0..voxels {
            out.extend((0..c).map(|channel| image[channel * voxels + v]));
        }
    }
    out
}

/// Reorders data of `shape` from [n, d, h, w, c] to [n, c, d, h, w].
pub fn from_channels_last<T: Copy>(shape: Shape, data: &[T]) -> Vec<T> {
    let [n, c, d, h, w] = shape;
    let voxels = d * h * w;
    if c == 1 || voxels == 1 {
        return data.to_vec();
    }
    let mut out = Vec::with_capacity(data.len());
    for image in data.chunks_exact((c * voxels).max(1)).take(n) {
        for channel in 0..c {
            out.extend((0..voxels).map(|v| image[v * c + channel]));
        }
    }
    out
}

impl Tensor {
    /// A tensor of f32 data in PyTorch's order [n, c, d, h, w], stored as `dtype` (a float type).
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of values than the shape has; a `dtype` that is not a float type or that the device
    /// cannot store; a buffer over the device's limit.
    pub fn from_ncdhw(device: &Device, shape: Shape, dtype: DType, data: &[f32]) -> Result<Self> {
        ensure_len("tensor", shape, data.len())?;
        ensure_room::<f32>("a tensor's values", data.len())?;
        Self::from_ndhwc(device, shape, dtype, to_channels_last(shape, data))
    }

    /// A tensor of f32 data in storage order [n, d, h, w, c], stored as `dtype` (a float type).
    ///
    /// # Errors
    /// As [`Tensor::from_ncdhw`].
    pub fn from_ndhwc(device: &Device, shape: Shape, dtype: DType, data: Vec<f32>) -> Result<Self> {
        ensure_len("tensor", shape, data.len())?;
        ensure_dtype(device, dtype)?;
        let storage = match device {
            Device::Cpu if dtype == DType::F32 => Storage::Host(HostBuffer::F32(Arc::new(data.into()))),
            Device::Cpu => return Err(unsupported(device, dtype)),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => {
                let bytes: Cow<'_, [u8]> = match dtype {
                    DType::F32 => Cow::Borrowed(bytemuck::cast_slice(&data)),
                    DType::F16 => Cow::Owned(data.iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect()),
                    DType::BF16 => Cow::Owned(data.iter().flat_map(|v| bf16::from_f32(*v).to_ne_bytes()).collect()),
                    DType::U8 | DType::I16 => {
                        return Err(Error::argument("tensor: dtype", "f32, f16 or bf16 for float data", dtype));
                    }
                };
                Storage::Gpu(gpu.clone(), gpu.upload(&bytes)?)
            }
        };
        Ok(Self { shape, dtype, storage })
    }

    /// A u8 tensor of labels in storage order, which for one channel is also PyTorch's order.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of labels than the shape has; a buffer over the device's limit.
    pub fn from_u8(device: &Device, shape: Shape, data: Vec<u8>) -> Result<Self> {
        ensure_len("labels", shape, data.len())?;
        let storage = match device {
            Device::Cpu => Storage::Host(HostBuffer::U8(Arc::new(data))),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Storage::Gpu(gpu.clone(), gpu.upload(&data)?),
        };
        Ok(Self { shape, dtype: DType::U8, storage })
    }

    /// An i16 tensor of CT values in storage order, which for one channel is also PyTorch's order.
    ///
    /// # Errors
    /// As [`Tensor::from_u8`].
    pub fn from_i16(device: &Device, shape: Shape, data: Vec<i16>) -> Result<Self> {
        ensure_len("image", shape, data.len())?;
        let storage = match device {
            Device::Cpu => Storage::Host(HostBuffer::I16(Arc::new(data))),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Storage::Gpu(gpu.clone(), gpu.upload(bytemuck::cast_slice(&data))?),
        };
        Ok(Self { shape, dtype: DType::I16, storage })
    }

    /// An f32 tensor [1, c, 1, 1, 1] of one value for each channel, such as a bias or the weight of a norm.
    ///
    /// # Errors
    /// A device that fails.
    pub fn vector(device: &Device, data: &[f32]) -> Result<Self> {
        Self::from_ndhwc(device, [1, data.len(), 1, 1, 1], DType::F32, data.to_vec())
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// As [`Tensor::from_ncdhw`].
    pub fn zeros(device: &Device, shape: Shape, dtype: DType) -> Result<Self> {
        let len = checked_len("tensor", shape)?;
        match dtype {
            DType::U8 => Self::from_u8(device, shape, vec![0; len]),
            DType::I16 => Self::from_i16(device, shape, vec![0; len]),
            _ => Self::from_ndhwc(device, shape, dtype, vec![0.0; len]),
        }
    }

    /// The logical shape [n, c, d, h, w].
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of bytes of the data.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// The storage type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device that holds the data.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Host(_) => Device::Cpu,
            #[cfg(feature = "gpu")]
            Storage::Gpu(gpu, _) => Device::Gpu(gpu.clone()),
        }
    }

    /// The same elements under another shape of the same length. The storage order stays, and therefore the number of channels
    /// must stay too, unless one of the two shapes is flat (at most one axis apart from n is longer than 1).
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of elements, and for another number of channels where neither shape is flat.
    pub fn reshape(&self, shape: Shape) -> Result<Self> {
        if checked_len("reshape", shape)? != self.len() {
            return Err(Error::shape("reshape", format!("{} elements", self.len()), format!("{shape:?}")));
        }
        let flat = |s: Shape| s[1..].iter().filter(|&&d| d > 1).count() <= 1;
        if self.shape[1] != shape[1] && !flat(self.shape) && !flat(shape) {
            return Err(Error::shape("reshape: channels", self.shape[1], format!("{} in {shape:?}", shape[1])));
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// The values as f32 in storage order [n, d, h, w, c]. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Kernel`] for a launch that failed before.
    pub fn to_ndhwc(&self) -> Result<Vec<f32>> {
        ensure_room::<f32>("a tensor's values", self.len())?;
        Ok(match &self.storage {
            Storage::Host(HostBuffer::F32(data)) => data.to_vec(),
            Storage::Host(HostBuffer::U8(data)) => data.iter().map(|&v| v.into()).collect(),
            Storage::Host(HostBuffer::I16(data)) => data.iter().map(|&v| v.into()).collect(),
            #[cfg(feature = "gpu")]
            Storage::Gpu(gpu, handle) => {
                let bytes = gpu.read(handle, self.bytes())?;
                match self.dtype {
                    DType::F32 => bytemuck::pod_collect_to_vec(&bytes),
                    DType::F16 => pairs(&bytes).map(|b| f16::from_ne_bytes(b).to_f32()).collect(),
                    DType::BF16 => pairs(&bytes).map(|b| bf16::from_ne_bytes(b).to_f32()).collect(),
                    DType::I16 => pairs(&bytes).map(|b| i16::from_ne_bytes(b).into()).collect(),
                    DType::U8 => bytes.into_iter().map(f32::from).collect(),
                }
            }
        })
    }

    /// The values as f32 in PyTorch's order [n, c, d, h, w]. Waits for the device.
    ///
    /// # Errors
    /// As [`Tensor::to_ndhwc`].
    pub fn to_ncdhw(&self) -> Result<Vec<f32>> {
        Ok(from_channels_last(self.shape, &self.to_ndhwc()?))
    }

    /// The labels of a u8 tensor in storage order. Waits for the device.
    ///
    /// # Errors
    /// A tensor of another type; otherwise as [`Tensor::to_ndhwc`].
    pub fn to_u8(&self) -> Result<Vec<u8>> {
        match &self.storage {
            Storage::Host(HostBuffer::U8(data)) => {
                ensure_room::<u8>("a tensor's labels", data.len())?;
                Ok(data.to_vec())
            }
            #[cfg(feature = "gpu")]
            Storage::Gpu(gpu, handle) if self.dtype == DType::U8 => gpu.read(handle, self.bytes()),
            _ => Err(Error::argument("labels: dtype", DType::U8, self.dtype)),
        }
    }

    /// A copy on another device; the tensor itself where it is on that device. A float type that the device does not support
    /// becomes f32.
    ///
    /// # Errors
    /// A buffer over the device's limit; a device that fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device() == *device {
            return Ok(self.clone());
        }
        match self.dtype {
            DType::U8 => Self::from_u8(device, self.shape, self.to_u8()?),
            DType::I16 => Self::from_i16(device, self.shape, self.to_ndhwc()?.iter().map(|v| *v as i16).collect()),
            dtype => {
                let dtype = if device.supports(dtype) { dtype } else { DType::F32 };
                Self::from_ndhwc(device, self.shape, dtype, self.to_ndhwc()?)
            }
        }
    }

    pub(crate) fn host_f32(shape: Shape, data: impl Into<Buffer>) -> Self {
        let data = data.into();
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, dtype: DType::F32, storage: Storage::Host(HostBuffer::F32(Arc::new(data))) }
    }

    pub(crate) fn host_u8(shape: Shape, data: Vec<u8>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, dtype: DType::U8, storage: Storage::Host(HostBuffer::U8(Arc::new(data))) }
    }

    /// The data of a tensor on the CPU; callers have matched on [`Device::Cpu`].
    pub(crate) fn host(&self) -> Result<&HostBuffer> {
        match &self.storage {
            Storage::Host(buffer) => Ok(buffer),
            #[cfg(feature = "gpu")]
            Storage::Gpu(gpu, _) => Err(Error::argument("tensor: device", "cpu", gpu.name())),
        }
    }

    /// The f32 data of a tensor on the CPU, in storage order.
    pub(crate) fn host_floats(&self) -> Result<&[f32]> {
        match self.host()? {
            HostBuffer::F32(data) => Ok(data),
            _ => Err(Error::argument("tensor: dtype", DType::F32, self.dtype)),
        }
    }

    /// A value derived from the f32 data of a tensor on the CPU, such as packed weights: computed on first use and kept with the
    /// data. Where `fits` rejects the kept value, a new one is computed and not kept.
    pub(crate) fn host_derived<T: Any + Send + Sync>(
        &self,
        fits: impl FnOnce(&T) -> bool,
        make: impl FnOnce(&[f32]) -> T,
    ) -> Result<Arc<T>> {
        match self.host()? {
            HostBuffer::F32(data) => Ok(data.derived(fits, make)),
            _ => Err(Error::argument("tensor: dtype", DType::F32, self.dtype)),
        }
    }

    /// The labels of a tensor on the CPU.
    pub(crate) fn host_labels(&self) -> Result<&[u8]> {
        match self.host()? {
            HostBuffer::U8(data) => Ok(data),
            _ => Err(Error::argument("tensor: dtype", DType::U8, self.dtype)),
        }
    }
}

#[cfg(feature = "gpu")]
fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> {
    bytes.chunks_exact(2).map(|b| [b[0], b[1]])
}

fn ensure_len(what: &str, shape: Shape, found: usize) -> Result<()> {
    let expected = checked_len(what, shape)?;
    if expected != found {
        return Err(Error::shape(what, format!("{expected} values for shape {shape:?}"), found));
    }
    Ok(())
}

fn ensure_dtype(device: &Device, dtype: DType) -> Result<()> {
    if device.supports(dtype) { Ok(()) } else { Err(unsupported(device, dtype)) }
}

fn unsupported(device: &Device, dtype: DType) -> Error {
    Error::Device { device: device.name(), reason: format!("cannot store {dtype}") }
}
