//! resample.

use nephron_compute::ops::resample::reference;
use nephron_compute::ops::{Intensity, Interpolation, Outside, ResampleParams, resample};
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::support::{assert_close, assert_exact, compiles_only, devices, rng, tensor, uniform};

const IDENTITY: [[f64; 4]; 3] = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
/// Of a cubic sample: about 10 an axis in the prefilter, whose terms fade by the pole at each step, 6 an axis in the
/// weights, 26 in the sum of 4 x 4 x 4, and a few for the intensity.
const CUBIC_ROUNDINGS: usize = 80;
const CT: Intensity = Intensity { clip: [-40.0, 347.0], mean: 112.75457, sd: 97.87436 };
/// Sizes of images and of results.
const SHAPES: [([usize; 3], [usize; 3]); 5] = [
    ([1, 1, 1], [2, 2, 3]),
    ([5, 7, 11], [3, 4, 9]),
    ([1, 6, 5], [2, 9, 7]),
    ([2, 3, 4], [4, 3, 5]),
    ([13, 1, 2], [5, 1, 6]),
];

fn params(size: [usize; 3], matrix: [[f64; 4]; 3], interpolation: Interpolation) -> ResampleParams {
    ResampleParams { size, matrix, interpolation, outside: Outside::Border, intensity: None }
}

fn shape([d, h, w]: [usize; 3]) -> Shape {
    [1, 1, d, h, w]
}

/// Whole numbers as an image of each type that `resample` takes.
fn images(device: &Device, size: [usize; 3], data: &[f64]) -> [Tensor; 3] {
    let floats: Vec<f32> = data.iter().map(|&v| v as f32).collect();
    [
        tensor(device, shape(size), DType::F32, &floats),
        Tensor::from_i16(device, shape(size), data.iter().map(|&v| v as i16).collect()).expect("i16"),
        Tensor::from_u8(device, shape(size), data.iter().map(|&v| v as u8).collect()).expect("u8"),
    ]
}

fn labels(rng: &mut impl Rng, size: [usize; 3]) -> Vec<f64> {
    (0..size.iter().product()).map(|_| f64::from(rng.random_range(0..=255))).collect()
}

/// A matrix whose coordinates are whole quarters: exact in f32 and f64, with ties and points on the half-voxel limit.
fn quarters(rng: &mut impl Rng, from: [usize; 3]) -> [[f64; 4]; 3] {
    let quarter = |rng: &mut dyn rand::RngCore, k: i32| f64::from(rng.random_range(-k..=k)) / 4.0;
    std::array::from_fn(|row| {
        let mut values: [f64; 4] = std::array::from_fn(|_| quarter(rng, 2));
        values[row] += 1.0;
        values[3] = quarter(rng, 2 * from[row] as i32);
        values
    })
}

/// A rotation with scaling about the image, more or less.
fn oblique(rng: &mut impl Rng, from: [usize; 3], to: [usize; 3]) -> [[f64; 4]; 3] {
    std::array::from_fn(|row| {
        let mut values: [f64; 4] = std::array::from_fn(|_| rng.random_range(-0.3..0.3));
        values[row] += from[row] as f64 / to[row] as f64;
        values[3] = rng.random_range(-1.0..1.0);
        values
    })
}

#[test]
fn quarters_of_a_voxel_are_exact() {
    let mut rng = rng();
    for (from, to) in SHAPES {
        let data = labels(&mut rng, from);
        for interpolation in [Interpolation::Nearest, Interpolation::Linear] {
            for outside in [Outside::Border, Outside::Constant(77.0)] {
                let params = ResampleParams { outside, ..params(to, quarters(&mut rng, from), interpolation) };
                let want = reference::resample(&data, from, &params);
                for device in devices() {
                    for x in images(device, from, &data) {
                        let y = resample(&x, &params).expect("resample");
                        assert_exact(&format!("{} {from:?} {params:?}", x.dtype()), &y, &want.value);
                        let stays = x.dtype() == DType::U8 && interpolation == Interpolation::Nearest;
                        assert_eq!(y.dtype(), if stays { DType::U8 } else { DType::F32 });
                    }
                }
            }
        }
    }
}

