//! linear.

use nephron_compute::ops;
use nephron_compute::ops::linear::reference;
use nephron_compute::{DType, Device, Tensor};
use rand::Rng;

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

/// Rows, inputs, outputs: fewer inputs than units, a prime more, and a classifier's head.
pub const CASES: [[usize; 3]; 6] = [[1, 1, 1], [3, 5, 7], [2, 257, 3], [1, 16, 40], [3, 2048, 5], [17, 31, 1]];

fn check([rows, inputs, outputs]: [usize; 3], x: &[f32], w: &[f32], bias: &[f32], exact: bool) {
    for with_bias in [true, false] {
        let bias = with_bias.then_some(bias);
        let bias64 = bias.map(f64s);
        let (want, magnitude) = reference::linear(&f64s(x), &f64s(w), bias64.as_deref(), inputs, outputs);
        for device in devices() {
            let b = bias.map(|b| Tensor::vector(device, b).expect("bias"));
            for dtype in float_types(device) {
                let x = tensor(device, [rows, inputs, 1, 1, 1], dtype, x);
                let w = tensor(device, [outputs, inputs, 1, 1, 1], dtype, w);
                let y = ops::linear(&x, &w, b.as_ref()).expect("linear");
                assert_eq!(y.shape(), [rows, outputs, 1, 1, 1]);
                let what = format!("linear {rows} x {inputs} x {outputs}");
                if !exact {
                    assert_close(&what, &y, &want, &magnitude, inputs + 1);
                } else if dtype == DType::F32 {
                    assert_exact(&what, &y, &want);
                }
            }
        }
    }
}

#[test]
fn linear_is_exact_on_whole_numbers_and_bounded_otherwise() {
    let mut rng = rng();
    let drawn = [rng.random_range(1..5), rng.random_range(1..600), rng.random_range(1..20)];
    for sizes in CASES.into_iter().chain([drawn]) {
        let [rows, inputs, outputs] = sizes;
        let mut whole = |len| integers(&mut rng, len, 9);
        let (x, w, bias) = (whole(rows * inputs), whole(outputs * inputs), whole(outputs));
        check(sizes, &x, &w, &bias, true);
        let mut any = |len| uniform(&mut rng, len);
        let (x, w, bias) = (any(rows * inputs), any(outputs * inputs), any(outputs));
        check(sizes, &x, &w, &bias, false);
    }
}

#[test]
fn the_same_input_gives_the_same_bits() {
    let mut rng = rng();
    let (x, w) = (uniform(&mut rng, 1000), uniform(&mut rng, 3000));
    for device in devices() {
        let x = tensor(device, [1, 1000, 1, 1, 1], DType::F32, &x);
        let w = tensor(device, [3, 1000, 1, 1, 1], DType::F32, &w);
        let run = || ops::linear(&x, &w, None).and_then(|y| y.to_ncdhw()).expect("linear");
        let first: Vec<u32> = run().into_iter().map(f32::to_bits).collect();
        assert_eq!(first, run().into_iter().map(f32::to_bits).collect::<Vec<_>>());
    }
}

#[test]
fn empty_sums_are_the_bias() {
    for device in devices() {
        let empty = |n| tensor(device, [n, 0, 1, 1, 1], DType::F32, &[]);
        let bias = Tensor::vector(device, &[2.0, -3.0]).expect("bias");
        let y = ops::linear(&empty(2), &empty(2), Some(&bias)).expect("linear");
        assert_exact("linear", &y, &[2.0, -3.0, 2.0, -3.0]);
        assert!(ops::linear(&empty(0), &empty(2), Some(&bias)).expect("linear").is_empty());
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let cpu = Device::Cpu;
    let of = |n, c, w| tensor(&cpu, [n, c, 1, 1, w], DType::F32, &vec![0.0; n * c * w]);
    let labels = Tensor::from_u8(&cpu, [2, 3, 1, 1, 1], vec![0; 6]).expect("labels");
    let bias = Tensor::vector(&cpu, &[0.0; 3]).expect("bias");
    let refused = [
        (ops::linear(&of(1, 3, 1), &of(2, 4, 1), None), ["weight", "[2, 3, 1, 1, 1]", "[2, 4, 1, 1, 1]"]),
        (ops::linear(&of(1, 3, 2), &of(2, 3, 1), None), ["x", "[1, 3, 1, 1, 1]", "[1, 3, 1, 1, 2]"]),
        (ops::linear(&of(1, 3, 1), &of(2, 3, 1), Some(&bias)), ["bias", "[1, 2, 1, 1, 1]", "[1, 3, 1, 1, 1]"]),
        (ops::linear(&of(1, 3, 1), &labels, None), ["dtype", "f32", "u8"]),
        (ops::linear(&labels, &of(2, 3, 1), None), ["dtype", "f32", "u8"]),
    ];
    for (result, parts) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
