//! Activations on the CPU: one pass, memory bound.

use rayon::prelude::*;

use crate::memory::Buffer;
use crate::ops::simd::{F32Vector, Isa, Kernel, LeakyRelu, Simd};

/// Number of elements of a task: large enough to hide the overhead of a task, small enough for L2.
const CHUNK: usize = 1 << 15;

/// The ReLU for a slope of 0.
pub(super) fn leaky_relu(x: &[f32], slope: f32) -> Buffer {
    leaky_relu_with(Isa::widest(), x, slope)
}

fn leaky_relu_with(isa: Isa, x: &[f32], slope: f32) -> Buffer {
    let mut y = Buffer::unwritten(x.len());
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| isa.run(Activate { x, y, slope }));
    y
}

/// The activation of a slice.
struct Activate<'a> {
    x: &'a [f32],
    /// The output, of the same length as `x`.
    y: &'a mut [f32],
    slope: f32,
}

impl Kernel for Activate<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (activation, lanes) = (LeakyRelu::new(simd, self.slope), S::F32::LANES);
        let (mut xs, mut ys) = (self.x.chunks_exact(lanes), self.y.chunks_exact_mut(lanes));
        for (x, y) in (&mut xs).zip(&mut ys) {
            activation.of(simd.load(x)).store(y);
        }
        activation.of(simd.load_partial(xs.remainder())).store_partial(ys.into_remainder());
    }
}

/// dy where x > 0, slope * dy otherwise.
pub(super) fn leaky_relu_backward(x: &[f32], slope: f32, dy: &[f32]) -> Buffer {
    leaky_relu_backward_with(Isa::widest(), x, slope, dy)
}

fn leaky_relu_backward_with(isa: Isa, x: &[f32], slope: f32, dy: &[f32]) -> Buffer {
    let mut dx = Buffer::unwritten(x.len());
    let chunks = dx.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK).zip(dy.par_chunks(CHUNK)));
    chunks.for_each(|(dx, (x, dy))| isa.run(Differentiate { x, dy, dx, slope }));
    dx
}

/// The gradient of a slice; all slices are of one length.
struct Differentiate<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    slope: f32,
}

impl Kernel for Differentiate<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (slope, lanes) = (simd.splat(self.slope), S::F32::LANES);
        let whole = self.x.len() - self.x.len() % lanes;
        for i in (0..whole).step_by(lanes) {
            let dy = simd.load(&self.dy[i..]);
            simd.load(&self.x[i..]).select_positive(dy, slope.mul(dy)).store(&mut self.dx[i..]);
        }
        let dy = simd.load_partial(&self.dy[whole..]);
        simd.load_partial(&self.x[whole..]).select_positive(dy, slope.mul(dy)).store_partial(&mut self.dx[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_passes_the_gradient_on() {
        let values = [f32::NEG_INFINITY, -3.0, -0.0, 0.0, 1e-40, 2.5, f32::INFINITY, f32::NAN];
        for isa in Isa::available() {
            for len in [0, 1, 37, CHUNK + 5] {
                let x: Vec<f32> = values.iter().copied().cycle().take(len).collect();
                let dy: Vec<f32> = (0..len).map(|i| (i % 5) as f32 - 2.0).collect();
                for slope in [0.0, 0.25, 1.0] {
                    let dx = leaky_relu_backward_with(isa, &x, slope, &dy);
                    for ((x, dy), dx) in x.iter().zip(&dy).zip(dx.iter()) {
                        let want = if *x > 0.0 { *dy } else { slope * dy };
                        assert_eq!(dx.to_bits(), want.to_bits(), "{isa:?}, slope {slope}: {dx} of {x} and {dy}");
                    }
                }
            }
        }
    }

    /// Every operation with a leaky ReLU on the CPU uses the function that is tested here.
    #[test]
    fn every_instruction_set_gives_the_documented_values() {
        let values =
            [f32::NEG_INFINITY, f32::MIN, -3.0, -1e-40, -0.0, 0.0, 1e-40, 2.5, f32::MAX, f32::INFINITY, f32::NAN];
        for isa in Isa::available() {
            for len in [0, 1, 7, 16, 37, CHUNK + 5] {
                let x: Vec<f32> = values.iter().copied().cycle().take(len).collect();
                for slope in [0.0, 0.01, 1.0, -0.5] {
                    let y = leaky_relu_with(isa, &x, slope);
                    for (&x, y) in x.iter().zip(y.iter()) {
                        let want = if x > 0.0 {
                            x
                        } else if slope != 0.0 {
                            slope * x
                        } else if x < 0.0 {
                            0.0
                        } else {
                            x
                        };
                        let same = y.to_bits() == want.to_bits() || y.is_nan() && want.is_nan();
                        assert!(same, "{isa:?}, slope {slope}: {y} of {x}, expected {want}");
                    }
                }
            }
        }
    }
}
