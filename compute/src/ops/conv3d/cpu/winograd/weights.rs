//! Transformed weights: U = G g along every axis with three taps.

use rayon::prelude::*;

use super::super::sums::LINE;
use crate::memory::Buffer;
use crate::ops::simd::Isa;

/// G of F(2, 3).
const G: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

/// The transformed weights of one convolution.
#[derive(Debug)]
pub(in crate::ops) struct TransformedWeights {
    pub(super) isa: Isa,
    pub(super) ci: usize,
    pub(super) co: usize,
    /// Whether the kernel has three taps along z, not one.
    deep: bool,
    /// [points][columns][ci][2 lanes]: a column is two registers of output channels, zero past the last.
    data: Buffer,
}

impl TransformedWeights {
    /// Of `w` [co, kd, 3, 3, ci] with kd 3 (`deep`) or 1.
    pub fn of(isa: Isa, [ci, co]: [usize; 2], deep: bool, w: &[f32]) -> Self {
        let width = 2 * isa.f32_lanes();
        let (points, columns) = (if deep { 64 } else { 16 }, co.div_ceil(width));
        let taps = if deep { 27 } else { 9 };
        let mut data = Buffer::unwritten(points * columns * ci * width);
        data.par_chunks_mut(ci * width).enumerate().for_each(|(i, block)| {
            let (point, column) = (i / columns, i % columns);
            let terms = terms(point, deep);
            let mut sum = vec![0.0f64; ci];
            block.fill(0.0);
            for lane in 0..width.min(co - column * width) {
                let rows = &w[(column * width + lane) * taps * ci..][..taps * ci];
                sum.fill(0.0);
                for &(tap, factor) in &terms {
                    for (sum, w) in sum.iter_mut().zip(&rows[tap * ci..]) {
                        *sum += factor * f64::from(*w);
                    }
                }
                for (to, sum) in block.chunks_exact_mut(width).zip(&sum) {
                    to[lane] = *sum as f32;
                }
            }
        });
        Self { isa, ci, co, deep, data }
    }

    /// Whether the weights were transformed for that instruction set, those channels and that kernel.
    pub fn is_for(&self, isa: Isa, channels: [usize; 2], deep: bool) -> bool {
        self.isa == isa && [self.ci, self.co] == channels && self.deep == deep
    }

    pub(super) fn points(&self) -> usize {
        if self.deep { 64 } else { 16 }
    }

    pub(super) fn lanes(&self) -> usize {
        self.isa.f32_lanes()
    }

    /// Output channels of a column.
    pub(super) fn width(&self) -> usize {
        2 * self.lanes()
    }

    pub(super) fn columns(&self) -> usize {
        self.co.div_ceil(self.width())
    }

    /// Floats of a tile's products, in whole cache lines.
    pub(super) fn row(&self) -> usize {
        (self.columns() * self.width()).next_multiple_of(LINE)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }

    /// Rows of a register block of the product: as many as the registers hold.
    pub(super) fn rows(&self) -> usize {
        if self.lanes() == 16 { 14 } else { 6 }
    }

    /// U [ci][2 lanes] of a point and a column.
    #[inline(always)]
    pub(super) fn column(&self, point: usize, column: usize) -> &[f32] {
        let len = self.ci * self.width();
        &self.data[(point * self.columns() + column) * len..][..len]
    }

    /// A value per output channel, zero past the last and without `bias`.
    pub(super) fn padded(&self, bias: Option<&[f32]>) -> Vec<f32> {
        let mut padded = vec![0.0; self.columns() * self.width()];
        if let Some(bias) = bias {
            padded[..self.co].copy_from_slice(bias);
        }
        padded
    }
}

/// The taps that a point sums up, with their factors.
fn terms(point: usize, deep: bool) -> Vec<(usize, f64)> {
    let (z, y, x) = (point / 16, point / 4 % 4, point % 4);
    let along_z: &[f64] = if deep { &G[z] } else { &[1.0] };
    let mut terms = Vec::new();
    for (kd, gz) in along_z.iter().enumerate() {
        for (kh, gy) in G[y].iter().enumerate() {
            for (kw, gx) in G[x].iter().enumerate() {
                let factor = gz * gy * gx;
                if factor != 0.0 {
                    terms.push(((kd * 3 + kh) * 3 + kw, factor));
                }
            }
        }
    }
    terms
}
