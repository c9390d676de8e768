//! Tensors and the buffers behind them on a GPU.

use cubecl::server::Handle;

use super::{DType, Shape, Storage, Tensor, check_dtype, checked_len};
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::ops::launch::{WORD, fits};

impl Tensor {
    /// A fresh tensor on `gpu`, its contents undefined until a kernel has written every element.
    pub(crate) fn gpu_alloc(gpu: &Gpu, shape: Shape, dtype: DType) -> Result<Self> {
        let bytes = checked_len("tensor", shape)? * dtype.size();
        Ok(Self { shape, dtype, storage: Storage::Gpu(gpu.clone(), gpu.alloc(bytes)?) })
    }

    /// A tensor of a buffer that the application made with the device's own client ([`Device::from_client`],
    /// [`Gpu::client`](crate::device::Gpu::client)): [n, d, h, w, c] of `dtype`, channels innermost. They share the memory,
    /// and no operation changes a tensor in place, so nothing else should write to it while the tensor lives.
    ///
    /// # Errors
    /// The CPU, a dtype that the device cannot store, a buffer with fewer bytes than the shape takes, in whole 32-bit words.
    pub fn from_handle(device: &Device, handle: Handle, shape: Shape, dtype: DType) -> Result<Self> {
        let Device::Gpu(gpu) = device else {
            return Err(Error::argument("tensor of a buffer: device", "a GPU", device.name()));
        };
        check_dtype(device, dtype)?;
        let len = checked_len("tensor of a buffer", shape)?;
        // Kernels read types of less than 32 bits in whole words.
        let words = (len * dtype.size()).div_ceil(WORD);
        fits("tensor", &[("buffer", &handle, words, WORD)])?;
        Ok(Self { shape, dtype, storage: Storage::Gpu(gpu.clone(), handle) })
    }

    /// The buffer behind the tensor: [n, d, h, w, c], channels innermost, padded to whole 32-bit words.
    ///
    /// # Errors
    /// A tensor on the CPU.
    pub fn handle(&self) -> Result<&Handle> {
        match &self.storage {
            Storage::Gpu(_, handle) => Ok(handle),
            Storage::Host(_) => Err(Error::argument("tensor's buffer: device", "a GPU", "cpu")),
        }
    }

    /// The buffer on `gpu`, refused when the tensor lives elsewhere.
    pub(crate) fn gpu_handle(&self, gpu: &Gpu) -> Result<Handle> {
        match &self.storage {
            Storage::Gpu(own, handle) if own == gpu => Ok(handle.clone()),
            _ => Err(Error::argument("tensor: device", gpu.name(), self.device().name())),
        }
    }
}
