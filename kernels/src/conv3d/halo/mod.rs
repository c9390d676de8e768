//! Convolution of stride 1 as a matrix product whose inputs stay in shared memory for all taps.
//!
//! The implicit GEMM gathers every input once for each tap: 27 reads from L2 limit it where channels are few. Here a cube
//! takes a brick of output voxels and keeps the input voxels under all their taps, the brick and its halo, `chunk` channels
//! at a time. With 4 x 8 x 8 voxels and 3 x 3 x 3 taps that is 6 x 10 x 10 voxels: each input is read 2.3 times instead of 27.
//! Over the halo a tap is a fixed step, so the multiplication needs no tests of bounds and one addition for each row of taps.
//!
//! Weights come in stages of one tap: `n` rows of `chunk` elements, by `cp.async` where the device has it, one stage for
//! each tap along x, two steps ahead. For one tap, a chunk of 32 and one plane (64 voxels x 32 channels) that is 32
//! `mma.sync` for 12 `ldmatrix`, and 2 KiB from L2.
//!
//! Rows of 16-bit elements, of the halo and of the weights, are padded (`gemm::layout`): a chunk and one piece of 16 bytes
//! apart, which is an odd number of pieces. Two rows of 16 elements of 32 bits fill a line of 128 bytes and are read together,
//! so there is no gap between them.
//!
//! Because an input is stored into the halo once and read 27 times, a prologue costs little: the instance norm and leaky
//! ReLU of the layer before ([`Source::Normed`]) are applied on the way into shared memory, and padding is zero after them,
//! as it has to be. The epilogue has the other end of the norm: the moments of a brick's outputs as they are stored, one mean
//! and sum of squared deviations for each brick and channel (`norm::merge_moments` merges them in order).

mod moments;
mod multiply;
mod stage;

use cubecl::prelude::*;

use super::Geometry;
use super::finish::Epilogue;
use super::staging::{Tiles, Transfer, await_stage, commit_stage, stage_barriers};
use crate::gemm::fragments::{plane_blocks, zero_sums};
use crate::gemm::layout::Sides;
use crate::gemm::store::{Destination, DestinationExpand, Finish, Row, store_sums};
use crate::gemm::{Planes, Step};
use moments::store_moments;
use multiply::{lane_row, multiply_tap, place_in_brick};
use stage::{fill, stage_weights};

/// The input and its prologue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// One tensor without a prologue.
    Plain,
    /// One tensor, whose instance norm and leaky ReLU are still to be applied.
    Normed,
    /// Two tensors whose channels follow one another; the first has a multiple of the chunk.
    Two,
}

/// A cube's tile. `units` are whole planes, and a multiple of the vectors in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bricks {
    /// Output voxels along (z, y, x): powers of two, whose product is a multiple of 16.
    pub voxels: [usize; 3],
    /// Taps along (z, y, x).
    pub kernel: [usize; 3],
    /// Number of output channels.
    pub n: usize,
    /// Number of input channels in shared memory at a time, a multiple of 16.
    pub chunk: usize,
    /// Number of units of the cube.
    pub units: usize,
    /// Bytes of an element.
    pub bytes: usize,
    /// How weights come into their stages.
    pub transfer: Transfer,
}

impl Bricks {
    /// Number of output voxels.
    pub fn m(&self) -> usize {
        self.voxels.iter().product()
    }

    /// Input voxels along (z, y, x).
    pub fn halo(&self) -> [usize; 3] {
        [0, 1, 2].map(|a| self.voxels[a] + self.kernel[a] - 1)
    }

    /// The brick within its halo.
    pub(super) fn sides(&self) -> Sides {
        let ([_, y, x], [_, halo_y, halo_x]) = (self.voxels, self.halo());
        Sides { inner: [y, x], outer: [halo_y, halo_x] }
    }

    /// Halo rows from under an output voxel to under the one `m` further on, as [`Sides::step`].
    pub fn halo_step(&self, m: usize) -> usize {
        self.sides().step(m)
    }

    /// Elements from one row to the next, of the halo and of the weights.
    pub fn pitch(&self) -> usize {
        self.chunk + if self.bytes == 2 { 8 } else { 0 }
    }

