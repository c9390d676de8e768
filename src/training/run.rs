//! The loop of a training: steps, validations, checkpoints, and the model at the end.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::augment::{PatchGeometry, PatchSource};
use super::batch::{Batch, BatchSource, Loader};
use super::checkpoint::{self, Settings, StoredRecord};
use super::data::{Case, PlanFiles, Preparation, RawDataset, Sample, Split, hash_text, masked_channels};
use super::loss::deep_supervision;
use super::model::{ModelFiles, card};
use super::network::TrainableUNet;
use super::optimizer::{Sgd, polynomial};
use super::options::TrainOptions;
use super::record::{self, EpochRecord};
use super::validate::validate;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::UNetPlan;
use crate::ops::SegmentationLoss;
use crate::shown_list;

/// A training of one fold.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    /// The data set.
    pub dataset: &'a RawDataset,
    /// Its plan.
    pub files: &'a PlanFiles,
    /// The configuration of the plan, such as `3d_fullres`.
    pub configuration: &'a str,
    /// The cases to train on and to validate on.
    pub split: &'a Split,
    /// The number of the fold, for the names of files; None for fold `all`.
    pub fold: Option<usize>,
    /// The recipe.
    pub options: TrainOptions,
    /// Threads that make batches; they change nothing but the time.
    pub threads: usize,
    /// The time after which the training ends for now, with a checkpoint; a validation under way is finished first.
    pub time_limit: Option<Duration>,
    /// Whether to resume from an existing checkpoint.
    pub resume: bool,
    /// The device of the network.
    pub device: &'a Device,
    /// The model's folder.
    pub out: &'a Path,
}

/// What a training is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrainStage<'a> {
    /// So many of so many cases are read and prepared.
    Preparing(usize, usize),
    /// So many of so many steps are done, the last with this loss.
    Step(u64, u64, f64),
    /// So many of so many validation cases are segmented.
    Validating(usize, usize),
    /// An epoch is done.
    Epoch(&'a EpochRecord),
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOutcome {
    /// The epochs that are done.
    pub records: Vec<EpochRecord>,
    /// Steps that are done.
    pub steps: u64,
    /// The weights; None where the training was interrupted and can be resumed.
    pub weights: Option<PathBuf>,
    /// Number of weights of the network.
    pub parameters: usize,
}

/// Reports what is done, and asks whether to go on.
pub type Progress<'a> = dyn FnMut(TrainStage<'_>) -> ControlFlow<()> + 'a;

