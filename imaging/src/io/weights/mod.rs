//! Network weights in safetensors files and PyTorch's checkpoints (.pth, .pt), distinguished by their first bytes.
//!
//! The format of safetensors: <https://github.com/huggingface/safetensors>. Nothing in a checkpoint is executed: its pickle is read
//! as data, and a pickle that names any other callable than those of tensors and containers is refused.

mod checkpoint;
pub(in crate::io) mod pickle;
mod write;

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::SourceFile;
use super::numbers::{ByteOrder, Number};
use nephron_compute::ensure_room;
use nephron_compute::error::{Error, Result};
use nephron_compute::{shown, shown_message};

pub use write::{Storage, write, write_as, write_with};

struct Entry {
    number: Number,
    order: ByteOrder,
    shape: Vec<usize>,
    /// The strides in values; None for C order.
    strides: Option<Vec<usize>>,
    /// The bytes of the file from the first value on.
    bytes: Range<usize>,
}

/// Prefixes that PyTorch's wrappers add to every name: data-parallel training and compiled modules.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Tensors by name: a file of weights in memory, or tensors that were inserted. [`Weights::get`] converts values to f32.
#[derive(Default)]
pub struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
    training: TrainingNotes,
}

/// What nnU-Net's checkpoints say beside the weights. Empty for other files, but for safetensors files that hold it as metadata
/// ([`write_with`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct TrainingNotes {
    /// The class that trained the network, which may have built another one than the plans say (`trainer_name`).
    pub trainer: Option<String>,
    /// The configuration of the plans that the network was trained by (`init_args.configuration`).
    pub configuration: Option<String>,
    /// The axes of the network's images, numbered from 0, that it may be mirrored along
    /// (`inference_allowed_mirroring_axes`); none where the checkpoint says None, absent where it says nothing.
    pub mirror_axes: Option<Vec<usize>>,
    /// Where an interrupted training stood, as nephron writes it into its own checkpoints; absent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Weights {
    /// Reads a file of bool, integer, F16, BF16, F32 and F64 tensors. The tensors of a checkpoint are those of its state dict: the
    /// root of the file, or its member `network_weights` (nnU-Net), `state_dict`, `model_state_dict`, `model` and the like, or
    /// the only member that holds tensors. A prefix `module.` or `_orig_mod.` that every name has is removed.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is neither safetensors nor a zip archive of `torch.save`, is truncated or damaged, has a
    /// tensor of another type or one that exceeds its storage, or whose pickle names anything but tensors, containers and plain
    /// values.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut file, metadata) = super::open(path)?;
        let mut bytes = Vec::new();
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        let refused = || Error::file(path, format!("{length} bytes do not fit in memory"));
        ensure_room::<u8>("weights", length).map_err(|_| refused())?;
        bytes.try_reserve_exact(length).map_err(|_| refused())?;
        file.read_to_end(&mut bytes).map_err(|e| Error::io(path, "cannot be read", e))?;

        Self::from_bytes(path, bytes)
    }

    /// As [`Weights::read`] for the bytes of a file; errors name it `path`.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self> {
        let path = path.as_ref();
        let mut training = TrainingNotes::default();
        let entries = if bytes.starts_with(checkpoint::ZIP) {
            checkpoint::read(&bytes).map(|read| {
                training = read.training;
                read.entries
            })
        } else if checkpoint::is_bare_pickle(&bytes) {
            Err("is a file of torch.save before PyTorch 1.6, expected its zip format: load it in PyTorch and save it again".into())
        } else {
            safetensors_entries(&bytes).and_then(|entries| {
                training = safetensors_training(&bytes)?;
                Ok(entries)
            })
        };
        let entries = unwrapped(entries.map_err(|reason: String| Error::file(path, reason))?);
        Ok(Self { path: path.to_path_buf(), bytes, entries, training })
    }

    /// Adds an f32 tensor with values in C order, and replaces one of the same name.
    ///
    /// # Errors
    /// [`Error::Shape`] where the number of values is not that of the shape.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: &[f32]) -> Result<()> {
        let name = name.into();
        ensure_length(&name, &shape, values.len())?;
        let start = self.bytes.len();
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let bytes = start..self.bytes.len();
        self.entries.insert(name, Entry { number: Number::F32, order: ByteOrder::Little, shape, strides: None, bytes });
        Ok(())
    }

    /// Shape and values (f32, C order) of a tensor.
    ///
    /// # Errors
    /// [`Error::File`] where no tensor has that name; the message contains the nearest name.
    pub fn get(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let entry = self.entries.get(name).ok_or_else(|| Error::file(&self.path, self.missing(name)))?;
        Ok((entry.shape.clone(), entry.values(&self.bytes)))
    }

    /// The shape of a tensor; None where no tensor has that name.
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

    /// The file the weights came from, with the hash of the bytes that were read.
    pub fn source(&self) -> SourceFile {
        SourceFile::of(&self.path, &self.bytes)
    }

    /// What nnU-Net's trainer wrote beside the weights.
    pub fn training(&self) -> &TrainingNotes {
        &self.training
    }

    fn missing(&self, name: &str) -> String {
        let name = shown(name);
        match self.names().min_by_key(|other| edit_distance(&name, other)) {
            Some(nearest) => format!("has no tensor '{name}'; the nearest name is '{}'", shown(nearest)),
            None => format!("has no tensor '{name}'; it holds none at all"),
        }
    }
}

