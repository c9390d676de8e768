//! Converts finished slices of logits to labels and probabilities on the voxels of the cropped image, slab by slab.
//!
//! Memory: the labels of the image, one slab on the device, and the probabilities where they are requested. The resampled logits,
//! which would take classes x 4 bytes for each voxel, are never stored.

use super::segmentation::{Output, Sums};
use super::sliding_window::Finished;
use crate::ensure_room;
use crate::error::{Error, Result};
use crate::models::{Order, Resampling, TargetLabels};
use crate::ops::tile::{AxisSampling, AxisTaps, NO_LABEL, resample_labels, resample_probabilities};
use crate::tensor::from_channels_last;

/// Collects labels, and probabilities if wanted, in the order of the slices.
pub(super) struct Exporter {
    targets: TargetLabels,
    axes: [AxisTaps; 3],
    output: Output,
    /// How the logits were added up.
    sums: Sums,
    /// Number of output slices in a slab.
    slab: usize,
    done: usize,
    /// The first of the network's outputs whose probabilities are kept.
    first: usize,
    pub(super) labels: Vec<u8>,
    /// The probabilities of each output from `first` on.
    pub(super) probabilities: Vec<Vec<f32>>,
}

impl Exporter {
    /// From logits of `input` voxels to an image of `output_size`; `separate` is the axis that is resampled on its own.
    /// Probabilities are kept from the network's output `first`
    /// on. `slab_bytes` bounds what a slab may take on the device.
    ///
    /// # Errors
    /// Logits that the plan resamples by cubic splines, or not at all although their size differs.
    pub(super) fn new(
        input: [usize; 3],
        output_size: [usize; 3],
        how: &Resampling,
        separate: Option<usize>,
        (output, first): (Output, usize),
        targets: &TargetLabels,
        (slab_bytes, sums): (u64, Sums),
    ) -> Result<Self> {
        if !how.enabled && input != output_size {
            let expected = format!("{output_size:?} voxels, since the plan does not resample logits");
            return Err(Error::shape("segment: size of the logits", expected, format!("{input:?}")));
        }
        let axis = |a: usize| {
            let order = if separate == Some(a) { how.order_across } else { how.order };
            let sampling = match order {
                Order::Nearest => AxisSampling::Nearest,
                Order::Linear => AxisSampling::Linear,
                Order::Cubic => {
                    return Err(Error::argument("segment: order of the logits' resampling", "0 or 1", 3));
                }
            };
            AxisTaps::new(sampling, input[a], output_size[a])
        };
        let classes = targets.outputs();
        let slab = (slab_bytes / slice_bytes(output_size, output, classes)).clamp(1, output_size[0] as u64) as usize;
        let voxels: usize = output_size.iter().product();
        ensure_room::<u8>("segment: labels", voxels)?;
        let probabilities = if output.has_probabilities() {
            ensure_room::<f32>("segment: probabilities", voxels.saturating_mul(classes - first))?;
            (0..classes - first).map(|_| Vec::with_capacity(voxels)).collect()
        } else {
            Vec::new()
        };
        let labels = Vec::with_capacity(voxels);
        let axes = [axis(0)?, axis(1)?, axis(2)?];
        Ok(Self { targets: targets.clone(), axes, output, sums, slab, done: 0, first, labels, probabilities })
    }

    /// Appends every output slice that can be computed from the finished slices.
    ///
    /// # Errors
    /// Logits that are NaN; a device that fails.
    pub(super) fn push(&mut self, finished: &Finished) -> Result<()> {
        let [along_z, along_y, along_x] = &self.axes;
        let ready = finished.first + finished.logits.shape()[2];
        let until = along_z.outputs_before(ready);
        while self.done < until {
            let slab = self.done..until.min(self.done + self.slab);
            let window = along_z.window(slab.clone(), finished.first)?;
            let axes = [&window, along_y, along_x];
            let labels = resample_labels(&finished.logits, axes, self.targets.heads())?.to_u8()?;
            if labels.contains(&NO_LABEL) {
                let try_instead = match self.sums {
                    Sums::F32 => "its activations overflow; try 32-bit floats, --precision single",
                    Sums::F16 => "a sum over 65504 overflows f16; try --sums f32, and then --precision single",
                };
                return Err(Error::Data(format!(
                    "the network's output is not finite in slices {slab:?}: expected numbers, found NaN or infinity ({try_instead})"
                )));
            }
            self.labels.extend(labels);
            if self.output.has_probabilities() {
                let shares = resample_probabilities(&finished.logits, axes, self.targets.heads())?;
                let values = from_channels_last(shares.shape(), &shares.to_ndhwc()?);
                let voxels = shares.shape()[2..].iter().product();
                for (all, values) in self.probabilities.iter_mut().zip(values.chunks_exact(voxels).skip(self.first)) {
                    all.extend_from_slice(values);
                }
            }
            self.done = slab.end;
        }
        Ok(())
    }
}

/// Number of bytes that one output slice takes on the device.
pub(super) fn slice_bytes(size: [usize; 3], output: Output, classes: usize) -> u64 {
    let voxel = if output.has_probabilities() { 1 + 4 * classes as u64 } else { 1 };
    (size[1] as u64 * size[2] as u64 * voxel).max(1)
}
