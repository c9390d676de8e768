//! softmax and argmax.

use nephron_compute::ops;
use nephron_compute::ops::softmax::reference;
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::support::{
    assert_close, assert_exact, compiles_only, devices, f64s, float_types, integers, rng, tensor, uniform,
};

/// Voxel counts that end in every place of a word.
const SHAPES: [Shape; 7] = [
    [1, 1, 1, 1, 1],
    [2, 3, 5, 7, 11],
    [1, 5, 1, 1, 257],
    [3, 17, 1, 1, 1],
    [1, 256, 1, 2, 3],
    [1, 3, 4, 8, 9],
    [3, 2, 1, 2, 1],
];
/// Exponential, subtraction and division a channel at Vulkan's precision (3 + 2 |v| ulps, and 2.5), then the sum.
const ROUNDINGS: usize = 24;

fn len(shape: Shape) -> usize {
    shape.iter().product()
}

fn check_softmax(shape: Shape, x: &[f32], device: &Device, dtype: DType) {
    let (want, magnitude) = reference::softmax(&f64s(x), shape);
    let y = ops::softmax(&tensor(device, shape, dtype, x)).expect("softmax");
    assert_close(&format!("softmax {shape:?}"), &y, &want, &magnitude, ROUNDINGS + shape[1]);
}

fn check_argmax(shape: Shape, x: &[f32]) {
    let want = reference::argmax(&f64s(x), shape);
    for device in devices() {
        for dtype in float_types(device) {
            let y = ops::argmax(&tensor(device, shape, dtype, x)).expect("argmax");
            assert_eq!(y.shape(), [shape[0], 1, shape[2], shape[3], shape[4]]);
            let labels = y.to_u8().expect("labels");
            assert!(compiles_only(device) || labels == want, "{shape:?} on {}: {labels:?}, {want:?}", device.name());
        }
    }
}

#[test]
fn equal_logits_share_equally() {
    let shape = [2, 4, 1, 3, 5];
    let x: Vec<f32> = (0..len(shape)).map(|i| (i % 15) as f32 * 100.0).collect();
    for device in devices() {
        for dtype in float_types(device) {
            let y = ops::softmax(&tensor(device, shape, dtype, &x)).expect("softmax");
            assert_exact("softmax", &y, &vec![0.25; len(shape)]);
        }
    }
}

#[test]
fn softmax_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let x: Vec<f32> = uniform(&mut rng, len(shape)).into_iter().map(|v| v * 8.0).collect();
        // Exponentials of these overflow unless the largest is taken off first. Steps of 8 are exact even in bf16.
        let large: Vec<f32> = (0..len(shape)).map(|_| 1024.0 + 8.0 * rng.random_range(-5i32..=5) as f32).collect();
        let negative: Vec<f32> = large.iter().map(|v| -v).collect();
        for device in devices() {
            for dtype in float_types(device) {
                for x in [&x, &large, &negative] {
                    check_softmax(shape, x, device, dtype);
                }
            }
        }
    }
}

#[test]
fn a_winner_by_far_takes_all() {
    let (x, want) = ([1e4, -1e4, 0.0], [1.0, 0.0, 0.0]);
    for device in devices() {
        for dtype in float_types(device) {
            let y = ops::softmax(&tensor(device, [1, 3, 1, 1, 1], dtype, &x)).expect("softmax");
            assert_exact("softmax", &y, &want);
        }
    }
}

#[test]
fn a_nan_spreads_over_its_voxel_alone() {
    let x = [0.0, f32::NAN, 0.0, 0.0];
    for device in devices() {
        for dtype in float_types(device) {
            let y = ops::softmax(&tensor(device, [1, 2, 1, 1, 2], dtype, &x)).expect("softmax");
            assert_close("softmax", &y, &[0.5, f64::NAN, 0.5, f64::NAN], &[0.5; 4], ROUNDINGS);
        }
    }
}

#[test]
fn argmax_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        // Few distinct values: ties are common, and the lowest channel wins them.
        check_argmax(shape, &integers(&mut rng, len(shape), 2));
        check_argmax(shape, &uniform(&mut rng, len(shape)));
    }
    for voxels in 1..10 {
        check_argmax([1, 3, 1, 1, voxels], &uniform(&mut rng, 3 * voxels));
    }
}

#[test]
fn argmax_takes_the_first_nan_and_copes_with_infinities() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    // Four voxels in columns, three channels in rows.
    check_argmax([1, 3, 1, 1, 4], &[1.0, nan, -inf, 0.0, nan, 2.0, -inf, inf, nan, nan, -inf, inf]);
}

#[test]
fn empty_tensors_give_empty_results() {
    for device in devices() {
        let x = tensor(device, [1, 3, 0, 4, 5], DType::F32, &[]);
        assert_eq!(ops::softmax(&x).expect("softmax").shape(), [1, 3, 0, 4, 5]);
        assert_eq!(ops::argmax(&x).expect("argmax").shape(), [1, 1, 0, 4, 5]);
        assert!(ops::softmax(&tensor(device, [1, 0, 2, 2, 2], DType::F32, &[])).expect("softmax").is_empty());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let cpu = Device::Cpu;
    let labels = Tensor::from_u8(&cpu, [1, 2, 1, 1, 1], vec![0; 2]).expect("labels");
    let of = |c| tensor(&cpu, [1, c, 1, 1, 1], DType::F32, &vec![0.0; c]);
    let refused = [
        (ops::softmax(&labels), ["f32", "u8"]),
        (ops::argmax(&labels), ["f32", "u8"]),
        (ops::argmax(&of(0)), ["1 to 256", "0 in [1, 0, 1, 1, 1]"]),
        (ops::argmax(&of(257)), ["1 to 256", "257 in"]),
    ];
    for (result, parts) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
