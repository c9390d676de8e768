//! Lanes as arrays. Loops over them hold nothing but arithmetic, so that the compiler turns each into vector
//! instructions; `&` and selects throughout: a branch would keep it from that.

use super::doubles::{Doubles, LANES, Plane};

/// `FUSED`: does a multiplication with an addition take one instruction, and rounding down another? Otherwise they are
/// calls.
#[derive(Clone, Copy)]
pub(super) struct Lanes<const FUSED: bool>([f64; LANES]);

type Mask = [f64; LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f64) -> [f64; LANES] {
    std::array::from_fn(f)
}

impl<const FUSED: bool> Lanes<FUSED> {
    #[inline(always)]
    fn fused(a: f64, b: f64, c: f64) -> f64 {
        if FUSED { a.mul_add(b, c) } else { a * b + c }
    }
}

impl<const FUSED: bool> Doubles for Lanes<FUSED> {
    /// 1 where meant, else 0.
    type Mask = Mask;
    type Codes = [u32; LANES];

    #[inline(always)]
    unsafe fn splat(v: f64) -> Self {
        Self([v; LANES])
    }

    #[inline(always)]
    unsafe fn ramp() -> Self {
        Self(each(|i| i as f64))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(each(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(each(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        Self(each(|i| Self::fused(self.0[i], a.0[i], b.0[i])))
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        let below = each(|i| if self.0[i] < high.0[i] { self.0[i] } else { high.0[i] });
        Self(each(|i| if below[i] > low.0[i] { below[i] } else { low.0[i] }))
    }

    #[inline(always)]
    unsafe fn floor(self) -> Self {
        // Without the instruction: cell numbers are far below 2^63, and not negative.
        Self(each(|i| if FUSED { self.0[i].floor() } else { self.0[i] as i64 as f64 }))
    }

    #[inline(always)]
    unsafe fn keep(self, mask: Mask) -> Self {
        Self(each(|i| if mask[i] > 0.0 { self.0[i] } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn add_where(self, mask: Mask, v: Self) -> Self {
        Self(each(|i| Self::fused(v.0[i], mask[i], self.0[i])))
    }

    #[inline(always)]
    unsafe fn add_product_where(self, mask: Mask, a: Self, b: Self) -> Self {
        Self(each(|i| Self::fused(a.0[i] * mask[i], b.0[i], self.0[i])))
    }

    #[inline(always)]
    unsafe fn total(self) -> f64 {
        let four: [f64; 4] = std::array::from_fn(|i| self.0[i] + self.0[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    unsafe fn first(count: usize) -> Mask {
        let count = count as f64;
        each(|i| if (i as f64) < count { 1.0 } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn between(self, low: Self, high: Self, closed: bool, mask: Mask) -> Mask {
        // NaN is between nothing.
        let above = |i: usize| if closed { self.0[i] >= low.0[i] } else { self.0[i] > low.0[i] };
        each(|i| if above(i) & (self.0[i] < high.0[i]) { mask[i] } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn all(mask: Mask) -> bool {
        mask.iter().fold(1.0, |all, m| all * m) > 0.0
    }

    #[inline(always)]
    unsafe fn with_bit(bytes: &[u8; LANES], bit: usize) -> Mask {
        each(|i| f64::from(i32::from(bytes[i] >> bit & 1)))
    }

    #[inline(always)]
    unsafe fn gather<const WORDS: usize>(codes: *const u16, at: Self, mask: Mask) -> [u32; LANES] {
        // SAFETY: codes at places that are meant exist, and the first exists besides; whole numbers below 2^53 convert.
        std::array::from_fn(|i| unsafe {
            let at = if mask[i] > 0.0 { at.0[i] } else { 0.0 };
            let code = codes.add(WORDS * at.to_int_unchecked::<usize>());
            let mut word = u32::from(*code);
            if WORDS == 2 {
                word |= u32::from(*code.add(1)) << 16;
            }
            word * mask[i].to_int_unchecked::<u32>()
        })
    }

    #[inline(always)]
    unsafe fn no_codes() -> [u32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn common(codes: [u32; LANES], bits: u32) -> Option<u32> {
        let differ = codes.iter().fold(0, |all, code| all | (code ^ codes[0]));
        (differ & bits == 0).then_some(codes[0] & bits)
    }

    #[inline(always)]
    unsafe fn plane(codes: [u32; LANES], shift: u32) -> Plane<Self> {
        let bit = |i: usize, k: u32| (codes[i] >> (shift + k) & 1) as i32;
        let constant = |i| bit(i, 0);
        let x = |i| bit(i, 1) - bit(i, 0);
        let y = |i| bit(i, 2) - bit(i, 0);
        let xy = |i| bit(i, 3) - bit(i, 2) - x(i);
        [
            Self(each(|i| f64::from(constant(i)))),
            Self(each(|i| f64::from(x(i)))),
            Self(each(|i| f64::from(y(i)))),
            Self(each(|i| f64::from(xy(i)))),
        ]
    }
}
