//! Eight f64 at once: arithmetic that the compiler makes into vectors, or AVX-512, which also looks cells up in
//! registers.

/// What a cell's four corners in a plane z say of p there: p = c0 + cx fx + cy fy + cxy fx fy.
pub(super) type Plane<D> = [D; 4];

/// Codes around those of cells that may be read, and mean nothing.
pub(super) const MARGIN: usize = 16;

/// Lanes a register.
pub(super) const LANES: usize = 8;

/// Eight lanes of f64.
///
/// # Safety
/// Methods may use the instruction set of their type: call them only from a body that [`Isa::run`] started.
pub(super) trait Doubles: Copy {
    /// Lanes that are meant.
    type Mask: Copy;
    /// A cell code a lane.
    type Codes: Copy;

    unsafe fn splat(v: f64) -> Self;
    /// 0, 1, ... 7.
    unsafe fn ramp() -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// self * a + b.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// `high` where NaN or above it, `low` where below.
    unsafe fn clamp(self, low: Self, high: Self) -> Self;
    unsafe fn floor(self) -> Self;
    /// 0 where not meant.
    unsafe fn keep(self, mask: Self::Mask) -> Self;
    /// Adds v where meant.
    unsafe fn add_where(self, mask: Self::Mask, v: Self) -> Self;
    /// self + a * b where meant.
    unsafe fn add_product_where(self, mask: Self::Mask, a: Self, b: Self) -> Self;
    /// By halves.
    unsafe fn total(self) -> f64;

    /// The first `count` lanes.
    unsafe fn first(count: usize) -> Self::Mask;
    /// Of the lanes meant, those with low <= self < high, or low < self < high.
    unsafe fn between(self, low: Self, high: Self, closed: bool, mask: Self::Mask) -> Self::Mask;
    /// Is every lane meant?
    unsafe fn all(mask: Self::Mask) -> bool;
    /// Lanes whose byte has bit `bit`.
    unsafe fn with_bit(bytes: &[u8; LANES], bit: usize) -> Self::Mask;

    /// The codes, `WORDS` words each, at whole numbers `at`; 0 where not meant.
    ///
    /// # Safety
    /// Where meant, `at` is below the number of codes, else 0; `MARGIN` codes lie before the first and behind the last.
    unsafe fn gather<const WORDS: usize>(codes: *const u16, at: Self, mask: Self::Mask) -> Self::Codes;
    /// Nothing in any lane.
    unsafe fn no_codes() -> Self::Codes;
    /// The code that all lanes have, if they have one.
    unsafe fn common(codes: Self::Codes, bits: u32) -> Option<u32>;
    /// Of the four corners whose bits start at `shift`.
    unsafe fn plane(codes: Self::Codes, shift: u32) -> Plane<Self>;
}

/// A computation on [`Doubles`].
pub(super) trait Body {
    /// Implementations are `#[inline(always)]`, and so is all they call in their inner loops.
    ///
    /// # Safety
    /// The machine has the instructions of `D`.
    unsafe fn run<D: Doubles>(self);
}

/// An instruction set this machine was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Isa(Kind);

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
        #[cfg(target_arch = "x86_64")]
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        [
            #[cfg(target_arch = "x86_64")]
            (avx512 && avx2, Kind::Avx512),
            #[cfg(target_arch = "x86_64")]
            (avx2, Kind::Avx2),
            (true, Kind::Portable),
        ]
        .into_iter()
        .filter_map(|(present, kind)| present.then_some(Self(kind)))
    }

    /// The widest of them; plain code runs anywhere.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self(Kind::Portable))
    }

    /// Runs `body` with this instruction set.
    pub fn run(self, body: impl Body) {
        // SAFETY: an `Isa` only comes from `available`, which asked the machine. Without it, plain arithmetic, where a
        // multiplication with an addition is one instruction on every AArch64.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => with_avx512(body),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => with_avx2(body),
                Kind::Portable => body.run::<super::portable::Lanes<{ cfg!(target_arch = "aarch64") }>>(),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn with_avx512(body: impl Body) {
    // SAFETY: the caller checked for the instructions.
    unsafe { body.run::<super::avx512::Zmm>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn with_avx2(body: impl Body) {
    // SAFETY: the caller checked for the instructions.
    unsafe { body.run::<super::portable::Lanes<true>>() }
}
