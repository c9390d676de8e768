//! Launching addition and concatenation on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::arithmetic;

use crate::error::{Error, Result};
use crate::ops::launch::{array, elements, fits, grid, launches, vector_width, with_float};
use crate::tensor::DType;

/// The channels of a tensor of `total` channels to which a tensor of `channels` channels is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSlot {
    /// The number n * d * h * w of positions of both tensors.
    pub positions: usize,
    /// Number of channels to copy, at least 1.
    pub channels: usize,
    /// The first channel of the destination.
    pub first: usize,
    /// Number of channels of the destination, at least `first + channels`.
    pub total: usize,
}

impl ChannelSlot {
    fn ensure_valid(&self, op: &str) -> Result<()> {
        let Self { channels, first, total, .. } = *self;
        if channels == 0 || first.checked_add(channels).is_none_or(|end| end > total) {
            let found = format!("{channels} from {first} on");
            return Err(Error::argument(format!("{op}: channels"), format!("at least 1, up to {total}"), found));
        }
        Ok(())
    }
}

launches! {
    pub(crate) trait ArithmeticLaunches {
        fn add = launch_add(dtype: DType, a: &Handle, b: &Handle, y: &Handle, len: usize) -> Result<()>;
        fn add_leaky_relu = launch_add_leaky_relu(
            dtype: DType, a: &Handle, b: &Handle, y: &Handle, len: usize, slope: f32,
        ) -> Result<()>;
        fn copy_channels = launch_copy_channels(dtype: DType, x: &Handle, y: &Handle, slot: ChannelSlot) -> Result<()>;
        fn take_channels = launch_take_channels(dtype: DType, x: &Handle, y: &Handle, slot: ChannelSlot) -> Result<()>;
        fn add_scaled = launch_add_scaled(
            dtype: DType, a: &Handle, b: &Handle, y: &Handle, len: usize, factor: f32,
        ) -> Result<()>;
        fn scale = launch_scale(dtype: DType, x: &Handle, y: &Handle, len: usize, factor: f32) -> Result<()>;
    }
}

/// y = a + b over `len` elements of `dtype` (a float type) in all three buffers.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_add<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    a: &Handle,
    b: &Handle,
    y: &Handle,
    len: usize,
) -> Result<()> {
    let size = dtype.size();
    fits("add", &[("a", a, len, size), ("b", b, len, size), ("y", y, len, size)])?;
    let width = vector_width(client, dtype, len);
    let (count, dim) = grid(len / width)?;
    // SAFETY: each unit touches the vector of its own position, and only below the length all buffers hold.
    with_float!(dtype, F => unsafe {
        let (a, b, y) = (array(a, len), array(b, len), array(y, len));
        arithmetic::add::launch_unchecked::<F, R>(client, count, dim, width, a, b, y)
    });
    Ok(())
}

/// y = leaky_relu(a + b, slope) over `len` elements of `dtype` (a float type) in all three buffers.
///
/// # Errors
/// As [`launch_add`].
pub fn launch_add_leaky_relu<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    a: &Handle,
    b: &Handle,
    y: &Handle,
    len: usize,
    slope: f32,
) -> Result<()> {
    let size = dtype.size();
    fits("add_leaky_relu", &[("a", a, len, size), ("b", b, len, size), ("y", y, len, size)])?;
    let width = vector_width(client, dtype, len);
    let (count, dim) = grid(len / width)?;
    // SAFETY: each thread touches the vector of its own position, and only below the length all buffers hold.
    with_float!(dtype, F => unsafe {
        let (a, b, y) = (array(a, len), array(b, len), array(y, len));
        arithmetic::add_leaky_relu::launch_unchecked::<F, R>(client, count, dim, width, a, b, y, slope)
    });
    Ok(())
}

/// Copies x [positions, channels] into its slot of y [positions, total], both of `dtype` (a float type).
///
/// # Errors
/// As [`launch_add`]; no channels, or a slot that exceeds the destination.
pub fn launch_copy_channels<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    slot: ChannelSlot,
) -> Result<()> {
    slot.ensure_valid("concat")?;
    let ChannelSlot { positions, channels, first, total } = slot;
    let (source, target) = (elements(&[positions, channels]), elements(&[positions, total]));
    fits("concat", &[("x", x, source, dtype.size()), ("y", y, target, dtype.size())])?;
    // A power of two divides all three numbers where it divides their bitwise or.
    let width = vector_width(client, dtype, channels | first | total);
    let (count, dim) = grid(source / width)?;
    // SAFETY: a unit below the length of x has a position below `positions` and a channel below `channels`, and the slot
    // ends at or below `total`.
    with_float!(dtype, F => unsafe {
        let (x, y) = (array(x, source), array(y, target));
        arithmetic::copy_channels::launch_unchecked::<F, R>(
            client, count, dim, width, x, y, channels / width, first / width, total / width,
        )
    });
    Ok(())
}

/// Copies the slot of x [positions, total] to y [positions, channels], both of `dtype` (a float type).
///
/// # Errors
/// As [`launch_add`]; no channels, or a slot that exceeds the source.
pub fn launch_take_channels<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    slot: ChannelSlot,
) -> Result<()> {
    slot.ensure_valid("split")?;
    let ChannelSlot { positions, channels, first, total } = slot;
    let (source, target) = (elements(&[positions, total]), elements(&[positions, channels]));
    fits("split", &[("x", x, source, dtype.size()), ("y", y, target, dtype.size())])?;
    let width = vector_width(client, dtype, channels | first | total);
    let (count, dim) = grid(target / width)?;
    // SAFETY: a unit below the length of y has a position below `positions` and a channel below `channels`, and the slot
    // ends at or below `total`.
    with_float!(dtype, F => unsafe {
        let (x, y) = (array(x, source), array(y, target));
        arithmetic::take_channels::launch_unchecked::<F, R>(
            client, count, dim, width, x, y, channels / width, first / width, total / width,
        )
    });
    Ok(())
}

/// y = a + factor * b over `len` elements of `dtype` (a float type) in all three buffers.
///
/// # Errors
/// As [`launch_add`].
pub fn launch_add_scaled<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    a: &Handle,
    b: &Handle,
    y: &Handle,
    len: usize,
    factor: f32,
) -> Result<()> {
    let size = dtype.size();
    fits("add_scaled", &[("a", a, len, size), ("b", b, len, size), ("y", y, len, size)])?;
    let width = vector_width(client, dtype, len);
    let (count, dim) = grid(len / width)?;
    // SAFETY: each unit touches the vector of its own position, and only below the length all buffers hold.
    with_float!(dtype, F => unsafe {
        let (a, b, y) = (array(a, len), array(b, len), array(y, len));
        arithmetic::add_scaled::launch_unchecked::<F, R>(client, count, dim, width, a, b, y, factor)
    });
    Ok(())
}

/// y = factor * x over `len` elements of `dtype` (a float type) in both buffers.
///
/// # Errors
/// As [`launch_add`].
pub fn launch_scale<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    len: usize,
    factor: f32,
) -> Result<()> {
    fits("scale", &[("x", x, len, dtype.size()), ("y", y, len, dtype.size())])?;
    let width = vector_width(client, dtype, len);
    let (count, dim) = grid(len / width)?;
    // SAFETY: as above.
    with_float!(dtype, F => unsafe {
        arithmetic::scale::launch_unchecked::<F, R>(client, count, dim, width, array(x, len), array(y, len), factor)
    });
    Ok(())
}
