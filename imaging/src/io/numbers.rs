//! The number types of files, and decoding them.

use std::fmt;

use half::{bf16, f16};

/// The type of a stored number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the documentation.
pub enum Number {
    Bool,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    BF16,
    F32,
    F64,
}

/// The order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// The least significant byte comes first.
    Little,
    /// The most significant byte comes first.
    Big,
}

impl ByteOrder {
    /// The bytes of a number in little-endian order.
    pub(crate) fn little<const N: usize>(self, mut bytes: [u8; N]) -> [u8; N] {
        if self == Self::Big {
            bytes.reverse();
        }
        bytes
    }
}

impl Number {
    /// Number of bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Whether it is a type of whole numbers (bool included).
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Calls `each` with every number in `bytes`, in order; a remainder shorter than a number is ignored. 64-bit integers
    /// above 2^53 are rounded to f64.
    pub(crate) fn decode(self, order: ByteOrder, bytes: &[u8], mut each: impl FnMut(f64)) {
        match self {
            Self::Bool => bytes.iter().for_each(|&b| each(f64::from(u8::from(b != 0)))),
            Self::U8 => bytes.iter().for_each(|&b| each(b.into())),
            Self::I8 => bytes.iter().for_each(|&b| each((b as i8).into())),
            Self::I16 => words(order, bytes, |w| each(i16::from_le_bytes(w).into())),
            Self::U16 => words(order, bytes, |w| each(u16::from_le_bytes(w).into())),
            Self::I32 => words(order, bytes, |w| each(i32::from_le_bytes(w).into())),
            Self::U32 => words(order, bytes, |w| each(u32::from_le_bytes(w).into())),
            Self::I64 => words(order, bytes, |w| each(i64::from_le_bytes(w) as f64)),
            Self::U64 => words(order, bytes, |w| each(u64::from_le_bytes(w) as f64)),
            Self::F16 => words(order, bytes, |w| each(f16::from_le_bytes(w).into())),
            Self::BF16 => words(order, bytes, |w| each(bf16::from_le_bytes(w).into())),
            Self::F32 => words(order, bytes, |w| each(f32::from_le_bytes(w).into())),
            Self::F64 => words(order, bytes, |w| each(f64::from_le_bytes(w))),
        }
    }
}

fn words<const N: usize>(order: ByteOrder, bytes: &[u8], mut each: impl FnMut([u8; N])) {
    for word in bytes.as_chunks::<N>().0 {
        each(order.little(*word));
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::I16 => "int16",
            Self::U16 => "uint16",
            Self::I32 => "int32",
            Self::U32 => "uint32",
            Self::I64 => "int64",
            Self::U64 => "uint64",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        })
    }
}
