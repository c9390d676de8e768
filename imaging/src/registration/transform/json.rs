//! Transforms as JSON.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::io::write_atomic;
use crate::registration::Registration;
use crate::volume::{Affine, Grid};
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::Matrix;

/// The part of the file that [`parse_json`] reads.
#[derive(Deserialize)]
struct Ras {
    fixed_to_moving_ras: Matrix,
}

/// The transform of a file that [`write_json`] has written, or what is wrong with the text.
pub(super) fn parse_json(text: &str) -> Result<Affine, String> {
    serde_json::from_str::<Ras>(text).map(|file| Affine(file.fixed_to_moving_ras)).map_err(|e| e.to_string())
}

/// The file of a transform. All matrices are rows of [A | t] in (x, y, z) order.
#[derive(Serialize)]
struct TransformFile<'a> {
    /// The map from points of the fixed scan to points of the moving scan, RAS millimetres.
    fixed_to_moving_ras: &'a Matrix,
    /// The map from normalised coordinates of the fixed grid to those of the moving grid.
    theta: &'a Matrix,
    /// Whether the coordinates -1 and 1 of theta are the centres of the outer voxels.
    align_corners: bool,
    /// The fixed grid that theta belongs to.
    fixed: GridFile,
    /// The moving grid that theta belongs to.
    moving: GridFile,
}

#[derive(Serialize)]
struct GridFile {
    /// Number of voxels along i, j and k.
    shape: [usize; 3],
    /// The map from an index [i, j, k] to RAS millimetres.
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
    let text = serde_json::to_string_pretty(&file).map_err(|e| Error::in_file(path.as_ref(), e))?;
    write_atomic(path, |out| writeln!(out, "{text}"))
}
