//! Convolution of a few input channels to many output channels: a network's first layer.
//!
//! With one input channel a 3x3x3 sum has 27 terms, and in half precision 64 bytes of y are written for 2 read: memory alone
//! would take 45 us for 1 -> 32 at 128^3 (134 MB at 3 TB/s), the FMAs 61 us (1.8 G at 1.755 GHz; an H100). A matrix product pads
//! its 27 terms to 32 and fetches its A an element at a time; here everything but FMAs is made rare instead.
//!
//! A cube makes a box of output voxels by `groups` runs of [`RUN`] channels. It keeps the box's input with its halo, channel
//! by channel, and the weights in shared memory, both as f32. A unit makes [`VOXELS`] neighbours along x by a run of
//! channels: for one row of taps it loads (VOXELS - 1) * stride + kw inputs and kw * RUN weights, all in vectors of four, for
//! VOXELS * kw * RUN FMAs. With 3 taps that is 3 + 6 loads and 192 FMAs. Units that share a weight or an input read the
//! same word (a broadcast); those along x read 32 bytes apart, those of the next row `pitch` words on, which `Brick::pitch`
//! keeps away from whole multiples of 32 words.
//!
//! A box of 4 x 4 x 32 reads 2.3 inputs a voxel, of which there are few; every output is written once, 16 bytes at a time.

use cubecl::prelude::*;

use super::{Geometry, is_inside};

/// Voxels of a unit, along x.
pub const VOXELS: usize = 8;
/// Channels of a unit.
pub const RUN: usize = 8;
/// Floats loaded from shared memory at a time.
const QUAD: usize = 4;

/// What a cube makes, and of what. Everything is counted in voxels of the output but `kernel`, `stride` and `dilation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Brick {
    /// Along z.
    pub z: usize,
    /// Along y.
    pub y: usize,
    /// Along x, a multiple of [`VOXELS`].
    pub x: usize,
    /// Runs of channels.
    pub groups: usize,
    /// Input channels.
    pub ci: usize,
    /// Taps (z, y, x).
    pub kernel: [usize; 3],
    /// (z, y, x).
    pub stride: [usize; 3],
    /// (z, y, x); 1 along x.
    pub dilation: [usize; 3],
}

impl Brick {
    /// Units of the cube.
    pub fn units(&self) -> usize {
        self.z * self.y * (self.x / VOXELS) * self.groups
    }

    /// Input slices and rows under the box.
    fn slices(&self) -> (usize, usize) {
        let halo = |a: usize, out: usize| (out - 1) * self.stride[a] + (self.kernel[a] - 1) * self.dilation[a] + 1;
        (halo(0, self.z), halo(1, self.y))
    }

    /// Vectors that a unit loads for a row of taps.
    fn window(&self) -> usize {
        ((VOXELS - 1) * self.stride[2] + self.kernel[2]).div_ceil(QUAD)
    }

    /// Vectors of an input row in shared memory: up to the last unit's window, and odd, so that rows start in other banks.
    fn pitch(&self) -> usize {
        ((self.x / VOXELS - 1) * VOXELS * self.stride[2] / QUAD + self.window()) | 1
    }

    /// Vectors of input in shared memory.
    fn inputs(&self) -> usize {
        let (z, y) = self.slices();
        self.ci * z * y * self.pitch()
    }

    /// Vectors of weights in shared memory.
    fn weights(&self) -> usize {
        self.ci * self.kernel.iter().product::<usize>() * self.groups * (RUN / QUAD)
    }

    /// Bytes of shared memory.
    pub fn shared_bytes(&self) -> usize {
        (self.inputs() + self.weights()) * QUAD * size_of::<f32>()
    }
}

