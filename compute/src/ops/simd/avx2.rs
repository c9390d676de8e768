//! AVX2 with FMA: f32 in one register, f64 as arrays that the compiler makes two registers of.

use std::arch::x86_64::*;

use super::array::{self, F64Array};
use super::vector::{F32Vector, F64_LANES, F64Vector, Simd};
use super::{CodeTable, Kernel};

/// Proof that this machine has AVX2 and FMA. The field is private: only [`Self::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Avx2(());

/// Eight f32. The field is private: vectors only come from an [`Avx2`] or from other vectors. That is what every SAFETY
/// comment of this file rests on.
#[derive(Clone, Copy, Debug)]
pub(super) struct F32x8(__m256);

type F64 = F64Array<true>;

const LANES: usize = 8;

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    pub(super) fn run(self, kernel: impl Kernel) {
        // SAFETY:
        // - the token proves AVX2 and FMA.
        unsafe { with_instructions(self, kernel) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn with_instructions(simd: Avx2, kernel: impl Kernel) {
    kernel.run(simd);
}

/// All bits in the first `count` lanes, which are at most [`LANES`].
#[inline(always)]
fn first_lanes(_: Avx2, count: usize) -> __m256i {
    const BITS: [i32; 2 * LANES] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    let from = &BITS[LANES - count..][..LANES];
    // SAFETY:
    // - the token proves AVX2,
    // - `from` has eight values.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

impl Simd for Avx2 {
    type F32 = F32x8;
    type F64 = F64;

    #[inline(always)]
    fn splat(self, v: f32) -> F32x8 {
        // SAFETY:
        // - the token proves AVX2.
        unsafe { F32x8(_mm256_set1_ps(v)) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> F32x8 {
        // SAFETY:
        // - the slice has eight floats.
        unsafe { self.load_at(from[..LANES].as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> F32x8 {
        // SAFETY:
        // - the token proves AVX2,
        // - the caller promises eight floats.
        unsafe { F32x8(_mm256_loadu_ps(from)) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> F32x8 {
        let mask = first_lanes(self, from.len());
        // SAFETY:
        // - the token proves AVX2,
        // - the mask has the lanes that `from` has values for; the others are not read.
        unsafe { F32x8(_mm256_maskload_ps(from.as_ptr(), mask)) }
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

impl F32Vector for F32x8 {
    const LANES: usize = LANES;

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        // SAFETY:
        // - the slice has eight floats and is borrowed alone.
        unsafe { self.store_at(to[..LANES].as_mut_ptr()) }
    }

    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32) {
        // SAFETY:
        // - the vector proves AVX2,
        // - the caller promises eight floats that nothing else touches.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let mask = first_lanes(Avx2(()), to.len());
        // SAFETY:
        // - the vector proves AVX2 (so the token made above stands for what is there),
        // - the mask has the lanes that `to` has room for; the others are not written.
        unsafe { _mm256_maskstore_ps(to.as_mut_ptr(), mask, self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX2.
        unsafe { Self(_mm256_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX2.
        unsafe { Self(_mm256_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX2.
        unsafe { Self(_mm256_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY:
        // - the vector proves FMA.
        unsafe { Self(_mm256_fmadd_ps(self.0, a.0, b.0)) }
    }

    #[inline(always)]
    fn not_below_zero(self) -> Self {
        // Of zeros, and of a NaN and a number, the instruction gives the second.
        // SAFETY:
        // - the vector proves AVX2.
        unsafe { Self(_mm256_max_ps(_mm256_setzero_ps(), self.0)) }
    }

    #[inline(always)]
    fn if_positive_or(self, other: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX2.
        unsafe {
            let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps());
            Self(_mm256_blendv_ps(other.0, self.0, positive))
        }
    }

    #[inline(always)]
    fn select_positive(self, a: Self, b: Self) -> Self {
        // SAFETY:
        // - the vector proves AVX2.
        unsafe {
            let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps());
            Self(_mm256_blendv_ps(b.0, a.0, positive))
        }
    }
}