impl Entry {
    fn values(&self, file: &[u8]) -> Vec<f32> {
        let (bytes, size) = (&file[self.bytes.clone()], self.number.size());
        let count: usize = self.shape.iter().product();
        let mut values = Vec::with_capacity(count);
        let Some(strides) = &self.strides else {
            self.number.decode(self.order, bytes, |v| values.push(v as f32));
            return values;
        };
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(strides).map(|(i, s)| i * s).sum();
            self.number.decode(self.order, &bytes[at * size..(at + 1) * size], |v| values.push(v as f32));
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        values
    }
}

fn safetensors_entries(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| {
        format!("is neither a whole safetensors file ({}) nor a checkpoint of PyTorch", shown_message(e))
    })?;
    let mut entries = BTreeMap::new();
    for (name, view) in file.iter() {
        let number = number(view.dtype()).ok_or_else(|| {
            let (name, found) = (shown(name), view.dtype());
            format!("tensor '{name}' has type {found}, expected bool, an integer, F16, BF16, F32 or F64")
        })?;
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        let (shape, bytes) = (view.shape().to_vec(), start..start + view.data().len());
        entries.insert(name.to_owned(), Entry { number, order: ByteOrder::Little, shape, strides: None, bytes });
    }
    Ok(entries)
}

/// The member of a safetensors file's metadata that holds [`TrainingNotes`] as JSON.
const TRAINING: &str = "nnunet_training";

fn safetensors_training(bytes: &[u8]) -> Result<TrainingNotes, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(shown_message)?;
    let Some(text) = header.metadata().as_ref().and_then(|metadata| metadata.get(TRAINING)) else {
        return Ok(TrainingNotes::default());
    };
    let notes: TrainingNotes = serde_json::from_str(text)
        .map_err(|e| format!("has metadata '{TRAINING}' that is not understood: {}", shown_message(e)))?;
    if notes.mirror_axes.iter().flatten().any(|axis| *axis > 2) {
        return Err(format!("has metadata '{TRAINING}' with mirror_axes of something else than axes from 0 to 2"));
    }
    let text = |text: Option<String>| text.map(|text| shown(&text));
    Ok(TrainingNotes { trainer: text(notes.trainer), configuration: text(notes.configuration), ..notes })
}

/// The tensors without those prefixes of wrappers that all names have.
fn unwrapped(mut entries: BTreeMap<String, Entry>) -> BTreeMap<String, Entry> {
    while let Some(prefix) = WRAPPERS.iter().find(|p| !entries.is_empty() && entries.keys().all(|k| k.starts_with(**p)))
    {
        entries = entries.into_iter().map(|(name, entry)| (name[prefix.len()..].to_owned(), entry)).collect();
    }
    entries
}

fn ensure_length(name: &str, shape: &[usize], found: usize) -> Result<()> {
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
