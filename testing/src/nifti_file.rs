//! NIfTI files built byte by byte from the field list of the format, without code of imaging/src/io.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A header and the bytes of the voxels; every field may be set to an invalid value.
#[derive(Clone)]
pub struct NiftiFile {
    /// 1 or 2.
    pub version: u8,
    /// Byte order of every number.
    pub big_endian: bool,
    /// The magic bytes.
    pub magic: Vec<u8>,
    /// Sizes along (x, y, z, t, ...).
    pub dim: Vec<i64>,
    /// Code of the element type.
    pub datatype: i16,
    /// `pixdim[0..4]`: qfac and spacing.
    pub pixdim: [f64; 4],
    /// The offset of the voxels in bytes.
    pub vox_offset: f64,
    /// `scl_slope` and `scl_inter`.
    pub scale: [f64; 2],
    /// `xyzt_units`.
    pub units: u8,
    /// `qform_code` and `sform_code`.
    pub codes: [i16; 2],
    /// `quatern_b`, `_c` and `_d`.
    pub quatern: [f64; 3],
    /// `qoffset_x`, `_y` and `_z`.
    pub qoffset: [f64; 3],
    /// Rows of the sform.
    pub srow: [f64; 12],
    /// Bytes of the voxels.
    pub voxels: Vec<u8>,
}

impl NiftiFile {
    /// int16, 1 x 2 x 3 mm, sform code 1, value n at the n-th voxel.
    pub fn new(dim: &[i64]) -> Self {
        let count: i64 = dim.iter().product();
        Self {
            version: 1,
            big_endian: false,
            magic: b"n+1\0".to_vec(),
            dim: dim.to_vec(),
            datatype: 4,
            pixdim: [1.0, 1.0, 2.0, 3.0],
            vox_offset: 352.0,
            scale: [0.0, 0.0],
            units: 2,
            codes: [0, 1],
            quatern: [0.0; 3],
            qoffset: [0.0; 3],
            srow: [1.0, 0.0, 0.0, -10.0, 0.0, 2.0, 0.0, -20.0, 0.0, 0.0, 3.0, 30.0],
            voxels: (0..count.clamp(0, 100_000)).flat_map(|n| (n as i16).to_le_bytes()).collect(),
        }
    }

    /// The same as NIfTI-2.
    pub fn version_2(mut self) -> Self {
        self.version = 2;
        self.magic = b"n+2\0\r\n\x1a\n".to_vec();
        self.vox_offset = 544.0;
        self
    }

    /// The bytes of the header.
    pub fn header(&self) -> Vec<u8> {
        let mut out = Out { bytes: vec![0; if self.version == 1 { 348 } else { 540 }], big: self.big_endian };
        let mut dim = [1i64; 8];
        dim[0] = self.dim.len() as i64;
        dim[1..=self.dim.len().min(7)].copy_from_slice(&self.dim[..self.dim.len().min(7)]);
        let bits =
            [(2, 8), (4, 16), (8, 32), (16, 32), (64, 64), (256, 8), (512, 16), (768, 32), (1024, 64), (1280, 64)];
        let bits = bits.iter().find(|(code, _)| *code == self.datatype).map_or(0, |(_, bits)| *bits);
        if self.version == 1 {
            out.put(0, &348i32.to_le_bytes());
            (0..8).for_each(|n| out.put(40 + 2 * n, &(dim[n] as i16).to_le_bytes()));
            out.put(70, &self.datatype.to_le_bytes());
            out.put(72, &(bits as i16).to_le_bytes());
            (0..4).for_each(|n| out.put(76 + 4 * n, &(self.pixdim[n] as f32).to_le_bytes()));
            out.put(108, &(self.vox_offset as f32).to_le_bytes());
            (0..2).for_each(|n| out.put(112 + 4 * n, &(self.scale[n] as f32).to_le_bytes()));
            out.put(123, &[self.units]);
            (0..2).for_each(|n| out.put(252 + 2 * n, &self.codes[n].to_le_bytes()));
            (0..3).for_each(|n| out.put(256 + 4 * n, &(self.quatern[n] as f32).to_le_bytes()));
            (0..3).for_each(|n| out.put(268 + 4 * n, &(self.qoffset[n] as f32).to_le_bytes()));
            (0..12).for_each(|n| out.put(280 + 4 * n, &(self.srow[n] as f32).to_le_bytes()));
            out.bytes[344..344 + self.magic.len().min(4)].copy_from_slice(&self.magic[..self.magic.len().min(4)]);
        } else {
            out.put(0, &540i32.to_le_bytes());
            out.bytes[4..4 + self.magic.len()].copy_from_slice(&self.magic);
            out.put(12, &self.datatype.to_le_bytes());
            out.put(14, &(bits as i16).to_le_bytes());
            (0..8).for_each(|n| out.put(16 + 8 * n, &dim[n].to_le_bytes()));
            (0..4).for_each(|n| out.put(104 + 8 * n, &self.pixdim[n].to_le_bytes()));
            out.put(168, &(self.vox_offset as i64).to_le_bytes());
            (0..2).for_each(|n| out.put(176 + 8 * n, &self.scale[n].to_le_bytes()));
            (0..2).for_each(|n| out.put(344 + 4 * n, &i32::from(self.codes[n]).to_le_bytes()));
            (0..3).for_each(|n| out.put(352 + 8 * n, &self.quatern[n].to_le_bytes()));
            (0..3).for_each(|n| out.put(376 + 8 * n, &self.qoffset[n].to_le_bytes()));
            (0..12).for_each(|n| out.put(400 + 8 * n, &self.srow[n].to_le_bytes()));
            out.put(500, &i32::from(self.units).to_le_bytes());
        }
        out.bytes
    }

    /// The bytes of a whole single file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        let offset = self.vox_offset as usize;
        if offset < 1 << 20 {
            bytes.resize(bytes.len().max(offset), 0);
        }
        bytes.extend(&self.voxels);
        bytes
    }

    /// Writes the file, compressed where the name ends in .gz.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        let bytes = self.bytes();
        std::fs::write(&path, if name.ends_with(".gz") { gzip(&bytes) } else { bytes }).expect("a test file");
        path
    }
}

struct Out {
    bytes: Vec<u8>,
    big: bool,
}

impl Out {
    fn put(&mut self, at: usize, little: &[u8]) {
        let mut value = little.to_vec();
        if self.big {
            value.reverse();
        }
        self.bytes[at..at + value.len()].copy_from_slice(&value);
    }
}

/// The bytes as one gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("gzip into memory");
    encoder.finish().expect("gzip into memory")
}
