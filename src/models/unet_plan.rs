//! What nnU-Net v2 decided for a data set: plans.json and dataset.json.

use std::path::Path;

use super::json::{JsonFile, Node};
use super::unet_architecture::UNetArchitecture;
use crate::error::{Error, Result};
use crate::volume::Orientation;

/// How a channel's values are normalised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Normalization {
    /// Clip, subtract the mean, divide by the standard deviation: Hounsfield units of the training set's foreground.
    Ct {
        /// The 0.5 and 99.5 percentile.
        clip: [f32; 2],
        /// Mean.
        mean: f32,
        /// Standard deviation.
        sd: f32,
    },
    /// Values as they are.
    None,
}

/// Which way an image's axes run when the network sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrientationRule {
    /// As they are stored in the file: what nnU-Net's SimpleITK reader does, so a model trained through it expects it.
    Stored,
    /// Turned to one orientation first, so that the result does not depend on how the file is stored.
    Fixed(Orientation),
}

/// When slices are resampled in their plane first and then, to the nearest, across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeparateAxis {
    /// When the largest voxel size is over three times the smallest.
    WhenAnisotropic,
    /// Along the axis of the largest voxel size, whatever it is.
    Always,
    /// Never.
    Never,
}

/// A trained network's plan. Axes are the network's (z, y, x) unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetPlan {
    /// The network.
    pub architecture: UNetArchitecture,
    /// Millimetres a voxel.
    pub spacing: [f64; 3],
    /// Voxels of a tile.
    pub patch: [usize; 3],
    /// For each channel.
    pub normalization: Vec<Normalization>,
    /// Resampling of images.
    pub separate_data: SeparateAxis,
    /// Resampling of logits.
    pub separate_logits: SeparateAxis,
    /// The image axis (k, j, i after orientation) that each network axis is.
    pub transpose: [usize; 3],
    /// Which way the image's axes run.
    pub orientation: OrientationRule,
    /// Names by label value; the first is the background.
    pub labels: Vec<String>,
}

impl UNetPlan {
    /// Reads plans.json and dataset.json of a folder. `configuration` names one of the plans' configurations; without it,
    /// 3d_fullres, or the only one there is.
    ///
    /// # Errors
    /// A file that cannot be read, a key that is missing or has another type or value than expected, settings that do not
    /// fit each other, and what nnU-Net offers but this crate does not: other networks, normalisations and resampling
    /// functions, several channels, cascades, region-based training.
    pub fn read(folder: &Path, configuration: Option<&str>) -> Result<Self> {
        let plans = JsonFile::read(&folder.join("plans.json"))?;
        let dataset = JsonFile::read(&folder.join("dataset.json"))?;
        let (plans, dataset) = (plans.root(), dataset.root());
        let labels = labels(&dataset.key("labels")?)?;
        let channels = dataset.key("channel_names")?;
        let channel_count = channels.members()?.len();
        if channel_count != 1 {
            return Err(channels.refuse("one channel (images of several are not supported)"));
        }

        let configuration = choose(&plans.key("configurations")?, configuration)?;
        if let Some(parent) = configuration.optional("inherits_from") {
            return Err(parent.refuse("a configuration that inherits from no other"));
        }
        let spacing = configuration.key("spacing")?;
        let spacing_mm = spacing.triple(Node::number)?;
        if spacing_mm.iter().any(|s| *s <= 0.0) {
            return Err(spacing.refuse("millimetres above 0"));
        }
        let architecture = UNetArchitecture::read(&configuration.key("architecture")?, channel_count, labels.len())?;
        let patch_node = configuration.key("patch_size")?;
        let patch = patch_node.triple(Node::count)?;
        architecture.check_size("patch_size", patch).map_err(|e| patch_node.refuse(e))?;
        if patch.iter().any(|&p| p > MAX_PATCH) {
            return Err(patch_node.refuse(format!("at most {MAX_PATCH} voxels along an axis")));
        }
        Ok(Self {
            architecture,
            spacing: spacing_mm,
            patch,
            normalization: normalization(&plans, &configuration.key("normalization_schemes")?, channel_count)?,
            separate_data: resampling(&configuration, "resampling_fn_data", 3)?,
            separate_logits: resampling(&configuration, "resampling_fn_probabilities", 1)?,
            transpose: transpose(&plans)?,
            orientation: orientation(&plans)?,
            labels,
        })
    }
}

const MAX_PATCH: usize = 4096;

