//! What a found map is good for: moving volumes, and files that other programs read.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Registration;
use crate::io::write_atomic;
use crate::volume::{Affine, Grid, Volume, Voxels};
use nephron_compute::device::Device;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::Interpolation;
use nephron_compute::ops::affine_dice::Matrix;

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
    let affine = transform.inverse()?.after(&moving.affine());
    moving.with_affine(affine)?.resample_to(fixed, interpolation, device)
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
        let mut largest = Largest::new(&self.grid);
        for (&label, share) in self.labels.iter().zip(&self.shares) {
            largest.add(label, share);
        }
        largest.volume()
    }
}

/// What is known of each voxel after some labels.
struct Largest {
    grid: Grid,
    voxels: Vec<Leader>,
}

/// The label with the largest share so far, that share, and the sum of all.
#[derive(Debug, Clone, Copy, Default)]
struct Leader {
    share: f32,
    sum: f32,
    label: u8,
}

impl Largest {
    fn new(grid: &Grid) -> Self {
        Self { grid: *grid, voxels: vec![Leader::default(); grid.shape.iter().product()] }
    }

    /// Labels come in ascending order, so that of equal ones the lowest stays.
    fn add(&mut self, label: u8, share: &Volume) {
        let shares = match share.voxels() {
            Voxels::F32(values) => Cow::Borrowed(&values[..]),
            other => Cow::Owned(other.to_f32()),
        };
        self.voxels.par_iter_mut().zip(shares.par_iter()).for_each(|(leader, &share)| {
            leader.sum += share;
            if share > leader.share {
                (leader.share, leader.label) = (share, label);
            }
        });
    }

    fn volume(self) -> Result<Volume> {
        let label = |leader: &Leader| if leader.share > 1.0 - leader.sum { leader.label } else { 0 };
        let labels: Vec<u8> = self.voxels.par_iter().map(label).collect();
        Volume::new(self.grid.shape, Voxels::U8(labels.into()), self.grid.affine)
    }
}

/// As [`warp`] of a mask, but each label's own mask of 0 and 1 trilinearly: the surface keeps what lies between voxels,
/// and no label appears between two others.
///
/// # Errors
/// A volume that holds something other than labels, and as [`warp`].
pub fn warp_soft(moving: &Volume, transform: &Affine, fixed: &Grid, device: &Device) -> Result<SoftMask> {
    let mut soft = SoftMask { labels: Vec::new(), shares: Vec::new(), grid: *fixed };
    each_share(moving, transform, fixed, device, |label, share| {
        soft.labels.push(label);
        soft.shares.push(share);
    })?;
    Ok(soft)
}

/// The labels of [`warp_soft`] with the largest shares, as [`SoftMask::largest`] has them. One share is held at a time,
/// whatever the number of labels.
///
/// # Errors
/// As [`warp_soft`].
pub fn warp_largest(moving: &Volume, transform: &Affine, fixed: &Grid, device: &Device) -> Result<Volume> {
    let mut largest = Largest::new(fixed);
    each_share(moving, transform, fixed, device, |label, share| largest.add(label, &share))?;
    largest.volume()
}

/// The share of each label there is besides 0, ascending.
fn each_share(
    moving: &Volume,
    transform: &Affine,
    fixed: &Grid,
    device: &Device,
    mut take: impl FnMut(u8, Volume),
) -> Result<()> {
    let moving = moving.to_labels()?;
    let counts = moving.counts();
    for label in (1..=255).filter(|&label| counts[usize::from(label)] > 0) {
        // As labels, so that there is nothing outside.
        let own: Vec<u8> = moving.labels().par_iter().map(|&l| u8::from(l == label)).collect();
        let own = moving.with_labels(own)?.to_volume();
        take(label, warp(&own, transform, fixed, Interpolation::Linear, device)?);
    }
    Ok(())
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

/// Reads a transform that [`write_json`] (`.json`) or [`write_itk`], ITK, ITK-SNAP, 3D Slicer or ANTs as text (any
/// other name) has written: point of the fixed scan to point of the moving scan, RAS millimetres.
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
