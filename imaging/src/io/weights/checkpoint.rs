//! PyTorch's checkpoints: a zip archive of one pickle (`data.pkl`) and a file for each storage (`data/0`, ...).
//!
//! Everything is stored without compression, so that tensors are read directly from the file. The state dict is the root of the
//! pickle, or a member of it that has one of the names that training programs use, or the only member that holds tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Id, Pickle, Purpose, TensorView, Value};
use super::{Entry, TrainingNotes};
use crate::io::numbers::ByteOrder;
use nephron_compute::shown;

/// The first bytes of a zip archive.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// The names under which training programs store the state dict, nnU-Net's name first.
const MEMBERS: [&str; 8] =
    ["network_weights", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights"];
/// What nnU-Net says of how the weights came to be.
const TRAINER: &str = "trainer_name";
const INIT_ARGS: &str = "init_args";
const CONFIGURATION: &str = "configuration";
/// What nnU-Net says of the axes that a network may be mirrored along.
const MIRROR_AXES: &str = "inference_allowed_mirroring_axes";
/// Largest pickle in bytes; that of a checkpoint takes some hundred kilobytes. The most expensive value is a tensor of 16 axes:
/// five bytes of the pickle (two recalls and a call) become about 550 bytes in memory, with the growth of the arena about 650, so
/// that a pickle of this size needs 1.1 GB in the worst case.
const MAX_PICKLE_BYTES: usize = 8 << 20;
/// Largest number of values of a view that repeats its storage (stride 0).
const MAX_REPEATED: usize = 1 << 24;

/// Largest name of a tensor in bytes; longer keys are ignored.
const MAX_NAME_BYTES: usize = 4096;

/// Largest number of names in a message.
const MAX_LISTED: usize = 4;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Whether the bytes are a pickle without an archive: PyTorch's files before 1.6 are a sequence of pickles. A safetensors file may
/// begin with the same two bytes, but the upper half of its header's length is zero.
pub(super) fn is_bare_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, _, _, rest @ ..] if rest.iter().take(4).any(|b| *b != 0))
}

/// The content of a checkpoint.
pub(super) struct Checkpoint {
    /// The tensors by name.
    pub(super) entries: BTreeMap<String, Entry>,
    /// What it says of its training.
    pub(super) training: TrainingNotes,
}

