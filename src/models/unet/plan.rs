//! nnU-Net v2's plan for a data set: plans.json and dataset.json.

use std::path::Path;

use super::architecture::UNetArchitecture;
use crate::error::{Error, Result};
use crate::models::json::{JsonFile, Node};
use crate::volume::Orientation;

/// The normalisation of a channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Normalization {
    /// Values are clipped, the mean is subtracted and the difference divided by the standard deviation; all in Hounsfield units of
    /// the training set's foreground.
    Ct {
        /// The range of clipping: the 0.5 and 99.5 percentile.
        clip: [f32; 2],
        /// The mean.
        mean: f32,
        /// The standard deviation.
        sd: f32,
    },
    /// Values are not changed.
    None,
}

/// The orientation of an image as the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrientationRule {
    /// The orientation of the file, which nnU-Net's SimpleITK reader keeps and models that were trained with it expect.
    Stored,
    /// One orientation for all images, so that the result does not depend on the orientation of the file.
    Fixed(Orientation),
}

/// When slices are resampled in their plane first, and then the nearest slice is taken across them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeparateAxis {
    /// Where the largest voxel size is more than three times the smallest.
    WhenAnisotropic,
    /// Always, along the axis of the largest voxel size.
    Always,
    /// Never.
    Never,
}

/// The plan of a trained network. Axes are the network's (z, y, x) unless documented otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetPlan {
    /// The architecture of the network.
    pub architecture: UNetArchitecture,
    /// The voxel size in millimetres.
    pub spacing: [f64; 3],
    /// The size of a tile in voxels.
    pub patch: [usize; 3],
    /// The normalisation of each channel.
    pub normalization: Vec<Normalization>,
    /// The rule for resampling images.
    pub separate_data: SeparateAxis,
    /// The rule for resampling logits.
    pub separate_logits: SeparateAxis,
    /// The image axis (k, j, i after orientation) that each network axis is.
    pub transpose: [usize; 3],
    /// The orientation of the image.
    pub orientation: OrientationRule,
    /// The names of the labels by their values; the first is the background.
    pub labels: Vec<String>,
}

impl UNetPlan {
    /// Reads plans.json and dataset.json in `folder`. `configuration` names one of the configurations; by default 3d_fullres, or the
    /// only one.
    ///
    /// # Errors
    /// A file that cannot be read; a key that is missing or has another type or value than expected; settings that contradict each
    /// other; features of nnU-Net that this crate does not support: other networks, normalisations and resampling functions, several
    /// channels, cascades, region-based training.
    pub fn read(folder: &Path, configuration: Option<&str>) -> Result<Self> {
        let plans = JsonFile::read(&folder.join("plans.json"))?;
        let dataset = JsonFile::read(&folder.join("dataset.json"))?;
        let (plans, dataset) = (plans.root(), dataset.root());
        let labels = labels(&dataset.key("labels")?)?;
        let channels = dataset.key("channel_names")?;
        let channel_count = channels.members()?.len();
        if channel_count != 1 {
            return Err(channels.mismatch("one channel (images of several are not supported)"));
        }

        let configuration = choose(&plans.key("configurations")?, configuration)?;
        if let Some(parent) = configuration.optional("inherits_from") {
            return Err(parent.mismatch("a configuration that inherits from no other"));
        }
        let spacing = configuration.key("spacing")?;
        let spacing_mm = spacing.triple(Node::number)?;
        if spacing_mm.iter().any(|s| *s <= 0.0) {
            return Err(spacing.mismatch("millimetres above 0"));
        }
        let architecture = UNetArchitecture::read(&configuration.key("architecture")?, channel_count, labels.len())?;
        let patch_node = configuration.key("patch_size")?;
        let patch = patch_node.triple(Node::count)?;
        architecture.ensure_size("patch_size", patch).map_err(|e| patch_node.mismatch(e))?;
        if patch.iter().any(|&p| p > MAX_PATCH) {
            return Err(patch_node.mismatch(format!("at most {MAX_PATCH} voxels along an axis")));
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

/// Largest number of voxels of a tile along an axis.
const MAX_PATCH: usize = 4096;

/// The configuration of that name.
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

/// The names of the labels by their values 0 (background), 1, 2, ... The label `ignore` is not part of the network's output.
fn labels(node: &Node<'_>) -> Result<Vec<String>> {
    let mut labels = Vec::new();
    for (name, value) in node.members()? {
        if name == "ignore" {
            continue;
        }
        if value.is_list() {
            return Err(value.mismatch("one number (region-based training is not supported)"));
        }
        labels.push((value.count()?, name.to_owned()));
    }
    labels.sort();
    let consecutive = labels.iter().enumerate().all(|(i, (value, _))| i == *value);
    if !consecutive || !(2..=255).contains(&labels.len()) {
        return Err(node.mismatch("labels 0, 1, 2, ... without gaps, 2 to 255 of them"));
    }
    Ok(labels.into_iter().map(|(_, name)| name).collect())
}

fn normalization(plans: &Node<'_>, schemes: &Node<'_>, channels: usize) -> Result<Vec<Normalization>> {
    let list = schemes.list()?;
    if list.len() != channels {
        return Err(schemes.mismatch(format!("one scheme for each of {channels} channels")));
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
                return Err(intensity.mismatch("percentile_00_5 up to percentile_99_5, and std of at least 0"));
            }
            Ok(Normalization::Ct { clip, mean, sd })
        }
        _ => Err(scheme.mismatch("CTNormalization or NoNormalization")),
    };
    list.iter().enumerate().map(read).collect()
}

/// The rule for resampling. Only nnU-Net's default function with its default orders is supported.
fn resampling(configuration: &Node<'_>, key: &str, order: usize) -> Result<SeparateAxis> {
    const DEFAULT: &str = "resample_data_or_seg_to_shape";
    if let Some(function) = configuration.optional(key)
        && function.text()? != DEFAULT
    {
        return Err(function.mismatch(DEFAULT));
    }
    let Some(kwargs) = configuration.optional(&format!("{key}_kwargs")) else {
        return Ok(SeparateAxis::WhenAnisotropic);
    };
    for (name, wanted) in [("order", order), ("order_z", 0)] {
        if let Some(found) = kwargs.optional(name)
            && found.count()? != wanted
        {
            return Err(found.mismatch(wanted));
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
    if sorted == [0, 1, 2] { Ok(axes) } else { Err(node.mismatch("0, 1 and 2 in some order")) }
}

/// The orientation that the reader of the model's training data produces. A plan without a reader is nephron's own and expects RAS.
fn orientation(plans: &Node<'_>) -> Result<OrientationRule> {
    let Some(reader) = plans.optional("image_reader_writer") else {
        return Ok(OrientationRule::Fixed(Orientation::RAS));
    };
    match reader.text()? {
        "NibabelIOWithReorient" => Ok(OrientationRule::Fixed(Orientation::RAS)),
        "SimpleITKIO" | "NibabelIO" => Ok(OrientationRule::Stored),
        _ => Err(reader.mismatch("SimpleITKIO, NibabelIO or NibabelIOWithReorient")),
    }
}