    /// The most bytes of shared memory that a compilation takes: the halo, the stages of weights and their barriers, the
    /// brick's coordinates, and the moments of `planes_m` planes. Moments are written when the halo is no longer read, but not
    /// every compilation places them in its memory. Each part may begin at a multiple of 16.
    pub fn shared_bytes(&self, planes_m: usize) -> usize {
        let rows = self.halo().iter().product::<usize>() + self.kernel[2] * self.n;
        let barriers = if self.transfer == Transfer::Async { 16 * self.kernel[2] } else { 0 };
        rows * self.pitch() * self.bytes + barriers + BRICK_BYTES + 8 * planes_m * (2 * self.n + 1) * 4
    }

    /// The tile as the stages of weights take it.
    pub(super) fn stages(&self) -> Tiles {
        Tiles {
            m: self.m(),
            n: self.n,
            k: self.chunk,
            stages: self.kernel[2],
            units: self.units,
            bytes: self.bytes,
            transfer: self.transfer,
        }
    }
}

/// The norm in the prologue: f32 [n, ci] statistics, and [ci] scale where `weighted` and shift where `biased`.
#[derive(CubeType, CubeLaunch)]
pub struct InputNorm {
    pub mean: Array<f32>,
    pub inverse_sd: Array<f32>,
    pub weight: Array<f32>,
    pub bias: Array<f32>,
    pub weighted: u32,
    pub biased: u32,
    pub slope: f32,
}

/// The moments of each brick: counts [bricks], means and sums of squared deviations [bricks, co].
#[derive(CubeType, CubeLaunch)]
pub struct OutputMoments {
    pub counts: Array<f32>,
    pub means: Array<f32>,
    pub m2s: Array<f32>,
}

/// The brick of a cube.
#[derive(CubeType)]
pub struct Brick {
    /// Number of the brick, counted over all images.
    pub index: usize,
    pub image: usize,
    /// First output voxel. With a tap's offset added, z, y and x count from the first padding voxel.
    pub z: usize,
    pub y: usize,
    pub x: usize,
    /// First output channel.
    pub co: usize,
    #[cube(comptime)]
    t: Bricks,
}

#[cube]
impl Destination for Brick {
    fn row(&self, g: &Geometry, m: usize) -> Row {
        let (z, y, x) = place_in_brick(m, self.t);
        let (z, y, x) = (self.z + z, self.y + y, self.x + x);
        let voxel = ((self.image * g.z.output + z) * g.y.output + y) * g.x.output + x;
        let exists = z < g.z.output && y < g.y.output && x < g.x.output;
        Row { exists, start: voxel * g.co }
    }
}

/// Bytes of the six words that [`leave_brick`] writes, rounded up to a multiple of 16.
const BRICK_BYTES: usize = 32;

/// Unit 0 computes the coordinates of the cube's brick and writes them to shared memory. Kept in registers by every unit through
/// the main loop, they took 6 of the 128 registers with which four cubes of 128 units fit a multiprocessor (its shared
/// memory has room for as many only where chunks are of 16). A barrier at the start of each chunk makes them visible.
#[cube]
fn leave_brick(
    index: usize,
    first_n: usize,
    along_z: usize,
    along_y: usize,
    along_x: usize,
    #[comptime] t: Bricks,
) -> SharedMemory<u32> {
    let mut left = SharedMemory::<u32>::new(6usize);
    if UNIT_POS == 0 {
        left[0] = index as u32;
        left[1] = (index / along_x / along_y / along_z) as u32;
        left[2] = (index / along_x / along_y % along_z * comptime!(t.voxels[0])) as u32;
        left[3] = (index / along_x % along_y * comptime!(t.voxels[1])) as u32;
        left[4] = (index % along_x * comptime!(t.voxels[2])) as u32;
        left[5] = first_n as u32;
    }
    left
}

/// The brick that [`leave_brick`] wrote, read by units behind a barrier.
#[cube]
fn brick(left: &SharedMemory<u32>, #[comptime] t: Bricks) -> Brick {
    Brick {
        index: left[0] as usize,
        image: left[1] as usize,
        z: left[2] as usize,
        y: left[3] as usize,
        x: left[4] as usize,
        co: left[5] as usize,
        t,
    }
}

