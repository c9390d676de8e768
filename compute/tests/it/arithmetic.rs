//! add, add_leaky_relu, add_scaled, scale, concat and split.

use nephron_compute::ops;
use nephron_compute::ops::activation;
use nephron_compute::ops::arithmetic::reference;
use nephron_compute::{Device, Shape, Tensor};
use rand::Rng;

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

const SHAPES: [Shape; 5] = [[1, 1, 1, 1, 1], [2, 3, 5, 7, 11], [1, 1, 1, 1, 257], [3, 17, 1, 1, 1], [1, 32, 4, 8, 9]];

fn len(shape: Shape) -> usize {
    shape.iter().product()
}

#[test]
fn add_is_exact_on_whole_numbers_and_bounded_otherwise() {
    let mut rng = rng();
    for shape in SHAPES {
        let (ia, ib) = (integers(&mut rng, len(shape), 100), integers(&mut rng, len(shape), 100));
        let (a, b) = (uniform(&mut rng, len(shape)), uniform(&mut rng, len(shape)));
        let (exact, _) = reference::add(&f64s(&ia), &f64s(&ib));
        let (want, magnitude) = reference::add(&f64s(&a), &f64s(&b));
        for device in devices() {
            for dtype in float_types(device) {
                let y = ops::add(&tensor(device, shape, dtype, &ia), &tensor(device, shape, dtype, &ib));
                assert_exact("add", &y.expect("add"), &exact);
                let y = ops::add(&tensor(device, shape, dtype, &a), &tensor(device, shape, dtype, &b));
                assert_close("add", &y.expect("add"), &want, &magnitude, 1);
            }
        }
    }
}

#[test]
fn add_leaky_relu_is_the_activation_of_the_sum() {
    let mut rng = rng();
    for shape in SHAPES {
        let (a, b) = (uniform(&mut rng, len(shape)), uniform(&mut rng, len(shape)));
        let (sum, magnitude) = reference::add(&f64s(&a), &f64s(&b));
        for slope in [0.0, 0.01, 1.0] {
            let want = activation::reference::leaky_relu(&sum, f64::from(slope));
            for device in devices() {
                for dtype in float_types(device) {
                    let (a, b) = (tensor(device, shape, dtype, &a), tensor(device, shape, dtype, &b));
                    let y = ops::add_leaky_relu(&a, &b, slope).expect("add_leaky_relu");
                    // The sum and the product with the slope are rounded.
                    assert_close("add_leaky_relu", &y, &want, &magnitude, 2);
                }
            }
        }
    }
}

#[test]
fn add_scaled_and_scale_are_exact_on_whole_numbers_and_bounded_otherwise() {
    let mut rng = rng();
    for shape in SHAPES {
        let (ia, ib) = (integers(&mut rng, len(shape), 20), integers(&mut rng, len(shape), 20));
        let (a, b) = (uniform(&mut rng, len(shape)), uniform(&mut rng, len(shape)));
        for device in devices() {
            for dtype in float_types(device) {
                let [ta, tb, tia, tib] = [&a, &b, &ia, &ib].map(|data| tensor(device, shape, dtype, data));
                let scaled = |b: &[f32], factor: f32| -> Vec<f64> {
                    b.iter().map(|b| f64::from(*b) * f64::from(factor)).collect()
                };
                let (want, _) = reference::add(&f64s(&ia), &scaled(&ib, -4.0));
                assert_exact("add_scaled", &ops::add_scaled(&tia, &tib, -4.0).expect("add_scaled"), &want);
                assert_exact("scale", &ops::scale(&tib, -4.0).expect("scale"), &scaled(&ib, -4.0));
                let (want, magnitude) = reference::add(&f64s(&a), &scaled(&b, 0.3));
                assert_close("add_scaled", &ops::add_scaled(&ta, &tb, 0.3).expect("add_scaled"), &want, &magnitude, 2);
                let want = scaled(&b, 0.3);
                let magnitude: Vec<f64> = want.iter().map(|v| v.abs()).collect();
                assert_close("scale", &ops::scale(&tb, 0.3).expect("scale"), &want, &magnitude, 1);
            }
        }
    }
}

