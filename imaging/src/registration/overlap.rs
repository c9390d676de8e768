//! The overlap of two masks under a transform, measured on the grid of the fixed mask.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::frames::{index_map, size};
use super::mask::Mask;
use crate::volume::{Affine, TUMOUR, hard_dice};
use nephron_compute::device::Device;
use nephron_compute::error::Result;
use nephron_compute::ops::PaddingMode;
use nephron_compute::ops::affine_dice::{AffineDice, Channels, Matrix};

/// Dice = 2 |A and B| / (|A| + |B|) of one set of labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Dice {
    /// Dice with the moving mask warped trilinearly, as in the loss (outermost voxels continued) but without a smoothing term.
    pub soft: f64,
    /// Dice with the moving mask warped to the nearest label, background outside its grid.
    pub hard: f64,
}

/// The overlap of two masks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Dice of all labels of all channels together: by default kidney and tumour, labels 1 and 2.
    pub kidney: Dice,
    /// Dice of label 2; None where a mask has no tumour, or no channel contains that label.
    pub tumour: Option<Dice>,
}

/// Two masks whose overlap is measured under several transforms.
pub(super) struct Comparison<'a> {
    fixed: &'a Mask,
    moving: &'a Mask,
    soft: AffineDice,
}

impl<'a> Comparison<'a> {
    pub fn new(fixed: &'a Mask, moving: &'a Mask) -> Result<Self> {
        let all: Vec<u8> = (1..=255).filter(|&label| fixed.channels.contains(label)).collect();
        let channels = Channels::new(&[&[TUMOUR], &all])?;
        let [a, b] = [fixed, moving].map(|mask| mask.tensor(&Device::Cpu));
        let soft = AffineDice::new(&a?, &b?, PaddingMode::Border, &channels)?;
        Ok(Self { fixed, moving, soft })
    }

    /// The overlap under `world`, a map from points of the fixed to points of the moving scan.
    pub fn under(&self, world: &Affine) -> Result<Overlap> {
        let matrix = index_map(&self.fixed.grid, &self.moving.grid, world)?;
        let soft = self.soft.sums(&matrix)?.value(0.0, &[0.5; 2]).dice;
        let hard = hard(self.fixed, self.moving, &matrix)?;
        let of = |channel: usize| Dice { soft: soft[channel], hard: hard[channel] };
        let tumours = self.fixed.tumour > 0 && self.moving.tumour > 0;
        Ok(Overlap { kidney: of(1), tumour: tumours.then(|| of(0)) })
    }
}

/// Dice by the nearest label, of label 2 and of all channels together, under a map from index to index.
pub(super) fn hard(fixed: &Mask, moving: &Mask, matrix: &Matrix) -> Result<[f64; 2]> {
    let [w, h, _] = size(&fixed.grid);
    let map = Affine(*matrix);
    let [xs, ys, zs] = reach(fixed, moving, &map)?;
    // |A and B| of label 2 and of all channels, then |B| of label 2 and of all channels.
    let channels = &fixed.channels;
    let [i0, i1, p0, p1] = zs
        .into_par_iter()
        .map(|z| {
            let mut counts = [0u64; 4];
            for y in ys.clone() {
                for x in xs.clone() {
                    let label = moving.nearest(map.apply([x as f64, y as f64, z as f64]));
                    if channels.contains(label) {
                        let own = fixed.labels()[(z * h + y) * w + x];
                        counts[0] += u64::from(label == TUMOUR && own == TUMOUR);
                        counts[1] += u64::from(channels.contains(own));
                        counts[2] += u64::from(label == TUMOUR);
                        counts[3] += 1;
                    }
                }
            }
            counts
        })
        .reduce(|| [0; 4], |a, b| std::array::from_fn(|i| a[i] + b[i]));
    Ok([hard_dice(i0, p0, fixed.tumour as u64), hard_dice(i1, p1, fixed.total as u64)])
}

/// The box of fixed voxels, (x, y, z), that the map can take onto the moving grid.
fn reach(fixed: &Mask, moving: &Mask, map: &Affine) -> Result<[std::ops::Range<usize>; 3]> {
    let back = map.inverse()?;
    let (fixed, moving) = (size(&fixed.grid), size(&moving.grid));
    let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    for corner in 0..8usize {
        // One voxel beyond the outer centres, more than rounding to the nearest needs.
        let at = back.apply(std::array::from_fn(|k| if corner >> k & 1 == 1 { moving[k] as f64 } else { -1.0 }));
        for k in 0..3 {
            low[k] = low[k].min(at[k]);
            high[k] = high[k].max(at[k]);
        }
    }
    Ok(std::array::from_fn(|k| low[k].max(0.0) as usize..(high[k] + 1.0).clamp(0.0, fixed[k] as f64) as usize))
}
