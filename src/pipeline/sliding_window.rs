//! nnU-Net's sliding window. Tiles are computed row by row along z; sums are kept for the depth of one row only, and each slice of
//! logits is passed on as soon as no later tile contributes to it.

use std::f64::consts::E;

use half::f16;

use crate::device::Device;
use crate::ensure_room;
use crate::error::{Error, Result};
use crate::models::UNet;
use crate::ops::tile::{Accumulator, TilePlacement, crop};
use crate::tensor::{DType, Tensor};

/// Test-time augmentation by mirroring: which mirrored copies of a tile are averaged with the tile itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirroring {
    /// No mirrored copies.
    #[default]
    Off,
    /// All combinations of the axes that the weights allow. nnU-Net's checkpoints contain these axes; other weights allow all
    /// three, which gives eight results with the tile itself.
    AllAxes,
}

impl Mirroring {
    /// For each copy, whether each axis (z, y, x) is reversed; the first is the tile itself.
    pub fn copies(self) -> Vec<[bool; 3]> {
        let count = if self == Self::Off { 1 } else { 8 };
        (0..count).map(|bits: u8| std::array::from_fn(|a| bits >> a & 1 == 1)).collect()
    }

    /// Those of [`Mirroring::copies`] that are reversed along allowed axes only.
    pub fn copies_along(self, allowed: [bool; 3]) -> Vec<[bool; 3]> {
        self.copies().into_iter().filter(|copy| (0..3).all(|a| allowed[a] || !copy[a])).collect()
    }
}

/// The first voxels of the tiles along an axis of `size` voxels, which is not shorter than the tile. The tiles are evenly spaced, at
/// most `step` tiles apart, and the last one ends with the axis: n = ceil((size - patch) / (patch * step)) + 1 tiles at
/// round(i * (size - patch) / (n - 1)), halves to even.
///
/// # Errors
/// [`Error::Argument`] for a tile of 0 voxels or longer than the axis, and for a step outside 0.05 to 1.
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

/// nnU-Net's weights of a tile's voxels (z, y, x): a Gaussian around voxel patch / 2 with sigma = patch / 8 and maximum 10, rounded
/// to f16; weights that became 0 are replaced by the smallest one that did not.
///
/// The Gaussian is that of `scipy.ndimage.gaussian_filter` applied to a single 1: along each axis the samples within four sigma are
/// normalised to sum 1, and those outside the tile are dropped.
///
/// # Errors
/// A tile whose weights do not fit in memory.
pub fn gaussian(patch: [usize; 3]) -> Result<Vec<f32>> {
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
    let voxels = patch.iter().product();
    ensure_room::<f32>("segment: weights of a tile", voxels)?;
    // Rounding keeps the order, so that the largest product is that of the largest factors.
    let [z, y, x] = [0, 1, 2].map(|a: usize| axes[a].iter().copied().fold(0.0, f64::max));
    let largest = z * y * x / 10.0;
    let mut values = Vec::with_capacity(voxels);
    for z in &axes[0] {
        for y in &axes[1] {
            values.extend(axes[2].iter().map(|x| f16::from_f32((z * y * x / largest) as f32).to_f32()));
        }
    }
    let smallest = values.iter().copied().filter(|v| *v > 0.0).fold(f32::INFINITY, f32::min);
    values.iter_mut().filter(|v| **v <= 0.0).for_each(|v| *v = smallest);
    Ok(values)
}

/// The tiles of one image.
pub(super) struct SlidingWindow {
    /// The size of the image in voxels.
    size: [usize; 3],
    /// The size of a tile in voxels.
    patch: [usize; 3],
    /// The first voxels of the tiles along each axis; negative where the image is shorter than the tile, which is then centred on
    /// it.
    starts: [Vec<isize>; 3],
    copies: Vec<[bool; 3]>,
}

/// Slices of logits to which no later tile contributes.
pub(super) struct Finished {
    /// The logits, f32 [1, classes, slices, h, w], on the device.
    pub(super) logits: Tensor,
    /// The index in the image of the first slice. It may have been passed on before: the last slice of one piece is also the first
    /// of the next, so that every output slice lies between two slices of one piece.
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

    /// The size of the sums: the slices of a tile and the last finished one.
    fn window(&self) -> [usize; 3] {
        [self.size[0].min(self.patch[0] + 1), self.size[1], self.size[2]]
    }

    /// Number of bytes of the sums for `classes`, counted twice because moving the window on a GPU writes a second copy.
    pub(super) fn accumulator_bytes(&self, classes: usize, sums: DType) -> u64 {
        2 * Accumulator::bytes(classes, self.window(), sums)
    }

    /// Runs all tiles of `image` (f32 [1, c, d, h, w]) through `networks`, whose logits are averaged in sums of the second type, and passes finished slices to
    /// `sink` in order. `tile_done` is called after each tile; an error that it returns ends the run.
    pub(super) fn run(
        &self,
        image: &Tensor,
        networks: &[UNet],
        (dtype, sums): (DType, DType),
        mut tile_done: impl FnMut() -> Result<()>,
        mut sink: impl FnMut(Finished) -> Result<()>,
    ) -> Result<()> {
        let device = image.device();
        let classes = networks.first().map_or(0, |n| n.architecture().classes);
        let mut added = Accumulator::new(&device, classes, self.window(), sums)?;
        let weight = self.weights(&device)?;
        let mut first = 0; // The slice of the image at which the window begins.
        let mut finished = 0;
        let [rows, lines, columns] = &self.starts;
        for (row, &z) in rows.iter().enumerate() {
            for &y in lines {
                for &x in columns {
                    for &mirrored in &self.copies {
                        let tile = crop(image, TilePlacement { start: [z, y, x], mirrored }, self.patch, dtype)?;
                        let placement = TilePlacement { start: [z - first as isize, y, x], mirrored };
                        for network in networks {
                            added.add(&network.forward(&tile)?, &weight, placement)?;
                        }
                    }
                    // A GPU works asynchronously: waiting here reports failures and progress with the tile they belong to.
                    device.synchronize()?;
                    tile_done()?;
                }
            }
            let next = rows.get(row + 1).map_or(self.size[0], |&z| usize::try_from(z).unwrap_or(0));
            if next > finished {
                sink(Finished { logits: added.mean(next - first)?, first })?;
                finished = next;
                added.advance(next - 1 - first)?;
                first = next - 1;
            }
        }
        Ok(())
    }

    fn weights(&self, device: &Device) -> Result<Tensor> {
        let [d, h, w] = self.patch;
        Tensor::from_ndhwc(device, [1, 1, d, h, w], DType::F32, gaussian(self.patch)?)
    }
}
