//! max_pool3d and avg_pool3d.

use nephron_compute::ops::pool::reference;
use nephron_compute::ops::{self, Pool3dParams};
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

pub const fn pool(kernel: [usize; 3], stride: [usize; 3], padding: [usize; 3]) -> Pool3dParams {
    Pool3dParams { kernel, stride, padding }
}

/// ResNet's stem and its global average among them.
pub const CASES: [(Shape, Pool3dParams); 8] = [
    ([1, 1, 1, 1, 1], pool([1, 1, 1], [1, 1, 1], [0, 0, 0])),
    ([2, 3, 5, 7, 11], pool([2, 2, 2], [2, 2, 2], [0, 0, 0])),
    ([1, 7, 1, 13, 13], pool([1, 3, 3], [1, 2, 2], [0, 1, 1])),
    ([2, 17, 1, 7, 7], pool([1, 7, 7], [1, 1, 1], [0, 0, 0])),
    ([1, 2, 5, 6, 7], pool([3, 4, 5], [1, 2, 3], [1, 2, 2])),
    ([1, 5, 1, 2, 3], pool([2, 4, 6], [1, 1, 1], [1, 2, 3])),
    ([2, 1, 4, 4, 9], pool([2, 1, 2], [3, 5, 1], [1, 0, 0])),
    ([1, 4, 3, 1, 6], pool([1, 1, 1], [2, 1, 4], [0, 0, 0])),
];

pub fn len(shape: Shape) -> usize {
    shape.iter().product()
}

fn check(shape: Shape, params: Pool3dParams) {
    let mut rng = rng();
    let (whole, data) = (integers(&mut rng, len(shape), 50), uniform(&mut rng, len(shape)));
    let what = format!("{shape:?} {params:?}");
    let volume: usize = params.kernel.iter().product();
    // Sums of whole numbers are exact, and so are their quotients by a power of two.
    let (exact_mean, _) = reference::avg_pool3d(&f64s(&whole), shape, &params);
    let (mean, magnitude) = reference::avg_pool3d(&f64s(&data), shape, &params);
    for device in devices() {
        for dtype in float_types(device) {
            for data in [&whole, &data] {
                let want = reference::max_pool3d(&f64s(data), shape, &params);
                let y = ops::max_pool3d(&tensor(device, shape, dtype, data), &params).expect("max_pool3d");
                assert_exact(&format!("max_pool3d {what}"), &y, &want);
            }
            let y = ops::avg_pool3d(&tensor(device, shape, dtype, &whole), &params).expect("avg_pool3d");
            if volume.is_power_of_two() && dtype == DType::F32 {
                assert_exact(&format!("avg_pool3d {what}"), &y, &exact_mean);
            }
            let y = ops::avg_pool3d(&tensor(device, shape, dtype, &data), &params).expect("avg_pool3d");
            // Vulkan grants a division 2.5 ulps.
            assert_close(&format!("avg_pool3d {what}"), &y, &mean, &magnitude, volume + 5);
        }
    }
}

#[test]
fn pools_agree_with_the_reference() {
    for (shape, params) in CASES {
        check(shape, params);
    }
}

#[test]
fn drawn_pools_agree_with_the_reference() {
    let mut rng = rng();
    for _ in 0..4 {
        let (shape, params) = drawn(&mut rng);
        check(shape, params);
    }
}

pub fn drawn(rng: &mut impl Rng) -> (Shape, Pool3dParams) {
    let kernel = [0; 3].map(|_| rng.random_range(1..5usize));
    let padding = kernel.map(|k| rng.random_range(0..=k / 2));
    let stride = [0; 3].map(|_| rng.random_range(1..4));
    let [d, h, w] = kernel.map(|k| rng.random_range(k..9));
    ([rng.random_range(1..3), rng.random_range(1..9), d, h, w], pool(kernel, stride, padding))
}

#[test]
fn padding_never_wins_and_nan_always_does() {
    let shape = [1, 1, 1, 1, 6];
    let params = pool([1, 1, 3], [1, 1, 1], [0, 0, 1]);
    for x in [
        [-1.0, -5.0, -2.0, -8.0, -7.0, -9.0],
        [1.0, f32::NAN, 3.0, 4.0, 2.0, 0.0],
        [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, f32::INFINITY, f32::NAN],
    ] {
        let want = reference::max_pool3d(&f64s(&x), shape, &params);
        for device in devices() {
            for dtype in float_types(device) {
                let y = ops::max_pool3d(&tensor(device, shape, dtype, &x), &params).expect("max_pool3d");
                assert_close("max_pool3d", &y, &want, &[0.0; 6], 0);
            }
        }
    }
}

#[test]
fn no_images_or_channels_give_an_empty_result() {
    let params = pool([2; 3], [2; 3], [0; 3]);
    for device in devices() {
        for shape in [[0, 3, 4, 4, 4], [2, 0, 4, 4, 4]] {
            let x = tensor(device, shape, DType::F32, &[]);
            assert_eq!(ops::max_pool3d(&x, &params).expect("max_pool3d").shape(), [shape[0], shape[1], 2, 2, 2]);
            assert!(ops::avg_pool3d(&x, &params).expect("avg_pool3d").is_empty());
        }
    }
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let cpu = Device::Cpu;
    let x = tensor(&cpu, [1, 1, 2, 3, 4], DType::F32, &[0.0; 24]);
    let flat = tensor(&cpu, [1, 1, 0, 3, 4], DType::F32, &[]);
    let labels = Tensor::from_u8(&cpu, [1, 1, 1, 1, 2], vec![0, 1]).expect("labels");
    let ones = pool([1; 3], [1; 3], [0; 3]);
    let refused = [
        (&x, Pool3dParams { kernel: [1, 0, 1], ..ones }, ["kernel", "1 to 65535", "[1, 0, 1]"]),
        (&x, Pool3dParams { stride: [1, 1, 0], ..ones }, ["stride", "1 to 65535", "[1, 1, 0]"]),
        (&x, Pool3dParams { stride: [1, 1, usize::MAX], ..ones }, ["stride", "65535", "18446744073709551615"]),
        (&x, Pool3dParams { kernel: [2; 3], padding: [1, 2, 1], ..ones }, ["padding", "[2, 2, 2]", "[1, 2, 1]"]),
        (&x, Pool3dParams { kernel: [3; 3], ..ones }, ["input", "[3, 3, 3]", "[2, 3, 4]"]),
        (&flat, Pool3dParams { kernel: [2; 3], padding: [1; 3], ..ones }, ["input", "at least 1", "[0, 3, 4]"]),
        (&labels, ones, ["dtype", "f32", "u8"]),
    ];
    for (x, params, parts) in refused {
        for result in [ops::max_pool3d(x, &params), ops::avg_pool3d(x, &params)] {
            let message = result.expect_err("does not fit").to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
