//! What a training needs to go on bit for bit, in one file that is replaced as a whole.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::network::TrainableUNet;
use super::optimizer::Sgd;
use super::options::TrainOptions;
use super::record::EpochRecord;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::{self, TrainingNotes, Weights};
use crate::tensor::{DType, Tensor};

/// The names of momentum buffers begin with this.
const MOMENTUM: &str = "momentum.";

/// Where a training stands, beside its weights and momentum.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    /// Steps that are done.
    pub(super) iteration: u64,
    /// The sum of the losses of the epoch under way.
    pub(super) loss: f64,
    /// The epochs that are done.
    pub(super) records: Vec<EpochRecord>,
}

/// A state as it is stored, with the bits of every number: text would round them.
#[derive(Serialize, Deserialize)]
struct Stored {
    iteration: u64,
    loss: u64,
    records: Vec<StoredRecord>,
    settings: Settings,
}

#[derive(Serialize, Deserialize)]
struct StoredRecord {
    epoch: u64,
    /// Learning rate, loss, seconds and idle share.
    numbers: [u64; 4],
    dice: Option<Vec<u64>>,
}

impl From<&EpochRecord> for StoredRecord {
    fn from(record: &EpochRecord) -> Self {
        let EpochRecord { epoch, learning_rate, loss, seconds, idle, .. } = *record;
        let dice = record.dice.as_ref().map(|dice| dice.iter().map(|d| d.to_bits()).collect());
        Self { epoch, numbers: [learning_rate, loss, seconds, idle].map(f64::to_bits), dice }
    }
}

impl From<&StoredRecord> for EpochRecord {
    fn from(stored: &StoredRecord) -> Self {
        let [learning_rate, loss, seconds, idle] = stored.numbers.map(f64::from_bits);
        let dice = stored.dice.as_ref().map(|dice| dice.iter().map(|d| f64::from_bits(*d)).collect());
        Self { epoch: stored.epoch, learning_rate, loss, dice, seconds, idle }
    }
}

/// The settings that the weights depend on: the rest of a training is the same if they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// The options as JSON.
    options: String,
    /// SHA-256 of the prepared cases.
    data: String,
    /// SHA-256 of plans.json.
    plans: String,
}

impl Settings {
    pub(super) fn new(options: &TrainOptions, data: String, plans: String) -> Self {
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

/// Writes a checkpoint.
///
/// # Errors
/// A file that cannot be written, which leaves the one before; a device that fails.
pub(super) fn write(path: &Path, network: &TrainableUNet, sgd: &Sgd, state: &State, settings: &Settings) -> Result<()> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for ((name, shape), weight) in network.names().zip(network.stored_shapes()).zip(network.weights()) {
        tensors.push((name.to_owned(), shape.to_vec(), weight.to_ncdhw()?));
    }
    for ((name, shape), buffer) in network.names().zip(network.stored_shapes()).zip(sgd.buffers()) {
        if let Some(buffer) = buffer {
            tensors.push((format!("{MOMENTUM}{name}"), shape.to_vec(), buffer.to_ncdhw()?));
        }
    }
    let views: Vec<(&str, &[usize], &[f32])> =
        tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.as_slice(), values.as_slice())).collect();
    let stored = Stored {
        iteration: state.iteration,
        loss: state.loss.to_bits(),
        records: state.records.iter().map(StoredRecord::from).collect(),
        settings: settings.clone(),
    };
    let mut notes = TrainingNotes::default();
    notes.state = Some(serde_json::to_string(&stored).map_err(|e| Error::io(path, "cannot be written", e))?);
    weights::write_with(path, &views, &notes)
}

/// Reads a checkpoint of a training with these settings into its network and optimiser.
///
/// # Errors
/// A file that is no checkpoint of nephron's, or of another training: the message says what differs.
pub(super) fn read(
    path: &Path,
    settings: &Settings,
    network: &mut TrainableUNet,
    sgd: &mut Sgd,
    device: &Device,
) -> Result<State> {
    let file = Weights::read(path)?;
    let Some(text) = &file.training().state else {
        return Err(Error::file(path, "is no checkpoint of a training with nephron"));
    };
    let stored = serde_json::from_str(text).map_err(|e| Error::io(path, "has a state that cannot be read", e));
    let stored: Stored = stored?;
    settings.ensure_same(path, &stored.settings)?;
    let read = |name: &str, stored: &[usize], like: &Tensor| {
        let (shape, values) = file.get(name)?;
        if shape != stored {
            return Err(Error::file(path, format!("tensor '{name}': expected shape {stored:?}, found {shape:?}")));
        }
        Tensor::from_ncdhw(device, like.shape(), DType::F32, &values)
    };
    let (mut weights, mut buffers) = (Vec::new(), Vec::new());
    for ((name, stored), like) in network.names().zip(network.stored_shapes()).zip(network.weights()) {
        weights.push(read(name, stored, like)?);
        let name = format!("{MOMENTUM}{name}");
        buffers.push(file.shape(&name).is_some().then(|| read(&name, stored, like)).transpose()?);
    }
    network.set_weights(weights)?;
    sgd.set_buffers(buffers)?;
    let records = stored.records.iter().map(EpochRecord::from).collect();
    Ok(State { iteration: stored.iteration, loss: f64::from_bits(stored.loss), records })
}
