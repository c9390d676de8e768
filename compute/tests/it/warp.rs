//! warp3d and affine_warp3d.

use nephron_compute::ops::warp::reference;
use nephron_compute::ops::{PaddingMode, SampleMode, affine_grid3d, affine_warp3d, grid_sample3d, warp3d};
use nephron_compute::{DType, Device, Tensor};
use rand::Rng;

use crate::support::{
    assert_close, assert_exact, compiles_only, devices, f64s, float_types, integers, rng, tensor, uniform,
};

const SHAPES: [[usize; 5]; 4] = [[1, 1, 1, 1, 1], [2, 3, 5, 7, 3], [1, 2, 1, 6, 11], [3, 1, 4, 1, 5]];
const PADDINGS: [PaddingMode; 2] = [PaddingMode::Zeros, PaddingMode::Border];

fn theta_tensor(device: &Device, theta: &[f32]) -> Tensor {
    Tensor::from_ndhwc(device, [theta.len() / 12, 1, 1, 3, 4], DType::F32, theta.to_vec()).expect("theta")
}

/// Near the identity, with some of everything.
fn drawn_theta(rng: &mut impl Rng, n: usize) -> Vec<f32> {
    let identity = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    (0..n).flat_map(|_| identity).map(|v: f32| v + rng.random_range(-0.4..0.4)).collect()
}

#[test]
fn whole_and_half_steps_are_exact() {
    let mut rng = rng();
    let shape = [2, 3, 4, 5, 6];
    let data = integers(&mut rng, shape.iter().product(), 15);
    let flow: Vec<f32> = integers(&mut rng, 2 * 3 * 120, 6).iter().map(|v| v / 2.0).collect();
    for padding in PADDINGS {
        let want = reference::warp(&f64s(&data), shape, &f64s(&flow), padding);
        for device in devices() {
            let flow = tensor(device, [2, 3, 4, 5, 6], DType::F32, &flow);
            for dtype in float_types(device) {
                let y = warp3d(&tensor(device, shape, dtype, &data), &flow, padding).expect("warp");
                assert_exact(&format!("{padding:?}"), &y, &want.value);
            }
        }
    }
}

#[test]
fn warp_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let [n, _, d, h, w] = shape;
        let data = uniform(&mut rng, shape.iter().product());
        let flow: Vec<f32> = (0..n * 3 * d * h * w).map(|_| rng.random_range(-3.0..3.0)).collect();
        for padding in PADDINGS {
            let want = reference::warp(&f64s(&data), shape, &f64s(&flow), padding);
            for device in devices() {
                let flow = tensor(device, [n, 3, d, h, w], DType::F32, &flow);
                for dtype in float_types(device) {
                    let y = warp3d(&tensor(device, shape, dtype, &data), &flow, padding).expect("warp");
                    assert_close(&format!("{shape:?} {padding:?}"), &y, &want.value, &want.magnitude, 12);
                }
            }
        }
    }
}

#[test]
fn affine_warp_agrees_with_the_reference() {
    let mut rng = rng();
    for (shape, size) in SHAPES.into_iter().zip([[2, 1, 3], [3, 5, 4], [1, 7, 2], [1, 1, 1]]) {
        let data = uniform(&mut rng, shape.iter().product());
        let theta = drawn_theta(&mut rng, shape[0]);
        for padding in PADDINGS {
            for align in [true, false] {
                let (x, t) = (f64s(&data), f64s(&theta));
                let want = reference::affine_warp(&x, shape, &t, size, SampleMode::Linear, padding, align);
                for device in devices() {
                    let theta = theta_tensor(device, &theta);
                    for dtype in float_types(device) {
                        let x = tensor(device, shape, dtype, &data);
                        let y = affine_warp3d(&x, &theta, size, SampleMode::Linear, padding, align).expect("warp");
                        assert_close(&format!("{shape:?} {padding:?} {align}"), &y, &want.value, &want.magnitude, 14);
                    }
                }
            }
        }
    }
}

