//! A convolution with what follows it: residual and activation, by every algorithm, with sums split and whole.

use nephron_compute::ops::conv3d::reference;
use nephron_compute::ops::{self, Conv3dParams, ConvEpilogue};
use nephron_compute::{DType, Device, Shape, Tensor};

use crate::support::{
    assert_close, assert_exact, compiles_only, devices, f64s, float_types, gamma, integers, rng, storage_rounding,
    tensor, uniform,
};

/// Input, weight and padding; the last two have so few outputs and such long sums that splitting pays.
const CASES: [(Shape, Shape, [usize; 3]); 4] = [
    ([2, 6, 3, 5, 7], [10, 6, 3, 3, 3], [1; 3]),
    ([1, 5, 1, 9, 8], [7, 5, 1, 3, 3], [0, 1, 1]),
    ([1, 160, 2, 3, 3], [40, 160, 3, 3, 3], [1; 3]),
    ([1, 600, 1, 4, 4], [66, 600, 1, 1, 1], [0; 3]),
];

fn by_every_algorithm(x: &Tensor, w: &Tensor, b: &Tensor, p: &Conv3dParams, e: &ConvEpilogue<'_>) -> Vec<Tensor> {
    let mut all = vec![ops::conv3d_then(x, w, Some(b), p, e).expect("conv3d_then")];
    #[cfg(feature = "gpu")]
    if x.device() != Device::Cpu {
        let able = crate::conv_algorithms::able(x, w.shape(), p);
        all.extend(able.into_iter().map(|by| ops::conv3d_by(by, x, w, Some(b), p, e).expect("conv3d_by")));
        // The default, naive, direct and register-blocked; the matrix kernels but for f32 on CUDA, and halo for 3 taps along x.
        let matrix = x.dtype() != DType::F32 || !x.device().name().starts_with("cuda");
        let most = if !matrix {
            4
        } else if w.shape()[4] == 3 {
            6
        } else {
            5
        };
        assert!(all.len() >= most, "{} algorithms of {most}", all.len());
    }
    all
}

