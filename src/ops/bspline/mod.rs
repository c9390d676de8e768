//! Cubic B-spline resizing.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

/// The root of the cubic B-spline's inverse filter: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Voxels past the edge to which a coordinate is clamped, as in SciPy.
const REACH: isize = 12;
