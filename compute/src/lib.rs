//! Tensors, devices and operations: the compute layer of [nephron](https://docs.rs/nephron).
//!
//! [`Device`] chooses a backend at run time (CUDA, Vulkan or the CPU), [`Tensor`] holds data on it, [`ops`] are the
//! operations.
//!
//! ```
//! use nephron_compute::{DType, Device, Tensor, ops};
//!
//! let device = Device::auto();
//! let x = Tensor::from_ncdhw(&device, [1, 1, 1, 1, 3], DType::F32, &[-1.0, 0.0, 2.0])?;
//! assert_eq!(ops::relu(&x)?.to_ncdhw()?, [0.0, 0.0, 2.0]);
//! # Ok::<(), nephron_compute::Error>(())
//! ```

pub mod device;
pub mod error;
mod memory;
pub mod ops;
pub mod shapes;
pub mod tensor;

#[cfg(feature = "gpu")]
pub use cubecl;
#[cfg(feature = "cuda")]
pub use cubecl_cuda;
#[cfg(feature = "vulkan")]
pub use cubecl_wgpu;
pub use device::{Autotune, Device, DeviceOptions, DeviceSpec};
pub use error::{Error, Result};
pub use memory::{HostMemory, host_memory, release_host_memory, reset_peak};
pub use tensor::{DType, Shape, Tensor};
