//! The indirection buffer of a convolution, as in XNNPACK's indirect GEMM: a pointer to the input row that each output
//! reads through each tap. It replaces the im2col copy of the input.
//!
//! Sources are computed per axis, and combined into pointers for one register block at a time. A convolution is one
//! [`Indirection`] over all outputs. A transposed convolution (and with it a convolution's data
//! gradient) is one per phase: outputs that agree modulo the stride read through the same subset of taps, so a phase
//! is a dense convolution with a smaller kernel, and no tap is ever multiplied by an inserted zero.

use std::ptr;

/// The offset of a source outside the input. The sum of three of them is still negative and does not overflow.
const OUTSIDE: isize = isize::MIN / 4;

/// One axis: the output coordinates, the kernel taps that take part, and the input coordinate of each pair.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Axis {
    pub outputs: Vec<usize>,
    pub taps: Vec<usize>,
    /// [outputs, taps]: the input coordinate, or `None` in the padding.
    sources: Vec<Option<usize>>,
}

/// Extents of one axis and how the kernel moves along it.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct AxisSpec {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
}

impl AxisSpec {
    /// input = output * stride + tap * dilation - padding.
    pub fn convolution(self) -> Axis {
        let source = |o: usize, k: usize| {
            (o * self.stride + k * self.dilation).checked_sub(self.padding).filter(|&i| i < self.input)
        };
        Axis::new((0..self.output).collect(), (0..self.kernel).collect(), source)
    }

    /// output = input * stride + tap * dilation - padding, for the outputs that equal `phase` modulo the stride.
    /// `None` for a phase without outputs.
    pub fn transposed(self, phase: usize) -> Option<Axis> {
        let outputs: Vec<usize> = (phase..self.output).step_by(self.stride).collect();
        let reaches = |k: &usize| (phase + self.padding) % self.stride == (k * self.dilation) % self.stride;
        let source = |o: usize, k: usize| {
            (o + self.padding).checked_sub(k * self.dilation).map(|i| i / self.stride).filter(|&i| i < self.input)
        };
        (!outputs.is_empty()).then(|| Axis::new(outputs, (0..self.kernel).filter(reaches).collect(), source))
    }
}

impl Axis {
    fn new(outputs: Vec<usize>, taps: Vec<usize>, source: impl Fn(usize, usize) -> Option<usize>) -> Self {
        let sources =
            outputs.iter().flat_map(|&o| taps.iter().map(move |&k| (o, k))).map(|(o, k)| source(o, k)).collect();
        Self { outputs, taps, sources }
    }

    /// Sources as offsets in floats, for voxels `stride` floats apart.
    fn offsets(&self, stride: usize) -> Vec<isize> {
        self.sources.iter().map(|s| s.map_or(OUTSIDE, |s| (s * stride) as isize)).collect()
    }

    /// As [`Self::offsets`], but [taps, outputs].
    fn offsets_by_tap(&self, stride: usize) -> Vec<isize> {
        let (offsets, taps) = (self.offsets(stride), self.taps.len());
        (0..taps).flat_map(|t| offsets.iter().skip(t).step_by(taps)).copied().collect()
    }

    /// Whether some tap of two neighbouring outputs reads voxels that are not neighbours.
    fn strided(&self) -> bool {
        let taps = self.taps.len().max(1);
        let pairs = self.sources.iter().zip(self.sources.iter().skip(taps));
        pairs.filter_map(|(a, b)| a.zip(*b)).any(|(a, b)| b != a + 1)
    }

    /// For each output, whether its taps read neighbouring voxels, none of them outside.
    fn contiguous(&self) -> Vec<bool> {
        if self.taps.is_empty() {
            return vec![true; self.outputs.len()];
        }
        self.sources
            .chunks(self.taps.len())
            .map(|s| s.iter().all(Option::is_some) && s.windows(2).all(|p| p[1] == p[0].map(|v| v + 1)))
            .collect()
    }
}

/// The sources of all three axes as offsets into channels-last inputs, from which the pointers of a block are built.
#[derive(Debug)]
pub(in crate::ops) struct Indirection {
    batch: usize,
    counts: [usize; 3],
    taps: [usize; 3],
    /// Source offsets along z and y as [outputs, taps], along x as [taps, outputs]: a block steps through neighbouring
    /// outputs.
    offsets: [Vec<isize>; 3],
    /// For each output along x, whether its taps are one run of memory.
    contiguous: Vec<bool>,
    strided: bool,
    /// Offset of each output coordinate along each axis, in floats of the channels-last output.
    targets: [Vec<usize>; 3],
    /// Floats of an image of the input and of the output.
    image: [usize; 2],
    channels: usize,
}

impl Indirection {
    /// `input` and `output` are channels-last [n, d, h, w, c] tensors given as [n, c, d, h, w] shapes; where there are
    /// several inputs, each is of the shape `input`.
    pub fn new(axes: [&Axis; 3], input: [usize; 5], output: [usize; 5]) -> Self {
        let strides = |s: [usize; 5]| [s[3] * s[4] * s[1], s[4] * s[1], s[1]];
        let (from, to) = (strides(input), strides(output));
        let [z, y, x] = axes;
        Self {
            batch: input[0],
            counts: [z.outputs.len(), y.outputs.len(), x.outputs.len()],
            taps: [z.taps.len(), y.taps.len(), x.taps.len()],
            offsets: [z.offsets(from[0]), y.offsets(from[1]), x.offsets_by_tap(from[2])],
            contiguous: x.contiguous(),
            strided: x.strided(),
            targets: std::array::from_fn(|a| axes[a].outputs.iter().map(|o| o * to[a]).collect()),
            image: [input[2] * from[0], output[2] * to[0]],
            channels: input[1],
        }
    }

