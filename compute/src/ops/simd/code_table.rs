//! Tables of bit codes that lanes read by position.

/// Number of codes before the first position and after the last one that wide loads may read.
pub(super) const MARGIN: usize = 16;

/// Codes of one or two 16-bit words per position.
#[derive(Debug)]
pub(in crate::ops) struct Codes {
    /// [`MARGIN`] codes of 0, a code per position, and again the margin.
    padded: Vec<u16>,
    words: usize,
}

impl Codes {
    /// `positions` codes of `words` words each, all 0.
    pub fn new(positions: usize, words: usize) -> Self {
        Self { padded: vec![0; words * (positions + 2 * MARGIN)], words }
    }

    /// Words per code.
    pub fn words(&self) -> usize {
        self.words
    }

    /// The codes without the margins.
    pub fn values(&self) -> &[u16] {
        let margin = self.words * MARGIN;
        &self.padded[margin..self.padded.len() - margin]
    }

    /// The codes without the margins, mutable.
    pub fn values_mut(&mut self) -> &mut [u16] {
        let (margin, len) = (self.words * MARGIN, self.padded.len());
        &mut self.padded[margin..len - margin]
    }

    /// The codes as lanes read them.
    ///
    /// # Panics
    /// If a code does not have `WORDS` words.
    pub fn table<const WORDS: usize>(&self) -> CodeTable<'_, WORDS> {
        const { assert!(WORDS == 1 || WORDS == 2) };
        assert_eq!(self.words, WORDS, "words per code");
        CodeTable { padded: &self.padded }
    }
}

/// [`Codes`] whose number of words the compiler knows.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct CodeTable<'a, const WORDS: usize> {
    /// A multiple of `WORDS`, at least two margins.
    padded: &'a [u16],
}

impl<const WORDS: usize> CodeTable<'_, WORDS> {
    /// Number of positions.
    #[inline(always)]
    pub(super) fn len(self) -> usize {
        self.padded.len() / WORDS - 2 * MARGIN
    }

    /// The code at position 0. There are [`MARGIN`] codes before it and after the last.
    #[inline(always)]
    pub(super) fn first(self) -> *const u16 {
        self.padded.as_ptr().wrapping_add(WORDS * MARGIN)
    }
}
