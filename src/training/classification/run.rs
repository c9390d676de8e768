//! The loop of a classifier's training: steps, validations, checkpoints, and the model at the end.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{ImageBatch, ImageSource};
use super::model::{ClassifierFiles, card};
use super::options::ClassifierOptions;
use super::patients::{Patient, PatientFiles, Preparation};
use super::record::{self, ClassifierEpoch};
use super::split::ensure_several;
use super::validate::validate;
use crate::error::{Error, Result};
use crate::io::SourceFile;
use crate::io::weights::Weights;
use crate::ops::cross_entropy;
use crate::phase::Subtype;
use crate::pipeline::Stage;
use crate::shown_list;
use crate::training::checkpoint::{self, Settings, StoredRecord};
use crate::training::data::Split;
use crate::training::data::hash_text;
use crate::training::{Loader, Sgd, TrainableResNet, polynomial};

/// A training of one fold of a classifier.
#[derive(Clone, Copy)]
pub struct ClassifierTraining<'a> {
    /// The name of the data, for the model's card.
    pub name: &'a str,
    /// All patients.
    pub patients: &'a [PatientFiles],
    /// How they become images, and the network: depth and width are of its configuration, whose weights are ignored.
    pub preparation: Preparation<'a>,
    /// The patients to train on and to validate on.
    pub split: &'a Split,
    /// The number of the fold, for the names of files; None for fold `all`.
    pub fold: Option<usize>,
    /// The file of weights to begin with, torchvision's or a classifier's; None for random ones.
    pub weights: Option<&'a Path>,
    /// The recipe.
    pub options: ClassifierOptions,
    /// Threads that make batches; they change nothing but the time.
    pub threads: usize,
    /// The time after which the training ends for now, with a checkpoint; a validation under way is finished first.
    pub time_limit: Option<Duration>,
    /// Whether to resume from an existing checkpoint.
    pub resume: bool,
    /// The model's folder.
    pub out: &'a Path,
}

/// What a training of a classifier is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ClassifierStage<'a> {
    /// So many of so many patients are aligned and cropped.
    Preparing(usize, usize),
    /// The segmentation of the next patient, and how far it is.
    Segmenting(Stage),
    /// So many of so many steps are done, those of an epoch, and the loss of the last.
    Step(u64, u64, u64, f64),
    /// So many of so many validation patients are classified.
    Validating(usize, usize),
    /// An epoch is done.
    Epoch(&'a ClassifierEpoch),
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierOutcome {
    /// The epochs that are done.
    pub records: Vec<ClassifierEpoch>,
    /// Steps that are done.
    pub steps: u64,
    /// The weights; None where the training was interrupted and can be resumed.
    pub weights: Option<PathBuf>,
    /// Number of weights of the network.
    pub parameters: usize,
    /// Number of images that it is trained on.
    pub images: usize,
    /// The patients that were left out, and why: those without a tumour in every phase, or whose phases cannot be aligned.
    pub left_out: Vec<String>,
}

/// Reports what is done, and asks whether to go on.
pub type ClassifierProgress<'a> = dyn FnMut(ClassifierStage<'_>) -> ControlFlow<()> + 'a;