#[test]
fn labels_and_floats_take_the_same_nearest_voxel() {
    let mut rng = rng();
    // Aligned axes of 2^k + 1 voxels on both sides and whole-numbered matrices: coordinates are exact, ties included.
    let (shape, size) = ([2, 1, 5, 3, 9], [3, 5, 9]);
    let labels: Vec<u8> = (0..270).map(|_| rng.random_range(0..=255)).collect();
    let floats: Vec<f32> = labels.iter().map(|&v| v.into()).collect();
    for padding in PADDINGS {
        let theta: Vec<f32> = integers(&mut rng, 24, 4).iter().map(|v| v / 4.0).collect();
        let want =
            reference::affine_warp(&f64s(&floats), shape, &f64s(&theta), size, SampleMode::Nearest, padding, true);
        for device in devices() {
            let theta = theta_tensor(device, &theta);
            let x = Tensor::from_u8(device, shape, labels.clone()).expect("labels");
            let y = affine_warp3d(&x, &theta, size, SampleMode::Nearest, padding, true).expect("labels");
            assert_eq!(y.dtype(), DType::U8);
            assert_exact(&format!("labels {padding:?}"), &y, &want.value);
            for dtype in float_types(device) {
                let x = tensor(device, shape, dtype, &floats);
                let y = affine_warp3d(&x, &theta, size, SampleMode::Nearest, padding, true).expect("floats");
                assert_exact(&format!("floats {padding:?}"), &y, &want.value);
            }
        }
    }
}

#[test]
fn an_affine_warp_is_a_grid_sample_of_the_affine_grid() {
    let mut rng = rng();
    let (shape, size) = ([2, 2, 4, 5, 6], [3, 7, 2]);
    let (data, theta) = (uniform(&mut rng, 480), drawn_theta(&mut rng, 2));
    for device in devices() {
        let (x, theta) = (tensor(device, shape, DType::F32, &data), theta_tensor(device, &theta));
        for align in [true, false] {
            let grid = affine_grid3d(&theta, [2, 2, 3, 7, 2], align).expect("grid");
            let sampled = grid_sample3d(&x, &grid, SampleMode::Linear, PaddingMode::Border, align).expect("sample");
            let warped = affine_warp3d(&x, &theta, size, SampleMode::Linear, PaddingMode::Border, align).expect("warp");
            let (a, b) = (sampled.to_ncdhw().expect("read"), warped.to_ncdhw().expect("read"));
            if !compiles_only(device) {
                // The compiler may fuse a multiplication and an addition in one of the two and not in the other.
                let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far < 1e-5, "{} {align}: {far}", device.name());
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let x = tensor(device, [1, 1, 1, 1, 2], DType::F32, &[0.0; 2]);
        let flow = tensor(device, [1, 2, 1, 1, 2], DType::F32, &[0.0; 4]);
        let message = warp3d(&x, &flow, PaddingMode::Zeros).expect_err("refused").to_string();
        assert!(message.contains("[1, 3, 1, 1, 2]") && message.contains("[1, 2, 1, 1, 2]"), "{message}");
        let warp = |x: &Tensor, theta: &Tensor, mode| {
            affine_warp3d(x, theta, [1, 1, 1], mode, PaddingMode::Zeros, true).expect_err("refused").to_string()
        };
        let message = warp(&x, &theta_tensor(device, &[0.0; 24]), SampleMode::Nearest);
        assert!(message.contains("[1, 1, 1, 3, 4]") && message.contains("[2, 1, 1, 3, 4]"), "{message}");
        let labels = Tensor::from_u8(device, [1, 1, 1, 1, 2], vec![0; 2]).expect("labels");
        let message = warp(&labels, &theta_tensor(device, &[0.0; 12]), SampleMode::Linear);
        assert!(message.contains("f32") && message.contains("u8"), "{message}");
        let nothing = tensor(device, [1, 1, 1, 0, 2], DType::F32, &[]);
        let message = warp(&nothing, &theta_tensor(device, &[0.0; 12]), SampleMode::Linear);
        assert!(message.contains("[1, 1, 1, 0, 2]"), "{message}");
    }
}
