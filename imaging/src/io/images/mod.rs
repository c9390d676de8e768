//! Images of every format that is read: NIfTI, MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr). Results are written as NIfTI.
//!
//! MetaImage and NRRD are read as ITK does: voxel centres in LPS millimetres, which become RAS here. No well-kept crate reads them:
//! what a header claims is checked against the size of the file before memory is taken, as for NIfTI.

mod header;
mod metaimage;
mod nrrd;

use std::path::{Path, PathBuf};

use super::nifti::{self, Image, LabelImage};
use crate::volume::Volume;
use header::RawImage;
use nephron_compute::error::{Error, Result};

/// The format of a file by its name; what is none of the others is taken for NIfTI, whose reader looks at the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// NIfTI-1 or NIfTI-2, in one file or two.
    Nifti,
    /// ITK's MetaImage.
    MetaImage,
    /// NRRD.
    Nrrd,
}

impl Format {
    /// The format that the ending of a name says.
    pub fn of(path: &Path) -> Self {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        match ending.to_str() {
            Some("mha" | "mhd") => Self::MetaImage,
            Some("nrrd" | "nhdr") => Self::Nrrd,
            _ => Self::Nifti,
        }
    }
}

/// The endings of the names of images, in lower case.
pub const ENDINGS: [&str; 10] =
    [".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz", ".mha", ".mhd", ".nrrd", ".nhdr"];

/// The name of a file without its ending; None where it is not that of an image.
pub fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let lower = name.to_ascii_lowercase();
    let ending = ENDINGS.iter().find(|ending| lower.ends_with(**ending))?;
    Some(name[..name.len() - ending.len()].to_owned())
}

/// The images in a folder by the names of their files, each with its name without the ending. The files of voxels that belong to a header
/// (.img) are none of their own.
///
/// # Errors
/// A folder that cannot be read.
pub fn in_folder(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |e| Error::io(folder, "cannot be read", e);
    let mut images = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.to_string_lossy().to_ascii_lowercase();
        let is_voxels = name.ends_with(".img") || name.ends_with(".img.gz");
        if let (true, false, Some(stem)) = (path.is_file(), is_voxels, stem(&path)) {
            images.push((stem, path));
        }
    }
    images.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    Ok(images)
}

/// Reads an image.
///
/// # Errors
/// As [`nifti::read`]; for MetaImage and NRRD a header that lacks a field, more than three axes or several values a voxel,
/// compression other than zlib's and gzip's, voxels in several files, a space other than LPS, RAS and LAS in millimetres.
pub fn read(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    match raw(path)? {
        Some(raw) => raw.read(),
        None => nifti::read(path),
    }
}

/// Reads the volumes of a 4D NIfTI image, which lie one after the other; one of every other image.
///
/// # Errors
/// As [`read`] and [`nifti::read_channels`].
pub fn read_channels(path: impl AsRef<Path>) -> Result<(Vec<Volume>, Image)> {
    let path = path.as_ref();
    if raw(path)?.is_none() {
        return nifti::read_channels(path);
    }
    let image = read_ct(path)?;
    Ok((vec![image.volume.clone()], image))
}

/// Reads an image without NaN or infinite voxels.
///
/// # Errors
/// As [`read`], and for such voxels, with their number and the index of the first one.
pub fn read_ct(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    nifti::finite(path, read(path)?)
}

/// Reads a label mask in any element type.
///
/// # Errors
/// As [`read`], and for the first voxel that is not a whole number from 0 to 255.
pub fn read_labels(path: impl AsRef<Path>) -> Result<LabelImage> {
    let path = path.as_ref();
    nifti::labels(path, read(path)?)
}

/// The files that [`read`] reads for an image: the file itself, or header and voxels.
pub fn files(path: impl AsRef<Path>) -> Vec<PathBuf> {
    let path = path.as_ref();
    match raw(path) {
        Ok(Some(raw)) if raw.data != raw.header => vec![raw.header, raw.data],
        Ok(None) => nifti::files(path),
        // The reader says what is wrong with it.
        Ok(Some(_)) | Err(_) => vec![path.to_path_buf()],
    }
}

/// The header of an image that is not NIfTI.
fn raw(path: &Path) -> Result<Option<RawImage>> {
    match Format::of(path) {
        Format::Nifti => Ok(None),
        Format::MetaImage => metaimage::header(path).map(Some),
        Format::Nrrd => nrrd::header(path).map(Some),
    }
}
