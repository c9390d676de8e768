//! What goes into shared memory: the halo, and a tap's weights.

use cubecl::prelude::*;

use super::{Brick, Bricks, InputNorm, Source};
use crate::common::leaky::leaky;
use crate::conv3d::staging::copy;
use crate::conv3d::{Geometry, is_inside};

/// Fills the halo with channels `from` and on of a tensor of `channels`, zero outside and past the last of them.
#[cube]
pub(super) fn fill<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    halo: &mut SharedMemory<Vector<F, N>>,
    norm: &InputNorm,
    g: &Geometry,
    brick: &Brick,
    channels: usize,
    from: usize,
    #[comptime] t: Bricks,
    #[comptime] source: Source,
) {
    let width = N::value();
    let columns = comptime!(t.chunk / width);
    let rows = comptime!(t.halo().iter().product::<usize>());
    let column = UNIT_POS as usize % columns;
    let channel = from + column * width;
    let there = channel < channels;
    let mut mean = Array::<f32>::new(width);
    let mut scale = Array::<f32>::new(width);
    let mut shift = Array::<f32>::new(width);
    if comptime!(source == Source::Normed) {
        #[unroll]
        for v in 0..width {
            let c = select(there, channel + v, v);
            mean[v] = norm.mean[brick.image * channels + c];
            scale[v] = norm.inverse_sd[brick.image * channels + c];
            shift[v] = 0.0;
            if norm.weighted != 0 {
                scale[v] *= norm.weight[c];
            }
            if norm.biased != 0 {
                shift[v] = norm.bias[c];
            }
        }
    }
    for row in range_stepped(UNIT_POS as usize / columns, rows, comptime!(t.units / columns)) {
        let z = brick.z + row / comptime!(t.halo()[1] * t.halo()[2]);
        let y = brick.y + row / comptime!(t.halo()[2]) % comptime!(t.halo()[1]);
        let x_at = brick.x + row % comptime!(t.halo()[2]);
        let inside = is_inside(&g.z, z) && is_inside(&g.y, y) && is_inside(&g.x, x_at) && there;
        let slice = brick.image * g.z.input + z - g.z.padding;
        let voxel = (slice * g.y.input + y - g.y.padding) * g.x.input + x_at - g.x.padding;
        // Another index where the voxel is not inside: a wild one must not even be computed into an address.
        let at = select(inside, (voxel * channels + channel) / width, 0usize);
        let mut value = x[at];
        if comptime!(source == Source::Normed) {
            let mut normed = Vector::<f32, N>::cast_from(value);
            #[unroll]
            for v in 0..width {
                normed[v] = leaky((normed[v] - mean[v]) * scale[v] + shift[v], norm.slope);
            }
            value = Vector::cast_from(normed);
        }
        if !inside {
            value = Vector::new(F::new(0.0));
        }
        halo[row * comptime!(t.pitch() / width) + column] = value;
    }
}

/// Begins the copies of one tap's weights for `channel` and on into a stage; `first_row` counts output channels.
#[cube]
pub(super) fn stage_weights<F: Float, N: Size>(
    w: &Array<Vector<F, N>>,
    weights: &mut SharedMemory<Vector<F, N>>,
    g: &Geometry,
    first_row: usize,
    tap: usize,
    channel: usize,
    #[comptime] stage: usize,
    #[comptime] t: Bricks,
) {
    let width = N::value();
    let columns = comptime!(t.chunk / width);
    let column = UNIT_POS as usize % columns;
    let k = channel + column * width;
    let stages = comptime!(t.stages());
    let taps = comptime!(t.kernel[0] * t.kernel[1] * t.kernel[2]);
    let (row, co) = (UNIT_POS as usize / columns, first_row + UNIT_POS as usize / columns);
    // A base and a step, not an address a row: the compiler would keep every row's in a register through all taps.
    let base = ((co * taps + tap) * g.ci + k) / width;
    let step = comptime!(t.units / columns * taps) * (g.ci / width);
    #[unroll]
    for i in 0..comptime!(t.n.div_ceil(t.units / columns)) {
        let below = comptime!(i * (t.units / columns));
        if row + below < t.n {
            let found = co + below < g.co && k < g.ci;
            let from = select(found, base + i * step, 0usize);
            let to = comptime!((stage * t.n + below) * t.pitch() / width) + row * comptime!(t.pitch() / width) + column;
            copy(w, weights, from, to, found, stages);
        }
    }
}
