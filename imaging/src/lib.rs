//! Volumes and their geometry, file formats, affine registration driven by masks, and the statistics of a study: the
//! imaging layer of [nephron](https://docs.rs/nephron), on the tensors and operations of [`nephron_compute`].

pub mod io;
pub mod registration;
pub mod stats;
pub mod volume;
