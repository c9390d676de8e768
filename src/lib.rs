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

#[cfg(feature = "cli")]
pub mod cli;
pub mod device;
pub mod error;
pub mod io;
mod memory;
pub mod models;
pub mod nn;
pub mod ops;
pub mod phantom;
pub mod phase;
pub mod pipeline;
pub mod registration;
pub mod report;
pub mod shapes;
pub mod stats;
pub mod tensor;
pub mod volume;

pub use device::{Device, DeviceSpec};
pub use error::{Error, Result};
pub use memory::{HostMemory, host_memory, release_host_memory, reset_peak};
pub use tensor::{DType, Shape, Tensor};
