//! adaptive_avg_pool3d.

use nephron_compute::ops::adaptive_avg_pool3d;
use nephron_compute::ops::adaptive_pool::reference;
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

/// Images [n, c, d, h, w] and their numbers of bins: PSPNet's 1, 2, 3 and 6 bins, fewer and more bins than voxels, and the same number.
const CASES: [(Shape, [usize; 3]); 9] = [
    ([1, 1, 1, 1, 1], [1, 1, 1]),
    ([2, 17, 1, 9, 11], [1, 1, 1]),
    ([1, 5, 1, 9, 11], [1, 2, 2]),
    ([2, 3, 1, 9, 11], [1, 3, 3]),
    ([1, 19, 1, 9, 11], [1, 6, 6]),
    ([1, 4, 1, 5, 6], [1, 6, 6]),
    ([2, 3, 7, 5, 4], [3, 5, 1]),
    ([1, 2, 2, 3, 1], [5, 7, 4]),
    ([3, 1, 8, 4, 16], [4, 2, 4]),
];

fn check(shape: Shape, size: [usize; 3]) {
    let mut rng = rng();
    let count = shape.iter().product();
    let (whole, data) = (integers(&mut rng, count, 100), uniform(&mut rng, count));
    let (exact, _) = reference::adaptive_avg_pool3d(&f64s(&whole), shape, size);
    let (mean, magnitude) = reference::adaptive_avg_pool3d(&f64s(&data), shape, size);
    let volume: usize = (0..3).map(|axis| shape[2 + axis].div_ceil(size[axis]) + 1).product();
    let halves = (0..3).all(|axis| {
        let bin = shape[2 + axis] / size[axis];
        shape[2 + axis].is_multiple_of(size[axis]) && bin.is_power_of_two()
    });
    for device in devices() {
        for dtype in float_types(device) {
            let what = format!("{shape:?} into {size:?}");
            let y = adaptive_avg_pool3d(&tensor(device, shape, dtype, &whole), size).expect("pooled");
            assert_eq!(y.shape()[2..], size);
            if halves && dtype == DType::F32 {
                assert_exact(&what, &y, &exact);
            }
            let y = adaptive_avg_pool3d(&tensor(device, shape, dtype, &data), size).expect("pooled");
            // Vulkan grants a division 2.5 ulps.
            assert_close(&what, &y, &mean, &magnitude, volume + 5);
        }
    }
}

#[test]
fn agrees_with_the_reference() {
    for (shape, size) in CASES {
        check(shape, size);
    }
}

#[test]
fn drawn_sizes_agree_with_the_reference() {
    let mut rng = rng();
    for _ in 0..4 {
        let axes = [0; 5].map(|_| rng.random_range(1..10usize));
        check(axes, [0; 3].map(|_| rng.random_range(1..9)));
    }
}

#[test]
fn no_images_or_channels_give_an_empty_result() {
    for device in devices() {
        for shape in [[0, 3, 1, 4, 4], [2, 0, 1, 4, 4]] {
            let y = adaptive_avg_pool3d(&tensor(device, shape, DType::F32, &[]), [1, 2, 2]).expect("pooled");
            assert_eq!(y.shape(), [shape[0], shape[1], 1, 2, 2]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let cpu = Device::Cpu;
    let x = tensor(&cpu, [1, 1, 1, 2, 2], DType::F32, &[0.0; 4]);
    let flat = tensor(&cpu, [1, 1, 0, 3, 4], DType::F32, &[]);
    let long = Tensor::zeros(&cpu, [1, 1, 1, 1, 65_536], DType::F32).expect("zeros");
    let labels = Tensor::from_u8(&cpu, [1, 1, 1, 1, 2], vec![0, 1]).expect("labels");
    for (x, size, parts) in [
        (&x, [1, 0, 1], ["size", "1 to 65535", "[1, 0, 1]"]),
        (&x, [1, 1, 65_536], ["size", "1 to 65535", "[1, 1, 65536]"]),
        (&flat, [1, 1, 1], ["input", "1 to 65535", "[0, 3, 4]"]),
        (&long, [1, 1, 1], ["input", "1 to 65535", "[1, 1, 65536]"]),
        (&labels, [1, 1, 1], ["dtype", "f32", "u8"]),
    ] {
        let message = adaptive_avg_pool3d(x, size).expect_err("it must be refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
