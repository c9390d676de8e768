//! gated_residual.

use nephron_compute::ops;
use nephron_compute::ops::gate::reference;
use nephron_compute::{DType, Device, Shape};
use rand::Rng;

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

/// Images with vectors of channels and without, each with the axes of its gate.
const CASES: [(Shape, [usize; 3]); 8] = [
    ([1, 1, 1, 1, 1], [1, 1, 1]),
    ([2, 3, 5, 7, 11], [1, 1, 11]),
    ([2, 32, 3, 4, 5], [1, 1, 5]),
    ([3, 8, 1, 6, 7], [1, 1, 1]),
    ([2, 6, 3, 4, 5], [3, 1, 1]),
    ([2, 4, 3, 4, 5], [1, 4, 1]),
    ([2, 5, 2, 3, 4], [2, 1, 4]),
    ([2, 16, 2, 3, 4], [2, 3, 4]),
];

fn len(shape: Shape) -> usize {
    shape.iter().product()
}

fn gate_shape([n, c, ..]: Shape, [d, h, w]: [usize; 3]) -> Shape {
    [n, c, d, h, w]
}

/// A gate of 0 is a factor of one half, and an infinite one of 0 or 1: every result is a whole number or half of one.
#[test]
fn gates_of_zero_and_infinity_are_exact() {
    let mut rng = rng();
    for (shape, axes) in CASES {
        let gates = gate_shape(shape, axes);
        let (x, r) = (integers(&mut rng, len(shape), 100), integers(&mut rng, len(shape), 20));
        let gate: Vec<f32> = (0..len(gates)).map(|_| [0.0, 120.0, -120.0][rng.random_range(0..3)]).collect();
        // Of -120 f64 has a sigmoid of 1e-52, which adds nothing to a whole number in f32; where the sum is 0 it stays.
        let (want, _) = reference::gated_residual(&f64s(&x), shape, &f64s(&gate), gates, &f64s(&r), 1.0);
        let want: Vec<f64> = want.iter().map(|v| (v * 2.0).round() / 2.0).collect();
        for device in devices() {
            for dtype in float_types(device) {
                let [x, gate, r] =
                    [(shape, &x), (gates, &gate), (shape, &r)].map(|(shape, data)| tensor(device, shape, dtype, data));
                let y = ops::gated_residual(&x, &gate, &r, 1.0).expect("gated");
                assert_exact(&format!("{shape:?} {axes:?}"), &y, &want);
            }
        }
    }
}

#[test]
fn a_gated_sum_is_activated() {
    let mut rng = rng();
    for (shape, axes) in CASES {
        let gates = gate_shape(shape, axes);
        let (x, r) = (uniform(&mut rng, len(shape)), uniform(&mut rng, len(shape)));
        let gate: Vec<f32> = uniform(&mut rng, len(gates)).iter().map(|v| v * 8.0).collect();
        for slope in [0.0, 0.01, 1.0] {
            let wide = f64::from(slope);
            let (want, magnitude) = reference::gated_residual(&f64s(&x), shape, &f64s(&gate), gates, &f64s(&r), wide);
            for device in devices() {
                for dtype in float_types(device) {
                    let [x, gate, r] = [(shape, &x), (gates, &gate), (shape, &r)]
                        .map(|(shape, data)| tensor(device, shape, dtype, data));
                    let y = ops::gated_residual(&x, &gate, &r, slope).expect("gated");
                    // Exponential, sum and quotient of the sigmoid, the product, the sum and the slope; GPUs' exponentials and
                    // quotients are good to some units in the last place.
                    assert_close(&format!("{shape:?} {axes:?}"), &y, &want, &magnitude, 12);
                }
            }
        }
    }
}

#[test]
fn empty_tensors_give_empty_results() {
    for device in devices() {
        let x = tensor(device, [2, 3, 0, 4, 5], DType::F32, &[]);
        let gate = tensor(device, [2, 3, 1, 1, 5], DType::F32, &[0.0; 30]);
        assert!(ops::gated_residual(&x, &gate, &x, 0.0).expect("nothing").is_empty());
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let zeros = |shape: Shape| tensor(&Device::Cpu, shape, DType::F32, &vec![0.0; len(shape)]);
    let x = zeros([1, 2, 3, 4, 5]);
    let refused = |gate: Shape, residual: Shape, parts: [&str; 2]| {
        let message = ops::gated_residual(&x, &zeros(gate), &zeros(residual), 0.0).expect_err("refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused([1, 2, 1, 1, 2], x.shape(), ["[1, 2, 3, 4, 5]", "[1, 2, 1, 1, 2]"]);
    refused([1, 1, 1, 1, 1], x.shape(), ["[1, 2, 3, 4, 5]", "[1, 1, 1, 1, 1]"]);
    refused([1, 2, 1, 1, 1], [1, 2, 3, 4, 1], ["[1, 2, 3, 4, 5]", "[1, 2, 3, 4, 1]"]);
}
