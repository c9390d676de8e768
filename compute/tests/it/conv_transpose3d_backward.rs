//! The gradients of conv_transpose3d.

use nephron_compute::ops::conv_transpose3d::reference as forward;
use nephron_compute::ops::conv_transpose3d_backward::reference::{self, Gradient};
use nephron_compute::ops::{self, ConvTranspose3dParams};
use nephron_compute::{DType, Device, Tensor};

use crate::conv_transpose3d::{Case, assert_names, cases, drawn, len};
use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

fn output_shape(case: &Case) -> [usize; 5] {
    forward::conv_transpose3d(&vec![0.0; len(case.x)], case.x, &vec![0.0; len(case.w)], case.w, None, &case.params)
        .shape
}

fn check(case: &Case, data: [&[f32]; 3], compare: impl Fn(&str, &Tensor, &Gradient)) {
    let [x, w, dy] = data.map(f64s);
    let want = reference::conv_transpose3d_backward(&x, case.x, &w, case.w, &dy, &case.params);
    let shapes = [case.x, case.w, [1, case.w[1], 1, 1, 1]];
    for device in devices() {
        for dtype in float_types(device) {
            let [x, w, dy] = [(case.x, data[0]), (case.w, data[1]), (output_shape(case), data[2])]
                .map(|(shape, data)| tensor(device, shape, dtype, data));
            let got =
                ops::conv_transpose3d_backward(&x, &w, &dy, &case.params).unwrap_or_else(|e| panic!("{case:?}: {e}"));
            assert_eq!([got.dx.dtype(), got.dw.dtype(), got.db.dtype()], [dtype, dtype, DType::F32]);
            let got = [("dx", &got.dx), ("dw", &got.dw), ("db", &got.db)];
            for ((name, got), (shape, want)) in got.into_iter().zip(shapes.into_iter().zip(&want)) {
                assert_eq!(got.shape(), shape, "{name} of {case:?}");
                compare(&format!("conv_transpose3d_backward {name} {case:?}"), got, want);
            }
        }
    }
}

#[test]
fn gradients_of_whole_numbers_are_exact() {
    let mut rng = rng();
    for case in cases() {
        let [x, w, dy] = [case.x, case.w, output_shape(&case)].map(|shape| integers(&mut rng, len(shape), 2));
        check(&case, [&x, &w, &dy], |what, got, want| {
            // f16 holds whole numbers up to 2048, bf16 up to 256.
            let largest = match got.dtype() {
                DType::F16 => 2048.0,
                DType::BF16 => 256.0,
                _ => f64::from(1 << 24),
            };
            if want.magnitude.iter().all(|m| *m <= largest) {
                assert_exact(what, got, &want.value);
            }
        });
    }
}

#[test]
fn gradients_agree_with_the_reference() {
    let mut rng = rng();
    let mut all = cases();
    all.extend((0..12).map(|_| drawn(&mut rng)));
    for case in &all {
        let shapes = [case.x, case.w, output_shape(case)];
        let [x, w, dy] = shapes.map(|shape| uniform(&mut rng, len(shape)));
        // The longest of the three sums: over taps and output channels, over inputs, over outputs.
        let terms = (len(case.w) / case.w[0]).max(len(case.x) / case.x[1]).max(len(shapes[2]) / shapes[2][1]);
        check(case, [&x, &w, &dy], |what, got, want| {
            assert_close(what, got, &want.value, &want.magnitude, terms + 2);
        });
    }
}

/// The operation is linear in each operand, so central differences are exact but for rounding.
#[test]
fn the_reference_gradients_are_central_differences() {
    let mut rng = rng();
    for case in cases().iter().filter(|c| len(c.x) * len(output_shape(c)) < 40_000) {
        let [x, w, dy] = [case.x, case.w, output_shape(case)].map(|shape| f64s(&uniform(&mut rng, len(shape))));
        let b = f64s(&uniform(&mut rng, case.w[1]));
        let loss = |[x, w, b]: [&[f64]; 3]| -> f64 {
            let y = forward::conv_transpose3d(x, case.x, w, case.w, Some(b), &case.params).value;
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let got = reference::conv_transpose3d_backward(&x, case.x, &w, case.w, &dy, &case.params);
        for (operand, got) in got.into_iter().enumerate() {
            for i in 0..got.value.len() {
                let mut moved = [x.clone(), w.clone(), b.clone()];
                moved[operand][i] += 0.5;
                let above = loss(moved.each_ref().map(|v| v.as_slice()));
                moved[operand][i] -= 1.0;
                let want = above - loss(moved.each_ref().map(|v| v.as_slice()));
                let close = (got.value[i] - want).abs() <= 1e-10 * (1.0 + want.abs());
                assert!(close, "operand {operand}[{i}] of {case:?}: {}, differences say {want}", got.value[i]);
            }
        }
    }
}

#[test]
fn a_gradient_of_another_shape_or_type_is_refused() {
    let zeros = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    let (x, w) = (zeros([1, 2, 2, 2, 2]), zeros([2, 3, 2, 2, 2]));
    let params = ConvTranspose3dParams { stride: [2; 3], padding: [0; 3] };
    let refused = |dy: &Tensor| ops::conv_transpose3d_backward(&x, &w, dy, &params).expect_err("refused").to_string();
    assert_names(&refused(&zeros([1, 3, 4, 4, 5])), &["dy", "[1, 3, 4, 4, 4]", "[1, 3, 4, 4, 5]"]);
    let labels = Tensor::zeros(&Device::Cpu, [1, 3, 4, 4, 4], DType::U8).expect("labels");
    assert_names(&refused(&labels), &["dy", "f32", "u8"]);
    let message = ops::conv_transpose3d_backward(&x, &x, &x, &params).expect_err("refused").to_string();
    assert_names(&message, &["weight", "2 input channels", "1 in [1, 2, 2, 2, 2]"]);
}
