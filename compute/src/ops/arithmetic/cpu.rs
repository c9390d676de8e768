//! Addition and concatenation on the CPU: memory bound.

use rayon::prelude::*;

use crate::memory::Buffer;

/// Number of elements of a task: large enough to hide the overhead of a task, small enough for L2.
const CHUNK: usize = 1 << 15;

pub(super) fn add(a: &[f32], b: &[f32]) -> Buffer {
    let mut y = Buffer::unwritten(a.len());
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK))).for_each(|(y, (a, b))| {
        for (y, (a, b)) in y.iter_mut().zip(a.iter().zip(b)) {
            *y = a + b;
        }
    });
    y
}

/// Concatenates `parts`, each [positions, channels] with its number of channels, to [positions, total].
pub(super) fn concat(parts: &[(&[f32], usize)], positions: usize, total: usize) -> Buffer {
    let mut y = Buffer::unwritten(positions * total);
    if y.is_empty() {
        return y;
    }
    let rows = (CHUNK / total).max(1);
    y.par_chunks_mut(rows * total).enumerate().for_each(|(chunk, y)| {
        let mut first = 0;
        for &(x, channels) in parts.iter().filter(|(_, channels)| *channels > 0) {
            let x = x[chunk * rows * channels..].chunks_exact(channels);
            for (y, x) in y.chunks_exact_mut(total).zip(x) {
                y[first..first + channels].copy_from_slice(x);
            }
            first += channels;
        }
    });
    y
}
