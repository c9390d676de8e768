//! nnU-Net's sliding window, row of tiles by row of tiles: sums are kept for one row's depth only, and each slice of
//! logits is handed on as soon as no later tile can reach it.

use std::f64::consts::E;

use half::f16;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::UNet;
use crate::ops::tile::{Accumulator, Placement, crop};
use crate::tensor::{DType, Tensor};

/// Which mirrored copies of a tile the network sees beside the tile itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirroring {
    /// None.
    #[default]
    Off,
    /// All combinations of the axes that the weights allow (nnU-Net's checkpoints say which; otherwise all three, eight
    /// results with the tile itself); the results are averaged.
    AllAxes,
}

impl Mirroring {
    /// The axes (z, y, x) reversed in each copy, the tile itself first.
    pub fn copies(self) -> Vec<[bool; 3]> {
        let count = if self == Self::Off { 1 } else { 8 };
        (0..count).map(|bits: u8| std::array::from_fn(|a| bits >> a & 1 == 1)).collect()
    }

    /// Those of [`Mirroring::copies`] that are reversed along allowed axes alone.
    pub fn copies_along(self, allowed: [bool; 3]) -> Vec<[bool; 3]> {
        self.copies().into_iter().filter(|copy| (0..3).all(|a| allowed[a] || !copy[a])).collect()
    }
}

/// First voxels of the tiles along an axis of `size` voxels (no smaller than the tile): as far apart as `step` tiles at
/// most, evenly, the last one flush with the end. n = ceil((size - patch) / (patch * step)) + 1 tiles at
/// round(i * (size - patch) / (n - 1)), halves to even.
///
/// # Errors
/// A tile of 0 voxels or larger than the axis, a step that is not within 0.05 to 1.
pub fn positions(size: usize, patch: usize, step: f64) -> Result<Vec<usize>> {
    if !(0.05..=1.0).contains(&step) {
        return Err(Error::argument("segment: step", "0.05 to 1 tile", step));
    }
    if patch == 0 || patch > size {
        return Err(Error::argument("segment: tile", format!("1 to {size} voxels"), patch));
    }
    let room = (size - patch) as f64;
    let tiles = (room / (patch as f64 * step)).ceil() as usize + 1;
    let apart = if tiles > 1 { room / (tiles - 1) as f64 } else { 0.0 };
    Ok((0..tiles).map(|i| (apart * i as f64).round_ties_even() as usize).collect())
}

/// nnU-Net's weights of a tile's voxels (z, y, x): a Gaussian around voxel patch / 2 with sigma = patch / 8, its maximum
/// 10, rounded to f16, and what became 0 replaced by the smallest weight that did not.
///
/// As `scipy.ndimage.gaussian_filter` of a single 1 makes it: each axis' samples are normalised to sum 1 within four
/// sigma, and what falls outside the tile is lost.
pub fn gaussian(patch: [usize; 3]) -> Vec<f32> {
    let axes = patch.map(|size| {
        let sigma = size as f64 / 8.0;
        let radius = (4.0 * sigma + 0.5) as isize;
        let weight = |x: isize| E.powf(-0.5 / (sigma * sigma) * (x * x) as f64);
        let total: f64 = (-radius..=radius).map(weight).sum();
        let centre = (size / 2) as isize;
        let sample = |i: usize| {
            let x = i as isize - centre;
            if x.abs() <= radius { weight(x) / total } else { 0.0 }
        };
        (0..size).map(sample).collect::<Vec<f64>>()
    });
    let mut values = Vec::with_capacity(patch.iter().product());
    for z in &axes[0] {
        for y in &axes[1] {
            values.extend(axes[2].iter().map(|x| z * y * x));
        }
    }
    let largest = values.iter().copied().fold(0.0, f64::max) / 10.0;
    let rounded = values.iter().map(|v| f16::from_f32((v / largest) as f32).to_f32());
    let smallest = rounded.clone().filter(|v| *v > 0.0).fold(f32::INFINITY, f32::min);
    rounded.map(|v| if v > 0.0 { v } else { smallest }).collect()
}

