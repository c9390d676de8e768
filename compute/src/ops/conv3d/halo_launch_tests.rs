//! What a convolution does between two norms, exactly: with whole numbers and powers of two nothing is rounded but what is
//! stored.

use half::f16;

use super::*;
use crate::device::test_gpus::computing_gpus;
use crate::device::{Device, Gpu};
use crate::ops::conv_plan::plan;
use crate::ops::conv3d::reference::conv3d;
use crate::ops::conv3d::{Algorithm, Conv3dParams};
use crate::tensor::{Shape, Tensor};

const SLOPE: f64 = 0.5;

/// Small whole numbers that no tile repeats.
fn whole(len: usize, factor: usize, range: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * factor + i / 7) % range) as f32 - (range / 2) as f32).collect()
}

fn len(shape: Shape) -> usize {
    shape.iter().product()
}

fn f64s(data: &[f32]) -> Vec<f64> {
    data.iter().map(|&v| v.into()).collect()
}

/// The parameters of a pending norm, and what they make of `x` [n, c, voxels].
fn normed(x: &[f32], n: usize, c: usize) -> ([Vec<f32>; 4], Vec<f64>) {
    let (mean, weight, bias) = (whole(n * c, 5, 5), whole(c, 3, 7), whole(c, 2, 5));
    let inverse_sd: Vec<f32> = (0..n * c).map(|i| [0.5, 1.0, 2.0][i % 3]).collect();
    let voxels = x.len() / (n * c);
    let value = |i: usize| {
        let s = i / voxels;
        let v = f64::from((x[i] - mean[s]) * inverse_sd[s] * weight[s % c] + bias[s % c]);
        if v < 0.0 { v * SLOPE } else { v }
    };
    let values = (0..x.len()).map(value).collect();
    ([mean, inverse_sd, weight, bias], values)
}

/// The types that the kernel multiplies there: on CUDA f32 only rounded to tf32, which loses no small whole number.
fn types(gpu: &Gpu) -> impl Iterator<Item = DType> {
    let device = Device::Gpu(gpu.clone());
    [DType::F32, DType::F16].into_iter().filter(move |d| device.supports(*d))
}

/// Launches by the halo kernel with moments, and checks both.
fn check(gpu: &Gpu, dtype: DType, problem: &Conv3dProblem, input: HaloInput<'_>, [w, b]: [&[f32]; 2], x: &[f64]) {
    let device = Device::Gpu(gpu.clone());
    let shape = problem.output_shape();
    let want = conv3d(x, problem.input_shape(), &f64s(w), problem.weight_shape(), Some(&f64s(b)), &problem.params());
    let weight = Tensor::from_ncdhw(&device, problem.weight_shape(), dtype, w).expect("weights");
    let bias = Tensor::vector(&device, b).expect("bias");
    let y = Tensor::gpu_alloc(gpu, shape, dtype).expect("output");
    let handle = |t: &Tensor| t.gpu_handle(gpu).expect("a buffer");
    let positions = len(shape) / shape[0] / shape[1];
    let vectors =
        [(); 3].map(|()| Tensor::gpu_alloc(gpu, [1, shape[0] * shape[1], 1, 1, 1], DType::F32).expect("sums"));
    let [mean, inverse_sd, variance] = [0, 1, 2].map(|i| handle(&vectors[i]));
    let caps = gpu.launches().conv_capabilities(dtype, true);
    let plan = plan(problem, &caps, Some(Algorithm::Halo)).expect("a plan");
    let (w, b, out) = (handle(&weight), handle(&bias), handle(&y));
    let (buffers, statistics) =
        (HaloBuffers { w: &w, b: Some(&b), y: &out }, Statistics { mean, inverse_sd, variance });
    gpu.run(|client| client.conv_block(dtype, input, buffers, &statistics, 0.0, problem, &plan)).expect("launches");
    let got = y.to_ncdhw().expect("output");
    for (i, (&got, &want)) in got.iter().zip(&want.value).enumerate() {
        let stored = if dtype == DType::F16 { f16::from_f64(want).to_f64() } else { want };
        assert!(f64::from(got) == stored, "{} {dtype} {shape:?}: element {i} is {got}, expected {stored}", gpu.name());
    }
    let [means, sds] = [0, 1].map(|i| vectors[i].to_ndhwc().expect("statistics"));
    for (s, values) in got.chunks(positions).enumerate() {
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        let size = values.iter().map(|&v| f64::from(v).abs()).sum::<f64>() / values.len() as f64;
        // Merges are a tree: some tens of roundings of the means, and of the squares.
        let bound = 64.0 * 2f64.powi(-24);
        assert!((f64::from(means[s]) - mean).abs() <= bound * size, "{shape:?}: mean {s} is {}, not {mean}", means[s]);
        let sd = f64::from(sds[s]) * variance.sqrt();
        assert!((sd - 1.0).abs() <= bound * (1.0 + size / variance.sqrt()), "{shape:?}: sd {s} is off by {sd}");
    }
}

