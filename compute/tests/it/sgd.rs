//! sgd_step and squared_norm.

use nephron_compute::ops;
use nephron_compute::ops::sgd::reference;
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::support::{
    assert_close, assert_exact, compiles_only, devices, f64s, float_types, gamma, integers, rng, tensor, uniform,
};

const SHAPES: [Shape; 6] =
    [[1, 1, 1, 1, 1], [2, 3, 5, 7, 11], [1, 1, 1, 1, 257], [3, 17, 1, 1, 1], [1, 32, 4, 8, 9], [5, 8, 3, 3, 3]];

fn len(shape: Shape) -> usize {
    shape.iter().product()
}

/// Learning rate, momentum and weight decay: without momentum, nnU-Net's, and powers of two.
const RATES: [[f32; 3]; 3] = [[0.1, 0.0, 0.0], [0.01, 0.99, 3e-5], [0.5, 0.25, 0.125]];

#[test]
fn a_step_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let [w, g, b] = [(); 3].map(|()| uniform(&mut rng, len(shape)));
        for rates in RATES {
            for nesterov in [false, true] {
                let rates64 = rates.map(f64::from);
                let want = reference::sgd_step(&f64s(&w), &f64s(&g), &f64s(&b), rates64, nesterov);
                for device in devices() {
                    for dtype in float_types(device) {
                        let [w, g, b] = [&w, &g, &b].map(|data| tensor(device, shape, dtype, data));
                        let [lr, momentum, decay] = rates;
                        let (weights, buffer) =
                            ops::sgd_step(&w, &g, &b, lr, momentum, nesterov, decay).expect("a step");
                        let what = format!("sgd_step {shape:?} {rates:?} {nesterov}");
                        // A product and a sum for each of decay, momentum, the step ahead and the rate.
                        for (got, want) in [(&weights, &want[0]), (&buffer, &want[1])] {
                            assert_eq!((got.shape(), got.dtype()), (shape, dtype));
                            assert_close(&what, got, &want.value, &want.magnitude, 8);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_step_of_whole_numbers_is_exact() {
    let mut rng = rng();
    let shape = [2, 3, 2, 3, 5];
    let [w, g, b] = [(); 3].map(|()| integers(&mut rng, len(shape), 1));
    let want = reference::sgd_step(&f64s(&w), &f64s(&g), &f64s(&b), [0.5, 0.25, 0.5], true);
    for device in devices() {
        for dtype in float_types(device) {
            let [w, g, b] = [&w, &g, &b].map(|data| tensor(device, shape, dtype, data));
            let (weights, buffer) = ops::sgd_step(&w, &g, &b, 0.5, 0.25, true, 0.5).expect("a step");
            assert_exact("weights", &weights, &want[0].value);
            assert_exact("buffer", &buffer, &want[1].value);
        }
    }
}

/// Two steps of PyTorch's SGD (2.15, f64): lr 0.1, momentum 0.9, weight decay 0.01, of the weight 1 with gradients 0.5 and -0.25.
#[test]
fn two_steps_are_those_of_pytorch() {
    // g = 0.51, buffer 0.51; then g = -0.25 + 0.01 w and buffer 0.9 * 0.51 + g.
    for (nesterov, want) in [(false, [0.949, 0.927151]), (true, [0.9031, 0.90757411])] {
        let mut w = tensor(&Device::Cpu, [1; 5], DType::F32, &[1.0]);
        let mut b = tensor(&Device::Cpu, [1; 5], DType::F32, &[0.0]);
        for (g, want) in [0.5, -0.25].into_iter().zip(want) {
            let g = tensor(&Device::Cpu, [1; 5], DType::F32, &[g]);
            (w, b) = ops::sgd_step(&w, &g, &b, 0.1, 0.9, nesterov, 0.01).expect("a step");
            let got = f64::from(w.to_ncdhw().expect("a weight")[0]);
            assert!((got - want).abs() < 1e-6, "nesterov {nesterov}: {got}, expected {want}");
        }
    }
}

#[test]
fn the_squared_norm_is_exact_on_whole_numbers_and_bounded_otherwise() {
    let mut rng = rng();
    let drawn = [1, rng.random_range(1..40), rng.random_range(1..30), 31, rng.random_range(1..60)];
    for shape in SHAPES.into_iter().chain([[1, 3, 40, 50, 60], drawn]) {
        let (whole, any) = (integers(&mut rng, len(shape), 9), uniform(&mut rng, len(shape)));
        let sum = |data: &[f32]| f64s(data).iter().map(|v| v * v).sum::<f64>();
        // On a GPU: a chain of 33 at most in a unit, 8 + 32 in a cube; parts are added in f64, as everything on the CPU.
        let bound = gamma(33 + 40) * sum(&any);
        for device in devices() {
            for dtype in float_types(device) {
                let got = [&whole, &any].map(|x| ops::squared_norm(&tensor(device, shape, dtype, x)).expect("a norm"));
                if !compiles_only(device) {
                    assert_eq!(got[0], sum(&whole), "{shape:?} on {} {dtype}", device.name());
                    let error = (got[1] - sum(&any)).abs();
                    assert!(error <= bound, "{shape:?} on {} {dtype}: {} is off by {error}", device.name(), got[1]);
                }
            }
        }
    }
    let empty = tensor(&Device::Cpu, [0, 1, 1, 1, 1], DType::F32, &[]);
    assert_eq!(ops::squared_norm(&empty).expect("a norm"), 0.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let cpu = Device::Cpu;
    let x = tensor(&cpu, [1, 2, 1, 1, 3], DType::F32, &[0.0; 6]);
    let y = tensor(&cpu, [1, 3, 1, 1, 2], DType::F32, &[0.0; 6]);
    let labels = Tensor::from_u8(&cpu, [1, 2, 1, 1, 3], vec![0; 6]).expect("labels");
    let step = |g: &Tensor, b: &Tensor, lr, momentum, decay| ops::sgd_step(&x, g, b, lr, momentum, false, decay);
    let refused = [
        (step(&y, &x, 0.1, 0.9, 0.0), ["gradient", "[1, 2, 1, 1, 3]", "[1, 3, 1, 1, 2]"]),
        (step(&x, &y, 0.1, 0.9, 0.0), ["momentum buffer", "[1, 2, 1, 1, 3]", "[1, 3, 1, 1, 2]"]),
        (step(&labels, &x, 0.1, 0.9, 0.0), ["gradient", "f32", "u8"]),
        (step(&x, &x, -0.1, 0.9, 0.0), ["lr", "0 or more", "-0.1"]),
        (step(&x, &x, 0.1, f32::NAN, 0.0), ["momentum", "finite", "NaN"]),
        (step(&x, &x, 0.1, 0.9, f32::INFINITY), ["weight decay", "finite", "inf"]),
    ];
    for (result, parts) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let message = ops::squared_norm(&labels).expect_err("labels").to_string();
    assert!(message.contains("f32") && message.contains("u8"), "{message}");
}
