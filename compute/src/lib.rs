//! Tensors, devices and operations: the compute layer of [nephron](https://docs.rs/nephron).
//!
//! [`Device`] is a backend chosen at run time (CUDA, Vulkan or the CPU), [`Tensor`] holds data on it, and [`ops`] are the
//! operations, with the names and argument order of PyTorch.
//!
//! ```
//! use nephron_compute::{DType, Device, Tensor, ops};
//!
//! let device = Device::auto();
//! let x = Tensor::from_ncdhw(&device, [1, 1, 1, 1, 3], DType::F32, &[-1.0, 0.0, 2.0])?;
//! assert_eq!(ops::relu(&x)?.to_ncdhw()?, [0.0, 0.0, 2.0]);
//! # Ok::<(), nephron_compute::Error>(())
//! ```
//!
//! Features, all on by default:
//! * `cuda`: NVIDIA GPUs through CUDA; driver and NVRTC are loaded at run time.
//! * `vulkan`: Vulkan adapters through wgpu.
//! * `gpu` (part of both): the device code and its launch functions, for an application that brings a CubeCL client of any
//!   runtime ([`Device::from_client`]).
//!
//! Without features the crate is a CPU library of 29 crates.
//!
//! # Spans and messages
//! The crate prints nothing. Every operation is a [`tracing`] span of target [`ops::span::TARGET`]; messages about the choice of
//! kernels have the target `nephron::kernels`, those about backends that were passed over `nephron::device`.

// A stream that cannot be written makes these macros panic.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

#[doc(hidden)]
pub mod bench_shapes;
pub mod device;
pub mod error;
pub mod files;
mod memory;
pub mod ops;
mod room;
mod shown;
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
pub use room::ensure_room;
pub use shown::{is_unprintable, shown, shown_list, shown_message};
pub use tensor::{DType, Shape, Tensor};
