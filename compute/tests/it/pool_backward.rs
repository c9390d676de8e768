//! max_pool3d_backward and avg_pool3d_backward.

use nephron_compute::ops::pool::{backward_reference as reference, reference as forward};
use nephron_compute::ops::{self, Pool3dParams};
use nephron_compute::{DType, Device, Shape, Tensor};

use crate::pool::{CASES, drawn, len, pool};
use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

fn output_shape(shape: Shape, p: &Pool3dParams) -> Shape {
    let size = |a: usize| (shape[2 + a] + 2 * p.padding[a] - p.kernel[a]) / p.stride[a] + 1;
    [shape[0], shape[1], size(0), size(1), size(2)]
}

fn check(shape: Shape, params: Pool3dParams) {
    let mut rng = rng();
    let outputs = output_shape(shape, &params);
    // Few different values, so that windows have several maxima.
    let inputs = [integers(&mut rng, len(shape), 2), uniform(&mut rng, len(shape))];
    let (whole, any) = (integers(&mut rng, len(outputs), 4), uniform(&mut rng, len(outputs)));
    let what = format!("{shape:?} {params:?}");
    let volume: usize = params.kernel.iter().product();
    for device in devices() {
        for dtype in float_types(device) {
            let dy = |data| tensor(device, outputs, dtype, data);
            for x in &inputs {
                let on_device = tensor(device, shape, dtype, x);
                let run = |data| ops::max_pool3d_backward(&on_device, &params, &dy(data)).expect("max_pool3d_backward");
                let (want, _) = reference::max_pool3d_backward(&f64s(x), shape, &params, &f64s(&whole));
                let dx = run(&whole);
                assert_eq!(dx.shape(), shape);
                assert_exact(&format!("max_pool3d_backward {what}"), &dx, &want);
                let (want, magnitude) = reference::max_pool3d_backward(&f64s(x), shape, &params, &f64s(&any));
                assert_close(&format!("max_pool3d_backward {what}"), &run(&any), &want, &magnitude, volume);
            }
            let run = |data| ops::avg_pool3d_backward(shape, &params, &dy(data)).expect("avg_pool3d_backward");
            let (want, _) = reference::avg_pool3d_backward(shape, &params, &f64s(&whole));
            if volume.is_power_of_two() && dtype == DType::F32 {
                assert_exact(&format!("avg_pool3d_backward {what}"), &run(&whole), &want);
            }
            let (want, magnitude) = reference::avg_pool3d_backward(shape, &params, &f64s(&any));
            // Vulkan grants a division 2.5 ulps.
            assert_close(&format!("avg_pool3d_backward {what}"), &run(&any), &want, &magnitude, volume + 5);
        }
    }
}

#[test]
fn gradients_agree_with_the_reference() {
    for (shape, params) in CASES {
        check(shape, params);
    }
}

#[test]
fn drawn_gradients_agree_with_the_reference() {
    let mut rng = rng();
    for _ in 0..4 {
        let (shape, params) = drawn(&mut rng);
        check(shape, params);
    }
}

/// The first of several maxima has the gradient, as PyTorch's; the last of several NaN; padding none.
#[test]
fn the_first_maximum_and_the_last_nan_win() {
    let nan = f32::NAN;
    let cases = [
        ([2.0, 2.0, 1.0, 3.0, 3.0, 3.0], [1.0, 0.0, 0.0, 5.0, 0.0, 0.0]),
        ([nan, 1.0, nan, 0.0, nan, 7.0], [0.0, 0.0, 1.0, 0.0, 5.0, 0.0]),
        ([f32::NEG_INFINITY; 6], [1.0, 0.0, 0.0, 5.0, 0.0, 0.0]),
    ];
    for (x, want) in cases {
        for device in devices() {
            for dtype in float_types(device) {
                let x = tensor(device, [1, 1, 1, 2, 3], dtype, &x);
                let dy = tensor(device, [1, 1, 1, 2, 1], dtype, &[1.0, 5.0]);
                let params = pool([1, 1, 3], [1, 1, 3], [0; 3]);
                let dx = ops::max_pool3d_backward(&x, &params, &dy).expect("a gradient");
                assert_exact("max_pool3d_backward", &dx, &want.map(f64::from));
            }
        }
    }
}

/// Average pooling is linear; the maximum is away from ties, with steps too small to change the winner.
#[test]
fn the_reference_gradients_are_central_differences() {
    let mut rng = rng();
    for (shape, params) in CASES.into_iter().filter(|(shape, _)| len(*shape) < 500) {
        let dy = f64s(&uniform(&mut rng, len(output_shape(shape, &params))));
        // Values at least 1 / 1000 apart.
        let x: Vec<f64> = (0..len(shape)).map(|i| (i * 7919 % 1009) as f64 / 1009.0).collect();
        let loss = |y: Vec<f64>| y.iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>();
        let max = reference::max_pool3d_backward(&x, shape, &params, &dy).0;
        let average = reference::avg_pool3d_backward(shape, &params, &dy).0;
        for i in 0..x.len() {
            let at = |step: f64| {
                let mut x = x.clone();
                x[i] += step;
                [loss(forward::max_pool3d(&x, shape, &params)), loss(forward::avg_pool3d(&x, shape, &params).0)]
            };
            let (above, below) = (at(1e-4), at(-1e-4));
            for (name, got, k) in [("max", max[i], 0), ("average", average[i], 1)] {
                let want = (above[k] - below[k]) / 2e-4;
                assert!((got - want).abs() <= 1e-9, "{name} {shape:?} {params:?} [{i}]: {got}, differences say {want}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let zeros = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    let (x, params) = (zeros([1, 2, 4, 4, 4]), pool([2; 3], [2; 3], [0; 3]));
    let other = zeros([1, 2, 2, 2, 3]);
    let labels = Tensor::zeros(&Device::Cpu, [1, 2, 2, 2, 2], DType::U8).expect("labels");
    let wide = Pool3dParams { kernel: [5; 3], ..params };
    let refused = [
        (ops::max_pool3d_backward(&x, &params, &other), ["dy", "[1, 2, 2, 2, 2]", "[1, 2, 2, 2, 3]"]),
        (ops::avg_pool3d_backward(x.shape(), &params, &other), ["dy", "[1, 2, 2, 2, 2]", "[1, 2, 2, 2, 3]"]),
        (ops::max_pool3d_backward(&x, &params, &labels), ["dy", "f32", "u8"]),
        (ops::avg_pool3d_backward(x.shape(), &params, &labels), ["dtype", "f32", "u8"]),
        (ops::avg_pool3d_backward(x.shape(), &wide, &other), ["input", "[5, 5, 5]", "[4, 4, 4]"]),
        (ops::avg_pool3d_backward([usize::MAX, 2, 4, 4, 4], &params, &other), ["avg_pool3d_backward", "", ""]),
    ];
    for (result, parts) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
