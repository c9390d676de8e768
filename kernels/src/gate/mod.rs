//! The end of a squeeze-excitation block: one thread per vector of channels.

use cubecl::prelude::*;

use crate::common::leaky::leaky;

/// Sizes of a gating: of the image, with its channels counted in vectors, and of the gate, whose axes are the image's or 1.
#[derive(CubeType, CubeLaunch)]
pub struct GateSizes {
    pub channels: usize,
    pub depth: usize,
    pub height: usize,
    pub width: usize,
    pub gate_depth: usize,
    pub gate_height: usize,
    pub gate_width: usize,
}

/// y = leaky(x * sigmoid(gate) + residual), nothing rounded before the store. The gate is read again for every voxel that it belongs
/// to: it is so small that the caches keep it, and the exponential hides behind the three large arrays.
#[cube(launch_unchecked)]
pub fn gated_residual<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    gate: &Array<Vector<F, N>>,
    residual: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    sizes: GateSizes,
    slope: f32,
) {
    if ABSOLUTE_POS < y.len() {
        let voxel = ABSOLUTE_POS / sizes.channels;
        let row = voxel / sizes.width;
        let slice = row / sizes.height;
        // An axis of 1 has the index 0 for every voxel.
        let gate_slice = slice / sizes.depth * sizes.gate_depth + slice % sizes.depth % sizes.gate_depth;
        let gate_row = gate_slice * sizes.gate_height + row % sizes.height % sizes.gate_height;
        let gate_voxel = gate_row * sizes.gate_width + voxel % sizes.width % sizes.gate_width;
        let gates = Vector::<f32, N>::cast_from(gate[gate_voxel * sizes.channels + ABSOLUTE_POS % sizes.channels]);
        let values = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
        let mut sum = Vector::<f32, N>::cast_from(residual[ABSOLUTE_POS]);
        #[unroll]
        for v in 0..N::value() {
            sum[v] = leaky(values[v] * sigmoid(gates[v]) + sum[v], slope);
        }
        y[ABSOLUTE_POS] = Vector::cast_from(sum);
    }
}

/// 1 / (1 + exp(-v)), written so that the exponential never overflows.
#[cube]
fn sigmoid(v: f32) -> f32 {
    let e = select(v < 0.0, v, -v).exp();
    select(v < 0.0, e, 1.0) / (1.0 + e)
}
