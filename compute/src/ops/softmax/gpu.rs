//! Launching softmax and argmax on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::softmax;

use crate::ops::launch::{array, grid, with_float};
use crate::tensor::DType;

/// Softmax over the channels, at least 1, of x [voxels, channels] of `dtype` (a float type) with fewer than 2^32 elements.
pub fn launch_softmax<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    voxels: usize,
    channels: usize,
) {
    let (count, dim) = grid(voxels);
    let len = voxels * channels;
    // SAFETY: a unit whose voxel lies below the voxels of both buffers touches the channels of that voxel.
    with_float!(dtype, F => unsafe {
        softmax::softmax::launch_unchecked::<F, R>(client, count, dim, array(x, len), array(y, len), channels)
    });
}

/// The largest channel of each voxel of x [voxels, channels] of `dtype` (a float type) with 1 to 256 channels and fewer
/// than 2^32 elements, as u8 into `labels`, which holds whole 32-bit words.
pub fn launch_argmax<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    labels: &Handle,
    voxels: usize,
    channels: usize,
) {
    let words = voxels.div_ceil(4);
    let (count, dim) = grid(words);
    // SAFETY: a unit stores the word of its own position, below the words that hold all labels, and loads the channels of
    // voxels below their count.
    with_float!(dtype, F => unsafe {
        let (x, labels) = (array(x, voxels * channels), array(labels, words));
        softmax::argmax::launch_unchecked::<F, R>(client, count, dim, x, labels, voxels, channels)
    });
}
