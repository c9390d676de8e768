//! Finished slices of logits to labels or probabilities on the image's own voxels, slab by slab.
//!
//! Memory: the labels of the image, one slab on the device, and the probabilities if they are wanted. The resampled
//! logits, which would take classes x 4 bytes a voxel, are never held.

use super::segment::Output;
use super::sliding_window::Finished;
use crate::error::{Error, Result};
use crate::ops::tile::{AxisTaps, Sampling, resample_labels, resample_probabilities};
use crate::tensor::from_channels_last;

/// What a voxel whose logits are all NaN gets from the op.
const NO_LABEL: u8 = u8::MAX;

/// Collects labels, and probabilities if wanted, in the order of the slices.
pub(super) struct Exporter {
    axes: [AxisTaps; 3],
    output: Output,
    /// Output slices at a time.
    slab: usize,
    done: usize,
    pub(super) labels: Vec<u8>,
    /// For each foreground class.
    pub(super) probabilities: Vec<Vec<f32>>,
}

impl Exporter {
    /// From logits of `input` voxels to an image of `output_size`; `separate` is the axis that is resampled to the
    /// nearest. `slab_bytes` bounds what a slab may take on the device.
    pub(super) fn new(
        input: [usize; 3],
        output_size: [usize; 3],
        separate: Option<usize>,
        output: Output,
        classes: usize,
        slab_bytes: u64,
    ) -> Result<Self> {
        let axis = |a: usize| {
            let sampling = if separate == Some(a) { Sampling::Nearest } else { Sampling::Linear };
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

    /// Writes every output slice that lies between finished ones.
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

/// Device bytes of one output slice.
pub(super) fn slice_bytes(size: [usize; 3], output: Output, classes: usize) -> u64 {
    let voxel = match output {
        Output::Labels => 1,
        Output::Probabilities => 1 + 4 * classes as u64,
    };
    (size[1] as u64 * size[2] as u64 * voxel).max(1)
}
