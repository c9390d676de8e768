//! Resampling on the CPU: parallel over the rows of the result, whose indices z and y are summed once for each row.

use rayon::prelude::*;

use super::table::Entry;
use super::{Intensity, Interpolation, Outside, ResampleProblem};
use crate::error::Result;
use crate::ops::bspline::cpu::{coefficients, window, within_reach};
use crate::ops::sampling::cpu::{Cell, Image};
use crate::room::ensure_room;
use crate::tensor::{DType, HostBuffer, Tensor};

pub(super) fn resample(x: &HostBuffer, problem: &ResampleProblem) -> Result<Tensor> {
    let shape = problem.output_shape();
    ensure_room::<u8>("a resampled image", bytes(problem))?;
    if let (HostBuffer::U8(labels), DType::U8) = (x, problem.output_dtype()) {
        let y = rows(labels, problem, problem.label, |image, at| nearest(image, at).unwrap_or_default());
        return Ok(Tensor::host_u8(shape, y));
    }
    let y = match x {
        HostBuffer::F32(x) => floats(x, problem),
        HostBuffer::I16(x) => floats(x, problem),
        HostBuffer::U8(x) => floats(x, problem),
    };
    Ok(Tensor::host_f32(shape, y))
}

/// Number of bytes that the result takes, and with cubic splines the coefficients and a copy of them.
fn bytes(problem: &ResampleProblem) -> usize {
    let voxels = |size: [usize; 3]| size.iter().product::<usize>();
    let splines = match problem.params.interpolation {
        Interpolation::Cubic => 2 * size_of::<f32>() * voxels(problem.input),
        _ => 0,
    };
    splines + voxels(problem.params.size) * problem.output_dtype().size()
}

fn floats<T: Copy + Into<f32> + Sync>(x: &[T], problem: &ResampleProblem) -> Vec<f32> {
    let outside = problem.constant();
    match (problem.params.interpolation, problem.params.intensity) {
        (Interpolation::Cubic, intensity) => cubic(x, problem, intensity),
        (Interpolation::Linear, None) => rows(x, problem, outside, |image, at| linear(image, at, |v| v.into())),
        (Interpolation::Linear, Some(intensity)) => {
            rows(x, problem, outside, |image, at| intensity.normalise(linear(image, at, |v| intensity.clip(v.into()))))
        }
        (Interpolation::Nearest, intensity) => rows(x, problem, outside, |image, at| {
            let value = nearest(image, at).map_or(0.0, Into::into);
            intensity.map_or(value, |intensity| intensity.normalise(intensity.clip(value)))
        }),
    }
}

fn cubic<T: Copy + Into<f32> + Sync>(x: &[T], problem: &ResampleProblem, intensity: Option<Intensity>) -> Vec<f32> {
    let [d, h, w] = problem.input;
    let values = match intensity {
        Some(intensity) => x.par_iter().map(|&v| intensity.clip(v.into())).collect(),
        None => x.par_iter().map(|&v| v.into()).collect(),
    };
    let coefficients = coefficients([1, 1, d, h, w], values);
    rows(&coefficients, problem, problem.constant(), |image, at| {
        let value = spline(image, at);
        intensity.map_or(value, |intensity| intensity.normalise(value))
    })
}

/// Computes the result row by row: `value` at each position, or `constant` outside the image where it is given.
fn rows<T: Copy + Sync, U: Copy + Default + Send + Sync>(
    x: &[T],
    problem: &ResampleProblem,
    constant: U,
    value: impl Fn(&Image<'_, T>, [Cell; 3]) -> U + Sync,
) -> Vec<U> {
    let [d, h, w] = problem.params.size;
    let mut out = vec![U::default(); d * h * w];
    if out.is_empty() {
        return out;
    }
    let image = Image { data: x, size: problem.input, channels: 1 };
    let [planes, rows, columns] = problem.table.axes();
    let constant_outside = matches!(problem.params.outside, Outside::Constant(_));
    out.par_chunks_mut(w).enumerate().for_each(|(row, out)| {
        let start = sum(&planes[row / h], &rows[row % h]);
        for (out, column) in out.iter_mut().zip(columns) {
            let at = sum(&start, column).map(|[whole, part]| {
                let carry = part as i32; // Parts are not negative.
                Cell { low: (whole as i32 + carry) as isize, fraction: part - carry as f32 }
            });
            let beyond = constant_outside && (0..3).any(|axis| beyond(at[axis], image.size[axis]));
            *out = if beyond { constant } else { value(&image, at) };
        }
    });
    out
}

fn sum(a: &Entry, b: &Entry) -> Entry {
    std::array::from_fn(|axis| [a[axis][0] + b[axis][0], a[axis][1] + b[axis][1]])
}

/// Whether a position is more than half a voxel beyond the outermost centres.
fn beyond(at: Cell, size: usize) -> bool {
    let last = size as isize - 1;
    let before = at.low < -1 || (at.low == -1 && at.fraction < 0.5);
    before || at.low > last || (at.low == last && at.fraction > 0.5)
}

/// Clamps to the outermost centres.
fn onto(at: Cell, size: usize) -> Cell {
    let last = size as isize - 1;
    if at.low < 0 {
        Cell { low: 0, fraction: 0.0 }
    } else if at.low >= last {
        Cell { low: last, fraction: 0.0 }
    } else {
        at
    }
}

fn clamped<T>(image: &Image<'_, T>, at: [Cell; 3]) -> [Cell; 3] {
    std::array::from_fn(|axis| onto(at[axis], image.size[axis]))
}

fn nearest<T: Copy>(image: &Image<'_, T>, at: [Cell; 3]) -> Option<T> {
    let at = clamped(image, at).map(|at| at.low + isize::from(at.fraction >= 0.5));
    image.voxel(at).and_then(|voxel| voxel.first().copied())
}

/// A corner with weight 0 is not read, so that its NaN does not spread.
fn linear<T: Copy>(image: &Image<'_, T>, at: [Cell; 3], value: impl Fn(T) -> f32) -> f32 {
    let [z, y, x] = clamped(image, at);
    let [_, h, w] = image.size;
    let first = (z.low as usize * h + y.low as usize) * w + x.low as usize;
    let mut sum = 0.0;
    for (dz, wz) in [(0, 1.0 - z.fraction), (h * w, z.fraction)] {
        for (dy, wy) in [(0, 1.0 - y.fraction), (w, y.fraction)] {
            for (dx, wx) in [(0, 1.0 - x.fraction), (1, x.fraction)] {
                let weight = wz * wy * wx;
                if weight > 0.0 {
                    sum += weight * value(image.data[first + dz + dy + dx]);
                }
            }
        }
    }
    sum
}

fn spline(image: &Image<'_, f32>, at: [Cell; 3]) -> f32 {
    let [d, h, w] = image.size;
    let (z0, wz) = window(within_reach(at[0], d), d);
    let (y0, wy) = window(within_reach(at[1], h), h);
    let (x0, wx) = window(within_reach(at[2], w), w);
    let mut sum = 0.0;
    for (z, wz) in (z0..d).zip(wz) {
        for (y, wy) in (y0..h).zip(wy) {
            let row = &image.data[(z * h + y) * w + x0..(z * h + y + 1) * w];
            let along: f32 = row.iter().zip(wx).map(|(c, wx)| c * wx).sum();
            sum += wz * wy * along;
        }
    }
    sum
}
