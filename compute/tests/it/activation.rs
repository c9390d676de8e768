//! leaky_relu and relu.

use nephron_compute::ops;
use nephron_compute::ops::activation::reference;
use nephron_compute::{DType, Device, Tensor};

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

const SHAPES: [[usize; 5]; 5] =
    [[1, 1, 1, 1, 1], [2, 3, 5, 7, 11], [1, 1, 1, 1, 257], [3, 17, 1, 1, 1], [1, 32, 4, 8, 9]];

#[test]
fn leaky_relu_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let data = uniform(&mut rng, shape.iter().product());
        let want = reference::leaky_relu(&f64s(&data), f64::from(0.01f32));
        let magnitude: Vec<f64> = want.iter().map(|v| v.abs()).collect();
        for device in devices() {
            for dtype in float_types(device) {
                let y = ops::leaky_relu(&tensor(device, shape, dtype, &data), 0.01).expect("leaky_relu");
                assert_close("leaky_relu", &y, &want, &magnitude, 1);
            }
        }
    }
}

#[test]
fn relu_keeps_nan_and_drops_minus_infinity_also_as_a_leaky_relu_of_slope_0() {
    let data = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -0.0, -2.5, 3.5];
    let want = reference::relu(&f64s(&data));
    let magnitude = vec![0.0; want.len()];
    for device in devices() {
        for dtype in float_types(device) {
            let y = ops::relu(&tensor(device, [1, 1, 1, 2, 3], dtype, &data)).expect("relu");
            assert_close("relu", &y, &want, &magnitude, 0);
            let y = ops::leaky_relu(&tensor(device, [1, 1, 1, 2, 3], dtype, &data), 0.0).expect("leaky_relu");
            assert_close("leaky_relu of slope 0", &y, &want, &magnitude, 0);
        }
    }
}

#[test]
fn labels_are_refused() {
    let labels =
        nephron_compute::Tensor::from_u8(&nephron_compute::Device::Cpu, [1, 1, 1, 1, 2], vec![0, 1]).expect("labels");
    let message = ops::relu(&labels).expect_err("labels are not floats").to_string();
    assert!(message.contains("f32") && message.contains("u8"), "{message}");
}

#[test]
fn leaky_relu_backward_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let len = shape.iter().product();
        // Whole numbers, of which some are 0, whose derivative is the slope.
        let (x, dy, whole) = (integers(&mut rng, len, 2), uniform(&mut rng, len), integers(&mut rng, len, 9));
        for device in devices() {
            for dtype in float_types(device) {
                let [on_device, gradient, exact] = [&x, &dy, &whole].map(|data| tensor(device, shape, dtype, data));
                for slope in [0.01f32, 0.0, 1.0] {
                    let want = reference::leaky_relu_backward(&f64s(&x), slope.into(), &f64s(&dy));
                    let magnitude: Vec<f64> = want.iter().map(|v| v.abs()).collect();
                    let dx = ops::leaky_relu_backward(&on_device, slope, &gradient).expect("leaky_relu_backward");
                    assert_close("leaky_relu_backward", &dx, &want, &magnitude, 1);
                }
                let want = reference::leaky_relu_backward(&f64s(&x), 0.25, &f64s(&whole));
                let dx = ops::leaky_relu_backward(&on_device, 0.25, &exact).expect("leaky_relu_backward");
                assert_exact("leaky_relu_backward", &dx, &want);
            }
        }
    }
}

/// Away from 0 the function is linear.
#[test]
fn the_reference_gradient_is_a_central_difference() {
    for (slope, x) in [(0.01, -0.5), (0.01, 0.5), (0.0, -2.0), (1.0, 3.0), (0.0, 2.0)] {
        let at = |x: f64| 3.0 * reference::leaky_relu(&[x], slope)[0];
        let got = reference::leaky_relu_backward(&[x], slope, &[3.0])[0];
        assert!((got - (at(x + 0.25) - at(x - 0.25)) / 0.5).abs() < 1e-12, "{got} at {x}, slope {slope}");
    }
}

#[test]
fn a_gradient_that_does_not_fit_is_refused() {
    let of = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    let (x, y) = (of([1, 2, 1, 1, 3]), of([1, 3, 1, 1, 2]));
    let labels = Tensor::from_u8(&Device::Cpu, [1, 2, 1, 1, 3], vec![0; 6]).expect("labels");
    let refused = [
        (ops::leaky_relu_backward(&x, 0.01, &y), ["dy", "[1, 2, 1, 1, 3]", "[1, 3, 1, 1, 2]"]),
        (ops::leaky_relu_backward(&x, 0.01, &labels), ["dy", "f32", "u8"]),
        (ops::leaky_relu_backward(&x, f32::INFINITY, &x), ["slope", "finite", "inf"]),
    ];
    for (result, parts) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
