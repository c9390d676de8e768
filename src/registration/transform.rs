//! What a found map is good for: moving volumes, and files that other programs read.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::Registration;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::write_atomic;
use crate::ops::Interpolation;
use crate::ops::affine_dice::Matrix;
use crate::volume::{Affine, Grid, Volume};

/// `moving` on the fixed grid: out(p) = moving(transform(p)), p in RAS millimetres, whatever its own grid is.
/// Outside its field of view labels are 0 and images their own minimum, see [`Volume::resample_to`].
///
/// # Errors
/// A transform that is singular or not finite, and as [`Volume::resample_to`].
pub fn warp(
    moving: &Volume,
    transform: &Affine,
    fixed: &Grid,
    interpolation: Interpolation,
    device: &Device,
) -> Result<Volume> {
    // The moving scan where the transform lays it in the fixed scan's space.
    let affine = transform.inverse()?.after(&moving.affine);
    Volume { affine, ..moving.clone() }.resample_to(fixed, interpolation, device)
}

/// The transform as ITK text (`.tfm`): an `AffineTransform_double_3_3` from points of the fixed scan to points of the
/// moving scan in LPS millimetres, which is what ITK resamples with.
pub fn itk_text(transform: &Affine) -> String {
    // LPS is RAS with its first two axes turned round.
    let sign = [-1.0, -1.0, 1.0];
    let lps: Matrix = std::array::from_fn(|r| {
        std::array::from_fn(|c| sign[r] * transform.0[r][c] * if c < 3 { sign[c] } else { 1.0 })
    });
    let numbers = lps.iter().flat_map(|row| &row[..3]).chain(lps.iter().map(|row| &row[3]));
    // -0 and 0 are the same; the former only looks odd.
    let numbers: Vec<String> = numbers.map(|v| format!("{}", v + 0.0)).collect();
    format!(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: {}\n\
         FixedParameters: 0 0 0\n",
        numbers.join(" ")
    )
}

/// Writes [`itk_text`].
///
/// # Errors
/// As [`write_atomic`].
pub fn write_itk(path: impl AsRef<Path>, transform: &Affine) -> Result<()> {
    write_atomic(path, |file| file.write_all(itk_text(transform).as_bytes()))
}

/// The JSON of a transform. All matrices are rows of [A | t] in (x, y, z) order.
#[derive(Serialize)]
struct TransformFile<'a> {
    /// Points of the fixed scan to points of the moving scan, RAS millimetres.
    fixed_to_moving_ras: &'a Matrix,
    /// Normalised coordinates of the fixed grid to those of the moving grid.
    theta: &'a Matrix,
    align_corners: bool,
    /// [i, j, k] voxels and index to RAS millimetres of the grids that theta belongs to.
    fixed: GridFile,
    moving: GridFile,
}

#[derive(Serialize)]
struct GridFile {
    shape: [usize; 3],
    affine: Matrix,
}

impl GridFile {
    fn of(grid: &Grid) -> Self {
        let [d, h, w] = grid.shape;
        Self { shape: [w, h, d], affine: grid.affine.0 }
    }
}

/// Writes the transform, theta and the two grids as JSON.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_json(path: impl AsRef<Path>, registration: &Registration, fixed: &Grid, moving: &Grid) -> Result<()> {
    let file = TransformFile {
        fixed_to_moving_ras: &registration.transform.0,
        theta: &registration.theta,
        align_corners: registration.align_corners,
        fixed: GridFile::of(fixed),
        moving: GridFile::of(moving),
    };
    let text = serde_json::to_string_pretty(&file).map_err(|e| Error::file(path.as_ref(), e))?;
    write_atomic(path, |out| writeln!(out, "{text}"))
}
