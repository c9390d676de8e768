//! Network weights in safetensors files.
//!
//! Source: <https://github.com/huggingface/safetensors>

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::numbers::{ByteOrder, Number};
use crate::error::{Error, Result};

struct Entry {
    number: Number,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A safetensors file in memory, or tensors put together by name. Values become f32 when they are asked for.
#[derive(Default)]
pub struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
}

impl Weights {
    /// Reads a file of bool, integer, F16, BF16, F32 and F64 tensors.
    ///
    /// # Errors
    /// [`Error::File`]: not a safetensors file, cut short, or a tensor of another type.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut file, metadata) = super::open(path)?;
        let mut bytes = Vec::new();
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        bytes
            .try_reserve_exact(length)
            .map_err(|_| Error::file(path, format!("{length} bytes do not fit in memory")))?;
        file.read_to_end(&mut bytes).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;

        Self::from_bytes(path, bytes)
    }

    /// As [`Weights::read`] for the bytes of a file, `path` being what errors call it.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self> {
        let path = path.as_ref();
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::file(path, format!("is not a whole safetensors file: {e}")))?;
        let mut entries = BTreeMap::new();
        for (name, view) in file.iter() {
            let number = number(view.dtype()).ok_or_else(|| {
                Error::file(path, format!("tensor '{name}' has type {}, expected F32, F16, BF16 or F64", view.dtype()))
            })?;
            let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            let entry = Entry { number, shape: view.shape().to_vec(), bytes: start..start + view.data().len() };
            entries.insert(name.to_owned(), entry);
        }
        Ok(Self { path: path.to_path_buf(), bytes, entries })
    }

    /// Adds an f32 tensor, values in C order; one of the same name is replaced.
    ///
    /// # Errors
    /// [`Error::Shape`] for values that do not have their shape's length.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: &[f32]) -> Result<()> {
        let name = name.into();
        check_length(&name, &shape, values.len())?;
        let start = self.bytes.len();
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self.entries.insert(name, Entry { number: Number::F32, shape, bytes: start..self.bytes.len() });
        Ok(())
    }

    /// Shape and values (C order) of a tensor.
    ///
    /// # Errors
    /// [`Error::File`] when there is none of that name; the message gives the nearest one.
    pub fn get(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let entry = self.entries.get(name).ok_or_else(|| Error::file(&self.path, self.missing(name)))?;
        let mut values = Vec::with_capacity(entry.bytes.len() / entry.number.size());
        entry.number.decode(ByteOrder::Little, &self.bytes[entry.bytes.clone()], |v| values.push(v as f32));
        Ok((entry.shape.clone(), values))
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The file the weights came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn missing(&self, name: &str) -> String {
        match self.names().min_by_key(|other| edit_distance(name, other)) {
            Some(nearest) => format!("has no tensor '{name}'; the nearest name is '{nearest}'"),
            None => format!("has no tensor '{name}'; it holds none at all"),
        }
    }
}

/// Writes f32 tensors: name, shape and values in C order of each.
///
/// # Errors
/// [`Error::Shape`] for values that do not have their shape's length, [`Error::File`] when writing fails.
pub fn write(path: impl AsRef<Path>, tensors: &[(&str, &[usize], &[f32])]) -> Result<()> {
    let path = path.as_ref();
    for (name, shape, values) in tensors {
        check_length(name, shape, values.len())?;
    }
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let refused = |e| Error::file(path, format!("cannot be written: {e}"));
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    let file = safetensors::serialize(views, None).map_err(refused)?;
    super::write_atomic(path, |out| out.write_all(&file))
}

fn check_length(name: &str, shape: &[usize], found: usize) -> Result<()> {
    if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) == Some(found) {
        return Ok(());
    }
    Err(Error::shape(format!("tensor '{name}'"), format!("as many values as {shape:?}"), found))
}

fn number(dtype: Dtype) -> Option<Number> {
    Some(match dtype {
        Dtype::BOOL => Number::Bool,
        Dtype::I8 => Number::I8,
        Dtype::U8 => Number::U8,
        Dtype::I16 => Number::I16,
        Dtype::U16 => Number::U16,
        Dtype::I32 => Number::I32,
        Dtype::U32 => Number::U32,
        Dtype::I64 => Number::I64,
        Dtype::U64 => Number::U64,
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::BF16,
        Dtype::F32 => Number::F32,
        Dtype::F64 => Number::F64,
        _ => return None,
    })
}

/// Levenshtein's distance: the fewest insertions, deletions and substitutions of bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
