//! Convolution, norm and activation as one operation.

use nephron_compute::ops::conv3d::reference::conv3d;
use nephron_compute::ops::norm::reference::instance_norm;
use nephron_compute::ops::{self, Conv3dParams, ConvBlockNorm, ConvBlockWeights};
use nephron_compute::{DType, Device, Shape, Tensor};

use crate::support::{assert_close, compiles_only, devices, f64s, integers, rng, tensor, uniform, with_tf32};

const SLOPE: f32 = 0.25;
const EPS: f32 = 1e-5;

/// [n, c, d, h, w] parts of one tensor along c.
fn joined(parts: &[Vec<f32>], shape: Shape) -> (Vec<f32>, Shape) {
    let [n, c, d, h, w] = shape;
    let image = c * d * h * w;
    let data = (0..n).flat_map(|i| parts.iter().flat_map(move |p| p[i * image..(i + 1) * image].to_vec())).collect();
    (data, [n, c * parts.len(), d, h, w])
}

/// Whole numbers make the convolution exact, so what is left is the norm's rounding; `inputs` tensors of `shape`.
fn check(inputs: usize, shape: Shape, weight: Shape, params: Conv3dParams) {
    let mut rng = rng();
    let parts: Vec<_> = (0..inputs).map(|_| integers(&mut rng, shape.iter().product(), 3)).collect();
    let w = integers(&mut rng, weight.iter().product(), 2);
    let [b, scale, shift] = [9, 4, 5].map(|k| integers(&mut rng, weight[0], k));
    let (x, whole) = joined(&parts, shape);
    let y = conv3d(&f64s(&x), whole, &f64s(&w), weight, Some(&f64s(&b)), &params);
    let want = instance_norm(&y.value, y.shape, Some(&f64s(&scale)), Some(&f64s(&shift)), EPS.into());
    let value: Vec<f64> = want.value.iter().map(|&v| if v > 0.0 { v } else { f64::from(SLOPE) * v }).collect();
    for device in devices() {
        let xs: Vec<_> = parts.iter().map(|part| tensor(device, shape, DType::F32, part)).collect();
        let w = tensor(device, weight, DType::F32, &w);
        let [b, scale, shift] = [&b, &scale, &shift].map(|v| Tensor::vector(device, v).expect("a vector"));
        let norm = ConvBlockNorm { weight: Some(&scale), bias: Some(&shift), eps: EPS, slope: SLOPE };
        let block = ConvBlockWeights { w: &w, b: Some(&b), params, norm };
        for got in by_every_algorithm(&xs, &[block]) {
            assert_eq!(got.shape(), y.shape);
            // The norm's roundings (see its tests) and the slope's.
            assert_close(&format!("conv_block {inputs} x {shape:?}"), &got, &value, &want.magnitude, 20);
        }
    }
}

