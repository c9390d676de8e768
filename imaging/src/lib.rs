//! Volumes and their geometry, file formats, affine registration driven by masks, and the statistics of a study: the
//! imaging layer of [nephron](https://docs.rs/nephron), on the tensors and operations of [`nephron_compute`].
//!
//! [`volume`] holds images and label maps on grids in the patient's space, [`io`] reads and writes NIfTI, npy and network
//! weights, [`registration`] aligns two label maps, [`stats`] evaluates classifiers and masks.
//!
//! ```
//! use nephron_compute::Device;
//! use nephron_imaging::registration::{RegistrationOptions, register};
//! use nephron_imaging::volume::{Affine, Volume, Voxels};
//!
//! // Two cubes of label 1 (kidney) on grids of 1 mm voxels; the second lies two voxels further along x.
//! let cube = |start: usize| {
//!     let inside = |i: usize| [i % 12, i / 12 % 12, i / 144].iter().zip([start, 3, 3]).all(|(x, s)| (s..s + 5).contains(x));
//!     let labels: Vec<u8> = (0..12 * 12 * 12).map(|i| u8::from(inside(i))).collect();
//!     Volume::new([12; 3], Voxels::U8(labels.into()), Affine::IDENTITY)
//! };
//! let options = RegistrationOptions { resolution: None, ..Default::default() };
//! let found = register(&cube(3)?, &cube(5)?, &Device::Cpu, &options)?;
//! assert!(found.aligned.kidney.hard > 0.99);
//! // A point of the fixed scan maps to the moving scan's point two millimetres to the right (RAS).
//! assert!((found.transform.apply([5.0, 5.0, 5.0])[0] - 7.0).abs() < 0.2);
//! # Ok::<(), nephron_compute::Error>(())
//! ```
//!
//! Features, all on by default: `cuda` and `vulkan` add those backends, `gpu` (part of both) only the device code, for
//! applications that bring a CubeCL client of their own.

// A stream that cannot be written makes these macros panic.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod io;
pub mod registration;
pub mod stats;
pub mod volume;
