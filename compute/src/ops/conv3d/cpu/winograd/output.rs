//! y = Aᵀ m + bias of a block's tiles, and the sums over them.

use std::slice;

use super::super::sums::add_up;
use super::block::Task;
use crate::ops::simd::{F32Vector, Simd};

impl Task<'_> {
    /// The outputs of `count` tiles from the block's tile `first` on.
    #[inline(always)]
    pub(super) fn output<S: Simd, const D: usize>(&self, simd: S, first: usize, count: usize) {
        let (grid, co) = (&self.winograd.grid, self.winograd.weights.co);
        let mut written =
            Vec::with_capacity(if self.winograd.sums.is_some() { count * if D == 4 { 8 } else { 4 } } else { 0 });
        for tile in first..first + count {
            let place = grid.place(self.start + tile);
            let targets = grid.targets(place, co);
            self.tile::<S, D>(simd, tile, &targets);
            if self.winograd.sums.is_some() {
                written.extend(targets.as_flattened().as_flattened().iter().flatten());
            }
        }
        if let Some(sums) = self.winograd.sums {
            let group = (self.start + first) / self.layout.group;
            // SAFETY:
            // - `sums` has a row of `co` for each group of tiles, and this task alone has this group,
            // - it has just written the `co` channels of every target.
            unsafe {
                let sums = slice::from_raw_parts_mut(sums.0.add(group * co), co);
                add_up(simd, written.iter().copied(), self.winograd.output.0, sums);
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const D: usize>(&self, simd: S, tile: usize, targets: &[[[Option<usize>; 2]; 2]; 2]) {
        let (co, lanes) = (self.winograd.weights.co, S::F32::LANES);
        for channel in (0..co).step_by(lanes) {
            let bias = simd.load(&self.winograd.bias[channel..]);
            let mut planes = [[[bias; 2]; 2]; D];
            for (i, plane) in planes.iter_mut().enumerate() {
                let mut along_x = [[bias; 2]; 4];
                for (j, along_x) in along_x.iter_mut().enumerate() {
                    let m = [0, 1, 2, 3].map(|k| {
                        let point = (i * 4 + j) * 4 + k;
                        // SAFETY:
                        // - the products of a tile are in V, in whole registers.
                        unsafe {
                            simd.load_at(self.v.0.add(point * self.layout.point + tile * self.layout.row + channel))
                        }
                    });
                    *along_x = transform(m);
                }
                for k in 0..2 {
                    let along_y = transform([along_x[0][k], along_x[1][k], along_x[2][k], along_x[3][k]]);
                    plane[0][k] = along_y[0];
                    plane[1][k] = along_y[1];
                }
            }
            for j in 0..2 {
                for k in 0..2 {
                    let along_z = if D == 4 {
                        transform([planes[0][j][k], planes[1 % D][j][k], planes[2 % D][j][k], planes[3 % D][j][k]])
                    } else {
                        [planes[0][j][k]; 2]
                    };
                    for (i, y) in along_z.into_iter().enumerate() {
                        let Some(target) = targets[i][j][k] else { continue };
                        // SAFETY:
                        // - the target has `co` channels behind it, which this task alone writes.
                        unsafe {
                            let to = self.winograd.output.0.add(target + channel);
                            if channel + lanes <= co {
                                y.add(bias).store_at(to);
                            } else {
                                y.add(bias).store_partial(slice::from_raw_parts_mut(to, co - channel));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Aᵀ m.
#[inline(always)]
fn transform<V: F32Vector>([m0, m1, m2, m3]: [V; 4]) -> [V; 2] {
    [m0.add(m1).add(m2), m1.sub(m2).sub(m3)]
}
