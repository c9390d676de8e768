//! The store of a product: bias, residual, activation and rounding, straight from the places where a plane's lanes hold their
//! sums. Four lanes write 8 channels of a voxel side by side.

use cubecl::prelude::*;

use super::fragments::{Sums, plane_blocks, plane_start};
use super::{BLOCK, PLANE, Planes};
use crate::conv3d::Geometry;
use crate::conv3d::finish::{Epilogue, finished};

/// Where a row of the product goes.
#[derive(CubeType)]
pub struct Row {
    /// Is it a voxel of the output?
    pub exists: bool,
    /// Element of its first channel.
    pub start: usize,
}

/// Where the rows of a tile, which are voxels of the output, go.
#[cube]
pub trait Destination {
    /// Where row `m` of the tile goes.
    fn row(&self, g: &Geometry, m: usize) -> Row;
}

/// What is done to a sum before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The bias is added. The sums become what was stored.
    Bias,
    /// Bias, residual and activation, and then one rounding.
    Fused,
    /// The bias is added and the sum rounded, then residual and activation follow, and another rounding: the bits of
    /// `finish::finish_in_place` over a stored output.
    Rounded,
}

/// Stores the sums of this unit's plane in a tile of `m` x `n`, whose first column is channel `first_n`.
#[cube]
pub fn store_sums<F: Float, P: Size, D: Destination>(
    y: &mut Array<Vector<F, P>>,
    b: &Array<f32>,
    residual: &Array<Vector<F, P>>,
    g: &Geometry,
    sums: &mut Sums,
    to: &D,
    first_n: usize,
    epilogue: &Epilogue,
    #[comptime] m: usize,
    #[comptime] n: usize,
    #[comptime] planes: Planes,
    #[comptime] finish: Finish,
) {
    let pair = P::value();
    let lane = UNIT_POS as usize % PLANE;
    let (m0, n0) = plane_start(m, n, planes);
    let [mi, ni] = comptime!(plane_blocks(m, n, planes));
    #[unroll]
    for j in 0..ni {
        #[unroll]
        for part in 0..comptime!(2 / pair) {
            let channel = first_n + n0 + comptime!(j * BLOCK[1]) + lane % 4 * 2 + part * pair;
            if channel < g.co {
                let mut bias = Vector::<f32, P>::new(0.0f32);
                if epilogue.biased != 0 {
                    #[unroll]
                    for v in 0..pair {
                        bias[v] = b[channel + v];
                    }
                }
                #[unroll]
                for i in 0..mi {
                    #[unroll]
                    for half in 0..2usize {
                        let row = to.row(g, m0 + comptime!(i * BLOCK[0] + half * 8) + lane / 4);
                        let at = (row.start + channel) / pair;
                        let block = sums.index_mut(comptime!(i * ni + j));
                        let mut value = bias;
                        #[unroll]
                        for v in 0..pair {
                            value[v] += block[half][comptime!(part * pair + v)];
                        }
                        if comptime!(finish == Finish::Bias) {
                            let stored = Vector::<F, P>::cast_from(value);
                            let mut kept = block[half];
                            #[unroll]
                            for v in 0..pair {
                                kept[comptime!(part * pair + v)] = f32::cast_from(stored[v]);
                            }
                            block[half] = kept;
                            if row.exists {
                                y[at] = stored;
                            }
                        } else if row.exists {
                            if comptime!(finish == Finish::Rounded) {
                                value = Vector::cast_from(Vector::<F, P>::cast_from(value));
                            }
                            y[at] = Vector::cast_from(finished::<F, P>(value, residual, at, epilogue));
                        }
                    }
                }
            }
        }
    }
}
