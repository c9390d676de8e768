//! NIfTI-1 and NIfTI-2 images: .nii, .nii.gz and .hdr/.img pairs, both byte orders, every integer and float type.
//!
//! Geometry as nibabel reads it: the sform when its code is not 0, else the qform, else the voxel size with the origin in
//! the middle. The header's scale is applied unless its slope is 0, NaN or infinite. Axes of length 1 behind the third are
//! dropped; a true 4D image is refused. Header extensions are not kept.

mod geometry;
mod header;
mod read;
mod source;
mod write;

pub use geometry::{Geometry, GeometrySource, Qform};
pub use header::Version;
pub use read::{files, read, read_ct, read_labels};
pub use write::{expect_name, write};

use super::numbers::{ByteOrder, Number};
use crate::volume::Volume;

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
    pub fn new(volume: Volume) -> Self {
        let geometry = Geometry::scanner(volume.affine);
        let header = Header {
            version: Version::One,
            byte_order: ByteOrder::Little,
            stored: Number::F32,
            scale: None,
            units: 2,
            geometry,
        };
        Self { volume, header, warnings: Vec::new() }
    }

    /// Another volume in the same space, on the same or another grid: masks and resampled images keep the codes of the
    /// scan they come from.
    pub fn with_volume(&self, volume: Volume) -> Self {
        Self { volume, header: self.header.clone(), warnings: Vec::new() }
    }
}
