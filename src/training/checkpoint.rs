//! What a training needs to go on bit for bit, in one file that is replaced as a whole.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::optimizer::Sgd;
use super::record::EpochRecord;
use crate::error::{Error, Result};
use crate::io::weights::{self, TrainingNotes, Weights};
use crate::tensor::{DType, Tensor};

/// The names of momentum buffers begin with this.
const MOMENTUM: &str = "momentum.";

/// A tensor of a network as files have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    /// PyTorch's shape.
    pub(super) stored: &'a [usize],
    pub(super) tensor: &'a Tensor,
}

/// Where a training stands, beside its weights and momentum.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    /// Steps that are done.
    pub(super) iteration: u64,
    /// The sum of the losses of the epoch under way.
    pub(super) loss: f64,
    /// The epochs that are done.
    pub(super) records: Vec<StoredRecord>,
}

/// A state as it is stored, with the bits of every number: text would round them.
#[derive(Serialize, Deserialize)]
struct Stored {
    iteration: u64,
    loss: u64,
    records: Vec<StoredRecord>,
    settings: Settings,
}

/// An epoch as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredRecord {
    pub(super) epoch: u64,
    /// Learning rate, loss, seconds and idle share.
    numbers: [u64; 4],
    /// Those of a validation.
    #[serde(rename = "dice")]
    scores: Option<Vec<u64>>,
}

impl StoredRecord {
    /// `numbers` are learning rate, loss, seconds and idle share; `scores` those of a validation, where there was one.
    pub(super) fn new(epoch: u64, numbers: [f64; 4], scores: Option<&[f64]>) -> Self {
        let scores = scores.map(|scores| scores.iter().map(|d| d.to_bits()).collect());
        Self { epoch, numbers: numbers.map(f64::to_bits), scores }
    }

    pub(super) fn numbers(&self) -> [f64; 4] {
        self.numbers.map(f64::from_bits)
    }

    pub(super) fn scores(&self) -> Option<Vec<f64>> {
        self.scores.as_ref().map(|scores| scores.iter().map(|d| f64::from_bits(*d)).collect())
    }
}

impl From<&EpochRecord> for StoredRecord {
    fn from(record: &EpochRecord) -> Self {
        let EpochRecord { epoch, learning_rate, loss, seconds, idle, .. } = *record;
        Self::new(epoch, [learning_rate, loss, seconds, idle], record.dice.as_deref())
    }
}

impl From<&StoredRecord> for EpochRecord {
    fn from(stored: &StoredRecord) -> Self {
        let [learning_rate, loss, seconds, idle] = stored.numbers();
        Self { epoch: stored.epoch, learning_rate, loss, dice: stored.scores(), seconds, idle }
    }
}

/// The settings that the weights depend on: the rest of a training is the same if they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// The options as JSON.
    options: String,
    /// SHA-256 of the prepared cases.
    data: String,
    /// SHA-256 of plans.json, or of what stands for it.
    plans: String,
}

impl Settings {
    pub(super) fn new(options: &impl Serialize, data: String, plans: String) -> Self {
        Self { options: serde_json::to_string(options).unwrap_or_default(), data, plans }
    }

    /// Refuses other settings than those of the checkpoint.
    fn ensure_same(&self, path: &Path, found: &Self) -> Result<()> {
        let pairs = [
            ("data", &self.data, &found.data),
            ("plans", &self.plans, &found.plans),
            ("options", &self.options, &found.options),
        ];
        for (what, now, then) in pairs {
            if now != then {
                let reason = format!("cannot be resumed: its {what} are {then}, those of this training {now}");
                return Err(Error::file(path, reason));
            }
        }
        Ok(())
    }
}

/// Writes a checkpoint: weights, their momentum, and what else a network keeps (`statistics`).
///
/// # Errors
/// A file that cannot be written, which leaves the one before; a device that fails.
pub(super) fn write(
    path: &Path,
    weights: &[Named<'_>],
    statistics: &[Named<'_>],
    sgd: &Sgd,
    state: State,
    settings: &Settings,
) -> Result<()> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for Named { name, stored, tensor } in weights.iter().chain(statistics) {
        tensors.push(((*name).to_owned(), stored.to_vec(), tensor.to_ncdhw()?));
    }
    for (Named { name, stored, .. }, buffer) in weights.iter().zip(sgd.buffers()) {
        if let Some(buffer) = buffer {
            tensors.push((format!("{MOMENTUM}{name}"), stored.to_vec(), buffer.to_ncdhw()?));
        }
    }
    let views: Vec<(&str, &[usize], &[f32])> =
        tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice())).collect();
    let State { iteration, loss, records } = state;
    let stored = Stored { iteration, loss: loss.to_bits(), records, settings: settings.clone() };
    let mut notes = TrainingNotes::default();
    notes.state = Some(serde_json::to_string(&stored).map_err(|e| Error::io(path, "cannot be written", e))?);
    weights::write_with(path, &views, &notes)
}

/// What a checkpoint holds.
pub(super) struct Contents {
    pub(super) state: State,
    /// The weights of the network, in its order.
    pub(super) weights: Vec<Tensor>,
    pub(super) statistics: Vec<Tensor>,
    /// The momentum of every weight.
    pub(super) buffers: Vec<Option<Tensor>>,
}

/// Reads a checkpoint of a training with these settings, whose network has tensors such as `weights` and `statistics`.
///
/// # Errors
/// A file that is no checkpoint of nephron's, or of another training: the message says what differs.
pub(super) fn read(
    path: &Path,
    settings: &Settings,
    weights: &[Named<'_>],
    statistics: &[Named<'_>],
) -> Result<Contents> {
    let file = Weights::read(path)?;
    let Some(text) = &file.training().state else {
        return Err(Error::file(path, "is no checkpoint of a training with nephron"));
    };
    let stored = serde_json::from_str(text).map_err(|e| Error::io(path, "has a state that cannot be read", e));
    let stored: Stored = stored?;
    settings.ensure_same(path, &stored.settings)?;
    let read = |name: &str, like: &Named<'_>| {
        let (shape, values) = file.get(name)?;
        if shape != like.stored {
            let reason = format!("tensor '{name}': expected shape {:?}, found {shape:?}", like.stored);
            return Err(Error::file(path, reason));
        }
        Tensor::from_ncdhw(&like.tensor.device(), like.tensor.shape(), DType::F32, &values)
    };
    let momentum = |like: &Named<'_>| {
        let name = format!("{MOMENTUM}{}", like.name);
        file.shape(&name).is_some().then(|| read(&name, like)).transpose()
    };
    let all = |tensors: &[Named<'_>]| tensors.iter().map(|like| read(like.name, like)).collect::<Result<Vec<_>>>();
    Ok(Contents {
        weights: all(weights)?,
        statistics: all(statistics)?,
        buffers: weights.iter().map(momentum).collect::<Result<_>>()?,
        state: State { iteration: stored.iteration, loss: f64::from_bits(stored.loss), records: stored.records },
    })
}
