//! Eight lanes of f64 as an array. Loops over them contain only arithmetic, so that the compiler turns each into
//! vector instructions; they use `&` and selects, because a branch would prevent that.

use super::CodeTable;
use super::vector::{BitCodes, F64_LANES, F64Vector};

/// `FUSED` means that a fused multiply-add is one instruction, and rounding down too. Elsewhere they would be library calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct F64Array<const FUSED: bool>([f64; F64_LANES]);

/// 1 in the lanes that take part, else 0.
type Mask = [f64; F64_LANES];

/// A code per lane.
type Codes = [u32; F64_LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f64) -> [f64; F64_LANES] {
    std::array::from_fn(f)
}

#[inline(always)]
pub(super) fn first_lanes(count: usize) -> Mask {
    let count = count as f64;
    each(|i| if (i as f64) < count { 1.0 } else { 0.0 })
}

#[inline(always)]
pub(super) fn lanes_with_bit(bytes: &[u8; F64_LANES], bit: usize) -> Mask {
    each(|i| f64::from(i32::from(bytes[i] >> bit & 1)))
}

#[inline(always)]
pub(super) fn zero_codes() -> Codes {
    [0; F64_LANES]
}

impl<const FUSED: bool> F64Array<FUSED> {
    #[inline(always)]
    fn fused(a: f64, b: f64, c: f64) -> f64 {
        if FUSED { a.mul_add(b, c) } else { a * b + c }
    }

    #[inline(always)]
    pub(super) fn splat(v: f64) -> Self {
        Self([v; F64_LANES])
    }

    #[inline(always)]
    pub(super) fn ramp() -> Self {
        Self(each(|i| i as f64))
    }

    #[inline(always)]
    pub(super) fn widen(from: &[f32]) -> Self {
        let from = &from[..F64_LANES];
        Self(each(|i| f64::from(from[i])))
    }

    #[inline(always)]
    pub(super) fn look_up<const WORDS: usize>(self, table: CodeTable<'_, WORDS>, mask: Mask) -> Codes {
        let len = table.len() as f64;
        // One check for all lanes, which NaN fails.
        assert!(self.0.iter().fold(true, |ok, &at| ok & (at >= 0.0) & (at < len)), "a position outside the table");
        std::array::from_fn(|i| {
            // SAFETY:
            // - every lane is a number from 0 to below the table's length, so it converts, and its code exists,
            // - masks are 0 or 1.
            unsafe {
                let code = table.first().add(WORDS * self.0[i].to_int_unchecked::<usize>());
                let mut word = u32::from(*code);
                if WORDS == 2 {
                    word |= u32::from(*code.add(1)) << 16;
                }
                word * mask[i].to_int_unchecked::<u32>()
            }
        })
    }
}

impl<const FUSED: bool> F64Vector for F64Array<FUSED> {
    type Mask = Mask;
    type Codes = Codes;

    #[inline(always)]
    fn store(self, to: &mut [f64]) {
        to[..F64_LANES].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(each(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(each(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(each(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(each(|i| Self::fused(self.0[i], a.0[i], b.0[i])))
    }

    #[inline(always)]
    fn clamp(self, low: Self, high: Self) -> Self {
        let below = each(|i| if self.0[i] < high.0[i] { self.0[i] } else { high.0[i] });
        Self(each(|i| if below[i] > low.0[i] { below[i] } else { low.0[i] }))
    }

    #[inline(always)]
    fn floor(self) -> Self {
        // Without the instruction: a conversion to an integer and back, which is exact below 2^53.
        Self(each(|i| if FUSED { self.0[i].floor() } else { self.0[i] as i64 as f64 }))
    }

    #[inline(always)]
    fn keep(self, mask: Mask) -> Self {
        Self(each(|i| if mask[i] > 0.0 { self.0[i] } else { 0.0 }))
    }

    #[inline(always)]
    fn add_where(self, mask: Mask, v: Self) -> Self {
        Self(each(|i| Self::fused(v.0[i], mask[i], self.0[i])))
    }

    #[inline(always)]
    fn add_product_where(self, mask: Mask, a: Self, b: Self) -> Self {
        Self(each(|i| Self::fused(a.0[i] * mask[i], b.0[i], self.0[i])))
    }

    #[inline(always)]
    fn total(self) -> f64 {
        let four: [f64; 4] = std::array::from_fn(|i| self.0[i] + self.0[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    fn between(self, low: Self, high: Self, closed: bool, mask: Mask) -> Mask {
        let above = |i: usize| if closed { self.0[i] >= low.0[i] } else { self.0[i] > low.0[i] };
        each(|i| if above(i) & (self.0[i] < high.0[i]) { mask[i] } else { 0.0 })
    }

    #[inline(always)]
    fn all(mask: Mask) -> bool {
        mask.iter().fold(1.0, |all, m| all * m) > 0.0
    }
}

impl<const FUSED: bool> BitCodes<F64Array<FUSED>> for Codes {
    #[inline(always)]
    fn common(self, bits: u32) -> Option<u32> {
        let differ = self.iter().fold(0, |all, code| all | (code ^ self[0]));
        (differ & bits == 0).then_some(self[0] & bits)
    }

    #[inline(always)]
    fn bilinear(self, shift: u32) -> [F64Array<FUSED>; 4] {
        let bit = |i: usize, k: u32| (self[i] >> (shift + k) & 1) as i32;
        let constant = |i| bit(i, 0);
        let x = |i| bit(i, 1) - bit(i, 0);
        let y = |i| bit(i, 2) - bit(i, 0);
        let xy = |i| bit(i, 3) - bit(i, 2) - x(i);
        [
            F64Array(each(|i| f64::from(constant(i)))),
            F64Array(each(|i| f64::from(x(i)))),
            F64Array(each(|i| f64::from(y(i)))),
            F64Array(each(|i| f64::from(xy(i)))),
        ]
    }
}
