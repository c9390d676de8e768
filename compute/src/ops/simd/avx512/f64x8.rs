//! Arithmetic on eight f64. Coefficients of a code come from tables in registers: a permutation by the code is a look-up
//! that ignores the bits above its own, so nothing is masked off and nothing converted.

use std::arch::x86_64::*;

use super::{Codes, F64x8};
use crate::ops::simd::{BitCodes, F64_LANES, F64Vector};

/// The bilinear coefficients, by the code's bits 0 to 2; of xy by bits 0 to 3.
const CONSTANT: [f64; 8] = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
const X: [f64; 8] = [0.0, -1.0, 1.0, 0.0, 0.0, -1.0, 1.0, 0.0];
const Y: [f64; 8] = [0.0, -1.0, 0.0, -1.0, 1.0, 0.0, 1.0, 0.0];
const XY: [[f64; 8]; 2] = [[0.0, 1.0, -1.0, 0.0, -1.0, 0.0, -2.0, -1.0], [1.0, 2.0, 0.0, 1.0, 0.0, 1.0, -1.0, 0.0]];

impl F64Vector for F64x8 {
    type Mask = __mmask8;
    type Codes = Codes;

    #[inline(always)]
    fn store(self, to: &mut [f64]) {
        // SAFETY:
        // - the vector proves AVX-512,
        // - the slice has eight values and is borrowed alone.
        unsafe { _mm512_storeu_pd(to[..F64_LANES].as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_add_pd(self.0, other.0)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_sub_pd(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_mul_pd(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_fmadd_pd(self.0, a.0, b.0)) }
    }

    #[inline(always)]
    fn clamp(self, low: Self, high: Self) -> Self {
        // Of a NaN and a number the instructions give the second.
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_max_pd(_mm512_min_pd(self.0, high.0), low.0)) }
    }

    #[inline(always)]
    fn floor(self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_roundscale_pd::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0)) }
    }

    #[inline(always)]
    fn keep(self, mask: __mmask8) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_maskz_mov_pd(mask, self.0)) }
    }

    #[inline(always)]
    fn add_where(self, mask: __mmask8, v: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_mask_add_pd(self.0, mask, self.0, v.0)) }
    }

    #[inline(always)]
    fn add_product_where(self, mask: __mmask8, a: Self, b: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe { Self(_mm512_mask3_fmadd_pd(a.0, b.0, self.0, mask)) }
    }

    #[inline(always)]
    fn total(self) -> f64 {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe {
            let four = _mm256_add_pd(_mm512_castpd512_pd256(self.0), _mm512_extractf64x4_pd::<1>(self.0));
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two))
        }
    }

    #[inline(always)]
    fn between(self, low: Self, high: Self, closed: bool, mask: __mmask8) -> __mmask8 {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe {
            let above = if closed {
                _mm512_mask_cmp_pd_mask::<_CMP_GE_OQ>(mask, self.0, low.0)
            } else {
                _mm512_mask_cmp_pd_mask::<_CMP_GT_OQ>(mask, self.0, low.0)
            };
            _mm512_mask_cmp_pd_mask::<_CMP_LT_OQ>(above, self.0, high.0)
        }
    }

    #[inline(always)]
    fn all(mask: __mmask8) -> bool {
        mask == 0xff
    }
}

impl BitCodes<F64x8> for Codes {
    #[inline(always)]
    fn common(self, bits: u32) -> Option<u32> {
        // SAFETY:
        // - the vector proves AVX-512.
        unsafe {
            let first = _mm512_broadcastq_epi64(_mm512_castsi512_si128(self.0));
            let differ = _mm512_xor_si512(self.0, first);
            let same = _mm512_test_epi64_mask(differ, _mm512_set1_epi64(i64::from(bits))) == 0;
            same.then(|| _mm_cvtsi128_si32(_mm512_castsi512_si128(self.0)) as u32 & bits)
        }
    }

    #[inline(always)]
    fn bilinear(self, shift: u32) -> [F64x8; 4] {
        // SAFETY:
        // - the vector proves AVX-512,
        // - the tables have eight values each.
        unsafe {
            let code = _mm512_srl_epi64(self.0, _mm_cvtsi32_si128(shift as i32));
            [
                F64x8(_mm512_permutexvar_pd(code, _mm512_loadu_pd(CONSTANT.as_ptr()))),
                F64x8(_mm512_permutexvar_pd(code, _mm512_loadu_pd(X.as_ptr()))),
                F64x8(_mm512_permutexvar_pd(code, _mm512_loadu_pd(Y.as_ptr()))),
                F64x8(_mm512_permutex2var_pd(_mm512_loadu_pd(XY[0].as_ptr()), code, _mm512_loadu_pd(XY[1].as_ptr()))),
            ]
        }
    }
}
