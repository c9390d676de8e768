//! nephron: hand-written GPU kernels for 3D medical imaging, and a kidney-cancer CT pipeline built from them.
//!
//! [`Device`] chooses a backend at run time, [`Tensor`] holds data on it, [`ops`] are the kernels. The README says how
//! the pieces fit together.
//!
//! ```
//! use nephron::{DType, Device, Tensor, ops};
//!
//! let device = Device::auto();
//! let x = Tensor::from_ncdhw(&device, [1, 1, 1, 1, 3], DType::F32, &[-1.0, 0.0, 2.0])?;
//! assert_eq!(ops::relu(&x)?.to_ncdhw()?, [0.0, 0.0, 2.0]);
//! # Ok::<(), nephron::Error>(())
//! ```

pub mod models;
pub mod nn;
pub mod phantom;
pub mod phase;
pub mod pipeline;
pub mod report;

#[cfg(feature = "gpu")]
pub use nephron_compute::cubecl;
#[cfg(feature = "cuda")]
pub use nephron_compute::cubecl_cuda;
#[cfg(feature = "vulkan")]
pub use nephron_compute::cubecl_wgpu;
pub use nephron_compute::{
    Autotune, DType, Device, DeviceOptions, DeviceSpec, Error, HostMemory, Result, Shape, Tensor, device, error,
    host_memory, ops, release_host_memory, reset_peak, shapes, tensor,
};
pub use nephron_imaging::registration::register;
pub use nephron_imaging::{io, registration, stats, volume};
pub use ops::{conv3d, resample};
pub use pipeline::{ModelOptions, Precision, SegmentOptions, Segmenter};
