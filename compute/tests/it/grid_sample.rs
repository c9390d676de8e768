//! grid_sample3d and affine_grid3d.

use nephron_compute::ops::grid_sample::reference;
use nephron_compute::ops::{PaddingMode, SampleMode, affine_grid3d, grid_sample3d};
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

/// Images [n, c, d, h, w] and sizes of grids.
const SHAPES: [([usize; 5], [usize; 3]); 5] = [
    ([1, 1, 1, 1, 1], [1, 2, 2]),
    ([2, 3, 5, 7, 11], [3, 5, 2]),
    ([1, 2, 1, 6, 5], [2, 4, 13]),
    ([3, 1, 4, 1, 9], [1, 1, 31]),
    ([1, 5, 2, 3, 1], [5, 3, 4]),
];
const PADDINGS: [PaddingMode; 2] = [PaddingMode::Zeros, PaddingMode::Border];

/// A grid [n, d, h, w, 3] as a tensor.
fn grid_tensor(device: &Device, n: usize, [d, h, w]: [usize; 3], points: &[f32]) -> Tensor {
    Tensor::from_ndhwc(device, [n, 3, d, h, w], DType::F32, points.to_vec()).expect("a grid")
}

#[test]
fn a_ramp_is_sampled_exactly() {
    // Aligned axes of 2^k + 1 voxels and points at quarters of a voxel: every step is exact in f32, f16 and bf16.
    let (shape, size) = ([1, 1, 5, 9, 3], [1, 4, 30]);
    let ramp = |z: f64, y: f64, x: f64| 2.0 * z + 3.0 * y + 5.0 * x;
    let image: Vec<f32> = (0..135).map(|i| ramp((i / 27) as f64, (i / 3 % 9) as f64, (i % 3) as f64) as f32).collect();
    let mut rng = rng();
    let (mut points, mut want) = (vec![], vec![]);
    for _ in 0..120 {
        let c = [2, 8, 4].map(|last: i32| f64::from(rng.random_range(0..=4 * last)) / 4.0);
        points.extend(c.iter().zip([2.0, 8.0, 4.0]).map(|(c, last)| (2.0 * c / last - 1.0) as f32));
        want.push(ramp(c[2], c[1], c[0]));
    }
    for device in devices() {
        let grid = grid_tensor(device, 1, size, &points);
        for dtype in float_types(device) {
            let x = tensor(device, shape, dtype, &image);
            let y = grid_sample3d(&x, &grid, SampleMode::Linear, PaddingMode::Zeros, true).expect("grid_sample");
            assert_exact("a ramp", &y, &want);
        }
    }
}

#[test]
fn linear_agrees_with_the_reference() {
    let mut rng = rng();
    for (shape, size) in SHAPES {
        let points: usize = shape[0] * size.iter().product::<usize>() * 3;
        let data = uniform(&mut rng, shape.iter().product());
        let at: Vec<f32> = (0..points).map(|_| rng.random_range(-1.6..1.6)).collect();
        for padding in PADDINGS {
            for align in [true, false] {
                let want =
                    reference::grid_sample(&f64s(&data), shape, &f64s(&at), size, SampleMode::Linear, padding, align);
                for device in devices() {
                    let grid = grid_tensor(device, shape[0], size, &at);
                    for dtype in float_types(device) {
                        let x = tensor(device, shape, dtype, &data);
                        let y = grid_sample3d(&x, &grid, SampleMode::Linear, padding, align).expect("grid_sample");
                        assert_close(&format!("{shape:?} {padding:?} {align}"), &y, &want.value, &want.magnitude, 14);
                    }
                }
            }
        }
    }
}

#[test]
fn nearest_breaks_ties_to_even() {
    let mut rng = rng();
    // Coordinates at halves of a voxel that f32 holds exactly: 2^k + 1 voxels when aligned, 2^k when not.
    for (align, shape) in [(true, [2, 3, 5, 3, 9]), (false, [2, 3, 4, 2, 8])] {
        let (size, [d, h, w]) = ([4, 5, 6], [shape[2], shape[3], shape[4]]);
        let data = integers(&mut rng, shape.iter().product(), 100);
        let mut at = vec![];
        for _ in 0..shape[0] * 120 {
            for s in [w, h, d] {
                let c = f64::from(rng.random_range(-4..=2 * s as i32 + 3)) / 2.0;
                let last = s as f64 - 1.0;
                at.push(if align { 2.0 * c / last - 1.0 } else { (2.0 * c + 1.0) / (last + 1.0) - 1.0 } as f32);
            }
        }
        for padding in PADDINGS {
            let want =
                reference::grid_sample(&f64s(&data), shape, &f64s(&at), size, SampleMode::Nearest, padding, align);
            for device in devices() {
                let grid = grid_tensor(device, shape[0], size, &at);
                for dtype in float_types(device) {
                    let x = tensor(device, shape, dtype, &data);
                    let y = grid_sample3d(&x, &grid, SampleMode::Nearest, padding, align).expect("grid_sample");
                    assert_exact(&format!("{padding:?} {align}"), &y, &want.value);
                }
            }
        }
    }
}

