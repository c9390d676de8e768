//! A mask, with the counts and the centre of mass that registration needs.

use rayon::prelude::*;

use crate::volume::{Affine, Grid, TUMOUR, Volume, Voxels};
use nephron_compute::device::Device;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::Interpolation;
use nephron_compute::ops::affine_dice::{Channels, MAX_CHANNELS};
use nephron_compute::tensor::Tensor;

/// Labels on a grid; labels that are in no channel count as background.
#[derive(Debug, Clone)]
pub(super) struct Mask {
    pub grid: Grid,
    labels: std::sync::Arc<Vec<u8>>,
    pub channels: Channels,
    /// The number of voxels of each channel.
    pub counts: [usize; MAX_CHANNELS],
    /// The number of voxels of all channels together.
    pub total: usize,
    /// The number of voxels of label 2; 0 where no channel contains that label.
    pub tumour: usize,
    /// The centre of mass of all channels together, index (x, y, z).
    centre: [f64; 3],
}

/// Number of voxels of each channel, of all channels together and of label 2, then the sums of x, y, z over the voxels of all
/// channels. These are whole numbers, so that the order of addition does not matter.
type Census = [u64; MAX_CHANNELS + 5];

impl Mask {
    /// A mask of the labels in `volume`; `which` names it in errors.
    ///
    /// # Errors
    /// A volume that holds something other than labels; no voxel in any channel.
    pub fn new(which: &str, volume: &Volume, channels: &Channels) -> Result<Self> {
        let volume = volume.to_labels().map_err(|e| e.context(format!("{which} mask")))?;
        let mask = Self::from_labels(volume.grid(), volume.shared(), channels);
        if mask.total == 0 {
            let highest = volume.labels().iter().max().copied().unwrap_or(0);
            let expected = if *channels == Channels::default() {
                "label 1 (kidney) or 2 (tumour)".to_owned()
            } else {
                format!("the channels {channels}")
            };
            return Err(Error::Data(format!(
                "{which} mask: expected voxels of {expected}, found none; the highest label is {highest}"
            )));
        }
        Ok(mask)
    }

    fn from_labels(grid: Grid, labels: std::sync::Arc<Vec<u8>>, channels: &Channels) -> Self {
        const ALL: usize = MAX_CHANNELS;
        let [_, h, w] = grid.shape;
        let census = labels
            .par_chunks(w)
            .enumerate()
            .map(|(row, labels)| {
                let mut census: Census = [0; MAX_CHANNELS + 5];
                for (x, &label) in labels.iter().enumerate() {
                    let members = channels.members(label);
                    if members != 0 {
                        for (channel, count) in census[..MAX_CHANNELS].iter_mut().enumerate() {
                            *count += u64::from(members >> channel & 1);
                        }
                        census[ALL] += 1;
                        census[ALL + 1] += u64::from(label == TUMOUR);
                        census[ALL + 2] += x as u64;
                    }
                }
                census[ALL + 3] = census[ALL] * (row % h) as u64;
                census[ALL + 4] = census[ALL] * (row / h) as u64;
                census
            })
            .reduce(|| [0; MAX_CHANNELS + 5], |a, b| std::array::from_fn(|i| a[i] + b[i]));
        let total = census[ALL] as usize;
        let centre = std::array::from_fn(|k| census[ALL + 2 + k] as f64 / total.max(1) as f64);
        let counts = std::array::from_fn(|c| census[c] as usize);
        Self { grid, labels, channels: *channels, counts, total, tumour: census[ALL + 1] as usize, centre }
    }

    /// The faces of the grid that cut through the labelled voxels, such as "first voxels along k"; None where there is none. A face
    /// cuts where it has a quarter of the voxels of the fullest slice along its axis: a tip that touches it does not count.
    pub fn cut_faces(&self) -> Option<String> {
        let [d, h, w] = self.grid.shape;
        let mut along = [vec![0usize; w], vec![0; h], vec![0; d]];
        for (row, labels) in self.labels.chunks_exact(w).enumerate() {
            for (x, label) in labels.iter().enumerate() {
                if self.channels.members(*label) != 0 {
                    along[0][x] += 1;
                    along[1][row % h] += 1;
                    along[2][row / h] += 1;
                }
            }
        }
        let mut faces = Vec::new();
        for (axis, counts) in ["i", "j", "k"].into_iter().zip(&along) {
            let fullest = counts.iter().max().copied().unwrap_or(0);
            for (place, face) in [("first", counts.first()), ("last", counts.last())] {
                // One slice is all there is of a plane.
                if counts.len() > 1 && face.is_some_and(|face| *face > 0 && 4 * face >= fullest) {
                    faces.push(format!("{place} voxels along {axis}"));
                }
            }
        }
        (!faces.is_empty()).then(|| faces.join(", "))
    }

    /// The centre of mass of all channels together, RAS millimetres.
    pub fn centre(&self) -> [f64; 3] {
        self.grid.affine.apply(self.centre)
    }

    /// The translation from this mask's centre of mass to that of another.
    pub fn onto(&self, other: &Self) -> Affine {
        let (from, to) = (self.centre(), other.centre());
        let mut shift = Affine::IDENTITY;
        for k in 0..3 {
            shift.0[k][3] = to[k] - from[k];
        }
        shift
    }

    /// The mask resampled (nearest) to voxels of at least `resolution` millimetres along every axis. Unchanged where its voxels
    /// are that large already, or where no labelled voxel would be left.
    pub fn coarse(&self, resolution: f64) -> Result<Self> {
        let spacing = self.grid.affine.spacing();
        if spacing.iter().all(|s| *s >= resolution) {
            return Ok(self.clone());
        }
        let volume = self.volume()?;
        let grid = Grid::with_spacing(&volume, spacing.map(|s| s.max(resolution)))?;
        let thinned = volume.resample_to(&grid, Interpolation::Nearest, &Device::Cpu)?.to_labels()?;
        let mask = Self::from_labels(grid, thinned.shared(), &self.channels);
        Ok(if mask.total > 0 { mask } else { self.clone() })
    }

    fn volume(&self) -> Result<Volume> {
        Volume::new(self.grid.shape, Voxels::U8(self.labels.clone()), self.grid.affine)
    }

    /// The label of the voxel nearest to an index (x, y, z), with halves rounded up; 0 outside the voxels.
    pub fn nearest(&self, at: [f64; 3]) -> u8 {
        let [d, h, w] = self.grid.shape;
        let size = [w, h, d];
        let at = at.map(|v| (v + 0.5).floor());
        if !(0..3).all(|k| at[k] >= 0.0 && at[k] < size[k] as f64) {
            return 0;
        }
        let [x, y, z] = at.map(|v| v as usize);
        self.labels[(z * h + y) * w + x]
    }

    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The labels as a tensor [1, 1, d, h, w] on a device.
    pub fn tensor(&self, device: &Device) -> Result<Tensor> {
        self.volume()?.to_tensor(device)
    }
}
