//! V = Bᵀ d of a block's tiles.
//!
//! Tiles that lie side by side along x share two of their four input columns. A run of them is therefore walked along x with
//! the last four columns, already transformed along z and y, in a ring.

use std::array::from_fn;
use std::slice;

use super::super::sums::Shared;
use super::grid::{Grid, Place};
use crate::ops::simd::{F32Vector, Simd};

/// The images whose tiles are transformed, and where V goes.
pub(super) struct Input<'a> {
    pub grid: &'a Grid,
    /// Channels-last inputs, whose channels follow each other.
    pub xs: &'a [&'a [f32]],
    /// Channels of one of them.
    pub channels: usize,
    /// A voxel outside the image: a vector.
    pub zeros: &'a [f32],
    pub v: Shared<f32>,
    /// Floats from a tile to the next: the channels, and a vector more where they fill none.
    pub row: usize,
    /// Floats from a point to the next.
    pub point: usize,
}

/// Where a row of inputs is read: its first voxel, and floats to the next one (0 outside the image).
#[derive(Clone, Copy)]
struct Row {
    first: *const f32,
    voxel: usize,
}

/// The rows that the tiles of a run read, along (z, y). Each points at `valid` channels of `width` voxels, or at a vector of zeros.
struct Rows<const D: usize> {
    rows: [[Row; 4]; D],
    width: usize,
    /// A vector's lanes, or fewer.
    valid: usize,
}

impl Input<'_> {
    /// V of `count` tiles from the tile `first` of the block that starts at tile `start` on.
    #[inline(always)]
    pub(super) fn transform<S: Simd, const D: usize>(&self, simd: S, start: usize, first: usize, count: usize) {
        let mut tile = first;
        while tile < first + count {
            let place = self.grid.place(start + tile);
            let run = (self.grid.axes[2].tiles() - place.at[2]).min(first + count - tile);
            self.run_of_tiles::<S, D>(simd, place, tile, run);
            tile += run;
        }
    }

    /// V of `count` tiles along x from `place`, the block's tile `first`.
    #[inline(always)]
    fn run_of_tiles<S: Simd, const D: usize>(&self, simd: S, place: Place, first: usize, count: usize) {
        let (channels, lanes) = (self.channels, S::F32::LANES);
        let start = self.grid.axes[2].source(place.at[2]);
        for (source, x) in self.xs.iter().enumerate() {
            for channel in (0..channels).step_by(lanes) {
                let rows = self.rows::<D>(place, x, channel, lanes);
                let to = first * self.row + source * channels + channel;
                if channel + lanes <= channels {
                    self.walk::<S, D, true>(simd, &rows, start, to, count);
                } else {
                    self.walk::<S, D, false>(simd, &rows, start, to, count);
                }
            }
        }
    }

    /// The rows of up to `lanes` channels of `x` from `channel` on that the tiles at `place` along z and y read.
    #[inline(always)]
    fn rows<const D: usize>(&self, place: Place, x: &[f32], channel: usize, lanes: usize) -> Rows<D> {
        let ([z, y, axis], channels) = (self.grid.axes, self.channels);
        let outside = Row { first: self.zeros.as_ptr(), voxel: 0 };
        let mut rows = [[outside; 4]; D];
        for (i, rows) in rows.iter_mut().enumerate() {
            let at_z = z.source(place.at[0]) + i as isize;
            for (j, row) in rows.iter_mut().enumerate() {
                let at_y = y.source(place.at[1]) + j as isize;
                if (0..z.input as isize).contains(&at_z) && (0..y.input as isize).contains(&at_y) {
                    let line = (place.image * z.input + at_z as usize) * y.input + at_y as usize;
                    let x = &x[line * axis.input * channels..][..axis.input * channels];
                    *row = Row { first: x[channel..].as_ptr(), voxel: channels };
                }
            }
        }
        Rows { rows, width: axis.input, valid: lanes.min(channels - channel) }
    }

    /// V of `count` tiles along x whose inputs start at `start`, from the floats `to` of every point on.
    #[inline(always)]
    fn walk<S: Simd, const D: usize, const FULL: bool>(
        &self,
        simd: S,
        rows: &Rows<D>,
        start: isize,
        to: usize,
        count: usize,
    ) {
        // The four columns of an even tile; an odd one starts in the middle.
        let mut ring = [[[simd.splat(0.0); 4]; D]; 4];
        ring[0] = rows.column::<S, FULL>(simd, start);
        ring[1] = rows.column::<S, FULL>(simd, start + 1);
        for tile in 0..count {
            let at = start + 2 * tile as isize;
            let columns: [usize; 4] = from_fn(|k| (2 * tile + k) % 4);
            ring[columns[2]] = rows.column::<S, FULL>(simd, at + 2);
            ring[columns[3]] = rows.column::<S, FULL>(simd, at + 3);
            for i in 0..D {
                for j in 0..4 {
                    let v = transform(from_fn(|k| ring[columns[k]][i][j]));
                    for (k, v) in v.into_iter().enumerate() {
                        // SAFETY:
                        // - V has a row of `row` floats for each tile of the block at every point, in which a
                        //   vector fits at this channel,
                        // - this task alone writes the rows of these tiles.
                        unsafe {
                            let point = (i * 4 + j) * 4 + k;
                            v.store_at(self.v.0.add(point * self.point + to + tile * self.row));
                        }
                    }
                }
            }
        }
    }
}

impl<const D: usize> Rows<D> {
    /// The column of inputs at `at` along x, transformed along y and z; zeros outside the image.
    #[inline(always)]
    fn column<S: Simd, const FULL: bool>(&self, simd: S, at: isize) -> [[S::F32; 4]; D] {
        let mut column = [[simd.splat(0.0); 4]; D];
        if at < 0 || at >= self.width as isize {
            return column;
        }
        for (to, rows) in column.iter_mut().zip(&self.rows) {
            let mut along_y = [simd.splat(0.0); 4];
            for (to, row) in along_y.iter_mut().zip(rows) {
                // SAFETY:
                // - `at` is below the width, so that `valid` floats are there, or the row is a vector of zeros,
                // - `valid` is a whole vector if `FULL`.
                *to = unsafe {
                    let from = row.first.add(at as usize * row.voxel);
                    if FULL { simd.load_at(from) } else { simd.load_partial(slice::from_raw_parts(from, self.valid)) }
                };
            }
            *to = transform(along_y);
        }
        if D == 4 {
            for j in 0..4 {
                let along_z = transform([column[0][j], column[1 % D][j], column[2 % D][j], column[3 % D][j]]);
                for (i, v) in along_z.into_iter().enumerate() {
                    column[i % D][j] = v;
                }
            }
        }
        column
    }
}

/// Bᵀ d.
#[inline(always)]
fn transform<V: F32Vector>([d0, d1, d2, d3]: [V; 4]) -> [V; 4] {
    [d0.sub(d2), d1.add(d2), d2.sub(d1), d1.sub(d3)]
}
