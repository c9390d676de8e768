//! PyTorch's checkpoints: a zip archive of one pickle (`data.pkl`) and a file for each storage (`data/0`, ...).
//!
//! Everything is stored, not compressed, so tensors are read where they lie in the file. The state dict is the root of the
//! pickle or one of its members, under a name that training programs use or as the only member that holds tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Id, Pickle, TensorView, Value};
use super::{Entry, TrainingNotes, shown};
use crate::io::numbers::ByteOrder;

/// What a zip archive begins with.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// Where training programs put the state dict, nnU-Net's name first.
const MEMBERS: [&str; 8] =
    ["network_weights", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights"];
/// What nnU-Net says of how the weights came to be.
const TRAINER: &str = "trainer_name";
const INIT_ARGS: &str = "init_args";
const CONFIGURATION: &str = "configuration";
/// What nnU-Net says of the axes that a network may be mirrored along.
const MIRROR_AXES: &str = "inference_allowed_mirroring_axes";
/// A checkpoint's pickle takes some hundred kilobytes. The dearest value is a tensor of 16 axes: five bytes (two recalls and a
/// call) make some 550, the arena's own growth included some 650, so that a pickle of this size takes 1.1 GB at the worst.
const MOST_PICKLE_BYTES: usize = 8 << 20;
/// Views that repeat their storage (stride 0) may have this many values more than it.
const MOST_REPEATED: usize = 1 << 24;

/// As [`MOST_REPEATED`], for the bytes of a name.
const MOST_NAME_BYTES: usize = 4096;

/// Names that a message lists.
const MOST_LISTED: usize = 4;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// A bare pickle: PyTorch's files before 1.6 are a row of them. A safetensors file may begin with the same two bytes, but the
/// upper half of its header's length is zero.
pub(super) fn is_bare_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, _, _, rest @ ..] if rest.iter().take(4).any(|b| *b != 0))
}

/// What a checkpoint says.
pub(super) struct Checkpoint {
    /// The tensors by name.
    pub(super) entries: BTreeMap<String, Entry>,
    /// What it says of its training.
    pub(super) training: TrainingNotes,
}

/// Reads a checkpoint's tensors and what it says of its training.
///
/// # Errors
/// What is wrong, in words.
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
    let mut places = BTreeMap::new();
    let mut content = |name: &str| content(&mut archive, &mut places, bytes.len(), name);
    let pickle = content(&format!("{root}data.pkl"))?;
    if pickle.len() > MOST_PICKLE_BYTES {
        return Err(format!("has a data.pkl of {} bytes, expected at most {MOST_PICKLE_BYTES}", pickle.len()));
    }
    let pickle = Pickle::read(&bytes[pickle])?;
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

/// Where a file of the archive, which is `length` bytes long, lies; its checksum is compared. `places` are those of the files
/// before it, by their starts: none may lie on another, so that all checksums together cost one reading of the archive.
fn content(
    archive: &mut Archive<'_>,
    places: &mut BTreeMap<usize, usize>,
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
        if places.range(..range.end).next_back().is_some_and(|(_, end)| *end > range.start) {
            return Err(format!("'{name}' lies on another file of the archive, expected a place of its own"));
        }
        places.insert(range.start, range.end);
    }
    let mut file = archive.by_index(index).map_err(|e| format!("'{name}': {e}"))?;
    std::io::copy(&mut file, &mut std::io::sink())
        .map_err(|e| format!("is damaged, or was saved without checksums: '{name}': {e}"))?;
    Ok(range)
}

/// A view's place in the file, after every number in it was checked against its storage.
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
    let count = count.filter(|n| *n <= view.elements.max(MOST_REPEATED));
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
    // One dict may be named many times: each is looked into once, and only the chosen one's tensors are gathered.
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
            let names: Vec<_> =
                several.iter().take(MOST_LISTED).map(|(name, _)| format!("'{}'", shown(name))).collect();
            let more = if several.len() > MOST_LISTED { ", ..." } else { "" };
            Err(format!(
                "holds {} dicts of tensors ({}{more}), expected one, or one named 'state_dict'",
                several.len(),
                names.join(", ")
            ))
        }
    }
}

/// The values of a dict by their names: of one key the last, as Python has it.
fn members<'a>(pickle: &'a Pickle, dict: &[(Id, Id)]) -> BTreeMap<&'a str, Id> {
    // A key may be recalled any number of times, and its text compared only once.
    let mut keys = BTreeSet::new();
    let mut members = BTreeMap::new();
    for (key, value) in dict.iter().rev() {
        if let Value::Text(text) = pickle.get(*key)
            && text.len() <= MOST_NAME_BYTES
            && keys.insert(*key)
        {
            members.entry(text.as_str()).or_insert(*value);
        }
    }
    members
}

fn tensor(pickle: &Pickle, (key, value): (Id, Id)) -> Option<&TensorView> {
    match (pickle.get(key), pickle.get(value)) {
        (Value::Text(key), Value::Tensor(view)) if key.len() <= MOST_NAME_BYTES => Some(view),
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
        Some(Value::Text(text)) if text.len() <= MOST_NAME_BYTES => Some(shown(text)),
        _ => None,
    };
    let configuration = match members.get(INIT_ARGS).map(|id| pickle.get(*id)) {
        Some(Value::Dict(arguments)) => text(self::members(pickle, arguments).get(CONFIGURATION)),
        _ => None,
    };
    let mirror_axes = members.get(MIRROR_AXES).map(|id| mirror_axes(pickle.get(*id), pickle)).transpose()?;
    Ok(TrainingNotes { trainer: text(members.get(TRAINER)), configuration, mirror_axes })
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
        _ => Err(format!("has {MIRROR_AXES} that is no list, expected axes from 0 to 2")),
    }
}
