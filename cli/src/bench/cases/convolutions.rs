//! Convolutions, of which some outputs are checked against dot products in f64.

use super::{Case, ensure_within, rounding, tensor, values};
use nephron::bench_shapes::{Conv, Transposed};
use nephron::device::Device;
use nephron::error::Result;
use nephron::ops::{self, Conv3dParams, ConvTranspose3dParams};
use nephron::tensor::{DType, Shape, Tensor};

/// Number of outputs that are checked.
const CHECKED: usize = 64;

/// A convolution of the user's.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct OwnConv {
    pub(in crate::bench) input: Shape,
    pub(in crate::bench) weight: Shape,
    pub(in crate::bench) stride: [usize; 3],
    pub(in crate::bench) padding: [usize; 3],
}

pub(super) fn own(conv: &OwnConv, device: &Device, dtype: DType) -> Result<Case> {
    let by = |sizes: &[usize]| sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    let OwnConv { input, weight, stride, padding } = conv;
    let name = format!("{} * {} s{} p{}", by(input), by(weight), by(stride), by(padding));
    of(name, conv, device, dtype)
}

pub(super) fn conv3d(shape: Conv, device: &Device, dtype: DType) -> Result<Case> {
    let (stride, padding) = shape.stride_padding();
    let conv = OwnConv { input: shape.input(usize::MAX), weight: shape.weight(), stride, padding };
    of(shape.name.to_owned(), &conv, device, dtype)
}

fn of(name: String, conv: &OwnConv, device: &Device, dtype: DType) -> Result<Case> {
    let OwnConv { input: xs, weight: ws, stride, padding } = *conv;
    let (x, w) = (tensor(device, xs, dtype)?, tensor(device, ws, dtype)?);
    let params = Conv3dParams { stride, padding, ..Conv3dParams::default() };
    let run = move || ops::conv3d(&x, &w, None, &params);
    let y = run()?;
    let terms: usize = ws[1..].iter().product();
    let flops = 2.0 * (y.len() * terms) as f64;
    let bytes = ((xs.iter().product::<usize>() + ws.iter().product::<usize>() + y.len()) * dtype.size()) as f64;
    let checked = name.clone();
    let check = move || {
        let (x, w) = (stored(xs, dtype), stored(ws, dtype));
        ensure_outputs(&checked, &y, terms, |[n, co, d, h, u]| {
            let mut sum = [0.0; 2];
            for k in 0..ws[2] * ws[3] * ws[4] {
                let tap = [k / (ws[3] * ws[4]), k / ws[4] % ws[3], k % ws[4]];
                let at = [d, h, u].map(|v| v as isize);
                let at: [isize; 3] =
                    std::array::from_fn(|a| at[a] * stride[a] as isize + tap[a] as isize - padding[a] as isize);
                if (0..3).any(|a| at[a] < 0 || at[a] >= xs[2 + a] as isize) {
                    continue;
                }
                let [z, y, v] = at.map(|a| a as usize);
                let from = (((n * xs[2] + z) * xs[3] + y) * xs[4] + v) * xs[1];
                let weight = (co * ws[2] * ws[3] * ws[4] + k) * ws[1];
                add_products(&mut sum, &x[from..from + ws[1]], w[weight..].iter());
            }
            sum
        })
    };
    Ok(Case {
        op: "conv3d",
        name,
        dtype: Some(dtype),
        flops,
        bytes: Some(bytes),
        run: Box::new(move || run().map(drop)),
        check: Box::new(check),
    })
}

pub(super) fn conv_transpose3d(shape: Transposed, device: &Device, dtype: DType) -> Result<Case> {
    let (xs, ws, k) = (shape.input(), shape.weight(), shape.kernel);
    let (x, w) = (tensor(device, xs, dtype)?, tensor(device, ws, dtype)?);
    let params = ConvTranspose3dParams { stride: [k; 3], padding: [0; 3] };
    let run = move || ops::conv_transpose3d(&x, &w, None, &params);
    let y = run()?;
    let flops = 2.0 * (y.len() * xs[1]) as f64;
    let bytes = ((xs.iter().product::<usize>() + ws.iter().product::<usize>() + y.len()) * dtype.size()) as f64;
    let check = move || {
        let (x, w) = (stored(xs, dtype), stored(ws, dtype));
        ensure_outputs(shape.name, &y, xs[1], |[n, co, d, h, u]| {
            let mut sum = [0.0; 2];
            let from = (((n * xs[2] + d / k) * xs[3] + h / k) * xs[4] + u / k) * xs[1];
            let tap = (d % k * k + h % k) * k + u % k;
            let weights = w.iter().skip(tap * ws[1] + co).step_by(k * k * k * ws[1]);
            add_products(&mut sum, &x[from..from + xs[1]], weights);
            sum
        })
    };
    let name = shape.name.to_owned();
    let run = Box::new(move || run().map(drop));
    let (dtype, bytes) = (Some(dtype), Some(bytes));
    Ok(Case { op: "conv_transpose3d", name, dtype, flops, bytes, run, check: Box::new(check) })
}

/// The values of a tensor of [`values`] after rounding to its storage type, in storage order.
fn stored(shape: Shape, dtype: DType) -> Vec<f32> {
    let mut data = values(shape.iter().product());
    match dtype {
        DType::F16 => data.iter_mut().for_each(|v| *v = half::f16::from_f32(*v).to_f32()),
        DType::BF16 => data.iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32()),
        _ => {}
    }
    data
}

/// Adds products to sum[0], and their absolute values to sum[1].
fn add_products<'a>(sum: &mut [f64; 2], x: &[f32], w: impl Iterator<Item = &'a f32>) {
    for (x, w) in x.iter().zip(w) {
        let term = f64::from(*x) * f64::from(*w);
        *sum = [sum[0] + term, sum[1] + term.abs()];
    }
}

/// Compares outputs of `y` with the sums that `want` returns for their index; the absolute sum that it returns too bounds the
/// rounding of f32 sums.
fn ensure_outputs(name: &str, y: &Tensor, terms: usize, want: impl Fn([usize; 5]) -> [f64; 2]) -> Result<()> {
    let ([_, c, d, h, w], data) = (y.shape(), y.to_ndhwc()?);
    let half_ulp = rounding(y.dtype());
    let ku = terms as f64 * 2f64.powi(-24);
    for k in 0..CHECKED {
        // The first output, the last one, and evenly spaced ones between them.
        let i = k * (data.len() - 1) / (CHECKED - 1);
        let (voxel, co) = (i / c, i % c);
        let at = [voxel / (d * h * w), co, voxel / (h * w) % d, voxel / w % h, voxel % w];
        let [value, magnitude] = want(at);
        let bound = ku / (1.0 - ku) * magnitude + half_ulp * (value.abs() + ku * magnitude);
        ensure_within(&format!("{name} at {at:?}"), data[i].into(), value, bound)?;
    }
    Ok(())
}
