//! Plain code for any machine, with which the tests compare the other instruction sets.

use super::array::F64Array;
use super::vector::{F32Vector, F64_LANES, F64Vector, Simd};
use super::{CodeTable, array};

/// The token that needs no detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Portable;

/// Four lanes, the width of the vector registers that every x86-64 and AArch64 has.
const LANES: usize = 4;

/// A multiplication with an addition is one instruction on every AArch64; elsewhere `f64::mul_add` may be a library call.
type F64 = F64Array<{ cfg!(target_arch = "aarch64") }>;

impl Simd for Portable {
    type F32 = [f32; LANES];
    type F64 = F64;

    #[inline(always)]
    fn splat(self, v: f32) -> Self::F32 {
        [v; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F32 {
        let from = &from[..LANES];
        std::array::from_fn(|i| from[i])
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> Self::F32 {
        // SAFETY:
        // - the caller promises LANES floats.
        unsafe { from.cast::<Self::F32>().read_unaligned() }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::F32 {
        std::array::from_fn(|i| from.get(i).copied().unwrap_or(0.0))
    }

    #[inline(always)]
    fn splat_f64(self, v: f64) -> F64 {
        F64::splat(v)
    }

    #[inline(always)]
    fn ramp(self) -> F64 {
        F64::ramp()
    }

    #[inline(always)]
    fn widen(self, from: &[f32]) -> F64 {
        F64::widen(from)
    }

    #[inline(always)]
    fn first_lanes(self, count: usize) -> <F64 as F64Vector>::Mask {
        array::first_lanes(count)
    }

    #[inline(always)]
    fn lanes_with_bit(self, bytes: &[u8; F64_LANES], bit: usize) -> <F64 as F64Vector>::Mask {
        array::lanes_with_bit(bytes, bit)
    }

    #[inline(always)]
    fn zero_codes(self) -> <F64 as F64Vector>::Codes {
        array::zero_codes()
    }

    #[inline(always)]
    fn look_up<const WORDS: usize>(
        self,
        table: CodeTable<'_, WORDS>,
        at: F64,
        mask: <F64 as F64Vector>::Mask,
    ) -> <F64 as F64Vector>::Codes {
        at.look_up(table, mask)
    }
}

impl F32Vector for [f32; LANES] {
    const LANES: usize = LANES;

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&self);
    }

    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32) {
        // SAFETY:
        // - the caller promises LANES floats that nothing else touches.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        for (to, v) in to.iter_mut().zip(self) {
            *to = v;
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        // Not `f32::mul_add`: without the instruction that is a library call for each lane.
        std::array::from_fn(|i| self[i] * a[i] + b[i])
    }

    #[inline(always)]
    fn not_below_zero(self) -> Self {
        self.map(|v| if v < 0.0 { 0.0 } else { v })
    }

    #[inline(always)]
    fn if_positive_or(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > 0.0 { self[i] } else { other[i] })
    }

    #[inline(always)]
    fn select_positive(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| if self[i] > 0.0 { a[i] } else { b[i] })
    }
}
