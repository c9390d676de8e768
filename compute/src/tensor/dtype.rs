//! The storage types of tensors.

use std::fmt;

/// The storage type of an element. Arithmetic is always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// IEEE half precision; on GPUs only.
    F16,
    /// bfloat16; on GPUs only.
    BF16,
    /// Labels.
    U8,
    /// CT in Hounsfield units.
    I16,
}

impl DType {
    /// Number of bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::U8 => 1,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::U8 => "u8",
            Self::I16 => "i16",
        })
    }
}
