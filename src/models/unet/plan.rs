//! What nnU-Net v2 decided for a data set: plans.json and dataset.json.

use std::path::Path;

use super::architecture::UNetArchitecture;
use super::labels::TargetLabels;
use super::plan_data::{self, ChannelNormalization, ImageReader, Resampling};
use super::plans_architecture;
use super::previous_stage::{self, PreviousStage};
use crate::error::{Error, Result};
use crate::io::weights::TrainingNotes;
use crate::models::json::{JsonFile, Node};
use crate::{shown, shown_list};

/// A trained network's plan. Axes are the network's (z, y, x) unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetPlan {
    /// The name of the configuration in plans.json.
    pub configuration: String,
    /// The network.
    pub architecture: UNetArchitecture,
    /// Millimetres a voxel; 0 along z in the plan of a 2D network, which leaves the slices as far apart as they are.
    pub spacing: [f64; 3],
    /// Voxels of a tile; 1 along z for a 2D network.
    pub patch: [usize; 3],
    /// Names of the image's channels, in the network's order.
    pub channels: Vec<String>,
    /// For each channel.
    pub normalization: Vec<ChannelNormalization>,
    /// Resampling of images.
    pub data: Resampling,
    /// Resampling of logits.
    pub logits: Resampling,
    /// The image axis (k, j, i after orientation) that each network axis is.
    pub transpose: [usize; 3],
    /// How the model's images were read.
    pub reader: ImageReader,
    /// The stage before the network of a cascade, whose mask it takes.
    pub previous: Option<PreviousStage>,
    /// What the outputs stand for.
    pub labels: TargetLabels,
    /// How the images' names end, with the dot.
    pub file_ending: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl UNetPlan {
    /// Reads plans.json and dataset.json of a folder. `configuration` names one of the plans' configurations; without it, the
    /// one that the checkpoint was trained by, else 3d_fullres, or the only one there is. `training` is what the checkpoint
    /// says of itself.
    ///
    /// # Errors
    /// A file that cannot be read, a key that is missing or has another type or value than expected, settings that do not
    /// fit each other, a configuration other than the checkpoint's, and what nnU-Net offers but this crate does not: other
    /// networks, resampling functions and preprocessors.
    pub fn read(folder: &Path, configuration: Option<&str>, training: &TrainingNotes) -> Result<Self> {
        let plans = JsonFile::read(&folder.join("plans.json"))?;
        let dataset = JsonFile::read(&folder.join("dataset.json"))?;
        Self::parse(&plans, &dataset, configuration, training)
    }

    /// As [`UNetPlan::read`], from files that were read before.
    pub(crate) fn parse(
        plans: &JsonFile,
        dataset: &JsonFile,
        configuration: Option<&str>,
        training: &TrainingNotes,
    ) -> Result<Self> {
        let (plans, dataset) = (plans.root(), dataset.root());
        let labels = TargetLabels::read(&dataset)?;
        let channels = dataset_channels(&dataset)?;

        let name = configuration.or(training.configuration.as_deref());
        if let (Some(asked), Some(trained)) = (configuration, &training.configuration)
            && asked != trained
        {
            return Err(Error::argument(
                format!("{}: configuration", plans.file().display()),
                format!("{}, the checkpoint's own", shown(trained)),
                asked,
            ));
        }
        let configurations = plans.key("configurations")?;
        let name = choose(&configurations, name)?;
        let configuration = inherited(&configurations, name)?;
        let configuration = configuration.node(plans.file());
        let previous = previous_stage::read(&configuration, &dataset)?;
        if let Some(preprocessor) = configuration.optional("preprocessor_name")
            && preprocessor.text()? != "DefaultPreprocessor"
        {
            return Err(preprocessor.mismatch("DefaultPreprocessor"));
        }
        if let Some(manager) = plans.optional("label_manager")
            && manager.text()? != "LabelManager"
        {
            return Err(manager.mismatch("LabelManager"));
        }
        let trainer = training.trainer.as_deref();
        let inputs = channels.len() + previous.as_ref().map_or(0, |stage| stage.labels.len());
        let architecture = plans_architecture::read(&configuration, trainer, inputs, labels.outputs())?;
        let spacing_node = configuration.key("spacing")?;
        let spacing = if architecture.planar {
            let [y, x] = spacing_node.pair(Node::number)?;
            [0.0, y, x]
        } else {
            spacing_node.triple(Node::number)?
        };
        if spacing[usize::from(architecture.planar)..].iter().any(|s| *s <= 0.0) {
            return Err(spacing_node.mismatch("millimetres above 0"));
        }
        let patch = patch(&configuration.key("patch_size")?, &architecture)?;
        let mut warnings: Vec<String> = labels.warning().map(str::to_owned).into_iter().collect();
        warnings.extend(trainer.and_then(foreign_trainer));
        Ok(Self {
            configuration: name.to_owned(),
            architecture,
            spacing,
            patch,
            normalization: plan_data::normalization(&plans, &configuration, channels.len())?,
            data: plan_data::resampling(&configuration, "resampling_fn_data", 3)?,
            logits: plan_data::resampling(&configuration, "resampling_fn_probabilities", 1)?,
            transpose: plan_data::transpose(&plans)?,
            reader: plan_data::reader(&plans)?,
            previous,
            channels,
            labels,
            file_ending: dataset.optional("file_ending").map_or(Ok(".nii.gz"), |n| n.text())?.to_owned(),
            warnings,
        })
    }

    /// The spacing that an image of `spacing` (both in the network's axes) is resampled to.
    pub fn spacing_for(&self, spacing: [f64; 3]) -> [f64; 3] {
        if self.architecture.planar { [spacing[0], self.spacing[1], self.spacing[2]] } else { self.spacing }
    }
}

