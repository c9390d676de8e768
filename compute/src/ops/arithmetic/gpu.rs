//! Launching addition and concatenation on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::arithmetic;

use crate::ops::launch::{array, grid, vector_width, with_float};
use crate::tensor::DType;

/// Where a tensor of `channels` channels goes inside one of `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSlot {
    /// n * d * h * w of both tensors.
    pub positions: usize,
    /// Channels to copy, at least 1.
    pub channels: usize,
    /// The channel of the destination that the first one becomes.
    pub first: usize,
    /// Channels of the destination, `first + channels` or more.
    pub total: usize,
}

/// y = a + b over `len` elements of `dtype` (a float type) in all three buffers.
pub fn launch_add<R: Runtime>(client: &ComputeClient<R>, dtype: DType, a: &Handle, b: &Handle, y: &Handle, len: usize) {
    let width = vector_width(client, dtype, len);
    let (count, dim) = grid(len / width);
    // SAFETY: each unit touches the vector of its own position, and only below the length all buffers hold.
    with_float!(dtype, F => unsafe {
        let (a, b, y) = (array(a, len), array(b, len), array(y, len));
        arithmetic::add::launch_unchecked::<F, R>(client, count, dim, width, a, b, y)
    });
}

/// Copies x [positions, channels] into its slot of y [positions, total], both of `dtype` (a float type).
pub fn launch_copy_channels<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    slot: ChannelSlot,
) {
    let ChannelSlot { positions, channels, first, total } = slot;
    // A width that divides all three divides the sum of the distinct bits they share, their bitwise or.
    let width = vector_width(client, dtype, channels | first | total);
    let (source, target) = (positions * channels, positions * total);
    let (count, dim) = grid(source / width);
    // SAFETY: a unit below the length of x has a position below `positions` and a channel below `channels`, and the slot
    // ends at or below `total`.
    with_float!(dtype, F => unsafe {
        let (x, y) = (array(x, source), array(y, target));
        arithmetic::copy_channels::launch_unchecked::<F, R>(
            client, count, dim, width, x, y, channels / width, first / width, total / width,
        )
    });
}