fn problem(input: Shape, co: usize, kernel: [usize; 3]) -> Conv3dProblem {
    let [d, h, w] = kernel;
    let params = Conv3dParams { padding: kernel.map(|k| k / 2), ..Conv3dParams::default() };
    Conv3dProblem::new(input, [co, input[1], d, h, w], params).expect("shapes that fit")
}

#[test]
fn a_pending_norm_is_applied_inside_and_padding_stays_zero() {
    for gpu in computing_gpus() {
        for dtype in types(&gpu) {
            for (input, co, kernel) in [
                ([2, 4, 3, 5, 9], 7, [3, 3, 3]),
                ([1, 40, 5, 9, 10], 34, [3, 3, 3]),
                ([2, 16, 1, 17, 11], 32, [1, 3, 3]),
            ] {
                let problem = problem(input, co, kernel);
                let [n, c, ..] = input;
                let x = whole(len(input), 11, 5);
                let (parameters, values) = normed(&x, n, c);
                let device = Device::Gpu(gpu.clone());
                let x = Tensor::from_ncdhw(&device, input, dtype, &x).expect("input");
                let [mean, inverse_sd, weight, bias] =
                    parameters.map(|p| Tensor::vector(&device, &p).and_then(|t| t.gpu_handle(&gpu)).expect("a vector"));
                let pending = PendingNorm {
                    statistics: Statistics { variance: mean.clone(), mean, inverse_sd },
                    affine: Affine { weight: Some(weight), bias: Some(bias) },
                    slope: SLOPE as f32,
                };
                let handle = x.gpu_handle(&gpu).expect("a buffer");
                let (w, b) = (whole(len(problem.weight_shape()), 13, 3), whole(co, 7, 9));
                check(&gpu, dtype, &problem, HaloInput::Normed(&handle, &pending), [&w, &b], &values);
            }
        }
    }
}

#[test]
fn two_inputs_are_read_as_one() {
    for gpu in computing_gpus() {
        for dtype in types(&gpu) {
            let (input, first) = ([2, 52, 3, 6, 9], 32);
            let problem = problem(input, 33, [3, 3, 3]);
            let x = whole(len(input), 11, 5);
            let device = Device::Gpu(gpu.clone());
            let part = |from: usize, to: usize| {
                let voxels = len(input) / 104;
                let data: Vec<f32> =
                    x.chunks(52 * voxels).flat_map(|image| image[from * voxels..to * voxels].to_vec()).collect();
                Tensor::from_ncdhw(&device, [2, to - from, 3, 6, 9], dtype, &data).expect("input")
            };
            let (low, high) = (part(0, first), part(first, 52));
            let [low, high] = [&low, &high].map(|t| t.gpu_handle(&gpu).expect("a buffer"));
            let (w, b) = (whole(len(problem.weight_shape()), 13, 3), whole(33, 7, 9));
            check(&gpu, dtype, &problem, HaloInput::Two([&low, &high], first), [&w, &b], &f64s(&x));
        }
    }
}
