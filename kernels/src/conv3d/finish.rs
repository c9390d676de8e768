//! What follows a convolution: bias, a residual, an activation. Kernels that have them in their store share
//! [`finished`]; here it stands alone, over the parts of a sum that was split or over an output that is there.

use cubecl::prelude::*;

use crate::common::leaky::leaky;

/// What is done to an output before it is stored: f(y + r), with f the leaky ReLU of `slope` (0: ReLU, 1: f(v) = v) and r
/// read where it is `added`.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Epilogue {
    pub biased: u32,
    pub added: u32,
    pub slope: f32,
}

/// The output at vector `at` from its sum with the bias.
#[cube]
pub fn finished<F: Float, P: Size>(
    sum: Vector<f32, P>,
    residual: &Array<Vector<F, P>>,
    at: usize,
    epilogue: &Epilogue,
) -> Vector<f32, P> {
    let mut value = sum;
    if epilogue.added != 0 {
        value += Vector::cast_from(residual[at]);
    }
    #[unroll]
    for v in 0..P::value() {
        value[v] = leaky(value[v], epilogue.slope);
    }
    value
}

/// y = finished(parts[0] + parts[1] + ... + b), in this order, of parts [splits, voxels, co] and b [co] where `biased`; a
/// unit a vector of channels, `channels` of them a voxel.
#[cube(launch_unchecked)]
pub fn finish_parts<F: Float, P: Size>(
    parts: &Array<Vector<f32, P>>,
    b: &Array<Vector<f32, P>>,
    residual: &Array<Vector<F, P>>,
    y: &mut Array<Vector<F, P>>,
    splits: usize,
    channels: usize,
    epilogue: Epilogue,
) {
    if ABSOLUTE_POS < y.len() {
        let mut sum = Vector::<f32, P>::new(0.0f32);
        for split in 0..splits {
            sum += parts[split * y.len() + ABSOLUTE_POS];
        }
        if epilogue.biased != 0 {
            sum += b[ABSOLUTE_POS % channels];
        }
        y[ABSOLUTE_POS] = Vector::cast_from(finished::<F, P>(sum, residual, ABSOLUTE_POS, &epilogue));
    }
}

/// y = finished(y); a unit a vector.
#[cube(launch_unchecked)]
pub fn finish_in_place<F: Float, P: Size>(
    residual: &Array<Vector<F, P>>,
    y: &mut Array<Vector<F, P>>,
    epilogue: Epilogue,
) {
    if ABSOLUTE_POS < y.len() {
        let value = Vector::<f32, P>::cast_from(y[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = Vector::cast_from(finished::<F, P>(value, residual, ABSOLUTE_POS, &epilogue));
    }
}
