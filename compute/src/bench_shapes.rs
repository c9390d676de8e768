//! Shapes that the tests check (reduced) and the benchmarks time (in full): one list for both, so that everything that is timed is
//! also checked.

/// A convolution with kernel k, padding (k - 1) / 2 and equal strides, of a cubic input of side `size` (d = 1 where `flat`).
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    /// The name in reports.
    pub name: &'static str,
    /// Number of channels of input and output.
    pub channels: [usize; 2],
    /// Length of the input along each axis.
    pub size: usize,
    /// Length of the kernel along each axis.
    pub kernel: usize,
    /// Stride along each axis.
    pub stride: usize,
    /// Whether it is a 2D convolution.
    pub flat: bool,
}

const fn conv(name: &'static str, channels: [usize; 2], size: usize, kernel: usize, stride: usize, flat: bool) -> Conv {
    Conv { name, channels, size, kernel, stride, flat }
}

/// Layers of the U-Net and of the ResNet.
pub const CONVS: [Conv; 11] = [
    conv("1->32 at 64^3", [1, 32], 64, 3, 1, false),
    conv("32->32 at 64^3", [32, 32], 64, 3, 1, false),
    conv("32->64 stride 2 at 64^3", [32, 64], 64, 3, 2, false),
    conv("64->64 at 32^3", [64, 64], 32, 3, 1, false),
    conv("128->128 at 16^3", [128, 128], 16, 3, 1, false),
    conv("320->320 at 8^3", [320, 320], 8, 3, 1, false),
    conv("head 32->3 at 64^3", [32, 3], 64, 1, 1, false),
    conv("ResNet stem 3->64 at 224^2", [3, 64], 224, 7, 2, true),
    conv("ResNet 64->64 at 56^2", [64, 64], 56, 3, 1, true),
    conv("ResNet 256->64 1x1 at 56^2", [256, 64], 56, 1, 1, true),
    conv("ResNet 512->512 at 7^2", [512, 512], 7, 3, 1, true),
];

impl Conv {
    /// The shape of the input, [1, ci, d, h, w], with at most `max_side` voxels along an axis.
    pub fn input(&self, max_side: usize) -> [usize; 5] {
        let side = self.size.min(max_side);
        [1, self.channels[0], if self.flat { 1 } else { side }, side, side]
    }

    /// The shape of the weight, [co, ci, kd, kh, kw].
    pub fn weight(&self) -> [usize; 5] {
        let k = self.kernel;
        [self.channels[1], self.channels[0], if self.flat { 1 } else { k }, k, k]
    }

    /// Stride and padding along (z, y, x).
    pub fn stride_padding(&self) -> ([usize; 3], [usize; 3]) {
        let (s, p) = (self.stride, (self.kernel - 1) / 2);
        if self.flat { ([1, s, s], [0, p, p]) } else { ([s; 3], [p; 3]) }
    }
}

/// A transposed convolution whose kernel equals its stride, of a cubic input.
#[derive(Debug, Clone, Copy)]
pub struct Transposed {
    /// The name in reports.
    pub name: &'static str,
    /// Number of channels of input and output.
    pub channels: [usize; 2],
    /// Length of the input along each axis.
    pub size: usize,
    /// Length of the kernel along each axis, which is also the stride.
    pub kernel: usize,
}

/// Upsampling layers of the U-Net.
pub const TRANSPOSED: [Transposed; 2] = [
    Transposed { name: "64->32 k2 s2 at 32^3", channels: [64, 32], size: 32, kernel: 2 },
    Transposed { name: "320->256 k2 s2 at 8^3", channels: [320, 256], size: 8, kernel: 2 },
];

impl Transposed {
    /// The shape of the input, [1, ci, d, h, w].
    pub fn input(&self) -> [usize; 5] {
        [1, self.channels[0], self.size, self.size, self.size]
    }

    /// The shape of the weight, [ci, co, kd, kh, kw].
    pub fn weight(&self) -> [usize; 5] {
        [self.channels[0], self.channels[1], self.kernel, self.kernel, self.kernel]
    }
}

/// Patches (z, y, x) for the U-Net of the kidney plan. (Half of its own patch, 40 x 80 x 80, is not valid: the strides multiply to
/// 16 x 32 x 32, and PyTorch's decoder cannot concatenate the odd sizes either.)
pub const PATCHES: [[usize; 3]; 2] = [[48, 96, 96], [128, 128, 128]];
/// Batch sizes for the ResNet.
pub const BATCHES: [usize; 2] = [1, 3];
/// Sizes (z, y, x) of label maps for the loss of registration.
pub const LABEL_MAPS: [[usize; 3]; 2] = [[64, 128, 128], [256, 256, 256]];
