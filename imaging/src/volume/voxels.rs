//! The values of a volume, in the narrowest type that holds them.

use std::sync::Arc;

use nephron_compute::tensor::DType;

/// The values of a volume in the order of the file: w (= i) fastest, then h (= j), then d (= k).
#[derive(Debug, Clone, PartialEq)]
pub enum Voxels {
    /// Labels.
    U8(Arc<Vec<u8>>),
    /// CT in Hounsfield units.
    I16(Arc<Vec<i16>>),
    /// Every other image.
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

    /// Whether there are no voxels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
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

    /// The smallest and the largest value, without NaN. None where every value is NaN.
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
