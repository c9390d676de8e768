//! The gradients of conv3d.

use nephron_compute::ops::conv3d::reference::{self, Sums};
use nephron_compute::ops::{self, Conv3dParams};
use nephron_compute::{DType, Device, Tensor};

use crate::conv3d::{Case, assert_names, case, cases, compare_exact, drawn, len, roundings};
use crate::support::{assert_close, devices, f64s, float_types, integers, rng, tensor, uniform};

fn check_backward(case: &Case, data: [&[f32]; 3], compare: impl Fn(&str, &Tensor, &Sums)) {
    let [x, w, dy] = data.map(f64s);
    let want = reference::conv3d_backward(&x, case.x, &w, case.w, &dy, &case.params);
    let ys = reference::conv3d(&x, case.x, &w, case.w, None, &case.params).shape;
    for device in devices() {
        for dtype in float_types(device) {
            let [x, w, dy] = [(case.x, data[0]), (case.w, data[1]), (ys, data[2])]
                .map(|(shape, data)| tensor(device, shape, dtype, data));
            let got = ops::conv3d_backward(&x, &w, &dy, &case.params).unwrap_or_else(|e| panic!("{case:?}: {e}"));
            for (name, got, want) in [("dx", &got.dx, &want.dx), ("dw", &got.dw, &want.dw), ("db", &got.db, &want.db)] {
                assert_eq!(got.shape(), want.shape, "{name} of {case:?}");
                compare(&format!("conv3d_backward {name} {case:?}"), got, want);
            }
            let (dw, db) = ops::conv3d_backward_weights(&x, &w, &dy, &case.params).expect("dw and db");
            compare(&format!("conv3d_backward_weights dw {case:?}"), &dw, &want.dw);
            compare(&format!("conv3d_backward_weights db {case:?}"), &db, &want.db);
        }
    }
}

/// Random data of a case's dy.
fn output_len(case: &Case) -> usize {
    let (x, w) = (vec![0.0; len(case.x)], vec![0.0; len(case.w)]);
    len(reference::conv3d(&x, case.x, &w, case.w, None, &case.params).shape)
}

#[test]
fn gradients_of_whole_numbers_are_exact() {
    let mut rng = rng();
    for case in cases() {
        let lens = [len(case.x), len(case.w), output_len(&case)];
        let [x, w, dy] = lens.map(|n| integers(&mut rng, n, 2));
        check_backward(&case, [&x, &w, &dy], compare_exact);
    }
}

#[test]
fn gradients_agree_with_the_reference() {
    let mut rng = rng();
    let mut all = cases();
    // Enough rows for several splits.
    all.push(case([1, 3, 9, 40, 33], [5, 3, 1, 1, 3], [1; 3], [0; 3], [1; 3], 1));
    all.extend((0..8).map(|_| drawn(&mut rng)));
    for case in &all {
        let lens = [len(case.x), len(case.w), output_len(case)];
        let [x, w, dy] = lens.map(|n| uniform(&mut rng, n));
        // The longest of the three sums.
        let terms = (lens[2] / case.w[0]).max(case.w[0] * case.w[2..].iter().product::<usize>());
        check_backward(case, [&x, &w, &dy], |what, got, want| {
            assert_close(what, got, &want.value, &want.magnitude, roundings(terms) + 256);
        });
    }
}

/// The convolution is linear in each operand, so central differences are exact but for rounding.
#[test]
fn the_reference_gradients_are_central_differences() {
    let mut rng = rng();
    for case in cases().iter().filter(|c| len(c.x) * output_len(c) < 20_000) {
        let lens = [len(case.x), len(case.w), output_len(case)];
        let [x, w, dy] = lens.map(|n| f64s(&uniform(&mut rng, n)));
        let b = vec![0.0; case.w[0]];
        let loss = |x: &[f64], w: &[f64], b: &[f64]| {
            let y = reference::conv3d(x, case.x, w, case.w, Some(b), &case.params).value;
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
        };
        let difference = |data: &[f64], i: usize, loss: &dyn Fn(&[f64]) -> f64| {
            let at = |step: f64| {
                let mut moved = data.to_vec();
                moved[i] += step;
                loss(&moved)
            };
            (at(0.5) - at(-0.5)) / 1.0
        };
        let g = reference::conv3d_backward(&x, case.x, &w, case.w, &dy, &case.params);
        let wanted = |name: &str, data: &[f64], got: &Sums, loss: &dyn Fn(&[f64]) -> f64| {
            for i in 0..data.len() {
                let want = difference(data, i, loss);
                assert!((got.value[i] - want).abs() <= 1e-10 * (1.0 + want.abs()), "{name}[{i}] of {case:?}");
            }
        };
        wanted("dx", &x, &g.dx, &|x| loss(x, &w, &b));
        wanted("dw", &w, &g.dw, &|w| loss(&x, w, &b));
        wanted("db", &b, &g.db, &|b| loss(&x, &w, b));
    }
}

#[test]
fn a_gradient_of_another_shape_is_refused() {
    let zeros = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    let (x, w) = (zeros([1, 2, 4, 4, 4]), zeros([3, 2, 3, 3, 3]));
    let refused = |dy: &Tensor| {
        ops::conv3d_backward(&x, &w, dy, &Conv3dParams::default()).expect_err("must be refused").to_string()
    };
    assert_names(&refused(&zeros([1, 3, 2, 2, 3])), &["dy", "[1, 3, 2, 2, 2]", "[1, 3, 2, 2, 3]"]);
    let labels = Tensor::zeros(&Device::Cpu, [1, 3, 2, 2, 2], DType::U8).expect("labels");
    assert_names(&refused(&labels), &["dy", "f32", "u8"]);
    let other = zeros([2, 3, 2, 2, 2]);
    let message =
        ops::conv3d_backward_weights(&x, &w, &other, &Conv3dParams::default()).expect_err("refused").to_string();
    assert_names(&message, &["conv3d_backward_weights: dy", "[1, 3, 2, 2, 2]", "[2, 3, 2, 2, 2]"]);
}