/// Reads a checkpoint's tensors and what it says of its training.
///
/// # Errors
/// A message that says what is wrong with the file.
pub(super) fn read(bytes: &[u8]) -> Result<Checkpoint, String> {
    let damaged = |e| format!("is not a whole zip archive, as torch.save writes: {e}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    let names: Vec<String> =
        archive.file_names().map(|n| Ok(n?.into_owned())).collect::<Result<_, _>>().map_err(damaged)?;
    let root = names.iter().find_map(|name| name.strip_suffix("data.pkl").filter(|r| r.is_empty() || r.ends_with('/')));
    let root = root.ok_or("is a zip archive without data.pkl: no checkpoint of PyTorch")?;
    if names.iter().any(|name| name.strip_prefix(root) == Some("constants.pkl")) {
        return Err("is a TorchScript program, expected a checkpoint: save the network's state_dict() instead".into());
    }
    let mut ranges = BTreeMap::new();
    let mut content = |name: &str| content(&mut archive, &mut ranges, bytes.len(), name);
    let pickle = content(&format!("{root}data.pkl"))?;
    if pickle.len() > MAX_PICKLE_BYTES {
        return Err(format!("has a data.pkl of {} bytes, expected at most {MAX_PICKLE_BYTES}", pickle.len()));
    }
    let pickle = Pickle::read(&bytes[pickle], Purpose::Weights)?;
    let order = match names.iter().find(|name| name.strip_prefix(root) == Some("byteorder")) {
        None => ByteOrder::Little,
        Some(name) => match &bytes[content(name)?] {
            b"little" => ByteOrder::Little,
            b"big" => ByteOrder::Big,
            other => {
                let found = shown(&String::from_utf8_lossy(&other[..other.len().min(16)]));
                return Err(format!("has the byte order '{found}', expected little or big"));
            }
        },
    };
    let mut storages: BTreeMap<String, Range<usize>> = BTreeMap::new();
    let mut entries = BTreeMap::new();
    for (name, view) in state_dict(&pickle)? {
        let storage = match storages.get(&view.storage) {
            Some(range) => range.clone(),
            None => {
                let range = content(&format!("{root}data/{}", view.storage))?;
                storages.insert(view.storage.clone(), range.clone());
                range
            }
        };
        let entry = entry(view, storage, order).map_err(|reason| format!("tensor '{}' {reason}", shown(name)))?;
        entries.insert(name.to_owned(), entry);
    }
    Ok(Checkpoint { entries, training: training(&pickle)? })
}

/// The range of bytes of a file in the archive, which is `length` bytes long, after its checksum was compared. `ranges` maps the
/// start to the end of each file that was read before: no two may overlap, so that all checksums together cost one pass over the
/// archive.
fn content(
    archive: &mut Archive<'_>,
    ranges: &mut BTreeMap<usize, usize>,
    length: usize,
    name: &str,
) -> Result<Range<usize>, String> {
    let index = archive.index_for_name(name);
    let name = shown(name);
    let index = index.ok_or_else(|| format!("has no '{name}'"))?;
    let raw = archive.by_index_raw(index).map_err(|e| format!("'{name}': {e}"))?;
    if raw.compression() != CompressionMethod::Stored || raw.encrypted() || raw.size() != raw.compressed_size() {
        return Err(format!("'{name}' is compressed or encrypted, expected it as torch.save stores it"));
    }
    let range = raw.data_start().and_then(|start| {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(raw.size()).ok()?)?;
        (end <= length).then_some(start..end)
    });
    drop(raw);
    let range = range.ok_or_else(|| format!("is cut short inside '{name}'"))?;
    if !range.is_empty() {
        if ranges.range(..range.end).next_back().is_some_and(|(_, end)| *end > range.start) {
            return Err(format!("'{name}' overlaps another file of the archive, expected bytes of its own"));
        }
        ranges.insert(range.start, range.end);
    }
    let mut file = archive.by_index(index).map_err(|e| format!("'{name}': {e}"))?;
    std::io::copy(&mut file, &mut std::io::sink())
        .map_err(|e| format!("is damaged, or was saved without checksums: '{name}': {e}"))?;
    Ok(range)
}

/// The entry of a view: its bytes in the file, after offset, shape and strides were checked against its storage.
fn entry(view: &TensorView, storage: Range<usize>, order: ByteOrder) -> Result<Entry, String> {
    let size = view.number.size();
    let bytes = view.elements.checked_mul(size);
    if bytes.is_none_or(|bytes| bytes > storage.len()) {
        return Err(format!(
            "needs a storage of {} values of {size} bytes, found {} bytes",
            view.elements,
            storage.len()
        ));
    }
    let count = view.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let count = count.filter(|n| *n <= view.elements.max(MAX_REPEATED));
    let count =
        count.ok_or_else(|| format!("has the shape {:?} on a storage of {} values", view.shape, view.elements))?;
    let reach = |at: usize, (&d, &s): (&usize, &usize)| at.checked_add(s.checked_mul(d.saturating_sub(1))?);
    let last = view.shape.iter().zip(&view.strides).try_fold(view.offset, reach);
    if count > 0 && last.is_none_or(|last| last >= view.elements) {
        return Err(format!(
            "reaches beyond its storage: offset {}, shape {:?}, strides {:?} of {} values",
            view.offset, view.shape, view.strides, view.elements
        ));
    }
    let mut expected = 1;
    let dense = count == 0
        || view.shape.iter().zip(&view.strides).rev().all(|(&d, &s)| {
            let fits = d == 1 || s == expected;
            expected *= d;
            fits
        });
    let start = if count == 0 { storage.start } else { storage.start + view.offset * size };
    let (strides, end) = if dense { (None, start + count * size) } else { (Some(view.strides.clone()), storage.end) };
    Ok(Entry { number: view.number, order, shape: view.shape.clone(), strides, bytes: start..end })
}

