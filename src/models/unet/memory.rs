//! The memory of a forward pass of the U-Net, counted before it runs.

use super::architecture::UNetArchitecture;
use crate::device::Device;
use crate::tensor::DType;

/// Number of elements of all live tensors, as the ops of a forward pass allocate and free them.
#[derive(Default)]
struct Live {
    now: u64,
    peak: u64,
}

impl Live {
    fn allocate(&mut self, elements: u64) {
        self.now += elements;
        self.peak = self.peak.max(self.now);
    }

    fn free(&mut self, elements: u64) {
        self.now -= elements;
    }

    /// A convolution block that reads `inputs` tensors of `output` elements each and writes one of that size. On the CPU the inputs
    /// are read in place; elsewhere they may be concatenated into a copy first, which is then read.
    fn block(&mut self, inputs: u64, output: u64, may_join: bool) {
        if may_join && inputs > 1 {
            self.allocate(inputs * output);
            self.free(inputs * output);
        }
        self.allocate(output);
    }
}

impl UNetArchitecture {
    /// The largest number of bytes of activations that are live at once in a forward pass over one image of `size` (z, y, x), stored
    /// as `dtype` on `device`: the image, the inputs and outputs of each op, and the skip connections. Weights are not counted.
    /// Exact on the CPU; on a GPU the decoder's inputs are assumed to be concatenated, as most convolutions there need it.
    pub fn activation_bytes(&self, size: [usize; 3], dtype: DType, device: &Device) -> u64 {
        let may_join = *device != Device::Cpu;
        let mut scale = [1usize; 3];
        let voxels: Vec<u64> = self
            .strides
            .iter()
            .map(|stride| {
                scale = std::array::from_fn(|a| scale[a].saturating_mul(stride[a]));
                (0..3).map(|a| (size[a] / scale[a]).max(1) as u64).product()
            })
            .collect();
        let own = |stage: usize| self.features[stage] as u64 * voxels[stage];
        let mut live = Live::default();
        live.allocate(self.input_channels as u64 * voxels[0]);
        for (stage, &convs) in self.encoder_convs.iter().enumerate() {
            // The first block reads the image or a skip connection, and neither is freed.
            live.block(1, own(stage), may_join);
            for _ in 1..convs {
                live.block(1, own(stage), may_join);
                live.free(own(stage));
            }
        }
        for (level, &convs) in self.decoder_convs.iter().enumerate() {
            let stage = self.features.len() - 2 - level;
            live.allocate(own(stage));
            live.free(own(stage + 1));
            for i in 0..convs {
                // The first block reads the upsampled tensor and the skip connection, and frees both.
                let inputs = if i == 0 { 2 } else { 1 };
                live.block(inputs, own(stage), may_join);
                live.free(inputs * own(stage));
            }
        }
        live.allocate(self.classes as u64 * voxels[0]);
        live.peak * dtype.size() as u64
    }
}