/// As it would be done, and on a GPU with the inputs kept in shared memory where that kernel can.
fn by_every_algorithm(xs: &[Tensor], blocks: &[ConvBlockWeights<'_>]) -> Vec<Tensor> {
    let mut all = vec![ops::conv_blocks(xs.to_vec(), blocks).expect("conv_blocks")];
    #[cfg(feature = "gpu")]
    if let Device::Gpu(gpu) = xs[0].device() {
        let by = ops::Conv3dAlgorithm::Halo;
        let caps = ops::conv_plan::DeviceCaps::of(&gpu, xs[0].dtype());
        let mut shape = xs[0].shape();
        shape[1] = xs.iter().map(|x| x.shape()[1]).sum();
        let able = blocks.iter().all(|block| {
            let problem = ops::conv_problem::Conv3dProblem::new(shape, block.w.shape(), block.params).expect("it fits");
            shape = problem.output_shape();
            by.unsupported(&problem, &caps).is_none()
        });
        if able {
            all.push(ops::conv_blocks_by(by, xs.to_vec(), blocks).expect("conv_blocks by halo"));
        }
    }
    all
}

/// Two blocks in a row, in f64 and on every device. The first one's roundings pass through the second: `magnitude` follows
/// them through its convolution (the largest weight's absolute sums), the mean and the deviation of its norm.
#[test]
fn a_row_of_blocks_agrees_with_the_references() {
    let mut rng = rng();
    for (shape, channels, kernel) in [
        ([2, 3, 5, 6, 9], [20, 35], [3, 3, 3]),
        ([1, 32, 4, 9, 8], [32, 33], [3, 3, 3]),
        ([1, 5, 1, 17, 12], [16, 7], [1, 3, 3]),
    ] {
        let params = Conv3dParams { padding: kernel.map(|k| k / 2), ..Conv3dParams::default() };
        let mut data = integers(&mut rng, shape.iter().product(), 3);
        let x = data.clone();
        let mut weights = Vec::new();
        let (mut value, mut magnitude, mut at) = (f64s(&data), vec![0.0; data.len()], shape);
        for co in channels {
            let w_shape = [co, at[1], kernel[0], kernel[1], kernel[2]];
            data = integers(&mut rng, w_shape.iter().product(), 2);
            let [b, scale, shift] = [9, 4, 5].map(|k| integers(&mut rng, co, k));
            let y = conv3d(&value, at, &f64s(&data), w_shape, Some(&f64s(&b)), &params);
            let absolute: Vec<f64> = data.iter().map(|w| f64::from(w.abs())).collect();
            let carried = conv3d(&magnitude, at, &absolute, w_shape, None, &params).value;
            let normed = instance_norm(&y.value, y.shape, Some(&f64s(&scale)), Some(&f64s(&shift)), EPS.into());
            let voxels = y.value.len() / (y.shape[0] * co);
            magnitude = normed.magnitude.clone();
            for (s, chunk) in y.value.chunks(voxels).enumerate() {
                let mean = chunk.iter().sum::<f64>() / voxels as f64;
                let sd =
                    (chunk.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / voxels as f64 + f64::from(EPS)).sqrt();
                let errors = &carried[s * voxels..(s + 1) * voxels];
                let most = errors.iter().fold(0.0, |a: f64, &b| a.max(b));
                for (i, v) in chunk.iter().enumerate() {
                    // What came in, the mean's share of it, and the deviation's, as far as the value is from the mean.
                    let z = ((v - mean) / sd).abs();
                    let gain = f64::from(scale[s % co].abs()) / sd;
                    magnitude[s * voxels + i] +=
                        gain * (errors[i] + most * (1.0 + z)) + gain * y.magnitude[s * voxels + i];
                }
            }
            value = normed.value.iter().map(|&v| if v > 0.0 { v } else { f64::from(SLOPE) * v }).collect();
            weights.push((w_shape, data.clone(), [b, scale, shift]));
            at = y.shape;
        }
        let terms = 20 + channels[0] * 27 + 20;
        for device in devices() {
            let on_device: Vec<_> = weights
                .iter()
                .map(|(shape, w, vectors)| {
                    let vectors = vectors.each_ref().map(|v| Tensor::vector(device, v).expect("a vector"));
                    (tensor(device, *shape, DType::F32, w), vectors)
                })
                .collect();
            let blocks: Vec<_> = on_device
                .iter()
                .map(|(w, [b, scale, shift])| {
                    let norm = ConvBlockNorm { weight: Some(scale), bias: Some(shift), eps: EPS, slope: SLOPE };
                    ConvBlockWeights { w, b: Some(b), params, norm }
                })
                .collect();
            for got in by_every_algorithm(&[tensor(device, shape, DType::F32, &x)], &blocks) {
                assert_eq!(got.shape(), at);
                assert_close(&format!("two blocks of {shape:?}"), &got, &value, &magnitude, terms);
            }
        }
    }
}

/// Through CUDA's compiler: the kernel with two inputs and between two norms, in every type and brick.
#[test]
fn blocks_compile_without_spills() {
    for device in devices().iter().filter(|d| compiles_only(d)).map(with_tf32) {
        let device = &device;
        for (dtype, ci, co, size, bricks) in [
            (DType::F16, 32, 32, [8, 16, 16], "[4, 8, 8], kernel: [3, 3, 3], n: 32, chunk: 32"),
            (DType::BF16, 8, 16, [8, 16, 16], "[4, 8, 8], kernel: [3, 3, 3], n: 32, chunk: 16"),
            (DType::F32, 16, 32, [8, 16, 16], "[4, 8, 8], kernel: [3, 3, 3], n: 32, chunk: 16"),
            (DType::F16, 32, 32, [1, 64, 64], "[1, 16, 16], kernel: [1, 3, 3], n: 32, chunk: 32"),
        ] {
            let kernel = if size[0] == 1 { [1, 3, 3] } else { [3; 3] };
            let params = Conv3dParams { padding: kernel.map(|k| k / 2), ..Conv3dParams::default() };
            let zeros = |shape| Tensor::zeros(device, shape, dtype).expect("zeros");
            let xs = [(); 2].map(|()| zeros([1, ci, size[0], size[1], size[2]])).to_vec();
            let [first, second] = [2 * ci, co].map(|c| zeros([co, c, kernel[0], kernel[1], kernel[2]]));
            let norm = ConvBlockNorm { weight: None, bias: None, eps: EPS, slope: SLOPE };
            let blocks = [&first, &second].map(|w| ConvBlockWeights { w, b: None, params, norm });
            ops::conv_blocks_by(ops::Conv3dAlgorithm::Halo, xs, &blocks).expect("launches");
            device.synchronize().unwrap_or_else(|e| panic!("{dtype} {ci} to {co}: {e}"));
            let verdicts = nephron_cuda_compile::verdicts();
            let with_moments = |v: &&nephron_cuda_compile::Verdict| {
                v.options.contains(bricks)
                    && v.options.contains("with_moments: true")
                    && v.types.starts_with(&dtype.to_string())
            };
            let found = verdicts.iter().filter(with_moments).count();
            assert!(found >= 4, "{dtype} {bricks}: two kernels for two GPUs, found {found}");
        }
    }
}

#[test]
fn agrees_with_the_references() {
    let three = Conv3dParams { padding: [1; 3], ..Conv3dParams::default() };
    check(1, [1, 1, 5, 7, 6], [32, 1, 3, 3, 3], three);
    check(1, [2, 3, 5, 4, 7], [5, 3, 3, 3, 3], Conv3dParams { stride: [2, 1, 2], ..three });
    check(2, [2, 8, 4, 5, 13], [20, 16, 3, 3, 3], three);
    check(3, [1, 5, 3, 6, 5], [40, 15, 1, 3, 3], Conv3dParams { padding: [0, 1, 1], ..three });
    check(1, [1, 6, 3, 4, 5], [4, 3, 3, 3, 3], Conv3dParams { groups: 2, ..three });
    // Groups span the inputs; several tiles of voxels.
    check(2, [1, 3, 3, 4, 5], [4, 3, 3, 3, 3], Conv3dParams { groups: 2, ..three });
    check(2, [1, 4, 9, 9, 9], [16, 8, 3, 3, 3], three);
}

#[test]
fn inputs_of_different_width_are_joined() {
    let mut rng = rng();
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let [a, b] = [3, 5].map(|c| tensor(device, [1, c, 4, 5, 6], DType::F32, &uniform(&mut rng, c * 120)));
        let w = tensor(device, [4, 8, 1, 1, 1], DType::F32, &uniform(&mut rng, 32));
        let norm = ConvBlockNorm { weight: None, bias: None, eps: EPS, slope: SLOPE };
        let params = Conv3dParams::default();
        let block = |xs: &[&Tensor]| ops::conv_block(xs, &w, None, &params, &norm).and_then(|y| y.to_ncdhw());
        let whole = ops::concat(&[&a, &b]).expect("concat");
        assert_eq!(block(&[&a, &b]).expect("conv_block"), block(&[&whole]).expect("conv_block"), "{}", device.name());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_values() {
    let zeros = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    let (x, w) = (zeros([1, 2, 4, 4, 4]), zeros([3, 2, 1, 1, 1]));
    let norm = ConvBlockNorm { weight: None, bias: None, eps: EPS, slope: SLOPE };
    let refuse = |xs: &[&Tensor], norm: &ConvBlockNorm<'_>| {
        ops::conv_block(xs, &w, None, &Conv3dParams::default(), norm).expect_err("must be refused").to_string()
    };
    let names = |message: String, parts: &[&str]| {
        for part in parts {
            assert!(message.contains(part), "'{part}' is missing: {message}");
        }
    };
    names(refuse(&[], &norm), &["inputs", "at least 1", "0"]);
    names(refuse(&[&x, &x], &norm), &["weight", "4 channels", "2 in"]);
    names(refuse(&[&x, &zeros([1, 2, 4, 4, 3])], &norm), &["[1, 2, 4, 4, 4]", "[1, 2, 4, 4, 3]"]);
    names(refuse(&[&x], &ConvBlockNorm { eps: -1.0, ..norm }), &["eps", "0 or more", "-1"]);
    let narrow = Tensor::vector(&Device::Cpu, &[1.0; 2]).expect("a vector");
    names(
        refuse(&[&x], &ConvBlockNorm { weight: Some(&narrow), ..norm }),
        &["weight", "[1, 3, 1, 1, 1]", "[1, 2, 1, 1, 1]"],
    );
}

/// The CPU keeps weights in packed form beside them; another use of the same tensor must not meet that form.
#[test]
fn one_weight_serves_several_operations() {
    let mut rng = rng();
    let x = tensor(&Device::Cpu, [1, 4, 4, 4, 4], DType::F32, &uniform(&mut rng, 256));
    let data = uniform(&mut rng, 4 * 4 * 8);
    let fresh = || tensor(&Device::Cpu, [4, 4, 2, 2, 2], DType::F32, &data);
    let transposed = |w: &Tensor, stride: usize| {
        let params = ops::ConvTranspose3dParams { stride: [stride; 3], ..Default::default() };
        ops::conv_transpose3d(&x, w, None, &params).and_then(|y| y.to_ncdhw()).expect("conv_transpose3d")
    };
    let grouped = |w: &Tensor, groups: usize| {
        let w = w.reshape([4, 4, 2, 2, 2]).expect("itself");
        let x = ops::concat(&vec![&x; groups]).expect("concat");
        let params = Conv3dParams { groups, ..Conv3dParams::default() };
        ops::conv3d(&x, &w, None, &params).and_then(|y| y.to_ncdhw()).expect("conv3d")
    };
    let shared = fresh();
    for _ in 0..2 {
        assert_eq!(grouped(&shared, 1), grouped(&fresh(), 1));
        assert_eq!(grouped(&shared, 2), grouped(&fresh(), 2));
        assert_eq!(transposed(&shared, 2), transposed(&fresh(), 2));
        assert_eq!(transposed(&shared, 1), transposed(&fresh(), 1));
    }
    let shared = fresh();
    assert_eq!(transposed(&shared, 2), transposed(&fresh(), 2));
    assert_eq!(transposed(&shared, 1), transposed(&fresh(), 1));
    assert_eq!(grouped(&shared, 2), grouped(&fresh(), 2));
}
