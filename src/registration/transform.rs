//! What a found map is good for: moving volumes, and files that other programs read.

use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Registration;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::write_atomic;
use crate::ops::Interpolation;
use crate::ops::affine_dice::Matrix;
use crate::volume::{Affine, Grid, Volume, Voxels};

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

/// A mask between grids, each label for itself.
#[derive(Debug, Clone)]
pub struct SoftMask {
    /// The labels there are besides 0, ascending.
    pub labels: Vec<u8>,
    /// Of each label its share in every voxel of the fixed grid, 0 to 1, f32. What they leave is background.
    pub shares: Vec<Volume>,
    grid: Grid,
}

impl SoftMask {
    /// The label with the largest share at each voxel; of equal ones the lowest, background first.
    ///
    /// # Errors
    /// As [`Volume::new`].
    pub fn largest(&self) -> Result<Volume> {
        let shares: Vec<Vec<f32>> = self.shares.iter().map(|share| share.voxels.to_f32()).collect();
        let label = |i: usize| {
            let mut best = (1.0 - shares.iter().map(|share| share[i]).sum::<f32>(), 0);
            for (share, &label) in shares.iter().zip(&self.labels) {
                if share[i] > best.0 {
                    best = (share[i], label);
                }
            }
            best.1
        };
        let labels: Vec<u8> = (0..self.grid.shape.iter().product()).into_par_iter().map(label).collect();
        Volume::new(self.grid.shape, Voxels::U8(labels.into()), self.grid.affine)
    }
}

/// As [`warp`] of a mask, but each label's own mask of 0 and 1 trilinearly: the surface keeps what lies between voxels, and no
/// label appears between two others.
///
/// # Errors
/// A volume that holds something other than labels, and as [`warp`].
pub fn warp_soft(moving: &Volume, transform: &Affine, fixed: &Grid, device: &Device) -> Result<SoftMask> {
    let moving = moving.to_labels()?;
    let Voxels::U8(voxels) = &moving.voxels else {
        return Err(Error::argument("mask: dtype", "u8", moving.voxels.dtype()));
    };
    let mut there = [false; 256];
    voxels.iter().for_each(|&label| there[usize::from(label)] = true);
    let labels: Vec<u8> = (1..=255).filter(|&label| there[usize::from(label)]).collect();
    let share = |&label: &u8| {
        // As labels, so that there is nothing outside.
        let own: Vec<u8> = voxels.par_iter().map(|&l| u8::from(l == label)).collect();
        let own = Volume { voxels: Voxels::U8(own.into()), ..moving.clone() };
        warp(&own, transform, fixed, Interpolation::Linear, device)
    };
    let shares = labels.iter().map(share).collect::<Result<_>>()?;
    Ok(SoftMask { labels, shares, grid: *fixed })
}

/// The transform as ITK text (`.tfm`): an `AffineTransform_double_3_3` from points of the fixed scan to points of the
/// moving scan in LPS millimetres, which is what ITK resamples with.
pub fn itk_text(transform: &Affine) -> String {
    let lps = turned(&transform.0);
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

/// Reads a transform that [`write_json`] (`.json`) or [`write_itk`], ITK, ITK-SNAP, 3D Slicer or ANTs as text (any other
/// name) has written: point of the fixed scan to point of the moving scan, RAS millimetres.
///
/// Of ITK's transforms the affine ones are read, `AffineTransform` and `MatrixOffsetTransformBase` of 3 dimensions in
/// float or double, with their centre of rotation (FixedParameters): x' = A (x - c) + c + t.
///
/// # Errors
/// A file that cannot be read or is something else; numbers that are missing or not finite; a singular matrix.
pub fn read(path: impl AsRef<Path>) -> Result<Affine> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let found = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        serde_json::from_str::<Ras>(&text).map(|file| Affine(file.fixed_to_moving_ras)).map_err(|e| e.to_string())
    } else {
        parse_itk(&text)
    };
    let transform = found.map_err(|reason| Error::file(path, reason))?;
    if !transform.0.as_flattened().iter().all(|v| v.is_finite()) {
        return Err(Error::file(path, format!("expected finite numbers, found {:?}", transform.0)));
    }
    transform.inverse().map_err(|e| Error::file(path, e))?;
    Ok(transform)
}

/// Of the JSON what matters here.
#[derive(Deserialize)]
struct Ras {
    fixed_to_moving_ras: Matrix,
}

fn parse_itk(text: &str) -> Result<Affine, String> {
    let values = |key: &str| text.lines().filter_map(|l| l.strip_prefix(key)).map(str::trim).collect::<Vec<_>>();
    let kinds = values("Transform:");
    let affine = ["AffineTransform_", "MatrixOffsetTransformBase_"];
    let [kind] = kinds[..] else {
        return Err(format!("expected an ITK text file with one transform, found {} lines 'Transform:'", kinds.len()));
    };
    if !(affine.iter().any(|name| kind.starts_with(name)) && kind.ends_with("_3_3")) {
        return Err(format!("expected AffineTransform_double_3_3, found the transform {kind}"));
    }
    let numbers = |key: &str, count: usize| -> Result<Vec<f64>, String> {
        let line = values(key).first().copied().unwrap_or_default();
        let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers {
            Ok(numbers) if numbers.len() == count => Ok(numbers),
            _ => Err(format!("expected {count} numbers behind '{key}', found '{line}'")),
        }
    };
    let (p, centre) = (numbers("Parameters:", 12)?, numbers("FixedParameters:", 3)?);
    let mut lps: Matrix = std::array::from_fn(|r| [p[3 * r], p[3 * r + 1], p[3 * r + 2], p[9 + r] + centre[r]]);
    for row in &mut lps {
        row[3] -= (0..3).map(|k| row[k] * centre[k]).sum::<f64>();
    }
    Ok(Affine(turned(&lps)))
}

/// From LPS to RAS or back: their first two axes point the other way.
fn turned(matrix: &Matrix) -> Matrix {
    let sign = [-1.0, -1.0, 1.0];
    std::array::from_fn(|r| std::array::from_fn(|c| sign[r] * matrix[r][c] * if c < 3 { sign[c] } else { 1.0 }))
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