/// y [n, od, oh, ow, co] of x [n, d, h, w, ci] and w [co, kd, kh, kw, ci], one group; `b` [co] where `biased`. `S`, channels
/// stored at a time, is at most [`RUN`] and divides co. Cubes: runs of channels fastest, then boxes along x, y, z, images.
#[cube(launch_unchecked)]
pub fn conv3d_stem<F: Float, S: Size>(
    x: &Array<F>,
    w: &Array<F>,
    b: &Array<f32>,
    y: &mut Array<Vector<F, S>>,
    g: Geometry,
    images: usize,
    biased: u32,
    #[comptime] t: Brick,
) {
    let (kernel, stride) = comptime!((t.kernel, t.stride));
    let channels = comptime!(t.groups * RUN);
    let across = g.co.div_ceil(channels);
    let (boxes_x, boxes_y, boxes_z) = (g.x.output.div_ceil(t.x), g.y.output.div_ceil(t.y), g.z.output.div_ceil(t.z));
    // The same for all units of a cube: past the end none of them waits.
    if CUBE_POS < across * boxes_x * boxes_y * boxes_z * images {
        let first = CUBE_POS % across * channels;
        let corner = CUBE_POS / across;
        let ox = corner % boxes_x * t.x;
        let corner = corner / boxes_x;
        let oy = corner % boxes_y * t.y;
        let corner = corner / boxes_y;
        let oz = corner % boxes_z * t.z;
        let image = corner / boxes_z;

        let mut inputs = SharedMemory::<Vector<f32, Const<4>>>::new_aligned(comptime!(t.inputs()), 16usize);
        let mut weights = SharedMemory::<Vector<f32, Const<4>>>::new_aligned(comptime!(t.weights()), 16usize);
        fill_inputs(x, &mut inputs, &g, image, oz, oy, ox, t);
        fill_weights(w, &mut weights, &g, first, t);
        sync_cube();

        // Neighbouring units: neighbouring runs of channels, then along x, y and z.
        let unit = UNIT_POS as usize;
        let run = unit % t.groups;
        let place = unit / t.groups;
        let along = comptime!(t.x / VOXELS);
        let ux = place % along * VOXELS;
        let uy = place / along % t.y;
        let uz = place / along / t.y;

        let mut sums = Array::<Vector<f32, Const<4>>>::new(comptime!(VOXELS * RUN / QUAD));
        #[unroll]
        for i in 0..comptime!(VOXELS * RUN / QUAD) {
            sums[i] = Vector::new(0.0f32);
        }
        let (slices, rows) = comptime!(t.slices());
        for c in 0..t.ci {
            for kz in 0..comptime!(kernel[0]) {
                for ky in 0..comptime!(kernel[1]) {
                    let slice = c * slices + uz * comptime!(stride[0]) + kz * comptime!(t.dilation[0]);
                    let row = slice * rows + uy * comptime!(stride[1]) + ky * comptime!(t.dilation[1]);
                    let from = row * comptime!(t.pitch()) + ux * comptime!(stride[2]) / QUAD;
                    let mut window = Array::<Vector<f32, Const<4>>>::new(comptime!(t.window()));
                    #[unroll]
                    for i in 0..comptime!(t.window()) {
                        window[i] = inputs[from + i];
                    }
                    let taps = ((c * comptime!(kernel[0]) + kz) * comptime!(kernel[1]) + ky) * comptime!(kernel[2]);
                    #[unroll]
                    for kx in 0..comptime!(kernel[2]) {
                        #[unroll]
                        for quad in 0..comptime!(RUN / QUAD) {
                            let at = (taps + kx) * comptime!(t.groups * RUN / QUAD) + run * comptime!(RUN / QUAD);
                            let weight = weights[at + quad];
                            #[unroll]
                            for v in 0..VOXELS {
                                let at = comptime!(v * stride[2] + kx);
                                let value = window[comptime!(at / QUAD)][comptime!(at % QUAD)];
                                sums[comptime!(v * (RUN / QUAD) + quad)] += Vector::new(value) * weight;
                            }
                        }
                    }
                }
            }
        }

        let (vz, vy, vx) = (oz + uz, oy + uy, ox + ux);
        if vz < g.z.output && vy < g.y.output {
            let row = (image * g.z.output + vz) * g.y.output + vy;
            store::<F, S>(y, b, &sums, row * g.x.output, vx, g.x.output, first + run * RUN, g.co, biased);
        }
    }
}

