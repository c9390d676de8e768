//! The stages of a U-Net for a spacing and a patch.
//!
//! Source: nnU-Net v2, `network_topology.get_pool_and_conv_props`.

/// Smallest number of voxels of a feature map along a pooled axis.
const MIN_EDGE: f64 = 4.0;

/// The stages of a network, in two or three axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topology {
    /// Stride into each stage; the first is 1.
    pub(super) strides: Vec<Vec<usize>>,
    /// Kernel of each stage.
    pub(super) kernels: Vec<Vec<usize>>,
    /// The patch, rounded up to what the strides divide.
    pub(super) patch: Vec<usize>,
    /// The product of the strides along each axis.
    pub(super) multiple: Vec<usize>,
}

impl Topology {
    /// An axis is halved while its feature map has at least 8 voxels and its spacing is below twice the smallest of such axes; an
    /// axis that is left alone goes on to 12. Kernels are 1 along an axis until its spacing has come within twice the smallest,
    /// and 3 from then on and in the last stage.
    pub(super) fn new(spacing: &[f64], patch: &[f64]) -> Self {
        let axes = spacing.len();
        let (mut spacings, mut sizes) = (spacing.to_vec(), patch.to_vec());
        let (mut kernel, mut multiple) = (vec![1; axes], vec![1; axes]);
        let (mut strides, mut kernels) = (vec![vec![1; axes]], Vec::new());
        loop {
            let large: Vec<usize> = (0..axes).filter(|&a| sizes[a] >= 2.0 * MIN_EDGE).collect();
            let least = large.iter().map(|&a| spacings[a]).fold(f64::INFINITY, f64::min);
            let halved: Vec<usize> = large.into_iter().filter(|&a| spacings[a] / least < 2.0).collect();
            match halved.as_slice() {
                [] => break,
                [only] if sizes[*only] < 3.0 * MIN_EDGE => break,
                _ => {}
            }
            let least = spacings.iter().copied().fold(f64::INFINITY, f64::min);
            for a in 0..axes {
                if spacings[a] / least < 2.0 {
                    kernel[a] = 3;
                }
            }
            let mut stride = vec![1; axes];
            for a in halved {
                (stride[a], multiple[a]) = (2, 2 * multiple[a]);
                (spacings[a], sizes[a]) = (2.0 * spacings[a], (sizes[a] / 2.0).ceil());
            }
            strides.push(stride);
            kernels.push(kernel.clone());
        }
        kernels.push(vec![3; axes]);
        let patch = patch.iter().zip(&multiple).map(|(&size, &m)| (size / m as f64).ceil() as usize * m).collect();
        Self { strides, kernels, patch, multiple }
    }

    /// Channels of each stage: `first`, doubled from stage to stage up to `most`.
    pub(super) fn features(&self, first: usize, most: usize) -> Vec<usize> {
        (0..self.strides.len()).map(|stage| (first << stage.min(32)).min(most)).collect()
    }

    /// Elements of all feature maps of one image: of a plain U-Net with two convolutions in each stage of encoder and decoder, its
    /// transposed convolutions and its last head. nnU-Net estimates memory by it.
    pub(super) fn feature_map_elements(&self, features: &[usize], classes: usize) -> f64 {
        let mut size = self.patch.clone();
        let mut total = 0;
        for (stage, (stride, &channels)) in self.strides.iter().zip(features).enumerate() {
            size = size.iter().zip(stride).map(|(size, stride)| size / stride).collect();
            let voxels: usize = size.iter().product();
            let is_last = stage + 1 == features.len();
            // Two convolutions of the encoder; but for the bottleneck, two of the decoder and the transposed convolution.
            total += voxels * channels * if is_last { 2 } else { 5 };
            if stage == 0 {
                total += voxels * classes;
            }
        }
        total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The network of the kidney plan (Uhm et al. 2021), whose patch nnU-Net planned for 3 x 1.5 x 1.5 mm.
    #[test]
    fn the_kidney_plan() {
        let found = Topology::new(&[3.0, 1.5, 1.5], &[80.0, 160.0, 160.0]);
        let mut strides = vec![vec![1; 3], vec![1, 2, 2]];
        strides.extend(vec![vec![2; 3]; 4]);
        let mut kernels = vec![vec![1, 3, 3]];
        kernels.extend(vec![vec![3; 3]; 5]);
        assert_eq!((found.strides, found.kernels), (strides, kernels));
        assert_eq!((found.patch, found.multiple), (vec![80, 160, 160], vec![16, 32, 32]));
    }

    #[test]
    fn sizes_are_rounded_up_and_small_ones_are_not_halved() {
        let found = Topology::new(&[1.0; 3], &[7.5, 16.5, 49.0]);
        assert_eq!(found.multiple, [1, 4, 8]);
        assert_eq!(found.patch, [8, 20, 56]);
        assert_eq!(found.features(32, 100), [32, 64, 100, 100]);
        let tiny = Topology::new(&[1.0; 2], &[7.0; 2]);
        assert_eq!((tiny.strides.len(), tiny.patch), (1, vec![7, 7]));
    }

    #[test]
    fn feature_maps_are_counted_as_nnunet_does() {
        let found =
            Topology { strides: vec![vec![1, 1], vec![2, 2]], kernels: vec![], patch: vec![8, 8], multiple: vec![] };
        assert_eq!(found.feature_map_elements(&[3, 5], 2), (64 * 3 * 5 + 64 * 2 + 16 * 5 * 2) as f64);
    }
}