/// y [n, od, oh, ow, co] of x [n, d, h, w, ci] and w [co, kd, kh, kw, ci], one group, stride and dilation 1; `b` [co]
/// where `biased`, `residual` of y's shape where `added`, unless `finish` is [`Finish::Bias`]. `second` is read for
/// [`Source::Two`]: x has the first `first` channels, it has the rest. A unit stores `P` (1 or 2, a divisor of co) channels
/// at a time.
#[cube(launch_unchecked)]
pub fn conv3d_halo<F: Float, N: Size, P: Size>(
    x: &Array<Vector<F, N>>,
    second: &Array<Vector<F, N>>,
    w: &Array<Vector<F, N>>,
    b: &Array<f32>,
    residual: &Array<Vector<F, P>>,
    norm: &InputNorm,
    y: &mut Array<Vector<F, P>>,
    moments: &mut OutputMoments,
    g: Geometry,
    first: usize,
    images: usize,
    epilogue: Epilogue,
    #[comptime] t: Bricks,
    #[comptime] planes: Planes,
    #[comptime] step: Step,
    #[comptime] source: Source,
    #[comptime] with_moments: bool,
    #[comptime] finish: Finish,
) {
    let across = g.co.div_ceil(t.n);
    let (along_z, along_y, along_x) = (
        g.z.output.div_ceil(comptime!(t.voxels[0])),
        g.y.output.div_ceil(comptime!(t.voxels[1])),
        g.x.output.div_ceil(comptime!(t.voxels[2])),
    );
    // Neighbouring cubes share their halo. The condition is the same for all units of a cube, so that past the end none of
    // them waits at a barrier.
    if CUBE_POS < images * along_z * along_y * along_x * across {
        let width = N::value();
        let stages = comptime!(t.stages());
        let first_n = CUBE_POS % across * t.n;
        let left = leave_brick(CUBE_POS / across, first_n, along_z, along_y, along_x, t);
        let rows = comptime!(t.halo().iter().product::<usize>());
        let mut halo = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(rows * t.pitch() / width), 16usize);
        let all_stages = comptime!(t.kernel[2] * t.n * t.pitch() / width);
        let mut weights = SharedMemory::<Vector<F, N>>::new_aligned(all_stages, 16usize);
        let barriers = stage_barriers(stages);

        let mut sums = zero_sums(comptime!(plane_blocks(t.m(), t.n, planes)));
        let row = lane_row(t, planes, step);

        let taps = comptime!(t.kernel[0] * t.kernel[1] * t.kernel[2]);
        let lines = comptime!(t.kernel[0] * t.kernel[1]);
        let ahead = comptime!(t.kernel[2] - 1);
        let chunks = g.ci.div_ceil(t.chunk);
        let steps = chunks * taps;
        // The step that is staged next.
        let mut tap = 0usize;
        let mut channel = 0usize;
        #[unroll]
        for s in 0..ahead {
            stage_weights(w, &mut weights, &g, first_n, tap, channel, s, t);
            commit_stage(&barriers, s, stages);
            tap += 1;
        }
        for chunk in 0..chunks {
            sync_cube();
            let brick = brick(&left, t);
            let from = chunk * t.chunk;
            if comptime!(source == Source::Two) {
                if from < first {
                    fill(x, &mut halo, norm, &g, &brick, first, from, t, source);
                } else {
                    fill(second, &mut halo, norm, &g, &brick, g.ci - first, from - first, t, source);
                }
            } else {
                fill(x, &mut halo, norm, &g, &brick, g.ci, from, t, source);
            }
            for line in 0..lines {
                let above = line / comptime!(t.kernel[1]) * comptime!(t.halo()[1]) + line % comptime!(t.kernel[1]);
                let from = above * comptime!(t.halo()[2] * t.pitch() / width);
                #[unroll]
                for s in 0..comptime!(t.kernel[2]) {
                    await_stage(&barriers, (chunk * lines + line) as u32, s, stages);
                    let next = comptime!((s + ahead) % t.kernel[2]);
                    if (chunk * lines + line) * comptime!(t.kernel[2]) + s + ahead < steps {
                        if tap == taps {
                            tap = 0;
                            channel += t.chunk;
                        }
                        stage_weights(w, &mut weights, &g, first_n, tap, channel, next, t);
                        commit_stage(&barriers, next, stages);
                        tap += 1;
                    }
                    let at = from + comptime!(s * t.pitch() / width);
                    multiply_tap::<F, N>(&halo, &weights, &mut sums, row, at, s, t, planes, step);
                }
            }
        }
        let brick = brick(&left, t);
        store_sums::<F, P, Brick>(
            y,
            b,
            residual,
            &g,
            &mut sums,
            &brick,
            brick.co,
            &epilogue,
            t.m(),
            t.n,
            planes,
            finish,
        );
        if with_moments {
            // SAFETY: all units are past their last read of the halo behind the barrier that `store_moments` begins with.
            unsafe { halo.free() };
            store_moments(moments, &g, &sums, &brick, t, planes);
        }
    }
}
