//! Hand-written GPU kernels for 3D medical imaging, and a kidney-cancer CT pipeline built from them.
//!
//! [`Device`] is a backend chosen at run time (CUDA, Vulkan or the CPU) and [`Tensor`] holds data on it. [`ops`] are operations with
//! PyTorch's names, [`volume`] images in the patient's space, [`io`] their files, [`registration`] the alignment of masks, [`models`]
//! U-Nets, ResNets and segmenters of slices, and [`pipeline`] the stages from CT scans to a report. This crate re-exports the layers below it,
//! [`nephron_compute`] and [`nephron_imaging`].
//!
//! # Examples
//! A convolution on a device that is chosen at run time ([conv3d.rs], which also shows options and half precision):
//!
//! ```
//! use nephron::ops::Conv3dParams;
//! use nephron::{DType, Device, Tensor, conv3d};
//!
//! let device = Device::open("cpu".parse()?)?; // or "auto", "cuda:0", "vulkan:0"
//! let x = Tensor::from_ncdhw(&device, [1, 1, 1, 1, 4], DType::F32, &[1.0, 2.0, 3.0, 4.0])?;
//! let w = Tensor::from_ncdhw(&device, [1, 1, 1, 1, 3], DType::F32, &[1.0, 1.0, 1.0])?;
//! let y = conv3d(&x, &w, None, &Conv3dParams { padding: [0, 0, 1], ..Default::default() })?;
//! assert_eq!(y.to_ncdhw()?, [3.0, 6.0, 9.0, 7.0]);
//! # Ok::<(), nephron::Error>(())
//! ```
//!
//! A scan to a mask, from file to file ([segment_nifti.rs]; [progress_and_cancel.rs] shows progress and ending early):
//!
//! ```no_run
//! use nephron::io::nifti;
//! use nephron::{Device, ModelOptions, Precision, SegmentOptions, Segmenter};
//! use std::{ops::ControlFlow, path::Path};
//!
//! let scan = nifti::read_ct("scan.nii.gz")?;
//! let segmenter = Segmenter::load(Path::new("model"), &ModelOptions::default(), Precision::Fastest, &Device::auto())?;
//! let found = segmenter.segment(&scan.volume, &SegmentOptions::default(), &mut |_| ControlFlow::Continue(()))?;
//! nifti::write("mask.nii.gz", &scan.with_volume(found.mask))?;
//! # Ok::<(), nephron::Error>(())
//! ```
//!
//! The affine transform between two masks, written for ITK ([register_masks.rs]), and an image resampled through it
//! ([warp_volume.rs]):
//!
//! ```
//! use nephron::ops::Interpolation;
//! use nephron::phantom::{PhantomOptions, generate};
//! use nephron::phase::Phase;
//! use nephron::registration::{RegistrationOptions, transform};
//! use nephron::{Device, register};
//!
//! // A synthetic patient in two phases, in voxels of 8 mm to keep this example fast.
//! let phases = vec![Phase::Portal, Phase::Arterial];
//! let patient = generate(&PhantomOptions { phases, spacing: [8.0, 8.0, 8.0], ..Default::default() })?;
//! let [fixed, moving] = [&patient.phases[0], &patient.phases[1]];
//! let device = Device::Cpu;
//! let found =
//!     register(&fixed.mask.to_volume(), &moving.mask.to_volume(), &device, &RegistrationOptions::default())?;
//! assert!(found.aligned.kidney.soft > found.identity.kidney.soft);
//! let aligned =
//!     transform::warp(&moving.image, &found.transform, &fixed.image.grid(), Interpolation::Linear, &device)?;
//! assert_eq!(aligned.shape(), fixed.image.shape());
//! println!("{}", transform::itk_text(&found.transform));
//! # Ok::<(), nephron::Error>(())
//! ```
//!
//! Arrays of `ndarray` in and out are in [ndarray_interop.rs]; an application's own CubeCL client and buffers in
//! [own_client.rs].
//!
//! # Features
//! All are on by default:
//! * `cuda`: NVIDIA GPUs through CUDA; driver and NVRTC are loaded at run time.
//! * `vulkan`: Vulkan adapters through wgpu.
//! * `gpu` (part of both): the device code and its launch functions, for an application that brings a CubeCL client of any
//!   runtime.
//!
//! Without features everything runs on the CPU.
//!
//! [conv3d.rs]: https://github.com/nephron-rs/nephron/blob/main/examples/conv3d.rs
//! [segment_nifti.rs]: https://github.com/nephron-rs/nephron/blob/main/examples/segment_nifti.rs
//! [progress_and_cancel.rs]: https://github.com/nephron-rs/nephron/blob/main/examples/progress_and_cancel.rs
//! [register_masks.rs]: https://github.com/nephron-rs/nephron/blob/main/examples/register_masks.rs
//! [warp_volume.rs]: https://github.com/nephron-rs/nephron/blob/main/examples/warp_volume.rs
//! [ndarray_interop.rs]: https://github.com/nephron-rs/nephron/blob/main/examples/ndarray_interop.rs
//! [own_client.rs]: https://github.com/nephron-rs/nephron/blob/main/examples/own_client.rs

// A stream that cannot be written makes these macros panic.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod models;
pub mod nn;
pub mod phantom;
pub mod phase;
pub mod pipeline;
pub mod report;
pub mod training;

#[doc(hidden)]
pub use nephron_compute::bench_shapes;
#[cfg(feature = "gpu")]
pub use nephron_compute::cubecl;
#[cfg(feature = "cuda")]
pub use nephron_compute::cubecl_cuda;
#[cfg(feature = "vulkan")]
pub use nephron_compute::cubecl_wgpu;
pub use nephron_compute::{
    Autotune, DType, Device, DeviceOptions, DeviceSpec, Error, HostMemory, Result, Shape, Tensor, device, ensure_room,
    error, files, host_memory, is_unprintable, ops, release_host_memory, reset_peak, shown, shown_list, shown_message,
    tensor,
};
pub use nephron_imaging::registration::register;
pub use nephron_imaging::{io, registration, stats, volume};
pub use ops::{conv3d, resample};
pub use pipeline::{Ensemble, ModelOptions, Precision, SegmentOptions, Segmenter};