/// The box's input with its halo, zero outside the image. A vector holds four neighbours along x of one channel.
#[cube]
fn fill_inputs<F: Float>(
    x: &Array<F>,
    inputs: &mut SharedMemory<Vector<f32, Const<4>>>,
    g: &Geometry,
    image: usize,
    oz: usize,
    oy: usize,
    ox: usize,
    #[comptime] t: Brick,
) {
    let pitch = comptime!(t.pitch());
    let (slices, rows) = comptime!(t.slices());
    for at in range_stepped(UNIT_POS as usize, comptime!(t.inputs()), comptime!(t.units())) {
        let row = at / pitch;
        let slice = row / rows;
        let c = slice / slices;
        // Counted from the first padding voxel.
        let px = ox * comptime!(t.stride[2]) + at % pitch * QUAD;
        let py = oy * comptime!(t.stride[1]) + row % rows;
        let pz = oz * comptime!(t.stride[0]) + slice % slices;
        let mut four = Vector::<f32, Const<4>>::new(0.0f32);
        if is_inside(&g.z, pz) && is_inside(&g.y, py) {
            let line = ((image * g.z.input + pz - g.z.padding) * g.y.input + py - g.y.padding) * g.x.input;
            #[unroll]
            for v in 0..QUAD {
                if is_inside(&g.x, px + v) {
                    four[v] = f32::cast_from(x[(line + px + v - g.x.padding) * t.ci + c]);
                }
            }
        }
        inputs[at] = four;
    }
}

/// The weights of the cube's channels, zero past the last: [ci, kd, kh, kw, channels], as they are read.
#[cube]
fn fill_weights<F: Float>(
    w: &Array<F>,
    weights: &mut SharedMemory<Vector<f32, Const<4>>>,
    g: &Geometry,
    first: usize,
    #[comptime] t: Brick,
) {
    let taps = comptime!(t.kernel.iter().product::<usize>());
    let quads = comptime!(t.groups * RUN / QUAD);
    for at in range_stepped(UNIT_POS as usize, comptime!(t.weights()), comptime!(t.units())) {
        let channel = first + at % quads * QUAD;
        let tap = at / quads % taps;
        let c = at / quads / taps;
        let mut four = Vector::<f32, Const<4>>::new(0.0f32);
        #[unroll]
        for v in 0..QUAD {
            if channel + v < g.co {
                four[v] = f32::cast_from(w[((channel + v) * taps + tap) * t.ci + c]);
            }
        }
        weights[at] = four;
    }
}

/// Bias, rounding and the store of a unit's voxels, from `vx` on in the row of `width` that starts at voxel `line`.
#[cube]
fn store<F: Float, S: Size>(
    y: &mut Array<Vector<F, S>>,
    b: &Array<f32>,
    sums: &Array<Vector<f32, Const<4>>>,
    line: usize,
    vx: usize,
    width: usize,
    channel: usize,
    co: usize,
    biased: u32,
) {
    let wide = S::value();
    #[unroll]
    for part in 0..comptime!(RUN / wide) {
        let n = channel + part * wide;
        if n < co {
            let mut bias = Vector::<f32, S>::new(0.0f32);
            if biased != 0 {
                #[unroll]
                for v in 0..wide {
                    bias[v] = b[n + v];
                }
            }
            #[unroll]
            for i in 0..VOXELS {
                if vx + i < width {
                    let mut value = bias;
                    #[unroll]
                    for v in 0..wide {
                        let at = comptime!(i * RUN + part * wide + v);
                        value[v] += sums[comptime!(at / QUAD)][comptime!(at % QUAD)];
                    }
                    y[((line + vx + i) * co + n) / wide] = Vector::cast_from(value);
                }
            }
        }
    }
}