#[test]
fn a_ramp_is_resampled_exactly() {
    let ramp = |z: f64, y: f64, x: f64| 7.0 * z + 3.0 * y + 11.0 * x;
    let data: Vec<f64> = (0..480).map(|i| ramp((i / 60) as f64, (i / 10 % 6) as f64, (i % 10) as f64)).collect();
    let half = [[0.5, 0.0, 0.0, 0.25], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.25, 1.5]];
    let want: Vec<f64> = (0..13 * 11 * 30)
        .map(|i| ramp((i / 330) as f64 / 2.0 + 0.25, (i / 30 % 11) as f64 / 2.0, (i % 30) as f64 / 4.0 + 1.5))
        .collect();
    for device in devices() {
        for x in images(device, [8, 6, 10], &data) {
            let y = resample(&x, &params([13, 11, 30], half, Interpolation::Linear)).expect("resample");
            assert_exact("a ramp", &y, &want);
        }
    }
}

#[test]
fn an_identity_returns_the_input() {
    let mut rng = rng();
    let size = [3, 5, 7];
    let mut data = uniform(&mut rng, 105);
    (data[3], data[50], data[51]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    for device in devices() {
        let x = tensor(device, shape(size), DType::F32, &data);
        for interpolation in [Interpolation::Nearest, Interpolation::Linear] {
            let y = resample(&x, &params(size, IDENTITY, interpolation)).expect("resample");
            let got = y.to_ndhwc().expect("read");
            if !compiles_only(device) {
                let same = got.iter().zip(&data).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
                assert!(same, "{} {interpolation:?}", device.name());
            }
        }
    }
}

#[test]
fn oblique_matrices_agree_with_the_reference() {
    let mut rng = rng();
    for (from, to) in SHAPES {
        let data: Vec<f64> = (0..from.iter().product()).map(|_| f64::from(rng.random_range(-1024..3000))).collect();
        let floats: Vec<f32> = data.iter().map(|&v| v as f32).collect();
        for intensity in [None, Some(CT)] {
            let matrix = oblique(&mut rng, from, to);
            let params = ResampleParams { intensity, ..params(to, matrix, Interpolation::Linear) };
            let want = reference::resample(&data, from, &params);
            for device in devices() {
                let i16s = data.iter().map(|&v| v as i16).collect();
                let ct = Tensor::from_i16(device, shape(from), i16s).expect("i16");
                for x in [tensor(device, shape(from), DType::F32, &floats), ct] {
                    let y = resample(&x, &params).expect("resample");
                    assert_close(&format!("{} {from:?} {params:?}", x.dtype()), &y, &want.value, &want.magnitude, 14);
                }
            }
        }
    }
}

#[test]
fn cubic_agrees_with_the_reference() {
    let mut rng = rng();
    for (from, to) in SHAPES {
        let data = labels(&mut rng, from);
        let exact = quarters(&mut rng, from);
        let drawn = oblique(&mut rng, from, to);
        let constant = Intensity { clip: [20.0, 200.0], mean: 100.0, sd: 50.0 };
        for params in [
            params(to, drawn, Interpolation::Cubic),
            ResampleParams {
                outside: Outside::Constant(-3.0),
                intensity: Some(constant),
                ..params(to, exact, Interpolation::Cubic)
            },
        ] {
            let want = reference::resample(&data, from, &params);
            for device in devices() {
                for x in images(device, from, &data) {
                    let y = resample(&x, &params).expect("resample");
                    assert_close(
                        &format!("{} {from:?} {params:?}", x.dtype()),
                        &y,
                        &want.value,
                        &want.magnitude,
                        CUBIC_ROUNDINGS,
                    );
                }
            }
        }
    }
}

#[test]
fn the_spline_goes_on_past_the_edge_as_far_as_it_matters() {
    let mut rng = rng();
    for size in [[1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 2, 6]] {
        let data = labels(&mut rng, size);
        let far = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.43, -20.0]];
        let params = params([1, 1, 110], far, Interpolation::Cubic);
        let want = reference::resample(&data, size, &params);
        for device in devices() {
            let [x, ..] = images(device, size, &data);
            let y = resample(&x, &params).expect("resample");
            assert_close(&format!("{size:?}"), &y, &want.value, &want.magnitude, CUBIC_ROUNDINGS);
        }
    }
}

