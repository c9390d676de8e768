//! The GPU buffers of tensors.

use cubecl::server::Handle;

use super::{DType, Shape, Storage, Tensor, checked_len, ensure_dtype};
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::ops::launch::{WORD, fits};

impl Tensor {
    /// A new tensor on `gpu`; its elements are undefined until a kernel has written them.
    pub(crate) fn gpu_alloc(gpu: &Gpu, shape: Shape, dtype: DType) -> Result<Self> {
        let bytes = checked_len("tensor", shape)? * dtype.size();
        Ok(Self { shape, dtype, storage: Storage::Gpu(gpu.clone(), gpu.alloc(bytes)?) })
    }

    /// A tensor of a buffer that the application made with the client of the device ([`Device::from_client`],
    /// [`Gpu::client`](crate::device::Gpu::client)). The buffer holds [n, d, h, w, c] elements of `dtype`, channels innermost.
    /// Tensor and application share the memory. No operation changes a tensor in place, so the application should not write to
    /// the buffer while the tensor exists.
    ///
    /// # Errors
    /// A device that is the CPU; a dtype that the device cannot store; a buffer with fewer bytes than the shape needs in whole
    /// 32-bit words.
    pub fn from_handle(device: &Device, handle: Handle, shape: Shape, dtype: DType) -> Result<Self> {
        let Device::Gpu(gpu) = device else {
            return Err(Error::argument("tensor of a buffer: device", "a GPU", device.name()));
        };
        ensure_dtype(device, dtype)?;
        let len = checked_len("tensor of a buffer", shape)?;
        // Kernels read types of less than 32 bits in whole words.
        let words = (len * dtype.size()).div_ceil(WORD);
        fits("tensor", &[("buffer", &handle, words, WORD)])?;
        Ok(Self { shape, dtype, storage: Storage::Gpu(gpu.clone(), handle) })
    }

    /// The buffer of the tensor: [n, d, h, w, c] elements, channels innermost, padded to whole 32-bit words.
    ///
    /// # Errors
    /// A tensor on the CPU.
    pub fn handle(&self) -> Result<&Handle> {
        match &self.storage {
            Storage::Gpu(_, handle) => Ok(handle),
            Storage::Host(_) => Err(Error::argument("tensor's buffer: device", "a GPU", "cpu")),
        }
    }

    /// The buffer of a tensor on `gpu`.
    ///
    /// # Errors
    /// A tensor on another device.
    pub(crate) fn gpu_handle(&self, gpu: &Gpu) -> Result<Handle> {
        match &self.storage {
            Storage::Gpu(own, handle) if own == gpu => Ok(handle.clone()),
            _ => Err(Error::argument("tensor: device", gpu.name(), self.device().name())),
        }
    }
}
