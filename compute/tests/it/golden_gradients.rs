//! Gradients against PyTorch's autograd in f64; see tests/golden/gradients.py, which has the same cases.

use std::collections::HashMap;

use nephron_compute::ops::norm::backward_reference::{self as norm_reference, Norm};
use nephron_compute::ops::{self, ConvTranspose3dParams, Pool3dParams};
use nephron_compute::{DType, Device, Shape, Tensor};

use crate::norm::ROUNDINGS;
use crate::norm_backward::{K, Op, Oracle};
use crate::support::{assert_close, assert_exact, devices, f64s, gamma, tensor};

/// From -2 to 2 in steps of 1 / 256.
fn values(shape: &[usize], salt: usize) -> Vec<f32> {
    let len: usize = shape.iter().product();
    (0..len).map(|i| ((i * 7919 + salt * 331) % 1024) as f32 / 256.0 - 2.0).collect()
}

fn drawn(device: &Device, shape: Shape, salt: usize) -> Tensor {
    tensor(device, shape, DType::F32, &values(&shape, salt))
}

/// The arrays of the file by case and operand.
fn golden() -> HashMap<String, Vec<f64>> {
    let lines = include_str!("../../../tests/golden/gradients.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let key = format!("{} {}", words.next().expect("a case"), words.next().expect("an operand"));
            (key, words.map(|word| word.parse().expect("a number")).collect())
        })
        .collect()
}

/// As PyTorch writes a shape, without spaces.
fn name(op: &str, shape: Shape) -> String {
    format!("{op}({})", shape.map(|size| size.to_string()).join(","))
}

#[test]
fn gradients_of_norms_are_those_of_pytorch() {
    let golden = golden();
    let cases: [(&str, Op, Oracle); 2] = [
        ("instance_norm", ops::instance_norm_backward, norm_reference::instance_norm),
        ("batch_norm", ops::batch_norm_train_backward, norm_reference::batch_norm_train),
    ];
    for shape in [[2, 3, 3, 4, 5], [1, 17, 2, 3, 4]] {
        let [x, weight, bias, dy] =
            [values(&shape, 0), values(&shape[1..2], 1), values(&shape[1..2], 2), values(&shape, 7)];
        for (op, run, oracle) in cases {
            let [w64, b64] = [&weight, &bias].map(|data| f64s(data));
            let norm = Norm { weight: Some(&w64), bias: Some(&b64), eps: 1e-5, slope: 0.01 };
            let bounds = oracle(&f64s(&x), shape, &norm, &f64s(&dy));
            // No sign is a matter of rounding.
            assert!(bounds.distance_from_zero.iter().all(|distance| *distance > gamma(2 * ROUNDINGS)));
            for device in devices() {
                let [w, b] = [&weight, &bias].map(|data| Tensor::vector(device, data).expect("a vector"));
                let got = run(&drawn(device, shape, 0), Some(&w), Some(&b), 1e-5, 0.01, &drawn(device, shape, 7));
                let got = got.expect("gradients");
                let all = [(&got.dx, &bounds.dx), (&got.dweight, &bounds.dweight), (&got.dbias, &bounds.dbias)];
                for (operand, (got, bound)) in ["dx", "dweight", "dbias"].into_iter().zip(all) {
                    let key = format!("{} {operand}", name(op, shape));
                    assert_close(&key, got, &golden[&key], &bound.magnitude, K);
                }
            }
        }
    }
}

#[test]
fn gradients_of_transposed_convolutions_are_those_of_pytorch() {
    let golden = golden();
    for (x, w, stride, padding) in [
        ([2, 5, 2, 3, 4], [5, 3, 2, 2, 2], [2, 2, 2], [0, 0, 0]),
        ([1, 2, 3, 2, 3], [2, 4, 4, 3, 2], [3, 1, 2], [1, 1, 0]),
    ] {
        let params = ConvTranspose3dParams { stride, padding };
        for device in devices() {
            let [input, weight] = [drawn(device, x, 0), drawn(device, w, 1)];
            let output = ops::conv_transpose3d(&input, &weight, None, &params).expect("an output").shape();
            let got = ops::conv_transpose3d_backward(&input, &weight, &drawn(device, output, 7), &params);
            let got = got.expect("gradients");
            for (operand, got) in [("dx", &got.dx), ("dw", &got.dw), ("db", &got.db)] {
                let key = format!("{} {operand}", name("conv_transpose3d", w));
                // Products of multiples of 1 / 256 below 4, and sums of less than 2^8 of them, are exact in f32.
                assert_exact(&key, got, &golden[&key]);
            }
        }
    }
}

#[test]
fn gradients_of_pools_are_those_of_pytorch() {
    let golden = golden();
    for (shape, kernel, stride, padding) in
        [([2, 3, 5, 7, 6], [3, 3, 3], [2, 2, 2], [1, 1, 1]), ([1, 5, 4, 6, 9], [2, 2, 3], [2, 1, 2], [0, 1, 1])]
    {
        let params = Pool3dParams { kernel, stride, padding };
        let ties: Vec<f32> = values(&shape, 0).iter().map(|v| ((v * 256.0) as i32).rem_euclid(3) as f32).collect();
        for device in devices() {
            let x = drawn(device, shape, 0);
            let dy = drawn(device, ops::max_pool3d(&x, &params).expect("an output").shape(), 7);
            let largest = ops::max_pool3d_backward(&x, &params, &dy).expect("a gradient");
            let key = format!("{} dx", name("max_pool3d", shape));
            assert_exact(&key, &largest, &golden[&key]);
            let first = tensor(device, shape, DType::F32, &ties);
            let first = ops::max_pool3d_backward(&first, &params, &dy).expect("a gradient");
            let key = format!("{} dx", name("max_pool3d_ties", shape));
            // The case multiplies x by 256 before it takes remainders.
            let want: Vec<f64> = golden[&key].iter().map(|v| v / 256.0).collect();
            assert_exact(&key, &first, &want);
            let mean = ops::avg_pool3d_backward(shape, &params, &dy).expect("a gradient");
            let key = format!("{} dx", name("avg_pool3d", shape));
            // Sums are exact, and at most 2; Vulkan grants the division 2.5 ulps.
            let magnitude = vec![2.0; golden[&key].len()];
            assert_close(&key, &mean, &golden[&key], &magnitude, 5);
        }
    }
}

#[test]
fn gradients_of_layers_and_activations_are_those_of_pytorch() {
    let golden = golden();
    for device in devices() {
        let vector = |n, c, salt| drawn(device, [n, c, 1, 1, 1], salt);
        let got = ops::linear_backward(&vector(3, 7, 0), &vector(5, 7, 1), &vector(3, 5, 7)).expect("gradients");
        for (operand, got) in [("dx", &got.dx), ("dw", &got.dw), ("db", &got.db)] {
            let key = format!("linear {operand}");
            assert_exact(&key, got, &golden[&key]);
        }
        let got = ops::leaky_relu_backward(&vector(1024, 1, 0), 0.01, &vector(1024, 1, 7)).expect("a gradient");
        let magnitude: Vec<f64> = golden["leaky_relu dx"].iter().map(|v| v.abs()).collect();
        // The slope and the product are rounded.
        assert_close("leaky_relu dx", &got, &golden["leaky_relu dx"], &magnitude, 2);
    }
}
