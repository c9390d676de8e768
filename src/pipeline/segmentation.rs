//! What a segmentation is asked for and what it gives.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::sliding_window::Mirroring;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{OrientationRule, Target, TargetLabels};
use crate::tensor::DType;
use crate::volume::{BACKGROUND, LabelVolume, Volume};

/// The outputs of the segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// The mask only.
    #[default]
    Labels,
    /// The mask and the probability of each label or region (softmax or sigmoid), which takes 4 bytes of host memory for each voxel and class.
    Probabilities,
    /// As [`Output::Probabilities`], in front of them that of the background where the labels exclude one another: everything that
    /// the network says, as nnU-Net saves it.
    AllProbabilities,
}

impl Output {
    /// Whether probabilities are computed.
    pub(super) fn has_probabilities(self) -> bool {
        self != Self::Labels
    }
}

/// The storage type of the network's weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f16 on a device that supports it (as nnU-Net's autocast), f32 elsewhere.
    #[default]
    Fastest,
    /// f32 on every device.
    Single,
}

impl Precision {
    pub(super) fn dtype(self, device: &Device) -> DType {
        match self {
            Self::Fastest if device.supports(DType::F16) => DType::F16,
            _ => DType::F32,
        }
    }
}

/// How the weighted logits of overlapping tiles are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sums {
    /// In f32.
    #[default]
    F32,
    /// In f16, in half the memory, as nnU-Net does: 11 bits, rounded after each tile. A sum over 65504 is an error and no label.
    F16,
}

impl Sums {
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }
}

/// Options of [`Segmenter::segment`].
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SegmentOptions {
    /// The distance of neighbouring tiles as a fraction of the tile, 0.05 to 1.
    pub step: f64,
    /// Test-time augmentation.
    pub mirroring: Mirroring,
    /// Whether probabilities are computed besides the mask.
    pub output: Output,
    /// The largest number of bytes for the resampled image, sums, activations and slabs together; None for no limit.
    pub memory_budget: Option<u64>,
    /// The orientation of the network's input; None for the rule of the plan.
    pub orientation: Option<OrientationRule>,
    /// The type of the sums of logits.
    pub sums: Sums,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self {
            step: 0.5,
            mirroring: Mirroring::Off,
            output: Output::Labels,
            memory_budget: None,
            orientation: None,
            sums: Sums::F32,
        }
    }
}

/// A scan to segment.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a> {
    /// Its channels on one grid, in the order of the plan's channels.
    pub channels: &'a [Volume],
    /// The voxel size (d, h, w) that the file's header gives, which nnU-Net takes even where the affine has another; the affine's
    /// if None.
    pub spacing: Option<[f64; 3]>,
    /// The mask of the previous stage on the scan's grid, for the second stage of a cascade that does not run its first stage.
    pub previous: Option<&'a LabelVolume>,
}

/// The progress of a segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The image is being preprocessed.
    Preparing,
    /// The number of tiles that are done, and the number of all tiles.
    Tiles(usize, usize),
}

/// Wall-clock seconds of each part. Logits are exported between tiles; that time counts as export and not as network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Orientation, cropping, normalisation and resampling.
    pub preprocess: f64,
    /// The network on all tiles.
    pub network: f64,
    /// Resampling of logits, labels, and mapping them back to the image.
    pub export: f64,
}

impl Timings {
    /// The sums of two runs.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            preprocess: self.preprocess + other.preprocess,
            network: self.network + other.network,
            export: self.export + other.export,
        }
    }
}

/// The result of a segmentation.
#[derive(Debug, Clone)]
pub struct Segmentation {
    /// The model's labels on the image's own grid.
    pub mask: LabelVolume,
    /// f32 probabilities of each label or region on that grid, if asked for; of the background too for
    /// [`Output::AllProbabilities`].
    pub probabilities: Vec<Volume>,
    /// What the mask's values stand for.
    pub labels: TargetLabels,
    /// Tiles the network saw, mirrored copies not counted.
    pub tiles: usize,
    /// The planned size of the working set (resampled image, sums, activations, slab) in bytes.
    pub working_set: u64,
    /// Wall-clock seconds of each part.
    pub seconds: Timings,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// What was found of a label or region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Its name in dataset.json.
    pub name: String,
    /// Voxels of the mask that belong to it.
    pub voxels: usize,
    /// Their volume in millilitres.
    pub ml: f64,
    /// The mean of the image's values there, for CT in Hounsfield units; None without voxels.
    pub mean: Option<f64>,
}

impl Segmentation {
    /// Millilitres of each label or region, the background left out; regions overlap.
    pub fn volumes_ml(&self) -> Vec<(String, f64)> {
        let (counts, voxel) = (self.mask.counts(), self.mask.voxel_ml());
        let volume = |members: &[u8]| members.iter().map(|m| counts[usize::from(*m)]).sum::<usize>() as f64 * voxel;
        self.labels.targets().iter().map(|target| (target.name.clone(), volume(&target.members))).collect()
    }

    /// Size and mean value of each label or region; `image` is the image (or its first channel) that was segmented.
    ///
    /// # Errors
    /// [`Error::Shape`] for an image of another shape than the mask.
    pub fn measure(&self, image: &Volume) -> Result<Vec<Measurement>> {
        if image.shape() != self.mask.shape() {
            let [expected, found] = [self.mask.shape(), image.shape()].map(|shape| format!("{shape:?}"));
            return Err(Error::shape("measure: image", expected, found));
        }
        let (mut counts, mut sums) = ([0_usize; 256], [0.0_f64; 256]);
        for (offset, label) in self.mask.labels().iter().enumerate().filter(|(_, label)| **label != BACKGROUND) {
            counts[usize::from(*label)] += 1;
            sums[usize::from(*label)] += f64::from(image.voxels().value(offset));
        }
        let measurement = |target: &Target| {
            let of = |m: &u8| usize::from(*m);
            let voxels = target.members.iter().map(|m| counts[of(m)]).sum();
            let sum = target.members.iter().map(|m| sums[of(m)]).sum::<f64>();
            Measurement {
                name: target.name.clone(),
                voxels,
                ml: voxels as f64 * self.mask.voxel_ml(),
                mean: (voxels > 0).then(|| sum / voxels as f64),
            }
        };
        Ok(self.labels.targets().iter().map(measurement).collect())
    }
}

/// The answer of a progress callback as a result.
pub(super) fn continue_or_cancel(answer: ControlFlow<()>) -> Result<()> {
    match answer {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}
