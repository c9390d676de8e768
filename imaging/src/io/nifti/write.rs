//! Writing .nii and .nii.gz.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::header::{Fields, Version};
use super::{GeometrySource, Image, extensions, geometry};
use crate::volume::{Affine, Voxels};
use nephron_compute::error::{Error, Result};

/// NIFTI_XFORM_ALIGNED_ANAT, the code that nibabel gives to an affine of unknown meaning.
const ALIGNED: i64 = 2;

/// Writes an image as .nii or .nii.gz: little-endian, without a scale, as uint8, int16 or float32, the type of its voxels.
///
/// Codes and extensions of its header are kept. Where the grid is another one than was read (cropped, resampled, flipped), the
/// qform is moved with the sform. A sform is added where a qform alone cannot represent the geometry: for axes that are not at
/// right angles, or a quaternion that f32 rounds too coarsely. The format is NIfTI-2 where the header's version is, or where an
/// axis is longer than 32767.
///
/// # Errors
/// [`Error::File`] for a name with another ending, or where the file cannot be written.
pub fn write(path: impl AsRef<Path>, image: &Image) -> Result<()> {
    let path = path.as_ref();
    let gzip = ensure_name(path)?;
    let (fields, version) = fields(image)?;
    let extensions = extensions::to_bytes(&image.header.extensions);
    let header = fields.to_bytes(version, 8 * voxel_bytes(image.volume.voxels()), extensions.len());
    let header = [header, extensions].concat();
    super::super::write_atomic(path, |out| {
        if gzip {
            let mut out = GzEncoder::new(out, Compression::fast());
            out.write_all(&header)?;
            write_voxels(&mut out, image.volume.voxels())?;
            out.finish().map(|_| ())
        } else {
            out.write_all(&header)?;
            write_voxels(out, image.volume.voxels())
        }
    })
}

/// Checks a name before the work is done. Returns whether [`write`] will compress the file.
///
/// # Errors
/// [`Error::File`] for a name that ends neither in .nii nor in .nii.gz.
pub fn ensure_name(path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if name.ends_with(".nii.gz") {
        Ok(true)
    } else if name.ends_with(".nii") {
        Ok(false)
    } else {
        Err(Error::file(path, "cannot be written: expected a name that ends in .nii or .nii.gz"))
    }
}

fn fields(image: &Image) -> Result<(Fields, Version)> {
    let (volume, header) = (&image.volume, &image.header);
    let [d, h, w] = volume.shape();
    let shape = [w, h, d];
    let version = if shape.iter().any(|&n| n > i16::MAX as usize) { Version::Two } else { header.version };
    let affine = volume.affine();
    let spacing = affine.spacing();
    let mut fields = Fields {
        single: true,
        datatype: match volume.voxels() {
            Voxels::U8(_) => 2,
            Voxels::I16(_) => 4,
            Voxels::F32(_) => 16,
        },
        dim: [3.0, w as f64, h as f64, d as f64, 1.0, 1.0, 1.0, 1.0],
        pixdim: [1.0, spacing[0], spacing[1], spacing[2], 0.0, 0.0, 0.0, 0.0],
        scl_slope: 1.0,
        units: header.units,
        ..Fields::default()
    };
    let read = &header.geometry;
    if affine == read.affine {
        // What programs that go by pixdim take for the voxel size stays what it was.
        fields.pixdim[1..4].copy_from_slice(&read.pixdim);
    }
    let near = 1e-3 * spacing.iter().copied().fold(f64::INFINITY, f64::min);
    let represents = |candidate: &Affine| geometry::farthest(candidate, &affine, shape) <= near;
    if read.source == GeometrySource::Pixdim && represents(&geometry::centred(shape, spacing)) {
        return Ok((fields, version));
    }
    let mut by_qform = None;
    if let Some(qform) = &read.qform {
        let moved = if affine == read.affine {
            qform.affine
        } else {
            qform.affine.after(&read.affine.inverse()?.after(&affine))
        };
        by_qform = geometry::write_qform(&mut fields, qform.code, &moved, Some(qform), version);
    }
    fields.sform_code = match (read.source, &read.qform) {
        (GeometrySource::Qform, _) if by_qform.is_some_and(|affine| represents(&affine)) => 0,
        (GeometrySource::Qform, Some(qform)) => qform.code,
        (GeometrySource::Sform, _) => read.sform_code,
        _ => ALIGNED,
    };
    if fields.sform_code != 0 {
        fields.srow = affine.0;
    }
    Ok((fields, version))
}

fn voxel_bytes(voxels: &Voxels) -> usize {
    match voxels {
        Voxels::U8(_) => 1,
        Voxels::I16(_) => 2,
        Voxels::F32(_) => 4,
    }
}

fn write_voxels(out: &mut impl Write, voxels: &Voxels) -> std::io::Result<()> {
    match voxels {
        Voxels::U8(values) => out.write_all(values),
        Voxels::I16(values) => write_numbers(out, values, |v| v.to_le_bytes()),
        Voxels::F32(values) => write_numbers(out, values, |v| v.to_le_bytes()),
    }
}

fn write_numbers<T: Copy, const N: usize>(
    out: &mut impl Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(N << 16);
    for chunk in values.chunks(1 << 16) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|&v| bytes(v)));
        out.write_all(&buffer)?;
    }
    Ok(())
}
