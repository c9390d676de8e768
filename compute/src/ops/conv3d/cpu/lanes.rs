//! The same loop body compiled for AVX-512, AVX2 and whatever else there is, chosen at run time.
//!
//! A [`Vectorised`] body is generic over [`Lanes`] and inlined into one function per instruction set; the intrinsics
//! behind the trait's methods inline there too, since only there the instructions are allowed.

/// A register of floats.
///
/// # Safety
/// Methods may use the instruction set of their type: call them only from a body that [`Isa::run`] started.
pub(in crate::ops) trait Lanes: Copy {
    /// Floats a register holds.
    const COUNT: usize;

    /// `*p` in every lane. `p` points at a float.
    unsafe fn splat(p: *const f32) -> Self;

    /// `COUNT` floats from `p`, aligned or not.
    unsafe fn load(p: *const f32) -> Self;

    /// `COUNT` floats to `p`, aligned or not.
    unsafe fn store(self, p: *mut f32);

    /// self * a + b.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;

    /// Asks for the cache line of `p`, which need not point anywhere.
    #[inline(always)]
    fn prefetch(p: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint that never faults, and every x86-64 has it.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast())
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }
}

/// A computation written for any register width.
pub(in crate::ops) trait Vectorised {
    /// Runs it. Implementations are `#[inline(always)]`, and so is all they call in their inner loops.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    unsafe fn run<V: Lanes>(self);
}

/// An instruction set this machine was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// Every instruction set of this machine, widest first.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        [
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx512f") && avx2, Kind::Avx512),
            #[cfg(target_arch = "x86_64")]
            (avx2, Kind::Avx2),
            (true, Kind::Portable),
        ]
        .into_iter()
        .filter_map(|(present, kind)| present.then_some(Self(kind)))
    }

    /// The widest registers.
    pub fn widest() -> Self {
        Self::available().next().unwrap_or(Self(Kind::Portable))
    }

    /// The widest registers, unless half of each would stay empty.
    pub fn fitting(channels: usize) -> Self {
        Self::available().find(|isa| isa.lanes() <= 8 || channels > 8).unwrap_or(Self(Kind::Portable))
    }

    /// Floats a register holds.
    pub fn lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 8,
            Kind::Portable => <[f32; 4] as Lanes>::COUNT,
        }
    }

    /// Runs `body` with this instruction set.
    pub fn run(self, body: impl Vectorised) {
        // SAFETY: an `Isa` only comes from `available`, which asked the machine.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => x86::with_avx512(body),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => x86::with_avx2(body),
                Kind::Portable => body.run::<[f32; 4]>(),
            }
        }
    }
}

impl Lanes for [f32; 4] {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { [*p; 4] }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // Not `f32::mul_add`: without the instruction that is a library call a lane.
        std::array::from_fn(|i| self[i] * a[i] + b[i])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lanes, Vectorised};

    #[derive(Clone, Copy)]
    struct Ymm(__m256);

    #[derive(Clone, Copy)]
    struct Zmm(__m512);

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn with_avx2(body: impl Vectorised) {
        // SAFETY: the caller checked for AVX2 and FMA.
        unsafe { body.run::<Ymm>() }
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) unsafe fn with_avx512(body: impl Vectorised) {
        // SAFETY: the caller checked for AVX-512F, AVX2 and FMA.
        unsafe { body.run::<Zmm>() }
    }

    impl Lanes for Ymm {
        const COUNT: usize = 8;

        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { Self(_mm256_set1_ps(*p)) }
        }

        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { Self(_mm256_loadu_ps(p)) }
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(p, self.0) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller's promise.
            unsafe { Self(_mm256_fmadd_ps(self.0, a.0, b.0)) }
        }
    }

    impl Lanes for Zmm {
        const COUNT: usize = 16;

        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { Self(_mm512_set1_ps(*p)) }
        }

        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { Self(_mm512_loadu_ps(p)) }
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(p, self.0) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller's promise.
            unsafe { Self(_mm512_fmadd_ps(self.0, a.0, b.0)) }
        }
    }
}