/// Concatenates tensors of `channels` over images of `shape` (its c is ignored) and compares every element.
fn check_concat(shape: Shape, channels: &[usize]) {
    let mut rng = rng();
    let [n, _, d, h, w] = shape;
    let parts: Vec<(Vec<f32>, usize)> = channels.iter().map(|&c| (uniform(&mut rng, n * c * d * h * w), c)).collect();
    let oracle: Vec<_> = parts.iter().map(|(data, c)| (f64s(data), *c)).collect();
    let oracle: Vec<_> = oracle.iter().map(|(data, c)| (data.as_slice(), *c)).collect();
    let want = reference::concat(&oracle, n, d * h * w);
    for device in devices() {
        for dtype in float_types(device) {
            let tensors: Vec<_> = parts.iter().map(|(x, c)| tensor(device, [n, *c, d, h, w], dtype, x)).collect();
            let y = ops::concat(&tensors.iter().collect::<Vec<_>>()).expect("concat");
            assert_eq!(y.shape(), [n, channels.iter().sum(), d, h, w]);
            assert_exact(&format!("concat {channels:?}"), &y, &want);
            let back = ops::split(&y, channels).expect("split");
            assert_eq!(back.len(), channels.len());
            for (back, (want, _)) in back.iter().zip(&oracle) {
                assert_exact(&format!("split {channels:?}"), back, want);
            }
        }
    }
}

#[test]
fn concat_copies_every_channel_to_its_place() {
    check_concat([1, 0, 1, 1, 1], &[1]);
    check_concat([2, 0, 3, 5, 7], &[3, 1, 7]);
    check_concat([2, 0, 1, 3, 5], &[32, 32]);
    // Widths of 4, 2 and 1 elements at a time.
    check_concat([1, 0, 2, 3, 3], &[8, 4]);
    check_concat([1, 0, 2, 3, 3], &[6, 2, 4]);
    check_concat([3, 0, 2, 2, 1], &[4, 3]);
    check_concat([2, 0, 2, 2, 3], &[2, 0, 5]);
    let mut rng = rng();
    let drawn: Vec<usize> = (0..rng.random_range(1..5)).map(|_| rng.random_range(1..20)).collect();
    check_concat([rng.random_range(1..4), 0, 3, 2, 5], &drawn);
}

#[test]
fn empty_tensors_give_empty_results() {
    for device in devices() {
        let x = tensor(device, [2, 3, 0, 4, 5], nephron_compute::DType::F32, &[]);
        assert!(ops::add(&x, &x).expect("add").is_empty());
        assert_eq!(ops::concat(&[&x, &x]).expect("concat").shape(), [2, 6, 0, 4, 5]);
        assert_eq!(ops::split(&x, &[1, 2]).expect("split")[1].shape(), [2, 2, 0, 4, 5]);
        assert!(ops::add_scaled(&x, &x, 2.0).expect("add_scaled").is_empty());
        assert!(ops::scale(&x, 2.0).expect("scale").is_empty());
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let cpu = Device::Cpu;
    let x = tensor(&cpu, [1, 2, 1, 1, 3], nephron_compute::DType::F32, &[0.0; 6]);
    let y = tensor(&cpu, [1, 3, 1, 1, 2], nephron_compute::DType::F32, &[0.0; 6]);
    let labels = Tensor::from_u8(&cpu, [1, 2, 1, 1, 3], vec![0; 6]).expect("labels");
    let first = |parts: nephron_compute::Result<Vec<Tensor>>| parts.map(|parts| parts[0].clone());
    let refused: [(nephron_compute::Result<Tensor>, [&str; 2]); 13] = [
        (ops::add(&x, &y), ["[1, 2, 1, 1, 3]", "[1, 3, 1, 1, 2]"]),
        (ops::add(&x, &labels), ["f32", "u8"]),
        (ops::add(&labels, &x), ["f32", "u8"]),
        (ops::concat(&[&x, &y]), ["[1, 3, 1, 1, 3]", "[1, 3, 1, 1, 2]"]),
        (ops::concat(&[&x, &labels]), ["f32", "u8"]),
        (ops::concat(&[]), ["at least 1", "0"]),
        (first(ops::split(&x, &[1, 2])), ["the 2 of shape [1, 2, 1, 1, 3]", "3"]),
        (first(ops::split(&x, &[usize::MAX, 3])), ["the 2 of shape", "18446744073709551615"]),
        (first(ops::split(&labels, &[2])), ["f32", "u8"]),
        (ops::add_scaled(&x, &y, 2.0), ["[1, 2, 1, 1, 3]", "[1, 3, 1, 1, 2]"]),
        (ops::add_scaled(&x, &labels, 2.0), ["f32", "u8"]),
        (ops::add_scaled(&x, &x, f32::NAN), ["finite", "NaN"]),
        (ops::scale(&x, f32::INFINITY), ["finite", "inf"]),
    ];
    for (result, [expected, found]) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(message.contains(expected) && message.contains(found), "{message}");
    }
    for device in devices().iter().filter(|d| **d != cpu) {
        let elsewhere = x.to_device(device).expect("a copy");
        let message = ops::add(&x, &elsewhere).expect_err("two devices").to_string();
        assert!(message.contains("cpu") && message.contains(&device.name()), "{message}");
    }
}
