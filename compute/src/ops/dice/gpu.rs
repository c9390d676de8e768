//! Launching the Dice kernels, and adding up their records in f64.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::common::cube_sum::UNITS;
use nephron_kernels::dice as kernels;

use super::{DiceProblem, Entropy, Sums};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::launch::{WORD, array, cube_grid, elements, fits, grid, launches, with_float};
use crate::tensor::{DType, Tensor};

/// Number of channels whose sums a unit keeps in registers.
const MAX_TILE: usize = 8;
/// Number of voxels that a unit adds; it is larger where there would be too many blocks.
const CHAIN: usize = 32;
/// Largest number of blocks of a sample: enough for any device, and few enough for the host to add.
const MAX_BLOCKS: usize = 1024;

launches! {
    pub(crate) trait DiceLaunches {
        fn dice_sums = launch_dice_sums(
            dtype: DType, p: &Handle, g: &Handle, partials: &Handle, problem: &DiceProblem,
        ) -> Result<()>;
        fn dice_gradient = launch_dice_gradient(
            dtype: DType, g: &Handle, coefficients: &Handle, dp: &Handle, problem: &DiceProblem,
        ) -> Result<()>;
        fn dice_ce_sums = launch_dice_ce_sums(
            dtype: DType, logits: &Handle, labels: &Handle, partials: &Handle, problem: &DiceProblem,
        ) -> Result<()>;
        fn dice_ce_gradient = launch_dice_ce_gradient(
            dtype: DType, logits: &Handle, labels: &Handle, coefficients: &Handle, dlogits: &Handle,
            problem: &DiceProblem, ce_scale: f32,
        ) -> Result<()>;
    }
}

/// The distribution of the sums over cubes.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    tile: usize,
    tiles: usize,
    blocks: usize,
    samples: usize,
}

impl Cut {
    /// The distribution for a problem. It depends on the problem only, so that sums are the same in every run.
    pub fn of(problem: &DiceProblem) -> Self {
        let tile = problem.channels.min(MAX_TILE);
        Self {
            tile,
            tiles: problem.channels.div_ceil(tile),
            blocks: problem.voxels.div_ceil(UNITS as usize * CHAIN).clamp(1, MAX_BLOCKS),
            samples: problem.samples,
        }
    }

    /// Number of values that [`launch_dice_sums`] writes.
    pub fn dice_len(&self) -> usize {
        self.cubes() * 3 * self.tile
    }

    /// Number of values that [`launch_dice_ce_sums`] writes.
    pub fn dice_ce_len(&self) -> usize {
        self.cubes() * (3 * self.tile + 2)
    }

    fn cubes(&self) -> usize {
        self.blocks * self.tiles * self.samples
    }

    /// (sample, first channel) of a cube's record.
    fn place(&self, cube: usize) -> (usize, usize) {
        (cube / self.blocks / self.tiles, cube / self.blocks % self.tiles * self.tile)
    }
}

/// Sums of p g, p and g, `Cut::dice_len` values in `partials`.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_dice_sums<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    p: &Handle,
    g: &Handle,
    partials: &Handle,
    problem: &DiceProblem,
) -> Result<()> {
    let cut = Cut::of(problem);
    let (len, size) = (elements(&problem.shape()), dtype.size());
    fits("dice", &[("p", p, len, size), ("g", g, len, size), ("partials", partials, cut.dice_len(), WORD)])?;
    let (count, dim) = (cube_grid(cut.cubes())?, CubeDim::new_1d(UNITS));
    // SAFETY: units read voxels below `voxels` and channels below `channels` of their own sample, so below `len`; each
    // cube below the number of records writes its own.
    with_float!(dtype, F => unsafe {
        kernels::dice_sums::launch_unchecked::<F, R>(
            client, count, dim, array(p, len), array(g, len), array(partials, cut.dice_len()),
            cut.samples, problem.voxels, problem.channels, cut.blocks, cut.tile,
        )
    });
    Ok(())
}

