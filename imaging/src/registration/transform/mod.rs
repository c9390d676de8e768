//! Transforms: applying them to volumes, and reading and writing them in files of ITK and of nephron.

mod itk;
mod json;
mod warp;

pub use itk::{itk_text, write_itk, write_itk_as, write_itk_chain};
pub use json::write_json;
pub use warp::{SoftMask, warp, warp_largest, warp_soft};

use std::path::Path;

use crate::volume::Affine;
use nephron_compute::error::{Error, Result};

/// Reads a transform that [`write_json`] (`.json`) or [`write_itk`], ITK, ITK-SNAP, 3D Slicer or ANTs (any other name: text, or
/// MATLAB's level 4 as ANTs' `.mat`) has written: point of the fixed scan to point of the moving scan, RAS millimetres.
///
/// Of ITK's transforms of 3 dimensions, in float or double, those are read that are affine maps: identity, translation, scale and its
/// logarithm, rotations and rigid maps by Euler angles, versor or quaternion, similarity, versors with scales and skews, affine
/// ones, those with a centre among their parameters, and composites of these.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read or holds no such transform, for numbers that are missing or not finite, and for
/// a singular matrix.
pub fn read(path: impl AsRef<Path>) -> Result<Affine> {
    let path = path.as_ref();
    let bytes = crate::io::read_small(path)?;
    let found = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        json::parse_json(&bytes)
    } else {
        itk::parse_itk(&bytes)
    };
    let transform = found.map_err(|reason| Error::file(path, reason))?;
    if !transform.0.as_flattened().iter().all(|v| v.is_finite()) {
        return Err(Error::file(path, format!("expected finite numbers, found {:?}", transform.0)));
    }
    transform.inverse().map_err(|e| Error::in_file(path, e))?;
    Ok(transform)
}
