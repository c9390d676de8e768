//! plans.json and dataset.json of a plan, as nnU-Net writes them and both programs read them.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::dataset::RawDataset;
use super::fingerprint::Fingerprint;
use super::planner::{Configuration, LARGEST_BATCH, Plan};
use crate::error::{Error, Result};
use crate::io::weights::TrainingNotes;
use crate::io::write_atomic;
use crate::models::{JsonFile, UNetPlan};

/// Below this share of voxels left by the crop, z-scores are taken inside the image's non-zero part.
const MASKED_BELOW: f64 = 0.75;

/// The files of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanFiles {
    /// The contents of plans.json.
    pub plans: Value,
    /// The contents of dataset.json.
    pub dataset: Value,
}

impl PlanFiles {
    /// The files of a plan for a data set. dataset.json keeps what it holds; the number of cases is added where it is missing.
    pub fn new(dataset: &RawDataset, fingerprint: &Fingerprint, plan: &Plan) -> Self {
        let name = dataset.folder().file_name().map_or("Dataset".into(), |name| name.to_string_lossy().into_owned());
        let backward: Vec<usize> =
            (0..3).filter_map(|axis| plan.transpose.iter().position(|from| *from == axis)).collect();
        let intensities = fingerprint.intensities.iter().enumerate();
        let intensities: Map<String, Value> = intensities.map(|(i, found)| (i.to_string(), json!(found))).collect();
        let mut configurations = Map::new();
        for found in &plan.configurations {
            let mut value = configuration(dataset, fingerprint, found);
            if let ("3d_lowres", Some(object)) = (found.name, value.as_object_mut()) {
                object.insert("next_stage".into(), "3d_cascade_fullres".into());
            }
            configurations.insert(found.name.into(), value);
        }
        if configurations.contains_key("3d_lowres") {
            let cascade = json!({ "inherits_from": "3d_fullres", "previous_stage": "3d_lowres" });
            configurations.insert("3d_cascade_fullres".into(), cascade);
        }
        let (spacing, size) = plan.median;
        let plans = json!({
            "dataset_name": name,
            "plans_name": "nnUNetPlans",
            "original_median_spacing_after_transp": spacing,
            "original_median_shape_after_transp": size.map(|s| s.round_ties_even() as u64),
            "image_reader_writer": dataset.reader_name(),
            "transpose_forward": plan.transpose,
            "transpose_backward": backward,
            "configurations": configurations,
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": intensities,
        });
        let mut kept = dataset.json().clone();
        if let Some(object) = kept.as_object_mut() {
            object.entry("numTraining").or_insert_with(|| dataset.cases().len().into());
            object.entry("file_ending").or_insert_with(|| dataset.file_ending().into());
        }
        Self { plans, dataset: kept }
    }

    /// The files of a folder.
    ///
    /// # Errors
    /// A file that cannot be read or is not JSON.
    pub fn read(plans: &Path, dataset: &RawDataset) -> Result<Self> {
        Ok(Self { plans: JsonFile::read(plans)?.value().clone(), dataset: dataset.json().clone() })
    }

    /// Writes both files to a folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        // The plan last: a folder that has one has both.
        for (name, value) in [("dataset.json", &self.dataset), ("plans.json", &self.plans)] {
            let path = folder.join(name);
            let text = serde_json::to_string_pretty(value).map_err(|e| Error::other(name, e))?;
            write_atomic(path, |file| file.write_all(text.as_bytes()))?;
        }
        Ok(())
    }

    /// The plan of one of the configurations, as [`UNetPlan::read`] reads it from a model's folder.
    ///
    /// # Errors
    /// As [`UNetPlan::read`].
    pub fn plan(&self, configuration: &str) -> Result<UNetPlan> {
        let file = |name: &str, value: &Value| JsonFile::parse(Path::new(name), value.to_string().as_bytes());
        let (plans, dataset) = (file("plans.json", &self.plans)?, file("dataset.json", &self.dataset)?);
        UNetPlan::parse(&plans, &dataset, Some(configuration), &TrainingNotes::default())
    }

    /// Patches of a batch of a configuration, and whether Dice is computed over all of them together.
    ///
    /// # Errors
    /// A configuration or key that is missing, or of another type.
    pub fn batch(&self, configuration: &str) -> Result<(usize, bool)> {
        let file = JsonFile::parse(Path::new("plans.json"), self.plans.to_string().as_bytes())?;
        // The configuration and those that it inherits from; `plan` refuses one that inherits from itself.
        let configurations = file.root().key("configurations")?;
        let mut chain = vec![configurations.key(configuration)?];
        while let Some(parent) = chain[chain.len() - 1].optional("inherits_from") {
            if chain.len() > configurations.object()?.len() {
                return Err(parent.mismatch("a configuration that does not inherit from itself"));
            }
            chain.push(configurations.key(parent.text()?)?);
        }
        let sized = chain.iter().find(|node| node.has("batch_size")).unwrap_or(&chain[0]);
        let size = sized.key("batch_size")?;
        let count = size.count()?;
        if !(1..=LARGEST_BATCH).contains(&count) {
            return Err(size.mismatch(format!("1 to {LARGEST_BATCH}")));
        }
        let batch_dice = chain.iter().find_map(|node| node.optional("batch_dice"));
        Ok((count, batch_dice.map_or(Ok(false), |node| node.boolean())?))
    }
}

fn configuration(dataset: &RawDataset, fingerprint: &Fingerprint, found: &Configuration) -> Value {
    let schemes: Vec<&str> = dataset.channels().iter().map(|name| scheme(name)).collect();
    // Only z-scores leave voxels outside at 0.
    let masked: Vec<bool> = schemes
        .iter()
        .map(|scheme| fingerprint.relative_size < MASKED_BELOW && *scheme == "ZScoreNormalization")
        .collect();
    let axes = found.spacing.len();
    let resampling = |is_seg: bool, order: usize| json!({ "is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": null });
    let function = "resample_data_or_seg_to_shape";
    let stages = found.strides.len();
    json!({
        "data_identifier": format!("nnUNetPlans_{}", found.name),
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": found.batch,
        "patch_size": found.patch,
        "median_image_size_in_voxels": found.median_size,
        "spacing": found.spacing,
        "normalization_schemes": schemes,
        "use_mask_for_norm": masked,
        "resampling_fn_data": function,
        "resampling_fn_seg": function,
        "resampling_fn_data_kwargs": resampling(false, 3),
        "resampling_fn_seg_kwargs": resampling(true, 1),
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": resampling(false, 1),
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": found.features,
                "conv_op": format!("torch.nn.modules.conv.Conv{axes}d"),
                "kernel_sizes": found.kernels,
                "strides": found.strides,
                "n_conv_per_stage": vec![2; stages],
                "n_conv_per_stage_decoder": vec![2; stages.saturating_sub(1)],
                "conv_bias": true,
                "norm_op": format!("torch.nn.modules.instancenorm.InstanceNorm{axes}d"),
                "norm_op_kwargs": { "eps": 1e-5, "affine": true },
                "dropout_op": null,
                "dropout_op_kwargs": null,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": { "inplace": true },
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": found.batch_dice,
    })
}

/// nnU-Net's normalisation for a channel of this name.
fn scheme(channel: &str) -> &'static str {
    match channel.to_lowercase().as_str() {
        "ct" => "CTNormalization",
        "nonorm" => "NoNormalization",
        "rescale_to_0_1" => "RescaleTo01Normalization",
        "rgb_to_0_1" => "RGBTo01Normalization",
        _ => "ZScoreNormalization",
    }
}
