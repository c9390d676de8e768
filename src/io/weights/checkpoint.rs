//! PyTorch's checkpoints: a zip archive of one pickle (`data.pkl`) and a file for each storage (`data/0`, ...).
//!
//! Everything is stored, not compressed, so tensors are read where they lie in the file. The state dict is the root of the
//! pickle or one of its members, under a name that training programs use or as the only member that holds tensors.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::Entry;
use super::pickle::{Id, Pickle, TensorView, Value};
use crate::io::numbers::ByteOrder;

/// What a zip archive begins with.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// Where training programs put the state dict, nnU-Net's name first.
const MEMBERS: [&str; 8] =
    ["network_weights", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights"];
/// A checkpoint's pickle takes some hundred kilobytes. Values take about fifty times their bytes, so this bounds memory.
const MOST_PICKLE_BYTES: usize = 32 << 20;
/// Views that repeat their storage (stride 0) may have this many values more than it.
const MOST_REPEATED: usize = 1 << 24;

/// As [`MOST_REPEATED`], for the bytes of a name.
const MOST_NAME_BYTES: usize = 4096;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// A bare pickle: PyTorch's files before 1.6 are a row of them. A safetensors file may begin with the same two bytes, but the
/// upper half of its header's length is zero.
pub(super) fn is_bare_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, _, _, rest @ ..] if rest.iter().take(4).any(|b| *b != 0))
}

/// The tensors of a checkpoint by name.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn entries(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    let damaged = |e| format!("is not a whole zip archive, as torch.save writes: {e}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    let names: Vec<String> =
        archive.file_names().map(|n| Ok(n?.into_owned())).collect::<Result<_, _>>().map_err(damaged)?;
    let root = names.iter().find_map(|name| name.strip_suffix("data.pkl").filter(|r| r.is_empty() || r.ends_with('/')));
    let root = root.ok_or("is a zip archive without data.pkl: no checkpoint of PyTorch")?;
    if names.iter().any(|name| name.strip_prefix(root) == Some("constants.pkl")) {
        return Err("is a TorchScript program, expected a checkpoint: save the network's state_dict() instead".into());
    }
    let pickle = content(&mut archive, bytes.len(), &format!("{root}data.pkl"))?;
    if pickle.len() > MOST_PICKLE_BYTES {
        return Err(format!("has a data.pkl of {} bytes, expected at most {MOST_PICKLE_BYTES}", pickle.len()));
    }
    let pickle = Pickle::read(&bytes[pickle])?;
    let order = match names.iter().find(|name| name.strip_prefix(root) == Some("byteorder")) {
        None => ByteOrder::Little,
        Some(name) => match &bytes[content(&mut archive, bytes.len(), name)?] {
            b"little" => ByteOrder::Little,
            b"big" => ByteOrder::Big,
            other => {
                return Err(format!("has the byte order {:?}", String::from_utf8_lossy(&other[..other.len().min(16)])));
            }
        },
    };
    let mut storages: BTreeMap<String, Range<usize>> = BTreeMap::new();
    let mut entries = BTreeMap::new();
    for (name, view) in state_dict(&pickle)? {
        let storage = match storages.get(&view.storage) {
            Some(range) => range.clone(),
            None => {
                let range = content(&mut archive, bytes.len(), &format!("{root}data/{}", view.storage))?;
                storages.insert(view.storage.clone(), range.clone());
                range
            }
        };
        let entry = entry(view, storage, order).map_err(|reason| format!("tensor '{name}' {reason}"))?;
        entries.insert(name.to_owned(), entry);
    }
    Ok(entries)
}

/// Where a file of the archive, which is `length` bytes long, lies; its checksum is compared.
fn content(archive: &mut Archive<'_>, length: usize, name: &str) -> Result<Range<usize>, String> {
    let index = archive.index_for_name(name).ok_or_else(|| format!("has no '{name}'"))?;
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
fn state_dict(pickle: &Pickle) -> Result<Vec<(&str, &TensorView)>, String> {
    let Value::Dict(root) = pickle.root() else {
        return Err("holds no dict, expected a state dict or a checkpoint with one".into());
    };
    let dicts: Vec<(&str, Vec<(&str, &TensorView)>)> = root
        .iter()
        .filter_map(|(key, value)| match (pickle.get(*key), pickle.get(*value)) {
            (Value::Text(key), Value::Dict(members)) => Some((key.as_str(), tensors(pickle, members))),
            _ => None,
        })
        .filter(|(_, tensors)| !tensors.is_empty())
        .collect();
    if let Some((_, tensors)) = MEMBERS.iter().find_map(|name| dicts.iter().rfind(|(key, _)| key == name)) {
        return Ok(tensors.clone());
    }
    let own = tensors(pickle, root);
    match dicts.as_slice() {
        _ if !own.is_empty() => Ok(own),
        [(_, tensors)] => Ok(tensors.clone()),
        [] => Err("holds no tensors by name, expected a state dict".into()),
        several => {
            let names: Vec<_> = several.iter().map(|(name, _)| format!("'{name}'")).collect();
            Err(format!(
                "holds several dicts of tensors ({}), expected one, or one named 'state_dict'",
                names.join(", ")
            ))
        }
    }
}

fn tensors<'a>(pickle: &'a Pickle, dict: &'a [(Id, Id)]) -> Vec<(&'a str, &'a TensorView)> {
    dict.iter()
        .filter_map(|(key, value)| match (pickle.get(*key), pickle.get(*value)) {
            (Value::Text(key), Value::Tensor(view)) if key.len() <= MOST_NAME_BYTES => {
                Some((key.as_str(), view.as_ref()))
            }
            _ => None,
        })
        .collect()
}
