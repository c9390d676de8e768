//! Converts finished slices of logits to labels and probabilities on the voxels of the cropped image, slab by slab.
//!
//! Memory: the labels of the image, one slab on the device, and the probabilities where they are requested. The resampled logits,
//! which would take classes x 4 bytes for each voxel, are never stored.

use super::segment::Output;
use super::sliding_window::Finished;
use crate::error::{Error, Result};
use crate::ops::tile::{AxisSampling, AxisTaps, resample_labels, resample_probabilities};
use crate::tensor::from_channels_last;

/// The label that the op gives to a voxel whose logits are all NaN.
const NO_LABEL: u8 = u8::MAX;

/// Collects labels, and probabilities where they are requested, in the order of the slices.
pub(super) struct Exporter {
    axes: [AxisTaps; 3],
    output: Output,
    /// Number of output slices in a slab.
    slab: usize,
    done: usize,
    pub(super) labels: Vec<u8>,
    /// The probabilities of each foreground class.
    pub(super) probabilities: Vec<Vec<f32>>,
}

impl Exporter {
    /// An exporter from logits of `input` voxels to an image of `output_size` voxels. `separate` is the axis along which the nearest
    /// slice is taken; `slab_bytes` bounds the memory of a slab on the device.
    pub(super) fn new(
        input: [usize; 3],
        output_size: [usize; 3],
        separate: Option<usize>,
        output: Output,
        classes: usize,
        slab_bytes: u64,
    ) -> Result<Self> {
        let axis = |a: usize| {
            let sampling = if separate == Some(a) { AxisSampling::Nearest } else { AxisSampling::Linear };
            AxisTaps::new(sampling, input[a], output_size[a])
        };
        let slab = (slab_bytes / slice_bytes(output_size, output, classes)).clamp(1, output_size[0] as u64) as usize;
        let probabilities = match output {
            Output::Labels => Vec::new(),
            Output::Probabilities => vec![Vec::with_capacity(output_size.iter().product()); classes - 1],
        };
        let labels = Vec::with_capacity(output_size.iter().product());
        Ok(Self { axes: [axis(0)?, axis(1)?, axis(2)?], output, slab, done: 0, labels, probabilities })
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
            let labels = resample_labels(&finished.logits, axes)?.to_u8()?;
            if labels.contains(&NO_LABEL) {
                return Err(Error::Data(format!(
                    "the network's output is not a number in slices {slab:?}: expected finite logits, found NaN \
                     (its activations overflow; try 32-bit floats)"
                )));
            }
            self.labels.extend(labels);
            if self.output == Output::Probabilities {
                let shares = resample_probabilities(&finished.logits, axes)?;
                let values = from_channels_last(shares.shape(), &shares.to_ndhwc()?);
                let voxels = shares.shape()[2..].iter().product();
                for (all, values) in self.probabilities.iter_mut().zip(values.chunks_exact(voxels).skip(1)) {
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
    let voxel = match output {
        Output::Labels => 1,
        Output::Probabilities => 1 + 4 * classes as u64,
    };
    (size[1] as u64 * size[2] as u64 * voxel).max(1)
}