impl Training<'_> {
    /// Trains. A checkpoint is written after every epoch, and where `progress` breaks or the time is over; a training that goes on
    /// from one takes the same steps as one that was not interrupted, bit for bit on one device. Log and chart are written beside
    /// it. At the end the folder is a model that [`Segmenter::load`](crate::Segmenter::load) reads.
    ///
    /// # Errors
    /// Options out of range; a case that cannot be read; a folder with another plan, a finished or an interrupted fold; a
    /// checkpoint of another training; a loss or gradient that is not finite, where the message names the batch and its cases, and
    /// the last checkpoint stays; [`Error::Cancelled`] where `progress` breaks before the first step; a file that cannot be
    /// written; a device that fails.
    pub fn run(&self, warn: &mut dyn FnMut(String), progress: &mut Progress<'_>) -> Result<TrainOutcome> {
        self.options.ensure_valid()?;
        let started = Instant::now();
        let (train, held) = (self.cases(&self.split.train)?, self.cases(&self.split.val)?);
        // What cannot be trained is refused before a file is written.
        if train.is_empty() {
            return Err(Error::argument("training: cases of the split", "at least one to train on", 0));
        }
        self.files.batch(self.configuration)?;
        let plan = self.files.plan(self.configuration)?;
        let mut network = TrainableUNet::seeded(&plan.architecture, self.options.seed, self.device)?;
        network.head_sizes(plan.patch)?;
        let mut sgd = Sgd::new(network.weights(), self.options.sgd)?;
        let files = ModelFiles::new(self.out, self.fold);
        self.dataset.ensure_described_by(&files.folder.join("dataset.json"))?;
        let planned = files.prepare(self.files, self.resume)?;
        let plan = planned.plan(self.configuration)?;
        let (size, batch_dice) = planned.batch(self.configuration)?;
        let plans = planned.plans.to_string();
        let preparation = Preparation {
            dataset: self.dataset,
            plan: &plan,
            identity: &plans,
            folder: &files.prepared.join(self.configuration),
            device: self.device,
        };
        let (samples, data) =
            preparation.run(&train, warn, &mut |done, all| progress(TrainStage::Preparing(done, all)))?;
        // The curves of a training are of one set of validation cases.
        let data = hash_text(&format!("{data} validation {:?}", self.split.val));
        let settings = Settings::new(&self.options, data, hash_text(&plans));
        let source = Arc::new(self.source(samples, &plan, &network, size)?);
        let state = if self.resume && files.checkpoint.is_file() {
            let found = checkpoint::read(&files.checkpoint, &settings, &network.named(), &[])?;
            network.set_weights(found.weights)?;
            sgd.set_buffers(found.buffers)?;
            let checkpoint::State { iteration, loss, records } = found.state;
            State { iteration, loss, records: records.iter().map(EpochRecord::from).collect() }
        } else {
            State { iteration: 0, loss: 0.0, records: Vec::new() }
        };
        let loader = Loader::new(&source, state.iteration, self.threads)?;
        let loss = SegmentationLoss { batch: batch_dice, ..SegmentationLoss::default() };
        let mut run =
            Run { training: self, plan, files, network, sgd, state, settings, loader, loss, source, held, started };
        let finished = run.steps(progress)?;
        if finished {
            let name = self.dataset.folder().file_name().map_or("a data set".into(), |name| name.to_string_lossy());
            let on_training = self.split.val.iter().any(|case| self.split.train.contains(case));
            let cases = [run.source.samples.len(), run.held.len()];
            let card = card(&run.plan, &name, cases, on_training, run.state.records.last());
            run.files.finish(&run.network, &run.plan, &card)?;
        }
        let parameters = run.network.weights().iter().map(crate::Tensor::len).sum();
        let weights = finished.then(|| run.files.weights.clone());
        Ok(TrainOutcome { records: run.state.records, steps: run.state.iteration, weights, parameters })
    }

    fn cases(&self, names: &[String]) -> Result<Vec<&Case>> {
        let find = |name: &String| {
            let case = self.dataset.cases().iter().find(|case| case.name == *name);
            case.ok_or_else(|| Error::argument("training: case of the split", "one of the data set", name))
        };
        names.iter().map(find).collect()
    }

    fn source(
        &self,
        samples: Vec<Sample>,
        plan: &UNetPlan,
        network: &TrainableUNet,
        size: usize,
    ) -> Result<BatchSource> {
        let planar = plan.architecture.planar;
        let patches = PatchSource {
            geometry: PatchGeometry::new(plan.patch, planar),
            augmentation: self.options.augmentation,
            mirrored: [!planar, true, true],
            masked: masked_channels(plan),
        };
        let heads = network.head_sizes(plan.patch)?;
        Ok(BatchSource { samples, patches, size, heads, seed: self.options.seed })
    }
}

/// Where a training stands.
struct State {
    /// Steps that are done.
    iteration: u64,
    /// The sum of the losses of the epoch under way.
    loss: f64,
    /// The epochs that are done.
    records: Vec<EpochRecord>,
}

/// A training under way.
struct Run<'a> {
    training: &'a Training<'a>,
    plan: UNetPlan,
    files: ModelFiles,
    network: TrainableUNet,
    sgd: Sgd,
    state: State,
    settings: Settings,
    loader: Loader,
    loss: SegmentationLoss,
    source: Arc<BatchSource>,
    held: Vec<&'a Case>,
    started: Instant,
}

