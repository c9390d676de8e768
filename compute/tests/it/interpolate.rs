//! interpolate3d.

use nephron_compute::ops::interpolate::reference;
use nephron_compute::ops::{InterpolateMode, interpolate3d};
use nephron_compute::{DType, Tensor};

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

/// Images [n, c, d, h, w] and the sizes they get.
const SHAPES: [([usize; 5], [usize; 3]); 6] = [
    ([1, 1, 1, 1, 1], [3, 1, 2]),
    ([2, 3, 5, 7, 11], [3, 13, 4]),
    ([1, 2, 1, 6, 5], [1, 12, 2]),
    ([3, 1, 4, 1, 9], [7, 3, 18]),
    ([1, 5, 2, 3, 1], [1, 1, 1]),
    ([1, 1, 2, 2, 41], [4, 2, 49]),
];

#[test]
fn nearest_is_exact() {
    let mut rng = rng();
    for (shape, size) in SHAPES {
        let data = integers(&mut rng, shape.iter().product(), 100);
        let want = reference::interpolate(&f64s(&data), shape, size, InterpolateMode::Nearest, false);
        for device in devices() {
            for dtype in float_types(device) {
                let x = tensor(device, shape, dtype, &data);
                let y = interpolate3d(&x, size, InterpolateMode::Nearest, false).expect("interpolate");
                assert_exact(&format!("{shape:?}"), &y, &want.value);
            }
        }
    }
}

#[test]
fn doubling_and_halving_are_exact() {
    let mut rng = rng();
    let (shape, data) = ([2, 3, 4, 2, 6], integers(&mut rng, 288, 7));
    // Weights of quarters, or halves; 9 from 5 in aligned corners is halves too, 1 is the first voxel.
    for (size, align) in [([8, 4, 12], false), ([2, 1, 3], false), ([7, 3, 11], true), ([1, 1, 1], true)] {
        let want = reference::interpolate(&f64s(&data), shape, size, InterpolateMode::Trilinear, align);
        for device in devices() {
            for dtype in float_types(device) {
                let x = tensor(device, shape, dtype, &data);
                let y = interpolate3d(&x, size, InterpolateMode::Trilinear, align).expect("interpolate");
                if dtype == DType::F32 {
                    assert_exact(&format!("{size:?} {align}"), &y, &want.value);
                } else {
                    assert_close(&format!("{size:?} {align}"), &y, &want.value, &want.magnitude, 0);
                }
            }
        }
    }
}

#[test]
fn trilinear_agrees_with_the_reference() {
    let mut rng = rng();
    for (shape, size) in SHAPES {
        let data = uniform(&mut rng, shape.iter().product());
        for align in [true, false] {
            let want = reference::interpolate(&f64s(&data), shape, size, InterpolateMode::Trilinear, align);
            for device in devices() {
                for dtype in float_types(device) {
                    let x = tensor(device, shape, dtype, &data);
                    let y = interpolate3d(&x, size, InterpolateMode::Trilinear, align).expect("interpolate");
                    assert_close(&format!("{shape:?} {align}"), &y, &want.value, &want.magnitude, 12);
                }
            }
        }
    }
}

#[test]
fn the_same_size_and_no_voxels_are_nothing_to_do() {
    for device in devices() {
        let x = tensor(device, [1, 2, 1, 1, 2], DType::F32, &[f32::INFINITY, 1.0, -0.0, 2.0]);
        let y = interpolate3d(&x, [1, 1, 2], InterpolateMode::Trilinear, false).expect("same");
        assert_exact("same", &y, &[f64::INFINITY, 1.0, 0.0, 2.0]);
        let none = tensor(device, [1, 2, 0, 1, 2], DType::F32, &[]);
        let y = interpolate3d(&none, [0, 3, 3], InterpolateMode::Nearest, false).expect("empty");
        assert_eq!(y.shape(), [1, 2, 0, 3, 3]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let none = tensor(device, [1, 1, 0, 1, 2], DType::F32, &[]);
        let message =
            interpolate3d(&none, [1, 1, 1], InterpolateMode::Nearest, false).expect_err("refused").to_string();
        assert!(message.contains("[1, 1, 0, 1, 2]") && message.contains("[1, 1, 1, 1, 1]"), "{message}");
        let labels = Tensor::from_u8(device, [1, 1, 1, 1, 2], vec![0; 2]).expect("labels");
        let message =
            interpolate3d(&labels, [1, 1, 1], InterpolateMode::Nearest, false).expect_err("refused").to_string();
        assert!(message.contains("f32") && message.contains("u8"), "{message}");
    }
}
