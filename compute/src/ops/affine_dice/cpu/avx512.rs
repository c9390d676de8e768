//! Lanes as an AVX-512 register. The coefficients of a cell's plane come from tables in registers: a permutation by the
//! code is a look-up that ignores the bits above its own, so nothing is masked off and nothing converted.

use std::arch::x86_64::*;

use super::doubles::{Doubles, LANES, Plane};

#[derive(Clone, Copy)]
pub(super) struct Zmm(__m512d);

/// Cells that one load takes in, half of them before the first lane's.
const STRETCH: i64 = 32;

/// Of corner bits 0 and 1, and of 0 and 2, by bits 0 to 2; of all four by bits 0 to 3.
const CONSTANT: [f64; 8] = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
const X: [f64; 8] = [0.0, -1.0, 1.0, 0.0, 0.0, -1.0, 1.0, 0.0];
const Y: [f64; 8] = [0.0, -1.0, 0.0, -1.0, 1.0, 0.0, 1.0, 0.0];
const XY: [[f64; 8]; 2] = [[0.0, 1.0, -1.0, 0.0, -1.0, 0.0, -2.0, -1.0], [1.0, 2.0, 0.0, 1.0, 0.0, 1.0, -1.0, 0.0]];

impl Doubles for Zmm {
    type Mask = __mmask8;
    /// Bits above the code's own are those of its neighbours.
    type Codes = __m512i;

    #[inline(always)]
    unsafe fn splat(v: f64) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_set1_pd(v)) }
    }

    #[inline(always)]
    unsafe fn ramp() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_setr_pd(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_add_pd(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_sub_pd(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_fmadd_pd(self.0, a.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // Of a NaN and a number these give the second.
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_max_pd(_mm512_min_pd(self.0, high.0), low.0)) }
    }

    #[inline(always)]
    unsafe fn floor(self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_roundscale_pd::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0)) }
    }

    #[inline(always)]
    unsafe fn keep(self, mask: __mmask8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_maskz_mov_pd(mask, self.0)) }
    }

    #[inline(always)]
    unsafe fn add_where(self, mask: __mmask8, v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_mask_add_pd(self.0, mask, self.0, v.0)) }
    }

    #[inline(always)]
    unsafe fn add_product_where(self, mask: __mmask8, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(_mm512_mask3_fmadd_pd(a.0, b.0, self.0, mask)) }
    }

    #[inline(always)]
    unsafe fn total(self) -> f64 {
        // SAFETY: the caller's promise.
        unsafe {
            let four = _mm256_add_pd(_mm512_castpd512_pd256(self.0), _mm512_extractf64x4_pd::<1>(self.0));
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two))
        }
    }

    #[inline(always)]
    unsafe fn first(count: usize) -> __mmask8 {
        if count >= LANES { 0xff } else { (1u8 << count) - 1 }
    }

    #[inline(always)]
    unsafe fn between(self, low: Self, high: Self, closed: bool, mask: __mmask8) -> __mmask8 {
        // SAFETY: the caller's promise.
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
    unsafe fn all(mask: __mmask8) -> bool {
        mask == 0xff
    }

    #[inline(always)]
    unsafe fn with_bit(bytes: &[u8; LANES], bit: usize) -> __mmask8 {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(*bytes));
            _mm_test_epi8_mask(bytes, _mm_set1_epi8(1 << bit)) as u8
        }
    }

    #[inline(always)]
    unsafe fn gather<const WORDS: usize>(codes: *const u16, at: Self, mask: __mmask8) -> __m512i {
        // SAFETY: the caller's promise; a stretch reaches `MARGIN` codes before and behind one that is there.
        unsafe {
            let at = _mm512_cvttpd_epi64(at.0);
            let zero = _mm512_setzero_si512();
            // Neighbours mostly land in one row of cells, in a stretch that one load takes in.
            let first = _mm_cvtsi128_si64(_mm512_castsi512_si128(at));
            let place =
                _mm512_add_epi64(_mm512_sub_epi64(at, _mm512_set1_epi64(first)), _mm512_set1_epi64(STRETCH / 2));
            if _mm512_mask_cmpge_epu64_mask(mask, place, _mm512_set1_epi64(STRETCH)) == 0 {
                let words = codes.offset(WORDS as isize * (first - STRETCH / 2) as isize).cast::<i32>();
                return if WORDS == 2 {
                    let low = _mm512_loadu_si512(words.cast());
                    let high = _mm512_loadu_si512(words.add(16).cast());
                    let found = _mm512_permutex2var_epi32(low, place, high);
                    _mm512_maskz_mov_epi64(mask, found)
                } else {
                    let found = _mm512_permutexvar_epi16(place, _mm512_loadu_si512(words.cast()));
                    _mm512_maskz_mov_epi64(mask, found)
                };
            }
            // Lanes that are not meant read nothing; the others 8 bytes.
            if WORDS == 2 {
                _mm512_mask_i64gather_epi64::<4>(zero, mask, at, codes.cast())
            } else {
                _mm512_mask_i64gather_epi64::<2>(zero, mask, at, codes.cast())
            }
        }
    }

    #[inline(always)]
    unsafe fn no_codes() -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn common(codes: __m512i, bits: u32) -> Option<u32> {
        // SAFETY: the caller's promise.
        unsafe {
            let first = _mm512_broadcastq_epi64(_mm512_castsi512_si128(codes));
            let differ = _mm512_xor_si512(codes, first);
            let same = _mm512_test_epi64_mask(differ, _mm512_set1_epi64(i64::from(bits))) == 0;
            same.then(|| _mm_cvtsi128_si32(_mm512_castsi512_si128(codes)) as u32 & bits)
        }
    }

    #[inline(always)]
    unsafe fn plane(codes: __m512i, shift: u32) -> Plane<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let code = _mm512_srl_epi64(codes, _mm_cvtsi32_si128(shift as i32));
            [
                Self(_mm512_permutexvar_pd(code, _mm512_loadu_pd(CONSTANT.as_ptr()))),
                Self(_mm512_permutexvar_pd(code, _mm512_loadu_pd(X.as_ptr()))),
                Self(_mm512_permutexvar_pd(code, _mm512_loadu_pd(Y.as_ptr()))),
                Self(_mm512_permutex2var_pd(_mm512_loadu_pd(XY[0].as_ptr()), code, _mm512_loadu_pd(XY[1].as_ptr()))),
            ]
        }
    }
}
