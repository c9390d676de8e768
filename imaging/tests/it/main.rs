//! Volumes, files and registration.

use nephron_testing as support;

mod checkpoint;
mod components;
mod io;
mod io_images;
mod io_nifti;
mod kidneys;
mod label_volume;
mod npy;
mod pictures;
mod registration;
mod registration_channels;
mod registration_families;
mod registration_iterations;
mod registration_loss;
mod registration_support;
mod stats;
mod transforms_itk;
mod volume;
mod weights;
