//! Resampling images and masks through a transform.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::volume::{Affine, Grid, Volume, Voxels};
use nephron_compute::device::Device;
use nephron_compute::ensure_room;
use nephron_compute::error::Result;
use nephron_compute::ops::Interpolation;

/// Resamples `moving` through a transform onto the fixed grid: out(p) = moving(transform(p)) for the points p of `fixed`, in RAS
/// millimetres. The result has the shape of `fixed`; outside the field of view of `moving`, labels are 0 and images their own
/// minimum, as in [`Volume::resample_to`].
///
/// # Errors
/// A transform that is singular or not finite, and as [`Volume::resample_to`].
pub fn warp(
    moving: &Volume,
    transform: &Affine,
    fixed: &Grid,
    interpolation: Interpolation,
    device: &Device,
) -> Result<Volume> {
    // The affine that places the moving voxels in the fixed scan's space.
    let affine = transform.inverse()?.after(&moving.affine());
    moving.with_affine(affine)?.resample_to(fixed, interpolation, device)
}

/// A mask that was resampled label by label: each label's share of every voxel.
#[derive(Debug, Clone)]
pub struct SoftMask {
    /// The labels that occur in the mask besides 0, ascending.
    pub labels: Vec<u8>,
    /// For each of these labels its share of every voxel of the fixed grid, 0 to 1, f32; the rest of a voxel is background.
    pub shares: Vec<Volume>,
    grid: Grid,
}

impl SoftMask {
    /// The label with the largest share at each voxel; of several equal shares that of the lowest label, background first.
    ///
    /// # Errors
    /// As [`Volume::new`].
    pub fn largest(&self) -> Result<Volume> {
        let mut largest = Largest::new(&self.grid)?;
        for (&label, share) in self.labels.iter().zip(&self.shares) {
            largest.add(label, share);
        }
        largest.volume()
    }
}

/// The running maximum over the labels added so far, for every voxel.
struct Largest {
    grid: Grid,
    voxels: Vec<Leader>,
}

/// The label with the largest share so far, that share, and the sum of all.
#[derive(Debug, Clone, Copy, Default)]
struct Leader {
    share: f32,
    sum: f32,
    label: u8,
}

impl Largest {
    fn new(grid: &Grid) -> Result<Self> {
        let voxels = grid.shape.iter().product();
        ensure_room::<Leader>("a mask's largest shares", voxels)?;
        Ok(Self { grid: *grid, voxels: vec![Leader::default(); voxels] })
    }

    /// Adds a label. Labels are added in ascending order, so that the lowest of several equal shares wins.
    fn add(&mut self, label: u8, share: &Volume) {
        let shares = match share.voxels() {
            Voxels::F32(values) => Cow::Borrowed(&values[..]),
            other => Cow::Owned(other.to_f32()),
        };
        self.voxels.par_iter_mut().zip(shares.par_iter()).for_each(|(leader, &share)| {
            leader.sum += share;
            if share > leader.share {
                (leader.share, leader.label) = (share, label);
            }
        });
    }

    fn volume(self) -> Result<Volume> {
        let label = |leader: &Leader| if leader.share > 1.0 - leader.sum { leader.label } else { 0 };
        let labels: Vec<u8> = self.voxels.par_iter().map(label).collect();
        Volume::new(self.grid.shape, Voxels::U8(labels.into()), self.grid.affine)
    }
}

/// As [`warp`] for a mask, but each label is resampled trilinearly as a mask of 0 and 1 of its own. The surfaces keep their
/// position between voxels, and no label appears between two others.
///
/// # Errors
/// A volume that holds something other than labels, and as [`warp`].
pub fn warp_soft(moving: &Volume, transform: &Affine, fixed: &Grid, device: &Device) -> Result<SoftMask> {
    let mut soft = SoftMask { labels: Vec::new(), shares: Vec::new(), grid: *fixed };
    each_share(moving, transform, fixed, device, |label, share| {
        soft.labels.push(label);
        soft.shares.push(share);
    })?;
    Ok(soft)
}

/// The labels with the largest shares in the result of [`warp_soft`], as [`SoftMask::largest`] returns them. Only one label's
/// shares are in memory at a time.
///
/// # Errors
/// As [`warp_soft`].
pub fn warp_largest(moving: &Volume, transform: &Affine, fixed: &Grid, device: &Device) -> Result<Volume> {
    let mut largest = Largest::new(fixed)?;
    each_share(moving, transform, fixed, device, |label, share| largest.add(label, &share))?;
    largest.volume()
}

/// Calls `take` with the shares of each label that occurs besides 0, ascending.
fn each_share(
    moving: &Volume,
    transform: &Affine,
    fixed: &Grid,
    device: &Device,
    mut take: impl FnMut(u8, Volume),
) -> Result<()> {
    let moving = moving.to_labels()?;
    let counts = moving.counts();
    for label in (1..=255).filter(|&label| counts[usize::from(label)] > 0) {
        // As labels (u8), so that the value outside the field of view is 0.
        ensure_room::<u8>("the mask of a label", moving.labels().len())?;
        let own: Vec<u8> = moving.labels().par_iter().map(|&l| u8::from(l == label)).collect();
        let own = moving.with_labels(own)?.to_volume();
        take(label, warp(&own, transform, fixed, Interpolation::Linear, device)?);
    }
    Ok(())
}