impl Run<'_> {
    /// Whether all steps are done.
    fn steps(&mut self, progress: &mut Progress<'_>) -> Result<bool> {
        let options = self.training.options;
        if self.state.records.len() as u64 != self.state.iteration / options.iterations {
            // Interrupted while it was validated.
            match self.end_epoch(0.0, 0.0, progress)? {
                Some(continues) if continues || self.state.iteration == options.steps() => {}
                _ => return Ok(false),
            }
        }
        let (mut epoch_started, mut waited) = (Instant::now(), self.loader.waited());
        while self.state.iteration < options.steps() {
            let value = self.step()?;
            self.state.loss += value;
            self.state.iteration += 1;
            let mut goes_on = progress(TrainStage::Step(self.state.iteration, options.steps(), value)).is_continue();
            if self.state.iteration.is_multiple_of(options.iterations) {
                let seconds = epoch_started.elapsed().as_secs_f64();
                let idle = (self.loader.waited() - waited).as_secs_f64() / seconds.max(1e-9);
                match self.end_epoch(seconds, idle, progress)? {
                    Some(continues) => goes_on &= continues,
                    None => return Ok(false),
                }
                (epoch_started, waited) = (Instant::now(), self.loader.waited());
            }
            goes_on &= self.training.time_limit.is_none_or(|limit| self.started.elapsed() < limit);
            if !goes_on && self.state.iteration < options.steps() {
                self.save()?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One step; the loss before it.
    fn step(&mut self) -> Result<f64> {
        let options = self.training.options;
        let (number, batch) = self.loader.next_batch()?;
        let (image, labels) = batch.upload(self.training.device)?;
        let (logits, tape) = self.network.forward(&image)?;
        let (value, dlogits) = deep_supervision(&logits, &labels, &self.loss)?;
        drop(logits);
        if !value.is_finite() {
            return Err(self.not_finite("loss", value, number, &batch));
        }
        let gradients = self.network.backward(tape, &dlogits)?;
        let rate = polynomial(options.sgd.learning_rate, number / options.iterations, options.epochs);
        let (weights, norm) = self.sgd.step(self.network.weights(), &gradients, rate)?;
        if !norm.is_finite() {
            return Err(self.not_finite("norm of the gradients", norm, number, &batch));
        }
        self.network.set_weights(weights)?;
        Ok(value)
    }

    fn not_finite(&self, what: &str, value: f64, number: u64, batch: &Batch) -> Error {
        let names = shown_list(batch.samples.iter().map(|&i| &self.source.samples[i].name));
        let kept = if self.files.checkpoint.is_file() {
            format!("the last checkpoint stays at {}", self.files.checkpoint.display())
        } else {
            "there is no checkpoint yet".to_owned()
        };
        Error::Data(format!(
            "training: the {what} of batch {number} (cases {names}) is {value}, expected a finite number: {kept}"
        ))
    }

    /// Validates where that is due, records the epoch, and writes log and checkpoint. Whether to go on; None where the validation
    /// was interrupted: then the checkpoint is one before it.
    fn end_epoch(&mut self, seconds: f64, idle: f64, progress: &mut Progress<'_>) -> Result<Option<bool>> {
        let options = self.training.options;
        let epoch = self.state.iteration / options.iterations;
        let is_due = options.validate_every > 0 && epoch.is_multiple_of(options.validate_every);
        let dice = if (is_due || epoch == options.epochs) && !self.held.is_empty() {
            // A validation that fails or is killed costs no step: it is repeated when the training is resumed.
            self.save()?;
            let Training { dataset, device, .. } = *self.training;
            let mut report = |done, all| progress(TrainStage::Validating(done, all));
            match validate(dataset, &self.held, &self.plan, &self.network, device, &mut report) {
                Ok(dice) => Some(dice),
                Err(Error::Cancelled) => return Ok(None),
                Err(error) => return Err(error),
            }
        } else {
            None
        };
        let record = EpochRecord {
            epoch,
            learning_rate: polynomial(options.sgd.learning_rate, epoch - 1, options.epochs),
            loss: self.state.loss / options.iterations as f64,
            dice,
            seconds,
            idle,
        };
        let goes_on = progress(TrainStage::Epoch(&record)).is_continue();
        self.state.records.push(record);
        self.state.loss = 0.0;
        let labels: Vec<String> = self.plan.labels.targets().iter().map(|target| target.name.clone()).collect();
        record::write(&self.files.training, &self.state.records, &labels, options.epochs)?;
        self.save()?;
        Ok(Some(goes_on))
    }

    fn save(&self) -> Result<()> {
        let State { iteration, loss, ref records } = self.state;
        let state = checkpoint::State { iteration, loss, records: records.iter().map(StoredRecord::from).collect() };
        checkpoint::write(&self.files.checkpoint, &self.network.named(), &[], &self.sgd, state, &self.settings)
    }
}