/// The configuration asked for.
fn choose<'a>(configurations: &Node<'a>, wanted: Option<&str>) -> Result<Node<'a>> {
    let members = configurations.members()?;
    let names = || members.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = match wanted {
        Some(wanted) => members.iter().find(|(name, _)| *name == wanted),
        None => members.iter().find(|(name, _)| *name == "3d_fullres").or(match members.as_slice() {
            [only] => Some(only),
            _ => None,
        }),
    };
    found.map(|(_, node)| node.clone()).ok_or_else(|| {
        let wanted = wanted.unwrap_or("3d_fullres");
        Error::argument("plans.json: configuration", format!("one of {}", names()), wanted)
    })
}

/// Names by value: background 0, then 1, 2, ... An `ignore` label is in no network's output.
fn labels(node: &Node<'_>) -> Result<Vec<String>> {
    let mut labels = Vec::new();
    for (name, value) in node.members()? {
        if name == "ignore" {
            continue;
        }
        if value.is_list() {
            return Err(value.refuse("one number (region-based training is not supported)"));
        }
        labels.push((value.count()?, name.to_owned()));
    }
    labels.sort();
    let consecutive = labels.iter().enumerate().all(|(i, (value, _))| i == *value);
    if !consecutive || !(2..=255).contains(&labels.len()) {
        return Err(node.refuse("labels 0, 1, 2, ... without gaps, 2 to 255 of them"));
    }
    Ok(labels.into_iter().map(|(_, name)| name).collect())
}

fn normalization(plans: &Node<'_>, schemes: &Node<'_>, channels: usize) -> Result<Vec<Normalization>> {
    let list = schemes.list()?;
    if list.len() != channels {
        return Err(schemes.refuse(format!("one scheme for each of {channels} channels")));
    }
    let read = |(channel, scheme): (usize, &Node<'_>)| match scheme.text()? {
        "NoNormalization" => Ok(Normalization::None),
        "CTNormalization" => {
            let all = plans.key("foreground_intensity_properties_per_channel")?;
            let intensity = all.key(&channel.to_string())?;
            let number = |key: &str| Ok::<_, Error>(intensity.key(key)?.number()? as f32);
            let clip = [number("percentile_00_5")?, number("percentile_99_5")?];
            let (mean, sd) = (number("mean")?, number("std")?);
            if clip[0] > clip[1] || sd < 0.0 {
                return Err(intensity.refuse("percentile_00_5 up to percentile_99_5, and std of at least 0"));
            }
            Ok(Normalization::Ct { clip, mean, sd })
        }
        _ => Err(scheme.refuse("CTNormalization or NoNormalization")),
    };
    list.iter().enumerate().map(read).collect()
}

/// Only nnU-Net's default function, with its default orders: another one would give another result.
fn resampling(configuration: &Node<'_>, key: &str, order: usize) -> Result<SeparateAxis> {
    const DEFAULT: &str = "resample_data_or_seg_to_shape";
    if let Some(function) = configuration.optional(key)
        && function.text()? != DEFAULT
    {
        return Err(function.refuse(DEFAULT));
    }
    let Some(kwargs) = configuration.optional(&format!("{key}_kwargs")) else {
        return Ok(SeparateAxis::WhenAnisotropic);
    };
    for (name, wanted) in [("order", order), ("order_z", 0)] {
        if let Some(found) = kwargs.optional(name)
            && found.count()? != wanted
        {
            return Err(found.refuse(wanted));
        }
    }
    Ok(match kwargs.optional("force_separate_z").map(|n| n.boolean()).transpose()? {
        None => SeparateAxis::WhenAnisotropic,
        Some(true) => SeparateAxis::Always,
        Some(false) => SeparateAxis::Never,
    })
}

fn transpose(plans: &Node<'_>) -> Result<[usize; 3]> {
    let Some(node) = plans.optional("transpose_forward") else { return Ok([0, 1, 2]) };
    let axes = node.triple(Node::count)?;
    let mut sorted = axes;
    sorted.sort_unstable();
    if sorted == [0, 1, 2] { Ok(axes) } else { Err(node.refuse("0, 1 and 2 in some order")) }
}

/// By the reader the model was trained through. A plan without one is nephron's own: turned to RAS.
fn orientation(plans: &Node<'_>) -> Result<OrientationRule> {
    let Some(reader) = plans.optional("image_reader_writer") else {
        return Ok(OrientationRule::Fixed(Orientation::RAS));
    };
    match reader.text()? {
        "NibabelIOWithReorient" => Ok(OrientationRule::Fixed(Orientation::RAS)),
        "SimpleITKIO" | "NibabelIO" => Ok(OrientationRule::Stored),
        _ => Err(reader.refuse("SimpleITKIO, NibabelIO or NibabelIOWithReorient")),
    }
}
