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

#[cfg(test)]
mod tests {
    use super::*;

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