impl ClassifierTraining<'_> {
    /// Trains. Crops are made once and kept in the model's folder. A checkpoint is written after every epoch, and where `progress`
    /// breaks or the time is over; a training that goes on from one takes the same steps as one that was not interrupted, bit for bit on
    /// one device. At the end the folder has a `classification` that
    /// [`Classifier::read`](crate::pipeline::classify::Classifier::read) reads, an ensemble of the folds that were trained into it.
    ///
    /// # Errors
    /// Options out of range; patients of fewer than two subtypes, after those are left out whose data give no lesion ([`Error::Data`] of
    /// [`PatientFiles::prepare`]); its other errors; a patient with fewer than three phases; a folder with another classifier, a finished or an interrupted fold; a checkpoint of another training; a
    /// loss or gradient that is not finite, where the message names the batch and its patients, and the last checkpoint stays;
    /// [`Error::Cancelled`] where `progress` breaks before the first step; a file that cannot be written; a device that fails.
    pub fn run(
        &self,
        warn: &mut dyn FnMut(String),
        progress: &mut ClassifierProgress<'_>,
    ) -> Result<ClassifierOutcome> {
        let started = Instant::now();
        self.options.ensure_valid()?;
        self.preparation.config.ensure_valid()?;
        // What cannot be trained is refused before a file is written.
        let (train, held) = (self.files(&self.split.train)?, self.files(&self.split.val)?);
        train.iter().chain(&held).try_for_each(|patient| patient.ensure_classifiable())?;
        let given: Vec<Subtype> = train.iter().map(|patient| patient.subtype).collect();
        ensure_several(&given)?;
        let config = self.preparation.config;
        let files = ClassifierFiles::new(self.out, self.fold);
        files.ensure_fits(config, self.resume)?;
        let (mut network, start) = self.network()?;
        let mut sgd = Sgd::new(network.weights(), self.options.sgd)?;
        files.make_folders()?;
        let Prepared { patients, held, left_out } = self.prepare(&train, &held, &files.crops, warn, progress)?;
        let train = subtypes(&patients);
        ensure_several(&train).map_err(|e| match left_out.as_slice() {
            [] => e,
            [first, ..] => e.context(format!("{} patients were left out (the first: {first})", left_out.len())),
        })?;
        let data = hash_text(&format!("{}validation\n{}", listed(&patients), listed(&held)));
        let described = serde_json::to_string(config).map_err(|e| Error::other("config.json", e))?;
        let settings = Settings::new(&self.options, data, hash_text(&format!("{described} {start}")));
        let source = ImageSource::new(patients, self.options.batch, config.input_size, self.options.seed)?;
        let source = Arc::new(source);
        let mut state = State { iteration: 0, loss: 0.0, records: Vec::new() };
        if self.resume && files.checkpoint.is_file() {
            let [weights, statistics] = network.named();
            let found = checkpoint::read(&files.checkpoint, &settings, &weights, &statistics)?;
            network.set_weights(found.weights)?;
            network.set_statistics(found.statistics)?;
            sgd.set_buffers(found.buffers)?;
            let checkpoint::State { iteration, loss, records } = found.state;
            state = State { iteration, loss, records: records.iter().map(ClassifierEpoch::from).collect() };
        }
        let made = Arc::clone(&source);
        let loader = Loader::of(move |number| Ok(made.batch(number)), state.iteration, self.threads)?;
        let mut run = Run { training: self, files, network, sgd, state, settings, loader, source, held, started };
        let finished = run.steps(progress)?;
        if finished {
            let on_training = self.split.val.iter().any(|name| self.split.train.contains(name));
            let card = card(self.name, &train, (run.held.len(), on_training), run.state.records.last());
            run.files.finish(&run.network, config, &card)?;
        }
        Ok(ClassifierOutcome {
            parameters: run.network.weights().iter().map(crate::Tensor::len).sum(),
            weights: finished.then(|| run.files.weights()),
            steps: run.state.iteration,
            images: run.source.images(),
            records: run.state.records,
            left_out,
        })
    }

    fn files(&self, names: &[String]) -> Result<Vec<&PatientFiles>> {
        let find = |name: &String| {
            let patient = self.patients.iter().find(|patient| patient.name == *name);
            patient.ok_or_else(|| Error::argument("training: patient of the split", "one of the data", name))
        };
        names.iter().map(find).collect()
    }

    /// The network at the start, and the SHA-256 of the file that its weights are of.
    fn network(&self) -> Result<(TrainableResNet, String)> {
        let (config, device) = (self.preparation.config.network(true), self.preparation.device);
        let Some(path) = self.weights else {
            return Ok((TrainableResNet::seeded(&config, self.options.seed, device)?, String::new()));
        };
        let file = Weights::read(path)?;
        let network = TrainableResNet::pretrained(&config, &file, self.options.seed, device)?;
        Ok((network, file.source().sha256))
    }

    /// The patients to train on and to validate on. One whose images give no lesion is left out; a file or a device that fails is not
    /// the patient's, and ends the training.
    fn prepare(
        &self,
        train: &[&PatientFiles],
        held: &[&PatientFiles],
        folder: &Path,
        warn: &mut dyn FnMut(String),
        progress: &mut ClassifierProgress<'_>,
    ) -> Result<Prepared> {
        // Fold `all` validates on the patients that it trains on.
        let only_held = held.iter().filter(|held| !train.iter().any(|patient| patient.name == held.name));
        let all: Vec<&PatientFiles> = train.iter().chain(only_held).copied().collect();
        let (mut prepared, mut left_out) = (BTreeMap::new(), Vec::new());
        for (done, patient) in all.iter().enumerate() {
            if progress(ClassifierStage::Preparing(done, all.len())).is_break() {
                return Err(Error::Cancelled);
            }
            let mut tell = |stage| progress(ClassifierStage::Segmenting(stage));
            match patient.prepare(&self.preparation, folder, warn, &mut tell) {
                Ok(found) => drop(prepared.insert(patient.name.as_str(), found)),
                Err(error) if matches!(error.cause(), Error::Data(_)) => {
                    warn(format!("{error}; the patient is left out"));
                    left_out.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let patients: Vec<Patient> = train.iter().filter_map(|of| prepared.remove(of.name.as_str())).collect();
        let trained_on = |of: &PatientFiles| patients.iter().find(|patient| patient.name == of.name).cloned();
        let held = held.iter().filter_map(|of| prepared.remove(of.name.as_str()).or_else(|| trained_on(of))).collect();
        Ok(Prepared { patients, held, left_out })
    }
}

/// The patients whose crops are in memory.
struct Prepared {
    /// Those to train on.
    patients: Vec<Patient>,
    /// Those to validate on.
    held: Vec<Patient>,
    /// Why each of the others was left out.
    left_out: Vec<String>,
}

fn subtypes(patients: &[Patient]) -> Vec<Subtype> {
    patients.iter().map(|patient| patient.subtype).collect()
}

/// Where a training stands.
struct State {
    /// Steps that are done.
    iteration: u64,
    /// The sum of the losses of the epoch under way.
    loss: f64,
    /// The epochs that are done.
    records: Vec<ClassifierEpoch>,
}

/// A training under way.
struct Run<'a> {
    training: &'a ClassifierTraining<'a>,
    files: ClassifierFiles,
    network: TrainableResNet,
    sgd: Sgd,
    state: State,
    settings: Settings,
    loader: Loader<ImageBatch>,
    source: Arc<ImageSource>,
    held: Vec<Patient>,
    started: Instant,
}

impl Run<'_> {
    /// Steps of all epochs.
    fn all_steps(&self) -> u64 {
        self.training.options.epochs.saturating_mul(self.source.iterations())
    }

    /// Whether all steps are done.
    fn steps(&mut self, progress: &mut ClassifierProgress<'_>) -> Result<bool> {
        let (iterations, all) = (self.source.iterations(), self.all_steps());
        if self.state.records.len() as u64 != self.state.iteration / iterations {
            // Interrupted while it was validated.
            match self.end_epoch(0.0, 0.0, progress)? {
                Some(continues) if continues || self.state.iteration == all => {}
                _ => return Ok(false),
            }
        }
        let (mut epoch_started, mut waited) = (Instant::now(), self.loader.waited());
        while self.state.iteration < all {
            let value = self.step()?;
            self.state.loss += value;
            self.state.iteration += 1;
            let stage = ClassifierStage::Step(self.state.iteration, all, iterations, value);
            let mut goes_on = progress(stage).is_continue();
            if self.state.iteration.is_multiple_of(iterations) {
                let seconds = epoch_started.elapsed().as_secs_f64();
                let idle = (self.loader.waited() - waited).as_secs_f64() / seconds.max(1e-9);
                match self.end_epoch(seconds, idle, progress)? {
                    Some(continues) => goes_on &= continues,
                    None => return Ok(false),
                }
                (epoch_started, waited) = (Instant::now(), self.loader.waited());
            }
            goes_on &= self.training.time_limit.is_none_or(|limit| self.started.elapsed() < limit);
            if !goes_on && self.state.iteration < all {
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
        let (images, labels) = batch.upload(self.training.preparation.device)?;
        let (logits, tape) = self.network.forward(&images)?;
        let found = cross_entropy(&logits, &labels)?;
        let value = f64::from(found.loss);
        if !value.is_finite() {
            return Err(self.not_finite("loss", value, number, &batch));
        }
        let gradients = self.network.backward(tape, &found.dlogits)?;
        let rate = polynomial(options.sgd.learning_rate, number / self.source.iterations(), options.epochs);
        let (weights, norm) = self.sgd.step(self.network.weights(), &gradients, rate)?;
        if !norm.is_finite() {
            return Err(self.not_finite("norm of the gradients", norm, number, &batch));
        }
        self.network.set_weights(weights)?;
        Ok(value)
    }

    fn not_finite(&self, what: &str, value: f64, number: u64, batch: &ImageBatch) -> Error {
        let names = shown_list(batch.patients.iter().map(|&i| &self.source.patients()[i].name));
        let kept = if self.files.checkpoint.is_file() {
            format!("the last checkpoint stays at {}", self.files.checkpoint.display())
        } else {
            "there is no checkpoint yet".to_owned()
        };
        Error::Data(format!(
            "training: the {what} of batch {number} (patients {names}) is {value}, expected a finite number: {kept}"
        ))
    }

    /// Validates where that is due, records the epoch, and writes log and checkpoint. Whether to go on; None where the validation
    /// was interrupted: then the checkpoint is one before it.
    fn end_epoch(&mut self, seconds: f64, idle: f64, progress: &mut ClassifierProgress<'_>) -> Result<Option<bool>> {
        let options = self.training.options;
        let iterations = self.source.iterations();
        let epoch = self.state.iteration / iterations;
        let is_due = options.validate_every > 0 && epoch.is_multiple_of(options.validate_every);
        let mut validation = None;
        if (is_due || epoch == options.epochs) && !self.held.is_empty() {
            // A validation that fails or is killed costs no step: it is repeated when the training is resumed.
            self.save()?;
            let Preparation { config, device, .. } = self.training.preparation;
            let mut report = |done, all| progress(ClassifierStage::Validating(done, all));
            match validate(&self.network, &self.held, config.input_size, device, &mut report) {
                Ok(found) => validation = Some(found),
                Err(Error::Cancelled) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let record = ClassifierEpoch {
            epoch,
            learning_rate: polynomial(options.sgd.learning_rate, epoch - 1, options.epochs),
            loss: self.state.loss / iterations as f64,
            validation,
            seconds,
            idle,
        };
        let goes_on = progress(ClassifierStage::Epoch(&record)).is_continue();
        self.state.records.push(record);
        self.state.loss = 0.0;
        record::write(&self.files.training, &self.state.records, options.epochs)?;
        self.save()?;
        Ok(Some(goes_on))
    }

    fn save(&self) -> Result<()> {
        let State { iteration, loss, ref records } = self.state;
        let state = checkpoint::State { iteration, loss, records: records.iter().map(StoredRecord::from).collect() };
        let [weights, statistics] = self.network.named();
        checkpoint::write(&self.files.checkpoint, &weights, &statistics, &self.sgd, state, &self.settings)
    }
}

/// Names, subtypes, phases and SHA-256 of the crops, a line each.
fn listed(patients: &[Patient]) -> String {
    let mut lines = String::new();
    for Patient { name, subtype, crops, .. } in patients {
        for crop in crops {
            let bytes: Vec<u8> = crop.pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
            let hash = SourceFile::of(Path::new(name), &bytes).sha256;
            lines += &format!("{name:?} {subtype} {} {hash}\n", crop.phase);
        }
    }
    lines
}
