//! Launching softmax and argmax on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::softmax;

use crate::error::{Error, Result};
use crate::ops::launch::{WORD, array, elements, fits, grid, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait SoftmaxLaunches {
        fn softmax = launch_softmax(
            dtype: DType, x: &Handle, y: &Handle, voxels: usize, channels: usize,
        ) -> Result<()>;
        fn argmax = launch_argmax(
            dtype: DType, x: &Handle, labels: &Handle, voxels: usize, channels: usize,
        ) -> Result<()>;
    }
}

/// Softmax over the channels, at least 1, of x [voxels, channels] of `dtype` (a float type) into y of the same shape and type.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_softmax<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    voxels: usize,
    channels: usize,
) -> Result<()> {
    let (len, size) = (elements(&[voxels, channels]), dtype.size());
    fits("softmax", &[("x", x, len, size), ("y", y, len, size)])?;
    if len == 0 {
        return Ok(());
    }
    let (count, dim) = grid(voxels)?;
    // SAFETY: a unit whose voxel lies below the voxels of both buffers touches the channels of that voxel.
    with_float!(dtype, F => unsafe {
        softmax::softmax::launch_unchecked::<F, R>(client, count, dim, array(x, len), array(y, len), channels)
    });
    Ok(())
}

/// The largest channel of each voxel of x [voxels, channels] of `dtype` (a float type) with 1 to 256 channels, as u8 into
/// `labels`, which holds whole 32-bit words.
///
/// # Errors
/// As [`launch_softmax`]; no channel, or more than 256.
pub fn launch_argmax<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    labels: &Handle,
    voxels: usize,
    channels: usize,
) -> Result<()> {
    if !(1..=256).contains(&channels) {
        return Err(Error::argument("argmax: channels", "1 to 256", channels));
    }
    let (len, words) = (elements(&[voxels, channels]), voxels.div_ceil(4));
    fits("argmax", &[("x", x, len, dtype.size()), ("labels", labels, words, WORD)])?;
    let (count, dim) = grid(words)?;
    // SAFETY: a unit stores the word of its own position, below the words that hold all labels, and loads the channels of
    // voxels below their count.
    with_float!(dtype, F => unsafe {
        let (x, labels) = (array(x, len), array(labels, words));
        softmax::argmax::launch_unchecked::<F, R>(client, count, dim, x, labels, voxels, channels)
    });
    Ok(())
}
