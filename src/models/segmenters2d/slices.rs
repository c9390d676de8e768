//! A volume slice by slice.

use super::Segmenter2d;
use crate::ensure_room;
use crate::error::Result;
use crate::ops;
use crate::tensor::Tensor;
use crate::volume::{LabelVolume, Volume};

impl Segmenter2d {
    /// The label of every voxel of `volume` [d, h, w]: the class of the largest logit, the lowest one of a tie. The slices k - 1, k and k + 1
    /// along d are the channels of slice k, in this order; the first and the last slice stand in for the neighbours that they lack.
    ///
    /// Values are given to the network as they are: orientation, spacing and normalisation must be those that it was trained on. Slices
    /// are computed one at a time, so that memory does not grow with d.
    ///
    /// # Errors
    /// A volume with values that are not finite; as [`Segmenter2d::logits`].
    pub fn labels(&self, volume: &Volume) -> Result<LabelVolume> {
        volume.ensure_finite()?;
        let [d, h, w] = volume.shape();
        ensure_room::<u8>("labels", d * h * w)?;
        let mut labels = Vec::with_capacity(d * h * w);
        for k in 0..d {
            let image = Tensor::from_ncdhw(&self.device, [1, 3, 1, h, w], self.dtype, &neighbours(volume, k))?;
            labels.extend(ops::argmax(&self.logits(&image)?)?.to_u8()?);
        }
        LabelVolume::new([d, h, w], labels, volume.affine())
    }
}

/// Slice `k` of a volume between its neighbours, [3, h, w].
fn neighbours(volume: &Volume, k: usize) -> Vec<f32> {
    let [d, h, w] = volume.shape();
    let planes = [k.saturating_sub(1), k, (k + 1).min(d - 1)];
    planes.into_iter().flat_map(|z| (z * h * w..(z + 1) * h * w).map(|at| volume.voxels().value(at))).collect()
}
