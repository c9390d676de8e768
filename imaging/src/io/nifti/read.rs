//! Reading. The header is checked before anything is allocated, and memory is allocated only for voxels that the file can really
//! contain.

use std::path::{Path, PathBuf};

use super::header::{Fields, Version};
use super::{Header, Image, LabelImage, extensions, geometry};
use crate::io::source::Source;
use crate::volume::Volume;
use nephron_compute::error::{Error, Result};

/// Reads an image. `path` may be the .nii, .nii.gz, or either file of a .hdr/.img pair.
///
/// Unscaled uint8 becomes [`Voxels::U8`](crate::volume::Voxels::U8). Other integers whose scaled values are all whole numbers in
/// the range of i16 become [`Voxels::I16`](crate::volume::Voxels::I16). Everything else becomes f32. NaN and infinite voxels are
/// kept; [`read_ct`] refuses them.
///
/// # Errors
/// [`Error::File`], which names the file, where it does not exist, is a folder, is not NIfTI, is truncated or damaged, has an axis
/// of length 0 or less, is a true 4D image, has elements other than integers or floats, a voxel size of 0 or less, an affine that
/// is singular or not finite, or a finite slope with an inter that is not finite.
pub fn read(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    let Series { mut volumes, header, warnings } = read_any(path, 3)?;
    let volume = volumes.pop().ok_or_else(|| Error::file(path, "holds no volume"))?;
    Ok(Image { volume, header, warnings })
}

/// Reads the volumes of a 4D image, which lie one after the other; one of a 3D image.
///
/// # Errors
/// As [`read`]; an image of more axes; [`Error::File`] for voxels that are NaN or infinite.
pub fn read_channels(path: impl AsRef<Path>) -> Result<(Vec<Volume>, Image)> {
    let path = path.as_ref();
    let Series { volumes, header, warnings, .. } = read_any(path, 4)?;
    for volume in &volumes {
        volume.ensure_finite().map_err(|e| Error::in_file(path, e))?;
    }
    let Some(first) = volumes.first().cloned() else { return Err(Error::file(path, "holds no volume")) };
    Ok((volumes, Image { volume: first, header, warnings }))
}

/// What a file holds.
struct Series {
    volumes: Vec<Volume>,
    header: Header,
    warnings: Vec<String>,
}

/// Why a DICOM file is refused. One file is one slice of a series; putting a series together takes its whole folder.
const DICOM: &str = "is a DICOM file, expected NIfTI: convert its series first, for example with dcm2niix";

/// Whether a file has DICOM's magic behind a preamble of 128 bytes (DICOM PS3.10, 7.1).
fn is_dicom(path: &Path) -> bool {
    let mut start = [0; 132];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start[128..] == *b"DICM"
}