#[test]
fn residual_and_activation_follow_the_sum() {
    let mut rng = rng();
    for (xs, ws, padding) in CASES {
        let params = Conv3dParams { padding, ..Conv3dParams::default() };
        let len = |s: Shape| s.iter().product::<usize>();
        for exact in [true, false] {
            let mut draw = |n: usize, k: i32| if exact { integers(&mut rng, n, k) } else { uniform(&mut rng, n) };
            let (x, w, b) = (draw(len(xs), 2), draw(len(ws), 1), draw(ws[0], 9));
            let want = reference::conv3d(&f64s(&x), xs, &f64s(&w), ws, Some(&f64s(&b)), &params);
            let r = draw(want.value.len(), 99);
            // Every pair is exact; roundings are the same for all.
            let all = [(true, 0.25), (false, 0.0), (true, 1.0)];
            for (with_residual, slope) in all.into_iter().take(if exact { 3 } else { 1 }) {
                let added = |i: usize| if with_residual { f64::from(r[i]) } else { 0.0 };
                let finish = |(i, &v): (usize, &f64)| {
                    let v = v + added(i);
                    if v < 0.0 { v * f64::from(slope) } else { v }
                };
                let value: Vec<f64> = want.value.iter().enumerate().map(finish).collect();
                let magnitude: Vec<f64> = want.magnitude.iter().enumerate().map(|(i, m)| m + added(i).abs()).collect();
                for device in devices() {
                    let bias = Tensor::vector(device, &b).expect("bias");
                    // Sums of f16 have to fit it to be exact.
                    for dtype in float_types(device).into_iter().filter(|d| !exact || *d == DType::F32) {
                        let [x, w, r] =
                            [(xs, &x), (ws, &w), (want.shape, &r)].map(|(s, d)| tensor(device, s, dtype, d));
                        let epilogue = ConvEpilogue { residual: with_residual.then_some(&r), slope };
                        for y in by_every_algorithm(&x, &w, &bias, &params, &epilogue) {
                            let what = format!("{xs:?} by {ws:?}, residual {with_residual}, slope {slope}");
                            if exact {
                                assert_exact(&what, &y, &value);
                            } else {
                                let k = len(ws) / ws[0] + 4;
                                let magnitude = with_another_rounding(&magnitude, k, dtype);
                                assert_close(&what, &y, &value, &magnitude, k);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where the epilogue is a pass of its own, the sum is rounded to the tensor's type before it too: another rounding of the
/// type, put into the magnitude that `k` roundings of f32 multiply.
fn with_another_rounding(magnitude: &[f64], k: usize, dtype: DType) -> Vec<f64> {
    magnitude.iter().map(|m| m + storage_rounding(dtype, m * (1.0 + gamma(k))) / gamma(k)).collect()
}

/// The halo kernel adds residual and activation in its store, with the bits of a pass of its own over a stored output.
#[cfg(feature = "gpu")]
#[test]
fn the_halo_kernel_rounds_as_a_pass_of_its_own_would() {
    let mut rng = rng();
    for (xs, ws, padding) in CASES.into_iter().filter(|(_, w, _)| w[4] == 3) {
        let params = Conv3dParams { padding, ..Conv3dParams::default() };
        let [x, w, b] = [xs.iter().product(), ws.iter().product(), ws[0]].map(|n| uniform(&mut rng, n));
        for device in devices().iter().filter(|d| **d != Device::Cpu) {
            let bias = Tensor::vector(device, &b).expect("bias");
            for dtype in float_types(device) {
                // On CUDA the kernel does not do f32.
                let [x, w] = [(xs, &x), (ws, &w)].map(|(s, d)| tensor(device, s, dtype, d));
                let run =
                    |e: &ConvEpilogue<'_>| ops::conv3d_by(ops::Conv3dAlgorithm::Halo, &x, &w, Some(&bias), &params, e);
                let Ok(sum) = run(&ConvEpilogue::NONE) else {
                    assert!(device.name().starts_with("cuda"), "{} {dtype}", device.name());
                    continue;
                };
                if compiles_only(device) {
                    device.synchronize().expect("the kernel without an epilogue");
                    continue;
                }
                let r = tensor(device, sum.shape(), dtype, &uniform(&mut rng, sum.shape().iter().product()));
                let [sum, added] = [&sum, &r].map(|t| t.to_ncdhw().expect("values"));
                for (with_residual, slope) in [(true, 0.25), (true, 0.0), (true, 1.0), (false, 0.25), (false, 0.0)] {
                    let y = run(&ConvEpilogue { residual: with_residual.then_some(&r), slope }).expect("conv3d");
                    let want: Vec<f32> = sum
                        .iter()
                        .zip(&added)
                        .map(|(s, a)| if with_residual { s + a } else { *s })
                        .map(|v| if v < 0.0 { if slope == 0.0 { 0.0 } else { v * slope } } else { v })
                        .collect();
                    // Rounds as the store does.
                    let want = tensor(device, y.shape(), dtype, &want).to_ncdhw().expect("values");
                    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                    let y = y.to_ncdhw().expect("values");
                    assert!(
                        y.iter().zip(&want).all(same),
                        "{} {dtype}: {xs:?} by {ws:?}, residual {with_residual}, slope {slope}",
                        device.name()
                    );
                }
            }
        }
    }
}

#[test]
fn a_relu_maps_what_overflowed_to_zero_and_keeps_nan() {
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let x = tensor(device, [1, 1, 1, 1, 4], DType::F32, &[f32::NEG_INFINITY, f32::NAN, -1.0, 2.0]);
        let w = tensor(device, [1, 1, 1, 1, 1], DType::F32, &[1.0]);
        let y = ops::conv3d_then(&x, &w, None, &Conv3dParams::default(), &ConvEpilogue::RELU);
        let y = y.and_then(|y| y.to_ncdhw()).expect("conv3d_then");
        assert!(y[0] == 0.0 && y[1].is_nan() && y[2..] == [0.0, 2.0], "{}: {y:?}", device.name());
    }
}

#[test]
fn a_residual_of_another_shape_is_refused_with_both() {
    let zeros = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    let (x, w, r) = (zeros([1, 1, 2, 2, 2]), zeros([3, 1, 1, 1, 1]), zeros([1, 3, 2, 2, 1]));
    let epilogue = ConvEpilogue { residual: Some(&r), slope: 1.0 };
    let error = ops::conv3d_then(&x, &w, None, &Conv3dParams::default(), &epilogue).expect_err("another shape");
    let message = error.to_string();
    for part in ["residual", "[1, 3, 2, 2, 2]", "[1, 3, 2, 2, 1]"] {
        assert!(message.contains(part), "'{part}' is missing: {message}");
    }
}