/// dp = a g + b, with the pair (a, b) of each (sample, channel) in `coefficients`.
///
/// # Errors
/// As [`launch_dice_sums`].
pub fn launch_dice_gradient<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    g: &Handle,
    coefficients: &Handle,
    dp: &Handle,
    problem: &DiceProblem,
) -> Result<()> {
    let rows = problem.samples * problem.channels;
    let (len, size) = (elements(&problem.shape()), dtype.size());
    fits("dice", &[("g", g, len, size), ("coefficients", coefficients, 2 * rows, WORD), ("dp", dp, len, size)])?;
    let (count, dim) = grid(len)?;
    // SAFETY: each unit touches the element of its own position below `len`, whose row is below `rows`.
    with_float!(dtype, F => unsafe {
        kernels::dice_gradient::launch_unchecked::<F, R>(
            client, count, dim, array(g, len), array(coefficients, 2 * rows), array(dp, len),
            problem.voxels, problem.channels,
        )
    });
    Ok(())
}

/// Sums of the softmax against labels (bytes of 32-bit words), `Cut::dice_ce_len` values in `partials`.
///
/// # Errors
/// As [`launch_dice_sums`].
pub fn launch_dice_ce_sums<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    logits: &Handle,
    labels: &Handle,
    partials: &Handle,
    problem: &DiceProblem,
) -> Result<()> {
    let cut = Cut::of(problem);
    let voxels = problem.samples * problem.voxels;
    let len = elements(&problem.shape());
    fits("dice_ce", &[("logits", logits, len, dtype.size()), ("labels", labels, voxels.div_ceil(4), WORD)])?;
    fits("dice_ce", &[("partials", partials, cut.dice_ce_len(), WORD)])?;
    let (count, dim) = (cube_grid(cut.cubes())?, CubeDim::new_1d(UNITS));
    // SAFETY: as for the sums of Dice; labels are read below `voxels`, logits at a label only where it is a channel.
    with_float!(dtype, F => unsafe {
        kernels::dice_ce_sums::launch_unchecked::<F, R>(
            client, count, dim, array(logits, len), array(labels, voxels.div_ceil(4)),
            array(partials, cut.dice_ce_len()), cut.samples, problem.voxels, problem.channels, cut.blocks, cut.tile,
        )
    });
    Ok(())
}

/// d loss / d logits; labels are all below the number of channels.
///
/// # Errors
/// As [`launch_dice_sums`].
pub fn launch_dice_ce_gradient<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    logits: &Handle,
    labels: &Handle,
    coefficients: &Handle,
    dlogits: &Handle,
    problem: &DiceProblem,
    ce_scale: f32,
) -> Result<()> {
    let voxels = problem.samples * problem.voxels;
    let (len, rows) = (elements(&problem.shape()), problem.samples * problem.channels);
    let (read, write) = (("logits", logits, len, dtype.size()), ("dlogits", dlogits, len, dtype.size()));
    fits("dice_ce", &[read, ("coefficients", coefficients, 2 * rows, WORD), write])?;
    fits("dice_ce", &[("labels", labels, voxels.div_ceil(4), WORD)])?;
    let (count, dim) = grid(voxels)?;
    // SAFETY: each unit touches the channels of the voxel of its own position, below `voxels`; its row is below `rows`.
    with_float!(dtype, F => unsafe {
        kernels::dice_ce_gradient::launch_unchecked::<F, R>(
            client, count, dim, array(logits, len), array(labels, voxels.div_ceil(4)), array(coefficients, 2 * rows),
            array(dlogits, len), problem.voxels, problem.channels, ce_scale,
        )
    });
    Ok(())
}

