//! A case for training: image and labels, prepared exactly as an image is before it is segmented.

use super::preprocess::{Prepared, crop_channels, nonzero_mask, prepare};
use super::resample_channel::separate_axis;
use super::resample_labels::resample_labels;
use super::segmentation::Scan;
use super::strided_view::StridedView;
use crate::device::Device;
use crate::error::Result;
use crate::models::{Order, OrientationRule, Resampling, UNetPlan};
use crate::volume::{LabelVolume, Volume, Voxels};

/// The label of voxels outside the image's non-zero part, nnU-Net's -1.
pub(crate) const OUTSIDE: u8 = 255;

/// A scan turned and cropped to its non-zero voxels, nothing else.
pub(crate) struct CroppedScan<'a> {
    channels: &'a [Volume],
    views: Vec<StridedView>,
    spacing: [f64; 3],
}

impl<'a> CroppedScan<'a> {
    /// `spacing` as [`Scan::spacing`].
    pub(crate) fn new(channels: &'a [Volume], spacing: Option<[f64; 3]>, rule: OrientationRule) -> Result<Self> {
        let (views, spacing) = crop_channels(channels, spacing, rule)?;
        Ok(Self { channels, views, spacing })
    }

    /// Voxels along (z, y, x) as turned.
    pub(crate) fn shape(&self) -> [usize; 3] {
        self.views[0].shape
    }

    /// Millimetres along the same axes.
    pub(crate) fn spacing(&self) -> [f64; 3] {
        self.spacing
    }

    /// The values of a channel.
    pub(crate) fn values(&self, channel: usize) -> Result<Vec<f32>> {
        let view = &self.views[channel];
        match self.channels[channel].voxels() {
            Voxels::U8(v) => view.read(v, f32::from),
            Voxels::I16(v) => view.read(v, f32::from),
            Voxels::F32(v) => view.read(v, |v| v),
        }
    }

    /// The labels of the same voxels; `labels` lies on the first channel's grid.
    pub(crate) fn labels(&self, labels: &LabelVolume) -> Result<Vec<u8>> {
        self.views[0].read(labels.labels(), |label| label)
    }
}

/// Image and labels in the network's axes and spacing.
pub(crate) struct TrainingCase {
    /// f32 in the order c, z, y, x.
    pub(crate) image: Vec<f32>,
    /// The labels, [`OUTSIDE`] where the image is 0 and has none.
    pub(crate) labels: Vec<u8>,
    /// Voxels along (z, y, x).
    pub(crate) shape: [usize; 3],
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

impl TrainingCase {
    /// Prepares a scan for a plan whose labels are resampled as nnU-Net resamples them: each linearly.
    ///
    /// # Errors
    /// As [`prepare`].
    pub(crate) fn new(scan: Scan<'_>, labels: &LabelVolume, plan: &UNetPlan, device: &Device) -> Result<Self> {
        let rule = plan.reader.orientation();
        let Prepared { image, views, spacing, resampled_spacing, warnings, .. } =
            prepare(scan, plan, rule, device, &mut |_, _| Ok(()))?;
        let view = views[0];
        let mask = nonzero_mask(scan.channels, &views)?;
        // The lowest, as in nnU-Net: the lowest label of those that share the largest weight wins.
        let outside = -1;
        let mut values = view.read(labels.labels(), i16::from)?;
        values.iter_mut().zip(mask).filter(|(label, inside)| **label == 0 && !inside).for_each(|(l, _)| *l = outside);
        let [_, _, d, h, w] = image.shape();
        let how = Resampling { enabled: true, ..Resampling::of_order(Order::Linear) };
        let separate = separate_axis(how.separate, how.anisotropy, spacing, resampled_spacing);
        let labels = resample_labels(values, view.shape, [d, h, w], &how, separate)?;
        let labels = labels.into_iter().map(|label| u8::try_from(label).unwrap_or(OUTSIDE)).collect();
        Ok(Self { image: image.to_ncdhw()?, labels, shape: [d, h, w], warnings })
    }
}