/// Largest number of voxels of a tile along an axis.
const MAX_PATCH: usize = 4096;
/// Largest number of voxels of a tile, that of 512 x 512 x 512: nnU-Net's own plans for GPUs of 80 GB stay below a tenth of it.
const MAX_PATCH_VOXELS: usize = 1 << 27;
const MAX_CHANNELS: usize = 64;

fn patch(node: &Node<'_>, architecture: &UNetArchitecture) -> Result<[usize; 3]> {
    let patch = if architecture.planar {
        let [y, x] = node.pair(Node::count)?;
        [1, y, x]
    } else {
        node.triple(Node::count)?
    };
    architecture.ensure_size("patch_size", patch).map_err(|e| node.mismatch(e))?;
    if patch.iter().any(|&p| p > MAX_PATCH) {
        return Err(node.mismatch(format!("at most {MAX_PATCH} voxels along an axis")));
    }
    // Three axes of 4096 fit in 64 bits.
    let voxels: u64 = patch.iter().map(|&p| p as u64).product();
    if voxels > MAX_PATCH_VOXELS as u64 {
        let (bytes, features) = (size_of::<f32>() as u64, architecture.features[0] as u64);
        let gigabytes = (voxels * bytes).saturating_mul(features) as f64 / 1e9;
        return Err(node.mismatch(format!(
            "at most {MAX_PATCH_VOXELS} voxels (one activation of a tile of {voxels} voxels would take {gigabytes:.0} GB)"
        )));
    }
    Ok(patch)
}

/// The names of the channels in dataset.json.
///
/// # Errors
/// No names, or not one for each of the numbers 0, 1, 2, ...
pub(crate) fn channel_names(dataset: &JsonFile) -> Result<Vec<String>> {
    dataset_channels(&dataset.root())
}

fn dataset_channels(dataset: &Node<'_>) -> Result<Vec<String>> {
    // nnU-Net's first releases called the channels modalities.
    channels(&if dataset.has("modality") { dataset.key("modality")? } else { dataset.key("channel_names")? })
}

/// Names by the channel's number, 0, 1, 2, ...
fn channels(node: &Node<'_>) -> Result<Vec<String>> {
    let count = node.members()?.len();
    if !(1..=MAX_CHANNELS).contains(&count) {
        return Err(node.mismatch(format!("1 to {MAX_CHANNELS} channels")));
    }
    (0..count).map(|channel| Ok(node.key(&channel.to_string())?.text()?.to_owned())).collect()
}

/// The configuration asked for.
fn choose<'a>(configurations: &Node<'a>, wanted: Option<&str>) -> Result<&'a str> {
    let members = configurations.members()?;
    let found = match wanted {
        Some(wanted) => members.iter().find(|(name, _)| *name == wanted),
        None => members.iter().find(|(name, _)| *name == "3d_fullres").or(match members.as_slice() {
            [only] => Some(only),
            _ => None,
        }),
    };
    found.map(|(name, _)| *name).ok_or_else(|| {
        let names = shown_list(members.iter().map(|(name, _)| *name));
        let what = format!("{}: configuration", configurations.file().display());
        Error::argument(what, format!("one of {names}"), wanted.unwrap_or("3d_fullres"))
    })
}

/// A configuration with what it inherits.
fn inherited(configurations: &Node<'_>, name: &str) -> Result<Inherited> {
    let mut chain = vec![name.to_owned()];
    let mut own = configurations.key(name)?;
    let mut values = own.object()?.clone();
    while let Some(parent) = own.optional("inherits_from") {
        let parent_name = parent.text()?;
        if chain.iter().any(|visited| visited == parent_name) {
            return Err(parent.mismatch("a configuration that does not inherit from itself"));
        }
        chain.push(parent_name.to_owned());
        own = configurations.key(parent_name)?;
        for (key, value) in own.object()? {
            values.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(Inherited { name: name.to_owned(), value: values.into() })
}

/// The values of a configuration, its own before its parents'.
struct Inherited {
    name: String,
    value: serde_json::Value,
}

impl Inherited {
    fn node<'a>(&'a self, file: &'a Path) -> Node<'a> {
        Node::at(file, format!("configurations.{}", self.name), &self.value)
    }
}

/// nnU-Net's own trainers train the plans' network, but for [`plans_architecture`]'s exception and those that bring a network
/// of their own, whose weights have other names. Nothing can be said of a trainer from elsewhere.
fn foreign_trainer(trainer: &str) -> Option<String> {
    let own = trainer.strip_prefix("nnUNetTrainer").is_some_and(|rest| {
        let variant = rest.trim_start_matches('_');
        let epochs = variant.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with("epoch");
        variant.is_empty() || epochs || VARIANTS.iter().any(|known| variant.starts_with(known))
    });
    (!own).then(|| {
        let name = shown(trainer);
        format!("the trainer {name} is not one of nnU-Net's own: its network is taken to be the one in plans.json")
    })
}

/// How the names of nnU-Net's own trainers go on behind `nnUNetTrainer`.
const VARIANTS: [&str; 22] = [
    "Adam",
    "VanillaAdam",
    "DASegOrd0",
    "Adan",
    "BN",
    "Benchmark",
    "CELoss",
    "CosAnneal",
    "DA5",
    "DAOrd0",
    "DiceCELoss",
    "DiceLoss",
    "DiceTopK",
    "NoDA",
    "NoDeepSupervision",
    "NoMirroring",
    "Topk",
    "TopK",
    "noDummy2DDA",
    "onlyMirror",
    "probabilisticOversampling",
    "warmup",
];