/// A network's tiles over one image.
pub(super) struct SlidingWindow {
    /// Size of the image, and of the tile.
    size: [usize; 3],
    patch: [usize; 3],
    /// First voxels along each axis; negative where the image is smaller than the tile, which then sits in its middle.
    starts: [Vec<isize>; 3],
    copies: Vec<[bool; 3]>,
}

/// Slices of logits that no later tile changes.
pub(super) struct Finished {
    /// f32 [1, classes, slices, h, w], on the device.
    pub(super) logits: Tensor,
    /// The slice of the image that the first one is. It may have been handed on before: the last slice of one piece is
    /// the first of the next, so that both lie between their neighbours.
    pub(super) first: usize,
}

impl SlidingWindow {
    /// `copies` as [`Mirroring::copies`] gives them. A 2D network sees every slice once, whatever the step.
    pub(super) fn new(
        size: [usize; 3],
        patch: [usize; 3],
        step: f64,
        copies: Vec<[bool; 3]>,
        planar: bool,
    ) -> Result<Self> {
        let mut starts: [Vec<isize>; 3] = Default::default();
        for a in 0..3 {
            // nnU-Net pads symmetrically, the odd voxel at the end.
            let before = (patch[a].saturating_sub(size[a]) / 2) as isize;
            let padded = size[a].max(patch[a]);
            starts[a] = positions(padded, patch[a], step)?.into_iter().map(|p| p as isize - before).collect();
        }
        if planar {
            starts[0] = (0..size[0] as isize).collect();
        }
        Ok(Self { size, patch, starts, copies })
    }

    /// Number of tiles.
    pub(super) fn tiles(&self) -> usize {
        self.starts.iter().map(Vec::len).product()
    }

    /// Slices that sums are kept for: a tile's and the last finished one.
    fn window(&self) -> [usize; 3] {
        [self.size[0].min(self.patch[0] + 1), self.size[1], self.size[2]]
    }

    /// Bytes of the sums for `classes`: twice, for moving the window on a GPU writes a second copy.
    pub(super) fn accumulator_bytes(&self, classes: usize) -> u64 {
        2 * Accumulator::bytes(classes, self.window())
    }

    /// Runs all tiles of `image` (f32 [1, c, d, h, w]) through `networks`, whose logits are averaged, and hands finished
    /// slices to `sink` in order. `tile_done` is called after each tile, and its error ends the run.
    pub(super) fn run(
        &self,
        image: &Tensor,
        networks: &[UNet],
        dtype: DType,
        mut tile_done: impl FnMut() -> Result<()>,
        mut sink: impl FnMut(Finished) -> Result<()>,
    ) -> Result<()> {
        let device = image.device();
        let classes = networks.first().map_or(0, |n| n.architecture().classes);
        let mut sums = Accumulator::new(&device, classes, self.window())?;
        let weight = self.weights(&device)?;
        let mut first = 0; // the image's slice that the window begins at
        let mut finished = 0;
        let [rows, lines, columns] = &self.starts;
        for (row, &z) in rows.iter().enumerate() {
            for &y in lines {
                for &x in columns {
                    for &mirrored in &self.copies {
                        let tile = crop(image, Placement { start: [z, y, x], mirrored }, self.patch, dtype)?;
                        let place = Placement { start: [z - first as isize, y, x], mirrored };
                        for network in networks {
                            sums.add(&network.forward(&tile)?, &weight, place)?;
                        }
                    }
                    // A GPU works behind the host's back: waiting here shows faults and progress where they belong.
                    device.synchronize()?;
                    tile_done()?;
                }
            }
            let next = rows.get(row + 1).map_or(self.size[0], |&z| usize::try_from(z).unwrap_or(0));
            if next > finished {
                sink(Finished { logits: sums.mean(next - first)?, first })?;
                finished = next;
                sums.advance(next - 1 - first)?;
                first = next - 1;
            }
        }
        Ok(())
    }

    fn weights(&self, device: &Device) -> Result<Tensor> {
        let [d, h, w] = self.patch;
        Tensor::from_ndhwc(device, [1, 1, d, h, w], DType::F32, gaussian(self.patch))
    }
}
