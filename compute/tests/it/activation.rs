//! leaky_relu and relu.

use nephron_compute::ops;
use nephron_compute::ops::activation::reference;

use crate::support::{assert_close, devices, f64s, float_types, rng, tensor, uniform};

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
