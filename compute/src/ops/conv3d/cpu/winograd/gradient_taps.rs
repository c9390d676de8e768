//! Gᵀ of the sums over the tiles.

use crate::ops::simd::{F32Vector, Kernel, Simd};

/// The taps' gradients of one input channel.
pub(super) struct Finish<'a> {
    /// [points][row] of each part, added in order.
    pub parts: &'a [&'a [f32]],
    /// Floats from a point to the next in a part.
    pub point: usize,
    pub deep: bool,
    /// [taps][row]: whole vectors.
    pub taps: &'a mut [f32],
    pub row: usize,
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.deep { self.depth::<S, 4>(simd) } else { self.depth::<S, 1>(simd) }
    }
}

impl Finish<'_> {
    /// With `D` points along z.
    #[inline(always)]
    fn depth<S: Simd, const D: usize>(self, simd: S) {
        for channel in (0..self.row).step_by(S::F32::LANES) {
            // Along x and y first: [z][ky][kx].
            let mut planes = [[[simd.splat(0.0); 3]; 3]; D];
            for (i, plane) in planes.iter_mut().enumerate() {
                let mut along_x = [[simd.splat(0.0); 3]; 4];
                for (j, along_x) in along_x.iter_mut().enumerate() {
                    let mut u = [simd.splat(0.0); 4];
                    for (k, u) in u.iter_mut().enumerate() {
                        for part in self.parts {
                            *u = u.add(simd.load(&part[((i * 4 + j) * 4 + k) * self.point + channel..]));
                        }
                    }
                    *along_x = taps(simd, u);
                }
                for kx in 0..3 {
                    let along_y = taps(simd, [along_x[0][kx], along_x[1][kx], along_x[2][kx], along_x[3][kx]]);
                    for ky in 0..3 {
                        plane[ky][kx] = along_y[ky];
                    }
                }
            }
            for ky in 0..3 {
                for kx in 0..3 {
                    let mut along_z = [planes[0][ky][kx]; 3];
                    if D == 4 {
                        let z =
                            [planes[0][ky][kx], planes[1 % D][ky][kx], planes[2 % D][ky][kx], planes[3 % D][ky][kx]];
                        along_z = taps(simd, z);
                    }
                    for kz in 0..if D == 4 { 3 } else { 1 } {
                        let tap = (kz * 3 + ky) * 3 + kx;
                        along_z[kz].store(&mut self.taps[tap * self.row + channel..]);
                    }
                }
            }
        }
    }
}

/// Gᵀ u.
#[inline(always)]
fn taps<S: Simd>(simd: S, [u0, u1, u2, u3]: [S::F32; 4]) -> [S::F32; 3] {
    let half = simd.splat(0.5);
    let (sum, difference) = (u1.add(u2).mul(half), u1.sub(u2).mul(half));
    [u0.add(sum), difference, sum.add(u3)]
}
