//! The bytes of the header. One table of offsets for each version serves reading and writing.
//!
//! Source: nifti1.h and nifti2.h of the NIfTI data format working group.

use super::extensions::EXTENDER;
use crate::io::numbers::{ByteOrder, Number};

/// The version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// NIfTI-1: a header of 348 bytes, axes of at most 32767, f32 geometry.
    One,
    /// NIfTI-2: a header of 540 bytes, 64-bit axes, f64 geometry.
    Two,
}

/// The offset of each field in bytes, and the types of the fields.
struct Layout {
    magic: usize,
    datatype: usize,
    bitpix: usize,
    dim: usize,
    pixdim: usize,
    vox_offset: usize,
    scl_slope: usize,
    units: usize,
    qform_code: usize,
    quatern: usize,
    srow: usize,
    /// The type of dim.
    axis: Number,
    /// The type of vox_offset.
    offset: Number,
    /// The type of qform_code and of sform_code, which follows it.
    code: Number,
    /// The type of xyzt_units.
    units_type: Number,
    /// The type of pixdim, scl_slope and scl_inter, the quaternion and its offset, and the rows of the sform.
    real: Number,
}

const ONE: Layout = Layout {
    magic: 344,
    datatype: 70,
    bitpix: 72,
    dim: 40,
    pixdim: 76,
    vox_offset: 108,
    scl_slope: 112,
    units: 123,
    qform_code: 252,
    quatern: 256,
    srow: 280,
    axis: Number::I16,
    offset: Number::F32,
    code: Number::I16,
    units_type: Number::U8,
    real: Number::F32,
};

const TWO: Layout = Layout {
    magic: 4,
    datatype: 12,
    bitpix: 14,
    dim: 16,
    pixdim: 104,
    vox_offset: 168,
    scl_slope: 176,
    units: 500,
    qform_code: 344,
    quatern: 352,
    srow: 400,
    axis: Number::I64,
    offset: Number::I64,
    code: Number::I32,
    units_type: Number::I32,
    real: Number::F64,
};

impl Version {
    /// Number of bytes of the header, which is also the value of its first field.
    pub(crate) fn header_bytes(self) -> usize {
        match self {
            Self::One => 348,
            Self::Two => 540,
        }
    }

    /// Number of bytes before the voxels of a single file without extensions: the header and the four bytes after it.
    pub(super) fn single_offset(self) -> usize {
        self.header_bytes() + EXTENDER
    }

    /// The number that is read back after `value` was written to this version's header.
    pub(super) fn round(self, value: f64) -> f64 {
        match self {
            Self::One => f64::from(value as f32),
            Self::Two => value,
        }
    }

    /// The deviation from 1 that rounding may cause in the length of a quaternion (nibabel's thresholds).
    pub(super) fn rounding(self) -> f64 {
        match self {
            Self::One => 3.0 * f64::from(f32::EPSILON),
            Self::Two => 3.0 * f64::EPSILON,
        }
    }

    fn layout(self) -> &'static Layout {
        match self {
            Self::One => &ONE,
            Self::Two => &TWO,
        }
    }

    /// The version and the byte order that the first four bytes announce. None for another format.
    pub(super) fn detect(start: [u8; 4]) -> Option<(Self, ByteOrder)> {
        [Self::One, Self::Two].into_iter().find_map(|version| {
            let size = version.header_bytes() as i32;
            if i32::from_le_bytes(start) == size {
                Some((version, ByteOrder::Little))
            } else if i32::from_be_bytes(start) == size {
                Some((version, ByteOrder::Big))
            } else {
                None
            }
        })
    }
}

/// The fields that are used, with the values of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields {
    /// Whether the voxels follow in the same file (magic n+1 or n+2) and not in an .img (ni1 or ni2).
    pub single: bool,
    pub datatype: i64,
    pub dim: [f64; 8],
    pub pixdim: [f64; 8],
    pub vox_offset: f64,
    pub scl_slope: f64,
    pub scl_inter: f64,
    pub units: i64,
    pub qform_code: i64,
    pub sform_code: i64,
    /// The quaternion's b, c, d.
    pub quatern: [f64; 3],
    pub qoffset: [f64; 3],
    pub srow: [[f64; 4]; 3],
}