#[test]
fn wild_coordinates_stay_outside() {
    let (shape, wild) = ([1, 1, 2, 3, 4], [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 1e12]);
    let image: Vec<f32> = (1..=24).map(|v| v as f32).collect();
    let points: Vec<f32> = wild.iter().flat_map(|&g| [g, -1.0, -1.0]).collect();
    for device in devices() {
        let (x, grid) =
            (tensor(device, shape, DType::F32, &image), grid_tensor(device, 1, [1, 1, wild.len()], &points));
        for mode in [SampleMode::Linear, SampleMode::Nearest] {
            let zeros = grid_sample3d(&x, &grid, mode, PaddingMode::Zeros, true).expect("zeros");
            assert_exact("zeros", &zeros, &[0.0; 6]);
            let border = grid_sample3d(&x, &grid, mode, PaddingMode::Border, true).expect("border");
            assert_exact("border", &border, &[1.0, 4.0, 1.0, 4.0, 1.0, 4.0]);
        }
    }
}

#[test]
fn affine_grid_agrees_with_the_reference() {
    let mut rng = rng();
    for size in [[1, 1, 1, 1, 1], [2, 3, 3, 5, 7], [3, 1, 1, 4, 1], [1, 2, 6, 1, 8]] {
        let [n, _, d, h, w]: Shape = size;
        let theta = uniform(&mut rng, 12 * n);
        for align in [true, false] {
            let (want, terms) = reference::affine_grid(&f64s(&theta), [d, h, w], align);
            for device in devices() {
                let theta = Tensor::from_ndhwc(device, [n, 1, 1, 3, 4], DType::F32, theta.clone()).expect("theta");
                let grid = affine_grid3d(&theta, size, align).expect("affine_grid");
                // The oracle's last axis is the channel here.
                let flat = grid.reshape([1, 1, 1, 1, want.len()]).expect("flat");
                assert_close(&format!("{size:?} {align}"), &flat, &want, &terms, 6);
                assert_eq!(grid.shape(), [n, 3, d, h, w]);
            }
        }
    }
}

#[test]
fn empty_results_are_empty() {
    for device in devices() {
        let x = tensor(device, [2, 1, 0, 3, 4], DType::F32, &[]);
        let grid = grid_tensor(device, 2, [0, 1, 5], &[]);
        let y = grid_sample3d(&x, &grid, SampleMode::Linear, PaddingMode::Border, false).expect("nothing to do");
        assert_eq!(y.shape(), [2, 1, 0, 1, 5]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let x = tensor(device, [2, 1, 1, 1, 2], DType::F32, &[0.0; 4]);
        let grid = |shape: Shape| tensor(device, shape, DType::F32, &vec![0.0; shape.iter().product()]);
        let sample = |x: &Tensor, grid: &Tensor| {
            grid_sample3d(x, grid, SampleMode::Linear, PaddingMode::Zeros, true).expect_err("refused").to_string()
        };
        let message = sample(&x, &grid([1, 3, 1, 1, 1]));
        assert!(message.contains("[2, 3, d, h, w]") && message.contains("[1, 3, 1, 1, 1]"), "{message}");
        let message = sample(&x, &grid([2, 2, 1, 1, 1]));
        assert!(message.contains("[2, 3, d, h, w]") && message.contains("[2, 2, 1, 1, 1]"), "{message}");
        let message = sample(&tensor(device, [2, 1, 0, 1, 2], DType::F32, &[]), &grid([2, 3, 1, 1, 1]));
        assert!(message.contains("voxels") && message.contains("[2, 1, 0, 1, 2]"), "{message}");
        let labels = Tensor::from_u8(device, [2, 1, 1, 1, 2], vec![0; 4]).expect("labels");
        let message = sample(&labels, &grid([2, 3, 1, 1, 1]));
        assert!(message.contains("f32") && message.contains("u8"), "{message}");
        let message = affine_grid3d(&grid([2, 1, 1, 3, 3]), [2, 1, 1, 1, 1], true).expect_err("refused").to_string();
        assert!(message.contains("[2, 1, 1, 3, 4]") && message.contains("[2, 1, 1, 3, 3]"), "{message}");
        let message =
            affine_grid3d(&grid([1, 1, 1, 3, 4]), [1, 1, 1, 1, 1 << 25], true).expect_err("refused").to_string();
        assert!(message.contains("16777216") && message.contains("33554432"), "{message}");
    }
}
