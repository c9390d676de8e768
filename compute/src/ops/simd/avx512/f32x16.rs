//! Arithmetic on sixteen f32.

use std::arch::x86_64::*;

use super::{F32x16, LANES, first_lanes};
use crate::ops::simd::F32Vector;

impl F32Vector for F32x16 {
    const LANES: usize = LANES;

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        // SAFETY:
        // - the slice has sixteen floats and is borrowed alone.
        unsafe { self.store_at(to[..LANES].as_mut_ptr()) }
    }

    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32) {
        // SAFETY:
        // - the vector proves AVX-512,
        // - the caller promises sixteen floats that nothing else touches.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let mask = first_lanes(to.len());
        // SAFETY:
        // - the vector proves AVX-512,
        // - the mask has the lanes that `to` has room for; the others are not written.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_fmadd_ps(self.0, a.0, b.0)) }
    }

    #[inline(always)]
    fn not_below_zero(self) -> Self {
        // Of zeros, and of a NaN and a number, the instruction gives the second.
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_max_ps(_mm512_setzero_ps(), self.0)) }
    }

    #[inline(always)]
    fn if_positive_or(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe {
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps());
            Self(_mm512_mask_mov_ps(other.0, positive, self.0))
        }
    }

    #[inline(always)]
    fn select_positive(self, a: Self, b: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe {
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps());
            Self(_mm512_mask_mov_ps(b.0, positive, a.0))
        }
    }
}