/// The members of the state dict that are tensors.
fn state_dict(pickle: &Pickle) -> Result<BTreeMap<&str, &TensorView>, String> {
    let Value::Dict(root) = pickle.root() else {
        return Err("holds no dict, expected a state dict or a checkpoint with one".into());
    };
    // One dict may be a member under many names: each is examined once, and only the tensors of the chosen one are collected.
    let mut seen = BTreeSet::new();
    let (mut named, mut dicts) = (BTreeMap::new(), Vec::new());
    for (name, id) in members(pickle, root) {
        let Value::Dict(pairs) = pickle.get(id) else { continue };
        if seen.insert(id) && pairs.iter().any(|pair| tensor(pickle, *pair).is_some()) {
            dicts.push((name, pairs));
        }
        named.insert(name, pairs);
    }
    let usual = MEMBERS.iter().filter_map(|name| named.get(name));
    for pairs in usual {
        let found = tensors(pickle, pairs);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let own = tensors(pickle, root);
    match dicts.as_slice() {
        _ if !own.is_empty() => Ok(own),
        [(_, pairs)] => Ok(tensors(pickle, pairs)),
        [] => Err("holds no tensors by name, expected a state dict".into()),
        several => {
            let names: Vec<_> = several.iter().take(MAX_LISTED).map(|(name, _)| format!("'{}'", shown(name))).collect();
            let more = if several.len() > MAX_LISTED { ", ..." } else { "" };
            Err(format!(
                "holds {} dicts of tensors ({}{more}), expected one, or one named 'state_dict'",
                several.len(),
                names.join(", ")
            ))
        }
    }
}

/// The values of a dict by their names; the last value of a repeated key wins, as in Python.
fn members<'a>(pickle: &'a Pickle, dict: &[(Id, Id)]) -> BTreeMap<&'a str, Id> {
    // A key may be recalled any number of times; its text is compared only once.
    let mut keys = BTreeSet::new();
    let mut members = BTreeMap::new();
    for (key, value) in dict.iter().rev() {
        if let Value::Text(text) = pickle.get(*key)
            && text.len() <= MAX_NAME_BYTES
            && keys.insert(*key)
        {
            members.entry(text.as_str()).or_insert(*value);
        }
    }
    members
}

fn tensor(pickle: &Pickle, (key, value): (Id, Id)) -> Option<&TensorView> {
    match (pickle.get(key), pickle.get(value)) {
        (Value::Text(key), Value::Tensor(view)) if key.len() <= MAX_NAME_BYTES => Some(view),
        _ => None,
    }
}

fn tensors<'a>(pickle: &'a Pickle, dict: &[(Id, Id)]) -> BTreeMap<&'a str, &'a TensorView> {
    let view = |(name, id): (&'a str, Id)| match pickle.get(id) {
        Value::Tensor(view) => Some((name, view.as_ref())),
        _ => None,
    };
    members(pickle, dict).into_iter().filter_map(view).collect()
}

/// What nnU-Net's trainer wrote beside the weights; nothing where it was not nnU-Net.
fn training(pickle: &Pickle) -> Result<TrainingNotes, String> {
    let Value::Dict(root) = pickle.root() else { return Ok(TrainingNotes::default()) };
    let members = members(pickle, root);
    let text = |id: Option<&Id>| match id.map(|id| pickle.get(*id)) {
        Some(Value::Text(text)) if text.len() <= MAX_NAME_BYTES => Some(shown(text)),
        _ => None,
    };
    let configuration = match members.get(INIT_ARGS).map(|id| pickle.get(*id)) {
        Some(Value::Dict(arguments)) => text(self::members(pickle, arguments).get(CONFIGURATION)),
        _ => None,
    };
    let mirror_axes = members.get(MIRROR_AXES).map(|id| mirror_axes(pickle.get(*id), pickle)).transpose()?;
    Ok(TrainingNotes { trainer: text(members.get(TRAINER)), configuration, mirror_axes, state: None })
}

/// nnU-Net's list of axes, or None for no mirroring at all.
fn mirror_axes(value: &Value, pickle: &Pickle) -> Result<Vec<usize>, String> {
    match value {
        Value::Inert => Ok(Vec::new()),
        Value::Sequence(axes) => {
            let axis = |id: &Id| match pickle.get(*id) {
                Value::Integer(axis @ 0..=2) => Ok(*axis as usize),
                _ => Err(format!("has {MIRROR_AXES} with something else, expected axes from 0 to 2")),
            };
            axes.iter().map(axis).collect()
        }
        _ => Err(format!("has {MIRROR_AXES} that is not a list, expected axes from 0 to 2")),
    }
}