pub(super) fn sums(device: &Gpu, problem: &DiceProblem, p: &Tensor, g: &Tensor) -> Result<Vec<Sums>> {
    let cut = Cut::of(problem);
    let partials = scratch(device, cut.dice_len())?;
    let (hp, hg, out) = (p.gpu_handle(device)?, g.gpu_handle(device)?, partials.gpu_handle(device)?);
    device.run(|client| client.dice_sums(p.dtype(), &hp, &hg, &out, problem))?;
    Ok(add_up(problem, &cut, 3 * cut.tile, &partials.to_ndhwc()?).0)
}

pub(super) fn gradient(device: &Gpu, problem: &DiceProblem, g: &Tensor, coefficients: &[[f32; 2]]) -> Result<Tensor> {
    let coefficients = upload(device, coefficients)?;
    let dp = Tensor::gpu_alloc(device, problem.shape(), g.dtype())?;
    let (hg, hc, out) = (g.gpu_handle(device)?, coefficients.gpu_handle(device)?, dp.gpu_handle(device)?);
    device.run(|client| client.dice_gradient(g.dtype(), &hg, &hc, &out, problem))?;
    Ok(dp)
}

pub(super) fn cross_entropy_sums(
    device: &Gpu,
    problem: &DiceProblem,
    logits: &Tensor,
    labels: &Tensor,
) -> Result<(Vec<Sums>, Entropy)> {
    let cut = Cut::of(problem);
    let partials = scratch(device, cut.dice_ce_len())?;
    let (z, l, out) = (logits.gpu_handle(device)?, labels.gpu_handle(device)?, partials.gpu_handle(device)?);
    device.run(|client| client.dice_ce_sums(logits.dtype(), &z, &l, &out, problem))?;
    Ok(add_up(problem, &cut, 3 * cut.tile + 2, &partials.to_ndhwc()?))
}

pub(super) fn cross_entropy_gradient(
    device: &Gpu,
    problem: &DiceProblem,
    logits: &Tensor,
    labels: &Tensor,
    coefficients: &[[f32; 2]],
    ce_scale: f64,
) -> Result<Tensor> {
    let coefficients = upload(device, coefficients)?;
    let dlogits = Tensor::gpu_alloc(device, problem.shape(), logits.dtype())?;
    let (z, l) = (logits.gpu_handle(device)?, labels.gpu_handle(device)?);
    let (q, out) = (coefficients.gpu_handle(device)?, dlogits.gpu_handle(device)?);
    let scale = ce_scale as f32;
    device.run(|client| client.dice_ce_gradient(logits.dtype(), &z, &l, &q, &out, problem, scale))?;
    Ok(dlogits)
}

fn scratch(device: &Gpu, len: usize) -> Result<Tensor> {
    Tensor::gpu_alloc(device, [1, 1, 1, 1, len], DType::F32)
}

fn upload(device: &Gpu, coefficients: &[[f32; 2]]) -> Result<Tensor> {
    let data = coefficients.as_flattened().to_vec();
    Tensor::from_ndhwc(&crate::device::Device::Gpu(device.clone()), [1, 1, 1, 1, data.len()], DType::F32, data)
}

/// Adds the cubes' records of `stride` values in their order. Every tile of channels has the cross-entropy, so
/// only that of the first tile is used.
fn add_up(problem: &DiceProblem, cut: &Cut, stride: usize, partials: &[f32]) -> (Vec<Sums>, Entropy) {
    let mut sums = vec![Sums::default(); problem.samples * problem.channels];
    let mut entropy = Entropy::default();
    for (cube, record) in partials.chunks_exact(stride).enumerate() {
        let (sample, first) = cut.place(cube);
        let (channels, rest) = record.split_at(3 * cut.tile);
        for (k, values) in channels.chunks_exact(3).enumerate().take(problem.channels - first) {
            let sum = &mut sums[sample * problem.channels + first + k];
            sum.intersection += f64::from(values[0]);
            sum.p += f64::from(values[1]);
            sum.g += f64::from(values[2]);
        }
        if let (0, [entropies, bad]) = (first, rest) {
            entropy.sum += f64::from(*entropies);
            entropy.bad_labels += f64::from(*bad);
        }
    }
    (sums, entropy)
}
