//! Reading a segmenter from a model folder.

use std::path::Path;

use super::{Previous, Segmenter};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::SourceFile;
use crate::io::weights::{Storage, TrainingNotes};
use crate::models::{JsonFile, PreviousStage, UNet, UNetPlan};
use crate::pipeline::model_card::ModelCard;
use crate::pipeline::model_folder::{
    ModelDir, ModelOptions, beside, expect_same_training, find_plans, fold_of, holds_masks, mirrors_of, weight_files,
};
use crate::pipeline::postprocess;
use crate::pipeline::segmentation::Precision;
use crate::shown_list;

impl Segmenter {
    /// Reads a model folder: plans.json, dataset.json and weights.safetensors, weights.pth, fold_*.safetensors, fold_*.pth or
    /// nnU-Net's own fold_*/checkpoint_final.pth (all folds), in `folder`, its folder `segmentation` or a folder of training
    /// results in it. A .zip of nnUNetv2_export_model is read without being unpacked. What the checkpoints say of their training decides: the configuration, the trainer's network,
    /// the axes that may be mirrored. The first stage of a cascade is read from its folder of results beside the model's, from
    /// `previous_stage` in the model's, or from where the options say.
    ///
    /// # Errors
    /// As [`UNetPlan::read`] and [`UNet::load`]; a folder without weights or with several kinds of them; folds that were trained
    /// by different configurations or trainers; a cascade without its first stage.
    pub fn load(folder: &Path, options: &ModelOptions, precision: Precision, device: &Device) -> Result<Self> {
        let given = ModelDir::open(folder)?;
        let folder = find_plans(&given, options.configuration.as_deref())?;
        let mut own = Self::read(&folder, options, precision, device)?;
        own.card = ModelCard::find(&[&folder, &given])?;
        let Some(stage) = &own.plan.previous else {
            let Some(given) = &options.previous_stage else { return Ok(own) };
            let expected = format!("none, since {} has no previous stage", own.plan.configuration);
            return Err(Error::argument("segment: previous stage", expected, given.display()));
        };
        if let Some(path) = &options.previous_stage
            && holds_masks(&ModelDir::open(path)?, &own.plan.file_ending)?
        {
            return Ok(Self { previous: Previous::Masks(path.clone()), ..own });
        }
        let place = own.first_place(stage, &folder, options)?;
        let first = ModelOptions { configuration: Some(stage.configuration.clone()), ..options.clone() };
        let first = Self::read(&place, &first, precision, device).map_err(|e| e.context("previous stage"))?;
        own.expect_to_follow(&first, &place)?;
        let files = first.files.iter().chain(&own.files).cloned().collect();
        Ok(Self { previous: Previous::Model(Box::new(first)), files, ..own })
    }

    /// Where the model of the previous stage lies.
    fn first_place(&self, stage: &PreviousStage, folder: &ModelDir, options: &ModelOptions) -> Result<ModelDir> {
        match &options.previous_stage {
            Some(path) => find_plans(&ModelDir::open(path)?, Some(&stage.configuration)),
            None => beside(folder, &stage.configuration),
        }
    }

    /// The model of the previous stage and its folder, for a model that was loaded from `folder` with these options.
    pub(in crate::pipeline) fn first_stage(
        &self,
        folder: &ModelDir,
        options: &ModelOptions,
    ) -> Result<Option<(&Self, ModelDir)>> {
        let (Previous::Model(first), Some(stage)) = (&self.previous, &self.plan.previous) else { return Ok(None) };
        Ok(Some((first, self.first_place(stage, folder, options)?)))
    }

    /// Writes the weights of each fold as safetensors, with the configuration and what their files say of their training.
    pub(in crate::pipeline) fn save_networks(&self, folder: &Path, storage: Storage) -> Result<()> {
        for (i, network) in self.networks.iter().enumerate() {
            let name = match self.fold_names.get(i) {
                Some(fold) => format!("fold_{fold}.safetensors"),
                None => "weights.safetensors".to_owned(),
            };
            let mut training = self.training.get(i).cloned().unwrap_or_default();
            training.configuration = Some(self.plan.configuration.clone());
            network.save_as(&folder.join(name), &training, storage)?;
        }
        Ok(())
    }

    /// Refuses a first stage for other labels or images, or with a previous stage of its own.
    fn expect_to_follow(&self, first: &Self, place: &ModelDir) -> Result<()> {
        let refused = |what: &str, expected: String, found: String| {
            Err(Error::file(place.path(), format!("previous stage: expected the {what} {expected}, found {found}")))
        };
        let names = |s: &Self| shown_list(s.plan.labels.targets().iter().map(|t| &t.name));
        if first.plan.previous.is_some() {
            return refused("configuration", "of a first stage".into(), first.plan.configuration.clone());
        }
        if first.plan.labels != self.plan.labels {
            return refused("labels", names(self), names(first));
        }
        if first.plan.channels != self.plan.channels {
            return refused("channels", shown_list(&self.plan.channels), shown_list(&first.plan.channels));
        }
        Ok(())
    }

    /// The model whose plans lie in `folder`, without its previous stage.
    fn read(folder: &ModelDir, options: &ModelOptions, precision: Precision, device: &Device) -> Result<Self> {
        let dtype = precision.dtype(device);
        let (mut plan, mut notes) = (None, TrainingNotes::default());
        let (mut networks, mut files, mut mirrors) = (Vec::new(), Vec::new(), [true; 3]);
        let (mut fold_names, mut training, mut settings) = (Vec::new(), Vec::new(), Vec::new());
        for name in weight_files(folder, options)? {
            let weights = folder.weights(&name)?;
            let plan = match &plan {
                None => {
                    notes = weights.training().clone();
                    let mut json = |name: &str| {
                        let (path, bytes) = (folder.path().join(name), folder.read(name)?);
                        settings.push(SourceFile::of(&path, &bytes));
                        JsonFile::parse(&path, &bytes)
                    };
                    let configuration = options.configuration.as_deref();
                    plan.insert(UNetPlan::parse(&json("plans.json")?, &json("dataset.json")?, configuration, &notes)?)
                }
                Some(plan) => {
                    expect_same_training(weights.path(), &notes, weights.training())?;
                    plan
                }
            };
            networks.push(UNet::from_weights(&plan.architecture, &weights, device, dtype)?);
            let allowed = mirrors_of(weights.training(), plan.architecture.planar);
            mirrors = std::array::from_fn(|a| mirrors[a] && allowed[a]);
            files.push(weights.source());
            fold_names.extend(fold_of(&name).map(str::to_owned));
            training.push(weights.training().clone());
        }
        let Some(plan) = plan else { return Err(Error::argument("segment: networks", "at least one", 0)) };
        files.extend(settings);
        let postprocessing = postprocess::find(folder)?;
        Ok(Self { files, mirrors, fold_names, training, postprocessing, ..Self::new(plan, networks)? })
    }
}
