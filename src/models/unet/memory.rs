//! What a forward pass of the U-Net holds at once, counted before it runs.

use super::architecture::{ResidualEncoder, UNetArchitecture, UNetEncoder, UNetNorm};
use crate::device::Device;
use crate::tensor::DType;

/// Elements alive, as the ops of a forward pass allocate and free them.
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
}

/// A forward pass that is being counted.
struct Pass {
    live: Live,
    /// Whether several inputs may be copied together before they are read: on a GPU, and by blocks that are not one operation.
    joins: bool,
    /// Whether the norm writes a tensor of its own.
    unfused: bool,
}

impl Pass {
    /// A convolution block that writes `output` elements from `inputs` tensors of as many elements each. On the CPU they
    /// are read where they are; elsewhere they may be copied together first, and the copy is then what is read.
    fn block(&mut self, inputs: u64, output: u64) {
        if self.joins && inputs > 1 {
            self.live.allocate(inputs * output);
            self.live.free(inputs * output);
        }
        self.live.allocate(output);
        if self.unfused {
            self.live.allocate(output);
            self.live.free(output);
        }
    }
}

impl Pass {
    /// The gate of a squeeze-excitation over `size`, whose elements are returned: they live on.
    fn gate(&mut self, channels: u64, squeezed: u64, [d, _, w]: [u64; 3], planar: bool) -> u64 {
        // Means along y, then along x or z, then the two convolutions; each frees what it has read.
        let along = if planar { d } else { w };
        let steps = [channels * d * w, channels * along, squeezed * along, channels * along];
        let mut before = 0;
        for elements in steps {
            self.live.allocate(elements);
            self.live.free(before);
            before = elements;
        }
        before
    }
}

impl UNetArchitecture {
    /// The most bytes of activations alive at once in a forward pass over one image of `size` (z, y, x) stored as `dtype`
    /// on `device`: the image, what each op reads and writes, and the skips that wait for the decoder. Not counted are the
    /// weights, of which the CPU keeps a packed copy (2.4 times as large for 3x3x3 kernels of stride 1), and the scratch memory of its
    /// convolutions: 16 MiB, or for each thread half a MiB and 3.5 KiB for each channel of the widest layer.
    /// Exact on the CPU; on a GPU the decoder's inputs are counted as copied together, which most convolutions there need.
    pub fn activation_bytes(&self, size: [usize; 3], dtype: DType, device: &Device) -> u64 {
        let voxels = self.voxels(size);
        let own = |stage: usize| self.features[stage] as u64 * voxels[stage];
        let fused = matches!(self.norm, UNetNorm::Instance { .. }) && !self.nonlin_first;
        let mut pass =
            Pass { live: Live::default(), joins: *device != Device::Cpu || !fused, unfused: self.is_unfused() };
        pass.live.allocate(self.input_channels as u64 * voxels[0]);
        match &self.encoder {
            UNetEncoder::Plain(convs) => {
                for (stage, &convs) in convs.iter().enumerate() {
                    // The first block reads the image or a skip: neither is freed.
                    pass.block(1, own(stage));
                    for _ in 1..convs {
                        pass.block(1, own(stage));
                        pass.live.free(own(stage));
                    }
                }
            }
            UNetEncoder::Residual(residual) => self.residual_encoder(residual, &self.sizes(size), &mut pass),
        }
        for (level, &convs) in self.decoder_convs.iter().enumerate() {
            let stage = self.features.len() - 2 - level;
            pass.live.allocate(own(stage));
            pass.live.free(own(stage + 1));
            for i in 0..convs {
                // The first reads the upsampled tensor and the skip and frees both.
                let inputs = if i == 0 { 2 } else { 1 };
                pass.block(inputs, own(stage));
                pass.live.free(inputs * own(stage));
            }
        }
        pass.live.allocate(self.classes as u64 * voxels[0]);
        pass.live.peak * dtype.size() as u64
    }

    /// Whether the norm is an operation of its own, which holds its input and its output at once.
    fn is_unfused(&self) -> bool {
        self.nonlin_first && self.norm != UNetNorm::None
    }

    fn residual_encoder(&self, residual: &ResidualEncoder, sizes: &[[u64; 3]], pass: &mut Pass) {
        let voxels: Vec<u64> = sizes.iter().map(|size| size.iter().product()).collect();
        let mut channels = residual.stem as u64;
        pass.block(1, channels * voxels[0]);
        for (stage, &features) in self.features.iter().enumerate() {
            let (written, features) = (voxels[stage], features as u64);
            let read = voxels[stage.saturating_sub(1)];
            for block in 0..residual.blocks[stage] {
                let (input, strided) = match block {
                    0 => (channels * read, self.strides[stage] != [1; 3]),
                    _ => (channels * written, false),
                };
                // A stage reads the skip of the one before, which lives on; the stem's output and a block's do not.
                let input_lives = block == 0 && stage > 0;
                let mut inner = match &residual.bottleneck {
                    None => vec![features * written],
                    Some(inner) => {
                        let first = if block == 0 { read } else { written };
                        vec![inner[stage] as u64 * first, inner[stage] as u64 * written]
                    }
                };
                let mut before = 0;
                for elements in inner.drain(..) {
                    pass.block(1, elements);
                    pass.live.free(before);
                    before = elements;
                }
                // The residual: pooled, projected, or the input itself.
                let mut held = 0;
                if strided {
                    held = channels * written;
                    pass.live.allocate(held);
                    if !input_lives {
                        pass.live.free(input);
                    }
                }
                if channels != features {
                    pass.block(1, features * written);
                    match (held, input_lives) {
                        (0, true) => {}
                        (0, false) => pass.live.free(input),
                        (pooled, _) => pass.live.free(pooled),
                    }
                    held = features * written;
                }
                pass.block(1, features * written);
                // The sum is the store of the last convolution, unless a norm or a gate comes between.
                if !matches!(self.norm, UNetNorm::None | UNetNorm::Running { .. })
                    || residual.squeeze_excitation.is_some()
                {
                    pass.live.free(before);
                    before = features * written;
                    let gate = residual.squeeze_excitation.map_or(0, |ratio| {
                        let squeezed = ResidualEncoder::squeezed(features as usize, ratio) as u64;
                        pass.gate(features, squeezed, sizes[stage], self.planar)
                    });
                    pass.live.allocate(features * written);
                    pass.live.free(gate);
                }
                pass.live.free(before);
                match (held, input_lives) {
                    (0, true) => {}
                    (0, false) => pass.live.free(input),
                    (residual, _) => pass.live.free(residual),
                }
                channels = features;
            }
        }
    }
}
