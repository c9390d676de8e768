//! Addition and concatenation on the CPU: memory bound.

use rayon::prelude::*;

use crate::memory::Buffer;
use crate::ops::simd::{F32Vector, Isa, Kernel, LeakyRelu, Simd};

/// Number of elements of a task: large enough to hide the overhead of a task, small enough for L2.
const CHUNK: usize = 1 << 15;

pub(super) fn add(a: &[f32], b: &[f32]) -> Buffer {
    let mut y = Buffer::unwritten(a.len());
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK))).for_each(|(y, (a, b))| {
        for (y, (a, b)) in y.iter_mut().zip(a.iter().zip(b)) {
            *y = a + b;
        }
    });
    y
}

/// leaky_relu(a + b, slope).
pub(super) fn add_leaky_relu(a: &[f32], b: &[f32], slope: f32) -> Buffer {
    let mut y = Buffer::unwritten(a.len());
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK))).for_each(|(y, (a, b))| {
        Isa::widest().run(AddActivated { a, b, y, slope });
    });
    y
}

/// The activation of the sums of some values.
struct AddActivated<'a> {
    a: &'a [f32],
    /// As long as `a`.
    b: &'a [f32],
    /// As long as `a`.
    y: &'a mut [f32],
    slope: f32,
}

impl Kernel for AddActivated<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (activation, lanes) = (LeakyRelu::new(simd, self.slope), S::F32::LANES);
        let (mut a, mut b) = (self.a.chunks_exact(lanes), self.b.chunks_exact(lanes));
        let mut ys = self.y.chunks_exact_mut(lanes);
        for ((a, b), y) in (&mut a).zip(&mut b).zip(&mut ys) {
            activation.of(simd.load(a).add(simd.load(b))).store(y);
        }
        let rest = simd.load_partial(a.remainder()).add(simd.load_partial(b.remainder()));
        activation.of(rest).store_partial(ys.into_remainder());
    }
}

/// Joins `parts`, each [positions, channels] with its channels, to [positions, total].
pub(super) fn concat(parts: &[(&[f32], usize)], positions: usize, total: usize) -> Buffer {
    let mut y = Buffer::unwritten(positions * total);
    if y.is_empty() {
        return y;
    }
    let rows = (CHUNK / total).max(1);
    y.par_chunks_mut(rows * total).enumerate().for_each(|(chunk, y)| {
        let mut first = 0;
        for &(x, channels) in parts.iter().filter(|(_, channels)| *channels > 0) {
            let x = x[chunk * rows * channels..].chunks_exact(channels);
            for (y, x) in y.chunks_exact_mut(total).zip(x) {
                y[first..first + channels].copy_from_slice(x);
            }
            first += channels;
        }
    });
    y
}

/// The channels from `first` on of x [positions, total] as [positions, channels].
pub(super) fn take_channels(x: &[f32], total: usize, first: usize, channels: usize) -> Buffer {
    let positions = x.len() / total.max(1);
    let mut y = Buffer::unwritten(positions * channels);
    if y.is_empty() {
        return y;
    }
    let rows = (CHUNK / total).max(1);
    y.par_chunks_mut(rows * channels).zip(x.par_chunks(rows * total)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(total)) {
            y.copy_from_slice(&x[first..first + channels]);
        }
    });
    y
}

/// a + factor * b.
pub(super) fn add_scaled(a: &[f32], b: &[f32], factor: f32) -> Buffer {
    let mut y = Buffer::unwritten(a.len());
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK))).for_each(|(y, (a, b))| {
        for (y, (a, b)) in y.iter_mut().zip(a.iter().zip(b)) {
            *y = a + factor * b;
        }
    });
    y
}

/// factor * x.
pub(super) fn scale(x: &[f32], factor: f32) -> Buffer {
    let mut y = Buffer::unwritten(x.len());
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = factor * x);
    });
    y
}
