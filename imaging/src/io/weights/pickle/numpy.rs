//! The globals that nnU-Net's postprocessing.pkl names: one function of its own, and the integers of NumPy.

use super::globals::Callable;
use super::{Id, Machine, Parsed, Value};

/// The function that nnU-Net's postprocessing consists of.
pub(in crate::io) const KEEP_LARGEST: &str = "remove_all_but_largest_component_from_segmentation";
const MODULE: &str = "nnunetv2.postprocessing.remove_connected_components";

/// The global `module.name`; None for one that does not belong in a postprocessing.pkl.
pub(super) fn callable(module: &str, name: &str) -> Option<Callable> {
    Some(match (module, name) {
        (MODULE, KEEP_LARGEST) => Callable::KeepLargest,
        ("numpy", "dtype") => Callable::NumpyType,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Callable::NumpyScalar,
        _ => return None,
    })
}

impl Machine<'_> {
    pub(super) fn numpy_type(&self, arguments: &[Id]) -> Parsed<Value> {
        match arguments.first().map(|id| &self.values[*id]) {
            Some(Value::Text(name))
                if matches!(name.as_str(), "i1" | "i2" | "i4" | "i8" | "u1" | "u2" | "u4" | "u8") =>
            {
                Ok(Value::NumpyType(name.clone()))
            }
            _ => Err("has a number of NumPy's that is no integer".into()),
        }
    }

    /// An integer of little-endian bytes.
    pub(super) fn numpy_scalar(&self, arguments: &[Id]) -> Parsed<Value> {
        let (Some(kind), Some(bytes)) = (arguments.first(), arguments.get(1)) else {
            return Err("has a number of NumPy's without a type or bytes".into());
        };
        let (Value::NumpyType(kind), Value::Bytes(bytes)) = (&self.values[*kind], &self.values[*bytes]) else {
            return Err("has a number of NumPy's that is no integer".into());
        };
        let size = usize::from(kind.as_bytes()[1] - b'0');
        let last = match bytes.last() {
            Some(last) if bytes.len() == size => *last,
            _ => return Err(format!("has a number of NumPy's of {} bytes, expected {size}", bytes.len())),
        };
        let mut word = [if kind.starts_with('i') && last >= 0x80 { 0xff } else { 0 }; 8];
        word[..size].copy_from_slice(bytes);
        Ok(Value::Integer(i64::from_le_bytes(word)))
    }

    /// Refuses a type of NumPy's whose state says that its numbers are big-endian.
    pub(super) fn ensure_native(&self, object: Id, state: Id) -> Parsed<()> {
        let (Value::NumpyType(_), Value::Sequence(state)) = (&self.values[object], &self.values[state]) else {
            return Ok(());
        };
        let is_big = |id: &Id| matches!(&self.values[*id], Value::Text(order) if order == ">");
        if state.iter().take(3).any(is_big) { Err("has big-endian numbers".into()) } else { Ok(()) }
    }
}
