//! Writing weights as safetensors.

use std::io::Write;
use std::path::Path;

use half::f16;
use safetensors::tensor::{Dtype, TensorView};

use super::{TRAINING, TrainingNotes, ensure_length};
use crate::io::write_atomic;
use nephron_compute::error::{Error, Result};

/// Writes f32 tensors as safetensors; each is its name, its shape and its values in C order.
///
/// # Errors
/// [`Error::Shape`] where the number of values is not that of the shape, [`Error::File`] where the file cannot be written.
pub fn write(path: impl AsRef<Path>, tensors: &[(&str, &[usize], &[f32])]) -> Result<()> {
    write_with(path, tensors, &TrainingNotes::default())
}

/// As [`write`], with what is known of the weights' training as metadata, from which [`Weights::training`] has it again.
///
/// # Errors
/// As [`write`].
pub fn write_with(
    path: impl AsRef<Path>,
    tensors: &[(&str, &[usize], &[f32])],
    training: &TrainingNotes,
) -> Result<()> {
    write_as(path, tensors, training, Storage::F32)
}

/// The type that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// As they are.
    #[default]
    F32,
    /// Rounded to the nearest f16, in half the space.
    F16,
}

/// As [`write_with`], in a type of choice.
///
/// # Errors
/// As [`write`]; a value that f16 cannot hold, with its tensor.
pub fn write_as(
    path: impl AsRef<Path>,
    tensors: &[(&str, &[usize], &[f32])],
    training: &TrainingNotes,
    storage: Storage,
) -> Result<()> {
    let path = path.as_ref();
    for (name, shape, values) in tensors {
        ensure_length(name, shape, values.len())?;
    }
    let encode = |(name, _, values): &(&str, &[usize], &[f32])| match storage {
        Storage::F32 => Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Storage::F16 => {
            // What is infinite or NaN already stays so.
            let lost = |v: &&f32| v.is_finite() && !f16::from_f32(**v).is_finite();
            match values.iter().find(lost) {
                Some(value) => {
                    let reason = format!("{name} holds {value}, expected at most {} in f16", f16::MAX);
                    Err(Error::file(path, reason))
                }
                None => Ok(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
            }
        }
    };
    let bytes: Vec<Vec<u8>> = tensors.iter().map(encode).collect::<Result<_>>()?;
    let dtype = match storage {
        Storage::F32 => Dtype::F32,
        Storage::F16 => Dtype::F16,
    };
    let refused = |e| Error::io(path, "cannot be written", e);
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| Ok((*name, TensorView::new(dtype, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    // One member, so that the bytes do not depend on the order of a hash map.
    let metadata = if *training == TrainingNotes::default() {
        None
    } else {
        let text = serde_json::to_string(training).map_err(|e| Error::io(path, "cannot be written", e))?;
        Some([(TRAINING.to_owned(), text)].into_iter().collect())
    };
    let file = safetensors::serialize(views, metadata).map_err(refused)?;
    write_atomic(path, |out| out.write_all(&file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_f16_cannot_hold_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("w.safetensors");
        let write = |value: f32| {
            let values = [0.1, value];
            write_as(&path, &[("a.weight", &[2], &values)], &TrainingNotes::default(), Storage::F16)
        };
        let message = write(-70_000.0).expect_err("too large").to_string();
        assert!(message.contains("a.weight") && message.contains("-70000") && message.contains("65504"), "{message}");
        assert!(!path.exists());
        write(65_504.0).expect("written");
        let (_, values) = super::super::Weights::read(&path).expect("weights").get("a.weight").expect("a tensor");
        assert_eq!(values, [0.099_975_586, 65_504.0]);
    }
}