    /// Number of output voxels.
    pub fn positions(&self) -> usize {
        self.batch * self.counts.iter().product::<usize>()
    }

    /// Number of taps that an output reads through.
    pub fn taps(&self) -> usize {
        self.taps.iter().product()
    }

    /// Whether neighbouring outputs along x read voxels that are not neighbours.
    pub fn strided(&self) -> bool {
        self.strided
    }

    /// Length of the row of zeros that pointers outside the input are redirected to.
    pub fn zeros(&self) -> usize {
        self.taps[2].max(1) * self.channels
    }

    /// Builds the pointers of the register block whose first output is `first`.
    ///
    /// Fills `table` with a pointer per segment and row, rows past the last position pointing at `zeros`. A segment is
    /// one tap of one of the inputs `xs` (the inputs of a tap follow each other), or with `merge`, for a single input, all
    /// taps of an x row where they lie side by side for every row of the block.
    #[inline(always)]
    pub fn block<const ROWS: usize>(
        &self,
        first: usize,
        merge: bool,
        xs: &[&[f32]],
        zeros: *const f32,
        table: &mut [[*const f32; ROWS]],
    ) -> Block<ROWS> {
        let [nz, ny, nx] = self.counts;
        let mut block = Block { targets: [0; ROWS], valid: ROWS.min(self.positions() - first), taps: 1 };
        let (rest, mut jx) = (first / nx, first % nx);
        let (rest, mut jy) = (rest / ny, rest % ny);
        let (mut n, mut jz) = (rest / nz, rest % nz);
        let in_one_row = block.valid == ROWS && jx + ROWS <= nx;
        let start = [n, jz, jy, jx];
        let mut at = [[n, jz, jy, jx]; ROWS];
        let mut merged = merge;
        for r in 0..block.valid {
            merged &= self.contiguous[jx];
            block.targets[r] = n * self.image[1] + self.targets[0][jz] + self.targets[1][jy] + self.targets[2][jx];
            at[r] = [n, jz, jy, jx];
            jx += 1;
            if jx == nx {
                (jx, jy) = (0, jy + 1);
                if jy == ny {
                    (jy, jz) = (0, jz + 1);
                    if jz == nz {
                        (jz, n) = (0, n + 1);
                    }
                }
            }
        }
        if merged {
            block.taps = self.taps[2];
        }
        let along_x = if merged { self.taps[2].min(1) } else { self.taps[2] };
        if in_one_row {
            self.one_row(start, along_x, xs, zeros, table);
        } else {
            self.any_rows(&at[..block.valid], along_x, xs, zeros, table);
        }
        block
    }

    /// All rows of the block are in one x row, so only their x offsets differ.
    #[inline(always)]
    fn one_row<const ROWS: usize>(
        &self,
        [n, jz, jy, jx]: [usize; 4],
        along_x: usize,
        xs: &[&[f32]],
        zeros: *const f32,
        table: &mut [[*const f32; ROWS]],
    ) {
        let image = (n * self.image[0]) as isize;
        let mut segments = table.iter_mut();
        for z in &self.offsets[0][jz * self.taps[0]..][..self.taps[0]] {
            for y in &self.offsets[1][jy * self.taps[1]..][..self.taps[1]] {
                let row = image + z + y;
                for tap in self.offsets[2].chunks_exact(self.counts[2]).take(along_x) {
                    for (x, segment) in xs.iter().zip(&mut segments) {
                        for (to, offset) in segment.iter_mut().zip(&tap[jx..jx + ROWS]) {
                            let offset = row + offset;
                            *to = if offset < 0 { zeros } else { x.as_ptr().wrapping_offset(offset) };
                        }
                    }
                }
            }
        }
    }

    /// The rows of the block are anywhere.
    #[inline(always)]
    fn any_rows<const ROWS: usize>(
        &self,
        at: &[[usize; 4]],
        along_x: usize,
        xs: &[&[f32]],
        zeros: *const f32,
        table: &mut [[*const f32; ROWS]],
    ) {
        let mut segments = table.iter_mut();
        for tz in 0..self.taps[0] {
            for ty in 0..self.taps[1] {
                let mut rows = [OUTSIDE; ROWS];
                for (row, [n, jz, jy, _]) in rows.iter_mut().zip(at) {
                    let (z, y) = (self.offsets[0][jz * self.taps[0] + tz], self.offsets[1][jy * self.taps[1] + ty]);
                    *row = (n * self.image[0]) as isize + z + y;
                }
                for tap in self.offsets[2].chunks_exact(self.counts[2]).take(along_x) {
                    for (x, segment) in xs.iter().zip(&mut segments) {
                        *segment = [zeros; ROWS];
                        for (to, (row, [.., jx])) in segment.iter_mut().zip(rows.iter().zip(at)) {
                            let offset = row + tap[*jx];
                            *to = if offset < 0 { zeros } else { x.as_ptr().wrapping_offset(offset) };
                        }
                    }
                }
            }
        }
    }
}

/// The voxels of a register block.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Block<const ROWS: usize> {
    /// Offset of each row's output voxel, in floats.
    pub targets: [usize; ROWS],
    /// Number of rows that are outputs; the others are past the last output.
    pub valid: usize,
    /// Number of taps that a segment spans.
    pub taps: usize,
}

/// An empty table for [`Indirection::block`].
pub(in crate::ops) fn table<const ROWS: usize>(segments: usize) -> Vec<[*const f32; ROWS]> {
    vec![[ptr::null(); ROWS]; segments]
}
