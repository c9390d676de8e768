//! NIfTI-1 and NIfTI-2 images: .nii, .nii.gz and .hdr/.img pairs, both byte orders, every integer and float type.
//!
//! Geometry as nibabel reads it: the sform when its code is not 0, else the qform, else the voxel size with the origin in
//! the middle. The header's scale is applied unless its slope is 0, NaN or infinite. Axes of length 1 behind the third are
//! dropped; a true 4D image is refused, but for [`read_channels`]. Header extensions are kept from the file that is read to those that are made of it.
//!
//! The `nifti` crate (0.18) is used by the tests as an independent reader, but not here, where files may come from anybody:
//! * it supports NIfTI-1 only (`dim: [u16; 8]`, 348 bytes); here one table of offsets serves both versions, reading and writing;
//! * it cannot write a header alone: its writer takes an ndarray and writes to the final name;
//! * it derives the byte order from `dim[0] > 7`, so that a damaged header changes its meaning and negative axes become positive;
//! * it allocates what a header claims; here the claim is compared with the file's size before anything is allocated;
//! * it decompresses by the name's ending, only the first gzip member, and without comparing the checksum; here the content decides;
//! * it scales in f32 and in the output's type, where `as i16` truncates decimals, and a slope of NaN makes every voxel NaN;
//! * with its features for ndarray and nalgebra it panics on a `bitpix` that does not fit the `datatype`, on a `pixdim[0]` other
//!   than 1 and -1, and on a quaternion longer than 1;
//! * in a file without extensions it takes padding before `vox_offset` for voxels; it looks for a pair's extensions in the .img
//!   instead of the .hdr; after an extension of size 0 it takes all voxels for extensions.
//!
//! It would replace a table of 20 lines here and need 30 lines to map its header to the one that is checked here.

mod extensions;
mod geometry;
mod header;
mod read;
mod write;

pub use extensions::Extension;
pub(crate) use geometry::skew_warning;
pub use geometry::{Geometry, GeometrySource, Qform};
pub use header::Version;
pub use read::{files, read, read_channels, read_ct, read_labels};
pub(crate) use read::{finite, labels};
pub use write::{ensure_name, write};

use super::numbers::{ByteOrder, Number};
use crate::volume::{LabelVolume, Volume};

/// The header of a file, with everything that is needed to write the same geometry again.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The version of the format.
    pub version: Version,
    /// The byte order of the file that was read. Files are always written little-endian.
    pub byte_order: ByteOrder,
    /// The element type in the file that was read.
    pub stored: Number,
    /// The slope and inter of value = slope * stored + inter, where the file that was read has a scale.
    pub scale: Option<(f64, f64)>,
    /// The units of space and time, xyzt_units.
    pub units: i64,
    /// The affine as read, its source, the qform and the codes.
    pub geometry: Geometry,
    /// The extensions between header and voxels.
    pub extensions: Vec<Extension>,
}

/// A volume with its header.
#[derive(Debug, Clone)]
pub struct Image {
    /// The image on its grid.
    pub volume: Volume,
    /// The header of the file, from which geometry and codes are written again.
    pub header: Header,
    /// One line for each condition in the file that the user should know of and that did not prevent reading it.
    pub warnings: Vec<String>,
}

impl Image {
    /// An image that was not read from a file: NIfTI-1 with scanner coordinates (code 1) as sform and, where the axes are
    /// orthogonal, also as qform.
    pub fn new(volume: impl Into<Volume>) -> Self {
        let volume = volume.into();
        let geometry = Geometry::scanner(volume.affine());
        let header = Header {
            version: Version::One,
            byte_order: ByteOrder::Little,
            stored: Number::F32,
            scale: None,
            units: 2,
            geometry,
            extensions: Vec::new(),
        };
        Self { volume, header, warnings: Vec::new() }
    }

    /// Millimetres between voxels along (d, h, w) by the header's pixdim, which may differ from the affine's.
    pub fn header_spacing(&self) -> [f64; 3] {
        let [i, j, k] = self.header.geometry.pixdim;
        [k, j, i]
    }

    /// Another volume in the same space, on the same or another grid: masks and resampled images keep the codes of the
    /// scan they come from.
    pub fn with_volume(&self, volume: impl Into<Volume>) -> Self {
        Self { volume: volume.into(), header: self.header.clone(), warnings: Vec::new() }
    }

    /// This image resampled to the space of `reference`: the header is that of `reference`, with this image's extensions.
    pub fn moved_to(&self, reference: &Self, volume: impl Into<Volume>) -> Self {
        let header = Header { extensions: self.header.extensions.clone(), ..reference.header.clone() };
        Self { volume: volume.into(), header, warnings: Vec::new() }
    }
}

/// A label map with its header.
#[derive(Debug, Clone)]
pub struct LabelImage {
    /// The labels on their grid.
    pub labels: LabelVolume,
    /// The header of the file, from which geometry and codes are written again.
    pub header: Header,
    /// One line for each condition in the file that the user should know of and that did not prevent reading it.
    pub warnings: Vec<String>,
}

impl LabelImage {
    /// As [`Image::with_volume`].
    pub fn with_volume(&self, volume: impl Into<Volume>) -> Image {
        Image { volume: volume.into(), header: self.header.clone(), warnings: Vec::new() }
    }
}
