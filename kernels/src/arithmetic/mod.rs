//! Adding tensors and concatenating channels: one unit a vector of elements.

use cubecl::prelude::*;

use crate::common::leaky::leaky;

/// y = a + b, element by element.
#[cube(launch_unchecked)]
pub fn add<F: Float, N: Size>(a: &Array<Vector<F, N>>, b: &Array<Vector<F, N>>, y: &mut Array<Vector<F, N>>) {
    if ABSOLUTE_POS < y.len() {
        let sum = Vector::<f32, N>::cast_from(a[ABSOLUTE_POS]) + Vector::<f32, N>::cast_from(b[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = Vector::cast_from(sum);
    }
}

/// Copies x [positions, channels] into the channels of y [positions, total] that start at `first`; all three counts are
/// of vectors.
#[cube(launch_unchecked)]
pub fn copy_channels<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    channels: usize,
    first: usize,
    total: usize,
) {
    if ABSOLUTE_POS < x.len() {
        let position = ABSOLUTE_POS / channels;
        y[position * total + first + ABSOLUTE_POS % channels] = x[ABSOLUTE_POS];
    }
}

/// y = leaky(a + b, slope), element by element: how a residual block ends. The sum is not rounded before the activation.
#[cube(launch_unchecked)]
pub fn add_leaky_relu<F: Float, N: Size>(
    a: &Array<Vector<F, N>>,
    b: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    slope: f32,
) {
    if ABSOLUTE_POS < y.len() {
        let mut sum = Vector::<f32, N>::cast_from(a[ABSOLUTE_POS]) + Vector::<f32, N>::cast_from(b[ABSOLUTE_POS]);
        #[unroll]
        for v in 0..N::value() {
            sum[v] = leaky(sum[v], slope);
        }
        y[ABSOLUTE_POS] = Vector::cast_from(sum);
    }
}

/// Copies the channels from `first` on of x [positions, total] to y [positions, channels]; all three counts are of vectors.
#[cube(launch_unchecked)]
pub fn take_channels<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    channels: usize,
    first: usize,
    total: usize,
) {
    if ABSOLUTE_POS < y.len() {
        let position = ABSOLUTE_POS / channels;
        y[ABSOLUTE_POS] = x[position * total + first + ABSOLUTE_POS % channels];
    }
}

/// y = a + factor * b, element by element.
#[cube(launch_unchecked)]
pub fn add_scaled<F: Float, N: Size>(
    a: &Array<Vector<F, N>>,
    b: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    factor: f32,
) {
    if ABSOLUTE_POS < y.len() {
        let scaled = Vector::<f32, N>::cast_from(b[ABSOLUTE_POS]) * Vector::<f32, N>::new(factor);
        y[ABSOLUTE_POS] = Vector::cast_from(Vector::<f32, N>::cast_from(a[ABSOLUTE_POS]) + scaled);
    }
}

/// y = factor * x, element by element.
#[cube(launch_unchecked)]
pub fn scale<F: Float, N: Size>(x: &Array<Vector<F, N>>, y: &mut Array<Vector<F, N>>, factor: f32) {
    if ABSOLUTE_POS < y.len() {
        y[ABSOLUTE_POS] =
            Vector::cast_from(Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]) * Vector::<f32, N>::new(factor));
    }
}
