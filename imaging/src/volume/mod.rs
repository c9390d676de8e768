//! Voxels with geometry: spacing, affine, orientation, resampling onto a grid.

mod affine;
pub mod components;
mod grid;
mod orientation;

pub use affine::Affine;
pub use components::{Component, Diameter, components};
pub use grid::Grid;
pub use orientation::Orientation;

use std::sync::Arc;

use nephron_compute::device::Device;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::{self, Interpolation, Outside, ResampleParams};
use nephron_compute::tensor::{DType, Tensor};

/// The values of a volume, in the file's own order: w (= i) fastest, then h (= j), then d (= k).
#[derive(Debug, Clone, PartialEq)]
pub enum Voxels {
    /// Labels.
    U8(Arc<Vec<u8>>),
    /// CT in Hounsfield units.
    I16(Arc<Vec<i16>>),
    /// Anything else.
    F32(Arc<Vec<f32>>),
}

impl Voxels {
    /// The value at an offset, as f32.
    pub fn value(&self, offset: usize) -> f32 {
        match self {
            Self::U8(v) => v[offset].into(),
            Self::I16(v) => v[offset].into(),
            Self::F32(v) => v[offset],
        }
    }

    /// Number of voxels.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::F32(v) => v.len(),
        }
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How they are stored.
    pub fn dtype(&self) -> DType {
        match self {
            Self::U8(_) => DType::U8,
            Self::I16(_) => DType::I16,
            Self::F32(_) => DType::F32,
        }
    }

    /// All values as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::U8(v) => v.iter().map(|&v| v.into()).collect(),
            Self::I16(v) => v.iter().map(|&v| v.into()).collect(),
            Self::F32(v) => v.to_vec(),
        }
    }

    /// The smallest and the largest value; NaN is left out. None when nothing is left.
    pub fn range(&self) -> Option<(f32, f32)> {
        fn of<T: Copy + PartialOrd + Into<f32>>(values: &[T]) -> Option<(f32, f32)> {
            values.iter().fold(None, |range, &v| {
                let v: f32 = v.into();
                match range {
                    _ if v.is_nan() => range,
                    None => Some((v, v)),
                    Some((low, high)) => Some((low.min(v), high.max(v))),
                }
            })
        }
        match self {
            Self::U8(v) => of(v),
            Self::I16(v) => of(v),
            Self::F32(v) => of(v),
        }
    }
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
    /// A volume that is known to be sound.
    ///
    /// # Errors
    /// As [`Volume::validate`].
    pub fn new(shape: [usize; 3], voxels: Voxels, affine: Affine) -> Result<Self> {
        let volume = Self { shape, voxels, affine };
        volume.validate()?;
        Ok(volume)
    }

    /// Checks what every function here relies on.
    ///
    /// # Errors
    /// [`Error::Shape`] for an axis of length 0 or values that do not fill the shape, [`Error::Argument`] for an affine that
    /// is singular or not finite.
    pub fn validate(&self) -> Result<()> {
        let expected = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n > 0);
        let Some(expected) = expected else {
            return Err(Error::shape(
                "volume",
                "axes of length 1 and more that fit in memory",
                format!("{:?}", self.shape),
            ));
        };
        if expected != self.voxels.len() {
            let expected = format!("{expected} voxels for shape {:?}", self.shape);
            return Err(Error::shape("volume", expected, self.voxels.len()));
        }
        if self.affine.0.as_flattened().iter().any(|v| !v.is_finite()) {
            return Err(Error::argument("volume: affine", "finite values", format!("{:?}", self.affine.0)));
        }
        self.affine.inverse().map(|_| ())
    }

    /// Millimetres between voxel centres along (d, h, w).
    pub fn spacing(&self) -> [f64; 3] {
        let [i, j, k] = self.affine.spacing();
        [k, j, i]
    }

    /// The grid without the voxels.
    pub fn grid(&self) -> Grid {
        Grid { shape: self.shape, affine: self.affine }
    }

    /// Index (i, j, k) of the n-th voxel.
    fn index(&self, n: usize) -> [usize; 3] {
        let [_, h, w] = self.shape.map(|d| d.max(1));
        [n % w, n / w % h, n / w / h]
    }

    /// How many voxels are NaN or infinite.
    pub fn not_finite(&self) -> usize {
        match &self.voxels {
            Voxels::F32(values) => values.iter().filter(|v| !v.is_finite()).count(),
            _ => 0,
        }
    }

    /// Refuses NaN and infinite voxels.
    ///
    /// # Errors
    /// [`Error::Data`] with their count and the first one's value and index (i, j, k).
    pub fn check_finite(&self) -> Result<()> {
        let Voxels::F32(values) = &self.voxels else { return Ok(()) };
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(first) => {
                let (value, index) = (values[first], self.index(first));
                Err(Error::Data(format!(
                    "{} of {} voxels are NaN or infinite, expected finite values; the first is {value} at (i, j, k) = {index:?}",
                    self.not_finite(),
                    values.len(),
                )))
            }
        }
    }

    /// The same volume as u8 labels.
    ///
    /// # Errors
    /// [`Error::Data`] with the value and index (i, j, k) of the first voxel that is not a whole number from 0 to 255.
    pub fn to_labels(&self) -> Result<Self> {
        fn narrow<T: Copy + Into<f32>>(values: &[T]) -> Result<Vec<u8>, (usize, f32)> {
            let label = |(n, v): (usize, &T)| {
                let v: f32 = (*v).into();
                if f32::from(v as u8) == v { Ok(v as u8) } else { Err((n, v)) }
            };
            values.iter().enumerate().map(label).collect()
        }
        let labels = match &self.voxels {
            Voxels::U8(_) => return Ok(self.clone()),
            Voxels::I16(values) => narrow(values),
            Voxels::F32(values) => narrow(values),
        };
        let labels = labels.map_err(|(n, v)| {
            let index = self.index(n);
            Error::Data(format!("labels are whole numbers from 0 to 255, found {v} at (i, j, k) = {index:?}"))
        })?;
        Ok(Self { voxels: Voxels::U8(labels.into()), ..*self })
    }

    /// Resampled onto another grid: out(p) = value at the point of the patient where p lies on `grid`.
    ///
    /// Within half a voxel of the outermost voxel centres (the voxels' own extent) the edge goes on. Beyond it, outside the
    /// field of view, labels (u8) become 0 and images their own minimum. [`Interpolation::Nearest`] keeps the type of the
    /// voxels; every other makes f32.
    ///
    /// # Errors
    /// As [`Volume::validate`] and [`ops::resample`].
    pub fn resample_to(&self, grid: &Grid, interpolation: Interpolation, device: &Device) -> Result<Self> {
        self.validate()?;
        let outside = match &self.voxels {
            Voxels::U8(_) => 0.0,
            images => images.range().map_or(0.0, |(low, _)| low),
        };
        let params = ResampleParams {
            size: grid.shape,
            matrix: self.affine.inverse()?.after(&grid.affine).reversed().0,
            interpolation,
            outside: Outside::Constant(outside),
            intensity: None,
        };
        let mut result = Self::from_tensor(&ops::resample(&self.to_tensor(device)?, &params)?, grid.affine)?;
        if let (Voxels::I16(_), Interpolation::Nearest, Voxels::F32(values)) =
            (&self.voxels, interpolation, &result.voxels)
        {
            result.voxels = Voxels::I16(values.iter().map(|&v| v as i16).collect::<Vec<_>>().into());
        }
        Ok(result)
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

    /// From a tensor of one channel [1, 1, d, h, w]: u8 stays labels, every other type becomes f32.
    ///
    /// # Errors
    /// [`Error::Shape`] for another n or c, and as [`Volume::validate`].
    pub fn from_tensor(tensor: &Tensor, affine: Affine) -> Result<Self> {
        let [n, c, d, h, w] = tensor.shape();
        if [n, c] != [1, 1] {
            return Err(Error::shape("volume", "a tensor [1, 1, d, h, w]", format!("{:?}", tensor.shape())));
        }
        let voxels = match tensor.dtype() {
            DType::U8 => Voxels::U8(tensor.to_u8()?.into()),
            _ => Voxels::F32(tensor.to_ndhwc()?.into()),
        };
        Self::new([d, h, w], voxels, affine)
    }
}
