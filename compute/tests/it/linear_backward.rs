//! The gradients of linear.

use nephron_compute::ops;
use nephron_compute::ops::linear::{backward_reference as reference, reference as forward};
use nephron_compute::{DType, Device, Tensor};
use rand::Rng;

use crate::linear::CASES;
use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

fn check([rows, inputs, outputs]: [usize; 3], [x, w, dy]: [&[f32]; 3], exact: bool) {
    let want = reference::linear_backward(&f64s(x), &f64s(w), &f64s(dy), [inputs, outputs]);
    let vector = |n, c| [n, c, 1, 1, 1];
    for device in devices() {
        for dtype in float_types(device).into_iter().filter(|dtype| !exact || *dtype == DType::F32) {
            let [x, w, dy] = [(vector(rows, inputs), x), (vector(outputs, inputs), w), (vector(rows, outputs), dy)]
                .map(|(shape, data)| tensor(device, shape, dtype, data));
            let got = ops::linear_backward(&x, &w, &dy).expect("linear_backward");
            assert_eq!([got.dx.shape(), got.dw.shape(), got.db.shape()], [x.shape(), w.shape(), vector(1, outputs)]);
            assert_eq!([got.dx.dtype(), got.dw.dtype(), got.db.dtype()], [dtype, dtype, DType::F32]);
            let all = [("dx", &got.dx, outputs), ("dw", &got.dw, rows), ("db", &got.db, rows)];
            for ((name, got, terms), (want, magnitude)) in all.into_iter().zip(&want) {
                let what = format!("linear_backward {name} {rows} x {inputs} x {outputs}");
                if exact {
                    assert_exact(&what, got, want);
                } else {
                    assert_close(&what, got, want, magnitude, terms + 1);
                }
            }
        }
    }
}

#[test]
fn gradients_are_exact_on_whole_numbers_and_bounded_otherwise() {
    let mut rng = rng();
    let drawn = [rng.random_range(1..5), rng.random_range(1..600), rng.random_range(1..20)];
    for sizes in CASES.into_iter().chain([drawn]) {
        let [rows, inputs, outputs] = sizes;
        let lens = [rows * inputs, outputs * inputs, rows * outputs];
        let [x, w, dy] = lens.map(|len| integers(&mut rng, len, 9));
        check(sizes, [&x, &w, &dy], true);
        let [x, w, dy] = lens.map(|len| uniform(&mut rng, len));
        check(sizes, [&x, &w, &dy], false);
    }
}

/// The layer is linear in each operand, so central differences are exact but for rounding.
#[test]
fn the_reference_gradients_are_central_differences() {
    let mut rng = rng();
    let [rows, inputs, outputs] = [3, 5, 4];
    let [x, w, b, dy] = [15, 20, 4, 12].map(|len| f64s(&uniform(&mut rng, len)));
    let got = reference::linear_backward(&x, &w, &dy, [inputs, outputs]);
    let loss = |[x, w, b]: &[Vec<f64>; 3]| {
        let (y, _) = forward::linear(x, w, Some(b), inputs, outputs);
        assert_eq!(y.len(), rows * outputs);
        y.iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
    };
    for (operand, (got, _)) in got.iter().enumerate() {
        for (i, got) in got.iter().enumerate() {
            let mut moved = [x.clone(), w.clone(), b.clone()];
            moved[operand][i] += 0.5;
            let above = loss(&moved);
            moved[operand][i] -= 1.0;
            let want = above - loss(&moved);
            assert!((got - want).abs() <= 1e-12, "operand {operand}[{i}]: {got}, differences say {want}");
        }
    }
}

#[test]
fn no_rows_inputs_or_outputs_give_gradients_of_0() {
    for device in devices() {
        let of = |n, c| tensor(device, [n, c, 1, 1, 1], DType::F32, &vec![1.0; n * c]);
        let got = ops::linear_backward(&of(0, 3), &of(2, 3), &of(0, 2)).expect("no rows");
        assert!(got.dx.is_empty());
        assert_exact("dw", &got.dw, &[0.0; 6]);
        assert_exact("db", &got.db, &[0.0; 2]);
        let got = ops::linear_backward(&of(2, 0), &of(3, 0), &of(2, 3)).expect("no inputs");
        assert_exact("db", &got.db, &[2.0; 3]);
        // More inputs than a task of the CPU has.
        let got = ops::linear_backward(&of(1, 300), &of(0, 300), &of(1, 0)).expect("no outputs");
        assert_exact("dx", &got.dx, &[0.0; 300]);
        assert!(got.dw.is_empty() && got.db.is_empty());
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let of = |n, c| tensor(&Device::Cpu, [n, c, 1, 1, 1], DType::F32, &vec![0.0; n * c]);
    let labels = Tensor::from_u8(&Device::Cpu, [1, 2, 1, 1, 1], vec![0; 2]).expect("labels");
    let refused = [
        (ops::linear_backward(&of(1, 3), &of(2, 4), &of(1, 2)), ["weight", "[2, 3, 1, 1, 1]", "[2, 4, 1, 1, 1]"]),
        (ops::linear_backward(&of(1, 3), &of(2, 3), &of(1, 3)), ["dy", "[1, 2, 1, 1, 1]", "[1, 3, 1, 1, 1]"]),
        (ops::linear_backward(&of(1, 3), &of(2, 3), &labels), ["dy", "f32", "u8"]),
    ];
    for (result, parts) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
