//! AVX-512: the token and what it makes.

mod f32x16;
mod f64x8;

use std::arch::x86_64::*;

use super::Kernel;
use super::code_table::{CodeTable, MARGIN};
use super::vector::{F64_LANES, Simd};

/// Proof that this machine has AVX-512 (F, BW, DQ and VL), AVX2 and FMA. The field is private: only [`Self::detect`] makes
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Avx512(());

/// Sixteen f32. The fields of this and the next two types are private: vectors only come from an [`Avx512`] or from
/// other vectors. That is what every SAFETY comment of this folder rests on.
#[derive(Clone, Copy, Debug)]
pub(super) struct F32x16(__m512);

/// Eight f64.
#[derive(Clone, Copy, Debug)]
pub(super) struct F64x8(__m512d);

/// Eight codes, each in the low bits of 64. Bits above the code's own are those of its neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codes(__m512i);

const LANES: usize = 16;

/// Codes that one load takes in, half of them before the first lane's.
const STRETCH: i64 = 2 * MARGIN as i64;

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }

    pub(super) fn run(self, kernel: impl Kernel) {
        // SAFETY:
        // - the token proves the instructions.
        unsafe { with_instructions(self, kernel) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn with_instructions(simd: Avx512, kernel: impl Kernel) {
    kernel.run(simd);
}

/// The first `count` lanes, which are at most [`LANES`].
#[inline(always)]
fn first_lanes(count: usize) -> __mmask16 {
    assert!(count <= LANES, "at most a vector");
    ((1u32 << count) - 1) as __mmask16
}

impl Simd for Avx512 {
    type F32 = F32x16;
    type F64 = F64x8;

    #[inline(always)]
    fn splat(self, v: f32) -> F32x16 {
        // SAFETY:
        // - the token proves AVX-512.
        unsafe { F32x16(_mm512_set1_ps(v)) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> F32x16 {
        // SAFETY:
        // - the slice has sixteen floats.
        unsafe { self.load_at(from[..LANES].as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> F32x16 {
        // SAFETY:
        // - the token proves AVX-512,
        // - the caller promises sixteen floats.
        unsafe { F32x16(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> F32x16 {
        let mask = first_lanes(from.len());
        // SAFETY:
        // - the token proves AVX-512,
        // - the mask has the lanes that `from` has values for; the others are not read.
        unsafe { F32x16(_mm512_maskz_loadu_ps(mask, from.as_ptr())) }
    }

    #[inline(always)]
    fn splat_f64(self, v: f64) -> F64x8 {
        // SAFETY:
        // - the token proves AVX-512.
        unsafe { F64x8(_mm512_set1_pd(v)) }
    }

    #[inline(always)]
    fn ramp(self) -> F64x8 {
        // SAFETY:
        // - the token proves AVX-512.
        unsafe { F64x8(_mm512_setr_pd(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)) }
    }

    #[inline(always)]
    fn widen(self, from: &[f32]) -> F64x8 {
        // SAFETY:
        // - the token proves AVX-512,
        // - the slice has eight floats.
        unsafe { F64x8(_mm512_cvtps_pd(_mm256_loadu_ps(from[..F64_LANES].as_ptr()))) }
    }

    #[inline(always)]
    fn first_lanes(self, count: usize) -> __mmask8 {
        if count >= F64_LANES { 0xff } else { (1u8 << count) - 1 }
    }

    #[inline(always)]
    fn lanes_with_bit(self, bytes: &[u8; F64_LANES], bit: usize) -> __mmask8 {
        // SAFETY:
        // - the token proves AVX-512 BW and VL.
        unsafe {
            let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(*bytes));
            _mm_test_epi8_mask(bytes, _mm_set1_epi8(1 << bit)) as u8
        }
    }

    #[inline(always)]
    fn zero_codes(self) -> Codes {
        // SAFETY:
        // - the token proves AVX-512.
        unsafe { Codes(_mm512_setzero_si512()) }
    }

    #[inline(always)]
    fn look_up<const WORDS: usize>(self, table: CodeTable<'_, WORDS>, at: F64x8, mask: __mmask8) -> Codes {
        // SAFETY:
        // - the token proves AVX-512,
        // - every lane is a position of the table: checked below, where numbers that do not convert become 2^63,
        // - a stretch reaches from MARGIN codes before a position to MARGIN after it, and a lane's 8 bytes to 4 codes
        //   after it: the table has MARGIN codes on both sides.
        unsafe {
            let codes = table.first();
            let at = _mm512_cvttpd_epi64(at.0);
            let outside = _mm512_cmpge_epu64_mask(at, _mm512_set1_epi64(table.len() as i64));
            assert!(outside == 0, "a position outside the table");
            // Neighbours are mostly in one row of the table, in a stretch that one load takes in.
            let first = _mm_cvtsi128_si64(_mm512_castsi512_si128(at));
            let place =
                _mm512_add_epi64(_mm512_sub_epi64(at, _mm512_set1_epi64(first)), _mm512_set1_epi64(STRETCH / 2));
            if _mm512_mask_cmpge_epu64_mask(mask, place, _mm512_set1_epi64(STRETCH)) == 0 {
                let words = codes.offset(WORDS as isize * (first - STRETCH / 2) as isize).cast::<i32>();
                let found = if WORDS == 2 {
                    let low = _mm512_loadu_si512(words.cast());
                    let high = _mm512_loadu_si512(words.add(16).cast());
                    _mm512_permutex2var_epi32(low, place, high)
                } else {
                    _mm512_permutexvar_epi16(place, _mm512_loadu_si512(words.cast()))
                };
                return Codes(_mm512_maskz_mov_epi64(mask, found));
            }
            // Lanes that are left out read nothing; the others 8 bytes.
            let zero = _mm512_setzero_si512();
            Codes(if WORDS == 2 {
                _mm512_mask_i64gather_epi64::<4>(zero, mask, at, codes.cast())
            } else {
                _mm512_mask_i64gather_epi64::<2>(zero, mask, at, codes.cast())
            })
        }
    }
}