/// Reads a file of at most `max_axes` axes that are longer than 1.
fn read_any(path: &Path, max_axes: usize) -> Result<Series> {
    let header_path = header_path(path);
    let mut source = Source::open(&header_path)?;
    let mut bytes = vec![0u8; Version::Two.header_bytes()];
    let (version, order) = source
        .fill(&mut bytes[..4])
        .ok()
        .and_then(|()| Version::detect([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .ok_or_else(|| Error::file(&header_path, if is_dicom(&header_path) { DICOM } else { "is not a NIfTI file" }))?;
    bytes.truncate(version.header_bytes());
    source.fill(&mut bytes[4..]).map_err(|e| source.error(&e, "inside its header"))?;
    let fields = Fields::parse(version, order, &bytes).ok_or_else(|| {
        Error::file(&header_path, "is not a NIfTI file (no NIfTI magic; ANALYZE 7.5 files have to be converted)")
    })?;

    let wrong = |reason: String| Error::file(&header_path, reason);
    let mut warnings = Vec::new();
    let fields = geometry::in_millimetres(fields, &mut warnings);
    let (axes, [i, j, k, frames]) = shape(&fields, max_axes).map_err(wrong)?;
    let number = fields.number().map_err(|name| {
        wrong(format!(
            "voxels of type {name} (code {}) are not supported, expected integers or floats",
            fields.datatype
        ))
    })?;
    let scale = scale(&fields).map_err(wrong)?;
    let geometry = geometry::read(&fields, version, axes, [i, j, k], &mut warnings).map_err(wrong)?;

    let claimed = || {
        let volumes = if frames > 1 { format!(" x {frames}") } else { String::new() };
        format!("its header claims {i} x {j} x {k}{volumes} voxels of {number}")
    };
    let (count, length) = [j, k, frames, number.size()]
        .iter()
        .try_fold(i, |n, &d| n.checked_mul(d))
        .map(|length| (length / number.size(), length as u64))
        .ok_or_else(|| wrong(format!("{}, more than memory can hold", claimed())))?;
    let mut offset = offset(&fields, version).map_err(wrong)?;
    if fields.single {
        offset = offset.max(version.header_bytes() as u64);
    }
    let between = fields.single.then(|| offset - version.header_bytes() as u64);
    let extensions = extensions::read(&mut source, order, between, &mut warnings)?;
    if !fields.single {
        source = Source::open(&voxel_path(&header_path, path)?)?;
        source.skip(offset).map_err(|e| source.error(&e, "before its voxels"))?;
    }
    if source.max_bytes < offset.saturating_add(length) {
        let held = source.max_bytes.saturating_sub(offset);
        let reason = format!("{} ({length} bytes), the file holds at most {held} bytes of them", claimed());
        return Err(Error::file(&source.path, reason));
    }
    let mut volumes = Vec::new();
    for _ in 0..frames {
        let voxels = source.voxels(number, order, scale, count / frames)?;
        let volume = Volume::new([k, j, i], voxels, geometry.affine).map_err(|e| Error::in_file(&header_path, e))?;
        volumes.push(volume);
    }
    source.finish(&mut warnings)?;
    let header =
        Header { version, byte_order: order, stored: number, scale, units: fields.units, geometry, extensions };
    Ok(Series { volumes, header, warnings })
}

/// The files that [`read`] reads for an image: the file itself, or header and voxels of a pair.
pub fn files(path: impl AsRef<Path>) -> Vec<PathBuf> {
    let header = header_path(path.as_ref());
    let voxels = voxel_path(&header, path.as_ref()).ok().filter(|voxels| *voxels != header);
    std::iter::once(header).chain(voxels).collect()
}

/// Reads an image without NaN or infinite voxels.
///
/// # Errors
/// As [`read`], and for such voxels, with their number and the index of the first one.
pub fn read_ct(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    finite(path, read(path)?)
}

/// The image of a file, whose voxels must be finite.
pub(crate) fn finite(path: &Path, image: Image) -> Result<Image> {
    image.volume.ensure_finite().map_err(|e| Error::in_file(path, e))?;
    Ok(image)
}

/// Reads a label mask in any element type.
///
/// # Errors
/// As [`read`], and for the first voxel that is not a whole number from 0 to 255.
pub fn read_labels(path: impl AsRef<Path>) -> Result<LabelImage> {
    let path = path.as_ref();
    labels(path, read(path)?)
}

/// The image of a file as labels.
pub(crate) fn labels(path: &Path, image: Image) -> Result<LabelImage> {
    let Image { volume, header, warnings } = image;
    let labels = volume.to_labels().map_err(|e| Error::in_file(path, e))?;
    Ok(LabelImage { labels, header, warnings })
}

/// Number of axes in the header, and the first four lengths (i, j, k, volumes).
fn shape(fields: &Fields, max_axes: usize) -> Result<(usize, [usize; 4]), String> {
    let axes = fields.dim[0];
    if !(1.0..=7.0).contains(&axes) {
        return Err(format!("its header claims {axes} axes, expected 1 to 7"));
    }
    let dim = &fields.dim[1..=axes as usize];
    let shown = || dim.iter().map(f64::to_string).collect::<Vec<_>>().join(" x ");
    if let Some((axis, length)) = dim.iter().enumerate().find(|(_, length)| **length < 1.0) {
        return Err(format!("axis {} of {} has length {length}, expected at least 1", axis + 1, shown()));
    }
    if dim.iter().skip(max_axes).any(|&length| length > 1.0) {
        return Err(format!("is a {axes}D image ({}), expected a single 3D volume", shown()));
    }
    let length = |axis: usize| dim.get(axis).map_or(1, |&length| length as usize);
    Ok((dim.len(), [length(0), length(1), length(2), length(3)]))
}

/// Slope and inter, by the rules of nibabel. None where no scale is applied.
fn scale(fields: &Fields) -> Result<Option<(f64, f64)>, String> {
    let (slope, inter) = (fields.scl_slope, fields.scl_inter);
    if slope == 0.0 || !slope.is_finite() {
        return Ok(None);
    }
    if !inter.is_finite() {
        return Err(format!("its scale has a slope of {slope} with an inter of {inter}"));
    }
    Ok((slope != 1.0 || inter != 0.0).then_some((slope, inter)))
}

/// Number of bytes before the voxels. In a single file, 0 means directly after the header.
fn offset(fields: &Fields, version: Version) -> Result<u64, String> {
    let offset = fields.vox_offset;
    if offset == 0.0 {
        return Ok(if fields.single { version.single_offset() as u64 } else { 0 });
    }
    let least = if fields.single { version.header_bytes() as f64 } else { 0.0 };
    if offset.fract() != 0.0 || !(least..9e15).contains(&offset) {
        return Err(format!("its voxels start at byte {offset} (vox_offset), expected a whole number from {least}"));
    }
    Ok(offset as u64)
}

/// The file with the header: for an .img the .hdr next to it, otherwise the file itself.
fn header_path(path: &Path) -> PathBuf {
    partner(path, "img", "hdr").into_iter().find(|p| p.exists()).unwrap_or_else(|| path.to_path_buf())
}

/// The file with the voxels of a pair: the .img next to the .hdr, or the .img that was asked for.
fn voxel_path(header: &Path, asked: &Path) -> Result<PathBuf> {
    if header != asked {
        return Ok(asked.to_path_buf());
    }
    let candidates = partner(header, "hdr", "img");
    let Some(first) = candidates.first() else {
        return Err(Error::file(header, "keeps its voxels in an .img file (magic ni1), but is not named .hdr"));
    };
    let missing = || Error::file(header, format!("its voxels are missing: there is no file {}", first.display()));
    candidates.iter().find(|p| p.exists()).cloned().ok_or_else(missing)
}

/// The names of the other file of a pair: `path`, which ends in `from` or `from`.gz, with `to` instead of `from`; first with the
/// same compression, then with the other.
fn partner(path: &Path, from: &str, to: &str) -> Vec<PathBuf> {
    let name = path.as_os_str().to_string_lossy().into_owned();
    let (stem, gz) = match name.strip_suffix(".gz") {
        Some(stem) => (stem.to_owned(), true),
        None => (name, false),
    };
    let Some((base, extension)) = stem.rsplit_once('.') else { return Vec::new() };
    if !extension.eq_ignore_ascii_case(from) {
        return Vec::new();
    }
    let to = if extension == extension.to_uppercase() { to.to_uppercase() } else { to.to_owned() };
    let (plain, zipped) = (PathBuf::from(format!("{base}.{to}")), PathBuf::from(format!("{base}.{to}.gz")));
    if gz { vec![zipped, plain] } else { vec![plain, zipped] }
}
