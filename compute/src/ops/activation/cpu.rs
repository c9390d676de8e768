//! Activations on the CPU: one pass, memory bound.

use rayon::prelude::*;

use crate::memory::Buffer;

/// Elements a task: large enough to hide the task, small enough to stay in L2.
const CHUNK: usize = 1 << 15;

pub(super) fn leaky_relu(x: &[f32], slope: f32) -> Buffer {
    map(x, |x| if x > 0.0 { x } else { slope * x })
}

pub(super) fn relu(x: &[f32]) -> Buffer {
    map(x, |x| if x < 0.0 { 0.0 } else { x })
}

fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Buffer {
    let mut y = Buffer::unwritten(x.len());
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = f(x);
        }
    });
    y
}
