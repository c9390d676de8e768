//! Voxels with geometry: spacing, affine, orientation, resampling onto a grid.

mod affine;

pub use affine::Affine;

use std::sync::Arc;

use crate::device::Device;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The values of a volume, in the file's own order: w (= i) fastest, then h (= j), then d (= k).
#[derive(Debug, Clone)]
pub enum Voxels {
    /// Labels.
    U8(Arc<Vec<u8>>),
    /// CT in Hounsfield units.
    I16(Arc<Vec<i16>>),
    /// Anything else.
    F32(Arc<Vec<f32>>),
}

/// A 3D image on a grid in the patient's space.
#[derive(Debug, Clone)]
pub struct Volume {
    /// [d, h, w], which are NIfTI's (k, j, i).
    pub shape: [usize; 3],
    /// The values.
    pub voxels: Voxels,
    /// Index (i, j, k) to RAS+ millimetres.
    pub affine: Affine,
}

impl Volume {
    /// Millimetres between voxel centres along (d, h, w).
    pub fn spacing(&self) -> [f64; 3] {
        let [i, j, k] = self.affine.spacing();
        [k, j, i]
    }

    /// As a tensor [1, 1, d, h, w] on a device: u8 and i16 keep their type, f32 stays f32.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let [d, h, w] = self.shape;
        let shape = [1, 1, d, h, w];
        match &self.voxels {
            Voxels::U8(v) => Tensor::from_u8(device, shape, v.to_vec()),
            Voxels::I16(v) => Tensor::from_i16(device, shape, v.to_vec()),
            Voxels::F32(v) => Tensor::from_ndhwc(device, shape, DType::F32, v.to_vec()),
        }
    }
}
