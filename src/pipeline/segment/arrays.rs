//! What the networks of a segmenter see and say, as whole arrays.

use std::ops::ControlFlow;

use super::Segmenter;
use crate::ensure_room;
use crate::error::Result;
use crate::pipeline::preprocess::prepare;
use crate::pipeline::{Scan, SegmentOptions};
use crate::tensor::{DType, Tensor};
use crate::volume::Volume;

impl Segmenter {
    /// What the networks see of an image: f32 [1, channels, d, h, w], turned, cropped, normalised and resampled as the plan
    /// says, with the labels of a cascade's first stage behind. Arguments as [`Segmenter::segment_channels`].
    ///
    /// # Errors
    /// As [`Segmenter::segment_channels`].
    pub fn preprocess(
        &self,
        channels: &[Volume],
        spacing: Option<[f64; 3]>,
        options: &SegmentOptions,
    ) -> Result<Tensor> {
        let scan = Scan { channels, spacing, previous: None };
        let earlier = self.run_previous(scan, options, &mut |_| ControlFlow::Continue(()))?;
        let previous = earlier.as_ref().map(|found| &found.mask);
        let rule = options.orientation.unwrap_or(self.plan.reader.orientation());
        let device = self.networks[0].device();
        Ok(prepare(Scan { previous, ..scan }, &self.plan, rule, &device, &mut |_, _| Ok(()))?.image)
    }

    /// The averaged logits f32 [1, outputs, d, h, w] of a preprocessed image, all of them at once: four bytes a voxel and
    /// output. [`Segmenter::segment_channels`] never holds so much.
    ///
    /// # Errors
    /// As [`Segmenter::segment_channels`]; an image that is not f32 with the plan's channels.
    pub fn logits(&self, image: &Tensor, options: &SegmentOptions) -> Result<Tensor> {
        let [_, _, d, h, w] = image.shape();
        let window = self.window([d, h, w], options)?;
        let outputs = self.plan.architecture.classes;
        ensure_room::<f32>("segment: logits", outputs * d * h * w)?;
        let mut values = vec![0.0; outputs * d * h * w];
        window.run(
            image,
            &self.networks,
            (self.dtype(), DType::F32),
            || Ok(()),
            |finished| {
                // The first slice may have been handed on before, with the same values.
                let start = finished.first * h * w * outputs;
                let slices = finished.logits.to_ndhwc()?;
                values[start..start + slices.len()].copy_from_slice(&slices);
                Ok(())
            },
        )?;
        Tensor::from_ndhwc(&image.device(), [1, outputs, d, h, w], DType::F32, values)
    }
}
