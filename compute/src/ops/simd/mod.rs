//! Vectors of floats for the CPU backend: one computation, compiled once for each instruction set.
//!
//! A computation is a [`Kernel`], generic over a token [`Simd`] that stands for an instruction set. A token has no size
//! and is only returned by the detection at run time ([`Isa::available`]), so a token proves that this machine has
//! the instructions, and the methods of tokens and of their vectors are safe to call. (The idea is that of rten's `Isa`
//! and of `pulp`.) [`Isa::run`] inlines the kernel into a function that is compiled with the instructions; one call is
//! one dispatch, so a kernel should contain a whole task of a thread.
//!
//! Two rules keep kernels fast. Everything that a kernel calls in its inner loops is `#[inline(always)]`: a function that is
//! not inlined is compiled without the instructions, and its vectors are passed through memory. For the same reason
//! inner loops call functions, not closures. A kernel that breaks a rule is slow, never unsound.
//!
//! | token | f32 lanes | f64 lanes | multiply-add | needs |
//! |---|---|---|---|---|
//! | [`Avx512`] | 16 | 8 | fused | AVX-512 F, BW, DQ, VL; AVX2; FMA |
//! | [`Avx2`] | 8 | 8, as two registers | fused | AVX2, FMA |
//! | [`Portable`] | 4 | 8, as an array | two roundings (f64 on AArch64: fused) | nothing |
//!
//! Arithmetic never mixes lanes, so that a sum in one lane has the same order on every instruction set.

mod array;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod code_table;
mod elementwise;
mod portable;
#[cfg(test)]
mod tests;
mod vector;

#[cfg(target_arch = "x86_64")]
use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use avx512::Avx512;
pub(in crate::ops) use code_table::{CodeTable, Codes};
pub(in crate::ops) use elementwise::{LeakyRelu, repeat_to_fill_vectors};
use portable::Portable;
pub(in crate::ops) use vector::{BitCodes, F32Vector, F64_LANES, F64Vector, Simd};

/// A computation written for any instruction set.
pub(in crate::ops) trait Kernel {
    /// Runs the computation. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S);
}

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Isa(Token);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable(Portable),
}

impl Isa {
    /// Every instruction set of this machine, the widest first. The last one is plain code, which runs everywhere.
    pub fn available() -> impl Iterator<Item = Self> {
        [
            #[cfg(target_arch = "x86_64")]
            Avx512::detect().map(Token::Avx512),
            #[cfg(target_arch = "x86_64")]
            Avx2::detect().map(Token::Avx2),
            Some(Token::Portable(Portable)),
        ]
        .into_iter()
        .flatten()
        .map(Self)
    }

    /// The instruction set with the widest vectors.
    pub fn widest() -> Self {
        Self::available().next().unwrap_or(Self(Token::Portable(Portable)))
    }

    /// The instruction set with the widest vectors of which `channels` f32 values fill more than half.
    pub fn fitting(channels: usize) -> Self {
        Self::available().find(|isa| isa.f32_lanes() <= 8 || channels > 8).unwrap_or(Self(Token::Portable(Portable)))
    }

    /// Number of lanes of a vector of f32.
    pub fn f32_lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(simd) => f32_lanes(simd),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(simd) => f32_lanes(simd),
            Token::Portable(simd) => f32_lanes(simd),
        }
    }

    /// Runs `kernel` with this instruction set.
    pub fn run(self, kernel: impl Kernel) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(simd) => simd.run(kernel),
            Token::Portable(simd) => kernel.run(simd),
        }
    }
}

fn f32_lanes<S: Simd>(_: S) -> usize {
    S::F32::LANES
}
