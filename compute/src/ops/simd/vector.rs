//! The operations that every instruction set provides.

use std::fmt::Debug;

use super::CodeTable;

/// Lanes of a vector of f64, on every instruction set: what is summed per lane has the same order everywhere.
pub(in crate::ops) const F64_LANES: usize = 8;

/// The token of an instruction set: proof that this machine has it, and the source of its vectors.
pub(in crate::ops) trait Simd: Copy + Send + Sync + Debug {
    /// A register of f32.
    type F32: F32Vector;
    /// [`F64_LANES`] lanes of f64.
    type F64: F64Vector;

    /// `v` in every lane.
    fn splat(self, v: f32) -> Self::F32;

    /// The first lanes' worth of `from`.
    ///
    /// # Panics
    /// If `from` is shorter than a vector.
    fn load(self, from: &[f32]) -> Self::F32;

    /// A vector from `from`, aligned or not.
    ///
    /// # Safety
    /// - `from` points at as many floats as the vector has lanes.
    unsafe fn load_at(self, from: *const f32) -> Self::F32;

    /// As [`Self::load`] of at most a vector; lanes without a value are 0.
    fn load_partial(self, from: &[f32]) -> Self::F32;

    /// `v` in every lane.
    fn splat_f64(self, v: f64) -> Self::F64;

    /// 0, 1, ... 7.
    fn ramp(self) -> Self::F64;

    /// The first [`F64_LANES`] values of `from`.
    ///
    /// # Panics
    /// If `from` is shorter than that.
    fn widen(self, from: &[f32]) -> Self::F64;

    /// The first `count` lanes, all of them from [`F64_LANES`] on.
    fn first_lanes(self, count: usize) -> <Self::F64 as F64Vector>::Mask;

    /// The lanes whose byte has bit `bit`.
    fn lanes_with_bit(self, bytes: &[u8; F64_LANES], bit: usize) -> <Self::F64 as F64Vector>::Mask;

    /// No code's bit in any lane.
    fn zero_codes(self) -> <Self::F64 as F64Vector>::Codes;

    /// The codes at the positions `at` (whole numbers); 0 where `mask` leaves a lane out.
    ///
    /// # Panics
    /// If a position, of a lane left out or not, is outside the table.
    fn look_up<const WORDS: usize>(
        self,
        table: CodeTable<'_, WORDS>,
        at: Self::F64,
        mask: <Self::F64 as F64Vector>::Mask,
    ) -> <Self::F64 as F64Vector>::Codes;

    /// Asks for the cache line of `p`, which need not point anywhere.
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY:
        // - a prefetch is a hint that never faults, whatever `p` is,
        // - every x86-64 has it.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast())
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }
}

/// A register of f32. Vectors only come from a token or from other vectors, so whoever has one may use its instructions.
pub(in crate::ops) trait F32Vector: Copy {
    /// Values in a vector.
    const LANES: usize;

    /// To the first lanes' worth of `to`.
    ///
    /// # Panics
    /// If `to` is shorter than a vector.
    fn store(self, to: &mut [f32]);

    /// To `to`, aligned or not.
    ///
    /// # Safety
    /// - `to` points at as many floats as the vector has lanes, and nothing else reads or writes them meanwhile.
    unsafe fn store_at(self, to: *mut f32);

    /// The first lanes to `to`, which is at most as long as a vector.
    fn store_partial(self, to: &mut [f32]);

    /// self + other.
    fn add(self, other: Self) -> Self;

    /// self - other.
    fn sub(self, other: Self) -> Self;

    /// self * other.
    fn mul(self, other: Self) -> Self;

    /// self * a + b, with one rounding where the instruction set has that in one instruction.
    fn mul_add(self, a: Self, b: Self) -> Self;

    /// 0 where below 0, else self: NaN and -0 stay.
    fn not_below_zero(self) -> Self;

    /// self where above 0, else other: other where self is NaN.
    fn if_positive_or(self, other: Self) -> Self;

    /// a where self is above 0, else b: b where self is NaN.
    fn select_positive(self, a: Self, b: Self) -> Self;
}

/// Eight lanes of f64. Vectors only come from a token or from other vectors, so whoever has one may use its instructions.
pub(in crate::ops) trait F64Vector: Copy {
    /// A choice of lanes.
    type Mask: Copy;
    /// A code of up to 32 bits per lane.
    type Codes: BitCodes<Self>;

    /// To the first [`F64_LANES`] values of `to`.
    ///
    /// # Panics
    /// If `to` is shorter than that.
    fn store(self, to: &mut [f64]);

    /// self + other.
    fn add(self, other: Self) -> Self;

    /// self - other.
    fn sub(self, other: Self) -> Self;

    /// self * other.
    fn mul(self, other: Self) -> Self;

    /// self * a + b, with one rounding where the instruction set has that in one instruction.
    fn mul_add(self, a: Self, b: Self) -> Self;

    /// `high` where NaN or above it, `low` where below.
    fn clamp(self, low: Self, high: Self) -> Self;

    /// The largest whole number that is not above. Lanes are not negative and below 2^53.
    fn floor(self) -> Self;

    /// self in the lanes of `mask`, else 0.
    fn keep(self, mask: Self::Mask) -> Self;

    /// self + v in the lanes of `mask`, else self.
    fn add_where(self, mask: Self::Mask, v: Self) -> Self;

    /// self + a * b in the lanes of `mask`, else self; rounded as [`Self::mul_add`].
    fn add_product_where(self, mask: Self::Mask, a: Self, b: Self) -> Self;

    /// The sum of all lanes, added by halves: lane i + lane i + 4, and so on.
    fn total(self) -> f64;

    /// The lanes of `mask` with low <= self < high if `closed`, else with low < self < high. NaN is between nothing.
    fn between(self, low: Self, high: Self, closed: bool, mask: Self::Mask) -> Self::Mask;

    /// Whether `mask` has every lane.
    fn all(mask: Self::Mask) -> bool;
}

/// A code of up to 32 bits per lane. They have an interface of their own because instruction sets differ in the fastest
/// way from bits to numbers: AVX-512 looks them up in registers, the others compute.
pub(in crate::ops) trait BitCodes<V>: Copy {
    /// The code that all lanes have in the bits `bits`, if they agree there.
    fn common(self, bits: u32) -> Option<u32>;

    /// Coefficients [c0, cx, cy, cxy] of c0 + cx x + cy y + cxy x y, the bilinear function through the bits `shift` at
    /// (x, y) = (0, 0), `shift` + 1 at (1, 0), `shift` + 2 at (0, 1) and `shift` + 3 at (1, 1).
    fn bilinear(self, shift: u32) -> [V; 4];
}
