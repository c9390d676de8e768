//! Where the tiles of a convolution lie.

use crate::ops::conv_problem::Conv3dProblem;

/// Whether minimal filtering applies to the problem, of so many channels, of the input and of the output, at least.
pub(super) fn applies(problem: &Conv3dProblem, least_channels: usize) -> bool {
    let ([co, ci, kd, kh, kw], params) = (problem.weight_shape(), problem.params());
    let plain = params.stride == [1; 3] && params.dilation == [1; 3] && params.groups == 1;
    plain && [1, 3].contains(&kd) && [kh, kw] == [3, 3] && ci.min(co) >= least_channels
}

/// One axis of the images, cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    padding: usize,
    /// Outputs of a tile.
    step: usize,
}

/// The tiles of all images, along x first.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    images: usize,
    pub axes: [Axis; 3],
    /// Whether the kernel has three taps along z, not one.
    pub deep: bool,
}

/// The place of a tile.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub image: usize,
    /// Along (z, y, x).
    pub at: [usize; 3],
}

impl Axis {
    pub fn tiles(&self) -> usize {
        self.output.div_ceil(self.step)
    }

    /// Where the inputs of a tile start; before 0 in the padding.
    #[inline(always)]
    pub fn source(&self, tile: usize) -> isize {
        (tile * self.step) as isize - self.padding as isize
    }

    /// The first output of a tile, and how many of them are within the image.
    #[inline(always)]
    pub fn target(&self, tile: usize) -> (usize, usize) {
        let first = tile * self.step;
        (first, self.step.min(self.output - first))
    }
}

impl Grid {
    /// The tiles of `images` images of the problem's size.
    pub fn of(problem: &Conv3dProblem, images: usize) -> Self {
        let deep = problem.weight_shape()[2] == 3;
        let axes = [0, 1, 2].map(|axis| Axis {
            input: problem.input_shape()[2 + axis],
            output: problem.output_shape()[2 + axis],
            padding: problem.params().padding[axis],
            step: if axis > 0 || deep { 2 } else { 1 },
        });
        Self { images, axes, deep }
    }

    pub fn tiles(&self) -> usize {
        self.axes.iter().map(Axis::tiles).product::<usize>() * self.images
    }

    pub fn place(&self, tile: usize) -> Place {
        let [z, y, x] = self.axes.map(|axis| axis.tiles());
        Place { image: tile / (x * y * z), at: [tile / (x * y) % z, tile / x % y, tile % x] }
    }
    /// Offsets in the channels-last output of a tile's voxels, of so many channels, along (z, y, x); none outside the image.
    #[inline(always)]
    pub fn targets(&self, place: Place, channels: usize) -> [[[Option<usize>; 2]; 2]; 2] {
        let axes = &self.axes;
        let [(z, nz), (y, ny), (x, nx)] = [0, 1, 2].map(|axis| axes[axis].target(place.at[axis]));
        let mut targets = [[[None; 2]; 2]; 2];
        for (i, targets) in targets.iter_mut().enumerate().take(nz) {
            for (j, targets) in targets.iter_mut().enumerate().take(ny) {
                for (k, target) in targets.iter_mut().enumerate().take(nx) {
                    let line = (place.image * axes[0].output + z + i) * axes[1].output + y + j;
                    *target = Some((line * axes[2].output + x + k) * channels);
                }
            }
        }
        targets
    }
}