#[test]
fn positions_are_right_far_from_the_origin() {
    // A zigzag of slope 1 turns an error of the position into one of the value.
    let from = [1, 1, 5000];
    let data: Vec<f64> = (0..5000).map(|i| f64::from(i % 2)).collect();
    let matrix = [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-700.123, 1300.777, 1.2345678, 0.3]];
    let params = params([2, 3, 2000], matrix, Interpolation::Linear);
    let want = reference::resample(&data, from, &params);
    for device in devices() {
        for x in images(device, from, &data) {
            // 14 roundings of 3 + 1: 3e-6 at most, where f32 matrices miss by 1e-3.
            assert_close("positions", &resample(&x, &params).expect("resample"), &want.value, &want.magnitude, 14);
        }
    }
}

#[test]
fn empty_results_are_empty() {
    for device in devices() {
        let x = tensor(device, [1, 1, 0, 3, 4], DType::F32, &[]);
        let y = resample(&x, &params([0, 3, 4], IDENTITY, Interpolation::Cubic)).expect("nothing to do");
        assert_eq!(y.shape(), [1, 1, 0, 3, 4]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let linear = params([1, 1, 1], IDENTITY, Interpolation::Linear);
    let nan = [[f64::NAN; 4], [0.0; 4], [0.0; 4]];
    let far = [[1.0, 0.0, 0.0, 1e9], [0.0; 4], [0.0; 4]];
    let intensity = |clip, mean, sd| ResampleParams { intensity: Some(Intensity { clip, mean, sd }), ..linear };
    for device in devices() {
        let x = tensor(device, [1, 1, 1, 1, 2], DType::F32, &[0.0; 2]);
        let label = Tensor::from_u8(device, [1, 1, 1, 1, 2], vec![0; 2]).expect("labels");
        let two = tensor(device, [2, 1, 1, 1, 1], DType::F32, &[0.0; 2]);
        let none = tensor(device, [1, 1, 1, 0, 1], DType::F32, &[]);
        let nearest = ResampleParams { interpolation: Interpolation::Nearest, ..linear };
        for (x, params, expected, found) in [
            (&two, linear, "[1, 1, d, h, w]", "[2, 1, 1, 1, 1]"),
            (&none, linear, "voxels", "[1, 1, 1, 0, 1]"),
            (&x, ResampleParams { matrix: nan, ..linear }, "2097152", "NaN"),
            (&x, ResampleParams { matrix: far, ..linear }, "2097152", "1000000000"),
            (&x, intensity([2.0, 1.0], 0.0, 1.0), "lowest <= highest", "2 and 1"),
            (&x, intensity([0.0, 1.0], f32::INFINITY, 1.0), "finite", "inf"),
            (&x, intensity([0.0, 1.0], 0.0, 0.0), "above 0", "found 0"),
            (&label, ResampleParams { outside: Outside::Constant(-1.0), ..nearest }, "0 to 255", "-1"),
        ] {
            let message = resample(x, &params).expect_err("refused").to_string();
            assert!(message.contains(expected) && message.contains(found), "{message}");
        }
        for dtype in [DType::F16, DType::BF16].into_iter().filter(|d| device.supports(*d)) {
            let half = tensor(device, [1, 1, 1, 1, 2], dtype, &[0.0; 2]);
            let message = resample(&half, &linear).expect_err("refused").to_string();
            assert!(message.contains("f32, i16 or u8") && message.contains(&dtype.to_string()), "{message}");
        }
    }
}