impl Fields {
    /// Reads the fields of a whole header. None without the magic of NIfTI.
    pub(super) fn parse(version: Version, order: ByteOrder, bytes: &[u8]) -> Option<Self> {
        let at = version.layout();
        let digit = if version == Version::One { b'1' } else { b'2' };
        let single = match bytes.get(at.magic..at.magic + 4)? {
            [b'n', b'+', d, 0] if *d == digit => true,
            [b'n', b'i', d, 0] if *d == digit => false,
            _ => return None,
        };
        let run = |number: Number, start: usize, out: &mut [f64]| {
            let mut slots = out.iter_mut();
            let end = start + slots.len() * number.size();
            number.decode(order, bytes.get(start..end).unwrap_or_default(), |v| {
                if let Some(slot) = slots.next() {
                    *slot = v;
                }
            });
        };
        let mut fields = Self { single, ..Self::default() };
        let mut pair = [0.0; 2];
        run(Number::I16, at.datatype, &mut pair[..1]);
        fields.datatype = pair[0] as i64;
        run(at.units_type, at.units, &mut pair[..1]);
        fields.units = pair[0] as i64;
        run(at.code, at.qform_code, &mut pair);
        (fields.qform_code, fields.sform_code) = (pair[0] as i64, pair[1] as i64);
        run(at.real, at.scl_slope, &mut pair);
        (fields.scl_slope, fields.scl_inter) = (pair[0], pair[1]);
        run(at.offset, at.vox_offset, std::slice::from_mut(&mut fields.vox_offset));
        run(at.axis, at.dim, &mut fields.dim);
        run(at.real, at.pixdim, &mut fields.pixdim);
        run(at.real, at.quatern, &mut fields.quatern);
        run(at.real, at.quatern + 3 * at.real.size(), &mut fields.qoffset);
        run(at.real, at.srow, fields.srow.as_flattened_mut());
        Some(fields)
    }

    /// A little-endian header of a single file, to be followed by `extensions` bytes of extensions and then the voxels.
    pub(super) fn to_bytes(&self, version: Version, bits: usize, extensions: usize) -> Vec<u8> {
        let at = version.layout();
        let mut bytes = vec![0u8; version.single_offset()];
        bytes[version.header_bytes()] = u8::from(extensions > 0);
        let mut run = |number: Number, start: usize, values: &[f64]| {
            for (slot, &v) in bytes[start..].chunks_exact_mut(number.size()).zip(values) {
                match number {
                    Number::U8 => slot.copy_from_slice(&(v as u8).to_le_bytes()),
                    Number::I16 => slot.copy_from_slice(&(v as i16).to_le_bytes()),
                    Number::I32 => slot.copy_from_slice(&(v as i32).to_le_bytes()),
                    Number::I64 => slot.copy_from_slice(&(v as i64).to_le_bytes()),
                    Number::F32 => slot.copy_from_slice(&(v as f32).to_le_bytes()),
                    _ => slot.copy_from_slice(&v.to_le_bytes()),
                }
            }
        };
        run(Number::I32, 0, &[version.header_bytes() as f64]);
        run(Number::I16, at.datatype, &[self.datatype as f64]);
        run(Number::I16, at.bitpix, &[bits as f64]);
        run(at.axis, at.dim, &self.dim);
        run(at.real, at.pixdim, &self.pixdim);
        run(at.offset, at.vox_offset, &[(version.single_offset() + extensions) as f64]);
        run(at.real, at.scl_slope, &[self.scl_slope, self.scl_inter]);
        run(at.units_type, at.units, &[self.units as f64]);
        run(at.code, at.qform_code, &[self.qform_code as f64, self.sform_code as f64]);
        run(at.real, at.quatern, &self.quatern);
        run(at.real, at.quatern + 3 * at.real.size(), &self.qoffset);
        run(at.real, at.srow, self.srow.as_flattened());
        match version {
            Version::One => bytes[at.magic..at.magic + 4].copy_from_slice(b"n+1\0"),
            // The four bytes after the magic reveal a file that was transferred as text.
            Version::Two => bytes[at.magic..at.magic + 8].copy_from_slice(b"n+2\0\r\n\x1a\n"),
        }
        bytes
    }

    /// The element type of `datatype`.
    ///
    /// # Errors
    /// The name of a type that is not supported.
    pub(super) fn number(&self) -> Result<Number, &'static str> {
        Ok(match self.datatype {
            2 => Number::U8,
            4 => Number::I16,
            8 => Number::I32,
            16 => Number::F32,
            64 => Number::F64,
            256 => Number::I8,
            512 => Number::U16,
            768 => Number::U32,
            1024 => Number::I64,
            1280 => Number::U64,
            1 => return Err("1-bit"),
            32 => return Err("complex64"),
            128 => return Err("RGB"),
            1536 => return Err("float128"),
            1792 => return Err("complex128"),
            2048 => return Err("complex256"),
            2304 => return Err("RGBA"),
            _ => return Err("unknown"),
        })
    }
}
