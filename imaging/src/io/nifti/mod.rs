//! NIfTI-1 and NIfTI-2 images: .nii, .nii.gz and .hdr/.img pairs, both byte orders, every integer and float type.
//!
//! Geometry as nibabel reads it: the sform when its code is not 0, else the qform, else the voxel size with the origin in
//! the middle. The header's scale is applied unless its slope is 0, NaN or infinite. Axes of length 1 behind the third are
//! dropped; a true 4D image is refused, but for [`read_channels`]. Header extensions are kept from the file that is read to those that are made of it.
//!
//! Why not the `nifti` crate (0.18), which the tests hold this against as a second reader, for files from strangers:
//! * it knows NIfTI-1 alone (`dim: [u16; 8]`, 348 bytes); one table of offsets here serves both versions and both ways;
//! * it has no way to write a header by itself: its writer takes an ndarray and writes to the final name;
//! * its order of bytes comes from `dim[0] > 7`, so that a damaged header changes its meaning, and negative axes turn positive;
//! * it allocates what a header claims: here a claim is held against the file's size before anything is allocated;
//! * it unzips by the name's end, the first gzip member alone, and never sees the checksum; here the content decides;
//! * it scales in f32 and in the output's type, where `as i16` cuts decimals off, and a slope of NaN makes every voxel NaN;
//! * with its features for ndarray and nalgebra it panics on a `bitpix` that does not fit the `datatype`, on a `pixdim[0]` other
//!   than 1 and -1, and on a quaternion longer than 1;
//! * of a file without extensions it takes what fills the room before `vox_offset` for voxels, looks for a pair's extensions in the
//!   .img instead of the .hdr, and behind one of size 0 it takes the voxels for extensions up to the end of the file.
//!
//! What it would take over is a table of 20 lines, for a mapping of 30 between its header and what is checked here.

mod extensions;
mod geometry;
mod header;
mod read;
mod source;
mod write;

pub use extensions::Extension;
pub use geometry::{Geometry, GeometrySource, Qform};
pub use header::Version;
pub use read::{files, read, read_channels, read_ct, read_labels};
pub use write::{expect_name, write};

use super::numbers::{ByteOrder, Number};
use crate::volume::{LabelVolume, Volume};

/// What a file says beside its voxels: enough to write the same geometry back.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// NIfTI-1 or NIfTI-2.
    pub version: Version,
    /// The byte order of the file that was read. Files are written little-endian.
    pub byte_order: ByteOrder,
    /// The element type in the file that was read.
    pub stored: Number,
    /// Value = slope * stored + inter, when the file that was read has a scale.
    pub scale: Option<(f64, f64)>,
    /// xyzt_units.
    pub units: i64,
    /// Codes, qform and the affine as read.
    pub geometry: Geometry,
    /// What else stands before the voxels.
    pub extensions: Vec<Extension>,
}

/// A volume with its header.
#[derive(Debug, Clone)]
pub struct Image {
    /// The voxels on their grid.
    pub volume: Volume,
    /// What the file said; for writing the same geometry and codes.
    pub header: Header,
    /// One line for each thing that is odd but usable.
    pub warnings: Vec<String>,
}

impl Image {
    /// An image that comes from no file: NIfTI-1, scanner coordinates (code 1) by sform and, where it can say it, qform.
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

    /// This image's voxels on another's grid: the codes of the geometry are the other's, the extensions its own.
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
    /// What the file said; for writing the same geometry and codes.
    pub header: Header,
    /// One line for each thing that is odd but usable.
    pub warnings: Vec<String>,
}

impl LabelImage {
    /// As [`Image::with_volume`].
    pub fn with_volume(&self, volume: impl Into<Volume>) -> Image {
        Image { volume: volume.into(), header: self.header.clone(), warnings: Vec::new() }
    }
}
