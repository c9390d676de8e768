//! instance_norm_backward and batch_norm_train_backward.

use nephron_compute::ops::norm::backward_reference::{self as reference, Gradients, Norm};
use nephron_compute::ops::norm::reference as forward;
use nephron_compute::ops::{self, NormGradients, activation};
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::norm::{Case, EPS, ROUNDINGS, SHAPES, len};
use crate::support::{
    assert_close, assert_exact, compiles_only, devices, f64s, float_types, gamma, integers, rng, tensor, uniform,
};

/// Roundings behind a gradient: those of the statistics; of sums over chunks, 8 additions of a block, up to 16 blocks and single positions,
/// 8 levels of the tree, 4 chunks and 8 more levels; and 16 of the coefficients and the last steps, where Vulkan grants divisions 2.5 ulps.
/// Doubled because bounds hold to first order.
pub(crate) const K: usize = 2 * (ROUNDINGS + 8 + 16 + 8 + 4 + 8 + 16);

pub(crate) type Op =
    fn(&Tensor, Option<&Tensor>, Option<&Tensor>, f32, f32, &Tensor) -> nephron_compute::Result<NormGradients>;
pub(crate) type Oracle = fn(&[f64], Shape, &Norm<'_>, &[f64]) -> Gradients;
const OPS: [(&str, Op, Oracle); 2] = [
    ("instance_norm_backward", ops::instance_norm_backward, reference::instance_norm),
    ("batch_norm_train_backward", ops::batch_norm_train_backward, reference::batch_norm_train),
];

/// Compares all gradients; where the sign of the activation's argument is a matter of rounding, dy is 0.
fn check(case: &Case, dy: &[f32], slope: f32, device: &Device, dtype: DType, (what, op, oracle): (&str, Op, Oracle)) {
    let x = tensor(device, case.shape, dtype, &case.x);
    case.each(device, |[weight, bias], [w, b]| {
        let norm = Norm { weight, bias, eps: EPS.into(), slope: slope.into() };
        let mut dy = dy.to_vec();
        let distances = oracle(&f64s(&case.x), case.shape, &norm, &f64s(&dy)).distance_from_zero;
        for (dy, distance) in dy.iter_mut().zip(distances).filter(|_| slope != 1.0) {
            if distance.is_nan() || distance <= gamma(2 * ROUNDINGS) {
                *dy = 0.0;
            }
        }
        let want = oracle(&f64s(&case.x), case.shape, &norm, &f64s(&dy));
        let got = op(&x, w, b, EPS, slope, &tensor(device, case.shape, dtype, &dy)).expect(what);
        let vector = [1, case.shape[1], 1, 1, 1];
        assert_eq!([got.dx.shape(), got.dweight.shape(), got.dbias.shape()], [case.shape, vector, vector]);
        assert_eq!([got.dx.dtype(), got.dweight.dtype(), got.dbias.dtype()], [dtype, DType::F32, DType::F32]);
        for (name, got, want) in
            [("dx", &got.dx, &want.dx), ("dweight", &got.dweight, &want.dweight), ("dbias", &got.dbias, &want.dbias)]
        {
            let what = format!("{what} {name} {:?}, slope {slope}", case.shape);
            assert_close(&what, got, &want.value, &want.magnitude, K);
        }
    });
}

#[test]
fn gradients_agree_with_the_reference() {
    let mut rng = rng();
    let drawn = [rng.random_range(1..4), rng.random_range(1..40), rng.random_range(1..6), rng.random_range(1..6), 5];
    for (i, shape) in SHAPES.into_iter().chain([drawn]).enumerate() {
        let data = uniform(&mut rng, len(shape));
        let dy = uniform(&mut rng, len(shape));
        let case = Case::new(&mut rng, shape, data);
        let slope = [0.01, 1.0, 0.0][i % 3];
        for device in devices() {
            for dtype in float_types(device) {
                check(&case, &dy, slope, device, dtype, OPS[0]);
                if len(shape) / shape[1] > 1 {
                    check(&case, &dy, slope, device, dtype, OPS[1]);
                }
            }
        }
    }
}

#[test]
fn a_mean_far_above_the_deviation_costs_few_digits() {
    let mut rng = rng();
    let shape = [2, 3, 7, 11, 13];
    let x: Vec<f32> = (0..len(shape)).map(|_| 100.0 + 0.5 * rng.random_range(-4i32..=4) as f32).collect();
    let dy = uniform(&mut rng, len(shape));
    let case = Case::new(&mut rng, shape, x);
    for device in devices() {
        for op in OPS {
            check(&case, &dy, 0.01, device, DType::F32, op);
        }
    }
}

/// Halves at mean - 1 and mean + 1 of 32 voxels: deviation 1, every mean a multiple of 1 / 32. In channel 0 the activation's argument is
/// exactly 0 at the lower voxels, where the derivative is the slope.
#[test]
fn gradients_of_whole_numbers_are_exact() {
    let mut rng = rng();
    let (shape, voxels) = ([2, 5, 2, 4, 4], 32);
    let x: Vec<f32> =
        (0..len(shape)).map(|i| ((i / voxels) % 5) as f32 * 4.0 - 8.0 + if i % 2 == 0 { -1.0 } else { 1.0 }).collect();
    let dy = integers(&mut rng, len(shape), 2);
    let (weight, bias) = ([2.0, -1.0, 0.5, 1.0, 4.0], [2.0, 0.5, -4.0, 7.0, 0.0]);
    for slope in [0.5f32, 1.0, 0.0] {
        let (weights, biases) = (f64s(&weight), f64s(&bias));
        let norm = Norm { weight: Some(&weights), bias: Some(&biases), eps: 0.0, slope: slope.into() };
        for (what, op, oracle) in OPS {
            let want = oracle(&f64s(&x), shape, &norm, &f64s(&dy));
            assert_eq!(want.distance_from_zero[0], 0.0);
            for device in devices() {
                let (w, b) =
                    (Tensor::vector(device, &weight).expect("weight"), Tensor::vector(device, &bias).expect("bias"));
                for dtype in float_types(device) {
                    let (x, dy) = (tensor(device, shape, dtype, &x), tensor(device, shape, dtype, &dy));
                    let got = op(&x, Some(&w), Some(&b), 0.0, slope, &dy).expect(what);
                    assert_exact(&format!("{what} dweight"), &got.dweight, &want.dweight.value);
                    assert_exact(&format!("{what} dbias"), &got.dbias, &want.dbias.value);
                    // Of the other types only the storage rounds.
                    assert_close(&format!("{what} dx"), &got.dx, &want.dx.value, &want.dx.value, 0);
                    if dtype == DType::F32 {
                        assert_exact(&format!("{what} dx"), &got.dx, &want.dx.value);
                    }
                }
            }
        }
    }
}

/// Central differences of the forward references, step h, error h^2 times a third derivative, away from the kink.
#[test]
fn the_reference_gradients_are_central_differences() {
    let mut rng = rng();
    let shape = [2, 3, 1, 2, 3];
    for slope in [0.25, 1.0] {
        let [x, dy] = [(); 2].map(|()| f64s(&uniform(&mut rng, 36)));
        let [weight, bias] = [(); 2].map(|()| f64s(&uniform(&mut rng, 3)));
        type Forward = fn(&[f64], Shape, &[f64], &[f64]) -> Vec<f64>;
        let forwards: [Forward; 2] = [
            |x, shape, w, b| forward::instance_norm(x, shape, Some(w), Some(b), 0.1).value,
            |x, shape, w, b| forward::batch_norm_train(x, shape, Some(w), Some(b), 0.1)[0].value.clone(),
        ];
        for ((what, _, oracle), y) in OPS.into_iter().zip(forwards) {
            let loss = |[x, w, b]: [&[f64]; 3]| -> f64 {
                let activated = activation::reference::leaky_relu(&y(x, shape, w, b), slope);
                activated.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
            };
            let norm = Norm { weight: Some(&weight), bias: Some(&bias), eps: 0.1, slope };
            let got = oracle(&x, shape, &norm, &dy);
            let away = |at: [&[f64]; 3]| y(at[0], shape, at[1], at[2]).iter().map(|y| *y > 0.0).collect::<Vec<_>>();
            for (operand, got) in [got.dx, got.dweight, got.dbias].into_iter().enumerate() {
                for i in 0..got.value.len() {
                    let mut moved = [x.clone(), weight.clone(), bias.clone()];
                    let mut at = |step: f64| {
                        moved[operand][i] += step;
                        let result = moved.each_ref().map(|v| v.as_slice());
                        let result = (loss(result), away(result));
                        moved[operand][i] -= step;
                        result
                    };
                    let ((above, signs), (below, other_signs)) = (at(1e-5), at(-1e-5));
                    let want = (above - below) / 2e-5;
                    // A step over the kink says nothing of the derivative at its middle.
                    let close = (got.value[i] - want).abs() <= 1e-7 || signs != other_signs;
                    assert!(close, "{what} operand {operand}[{i}]: {}, differences say {want}", got.value[i]);
                }
            }
        }
    }
}

#[test]
fn the_same_bits_every_time() {
    let mut rng = rng();
    let shape = [2, 7, 9, 30, 31];
    let [x, dy] = [(); 2].map(|()| uniform(&mut rng, len(shape)));
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        for (what, op, _) in OPS {
            let [x, dy] = [&x, &dy].map(|data| tensor(device, shape, DType::F32, data));
            let run = || {
                let got = op(&x, None, None, EPS, 0.01, &dy).expect(what);
                [got.dx, got.dweight, got.dbias].map(|t| t.to_ndhwc().expect("values"))
            };
            assert_eq!(run(), run(), "{what} on {}", device.name());
        }
    }
}

#[test]
fn empty_tensors_have_gradients_of_0() {
    for device in devices() {
        for shape in [[0, 2, 3, 3, 3], [1, 2, 0, 3, 3]] {
            let x = tensor(device, shape, DType::F32, &[]);
            let got = ops::instance_norm_backward(&x, None, None, EPS, 0.01, &x).expect("a gradient");
            assert_eq!(got.dx.shape(), shape);
            assert_exact("dweight", &got.dweight, &[0.0; 2]);
            assert_exact("dbias", &got.dbias, &[0.0; 2]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let cpu = Device::Cpu;
    let of = |shape: Shape| tensor(&cpu, shape, DType::F32, &vec![0.0; len(shape)]);
    let (x, other, single) = (of([1, 2, 1, 1, 3]), of([1, 2, 1, 3, 1]), of([1, 2, 1, 1, 1]));
    let labels = Tensor::from_u8(&cpu, [1, 2, 1, 1, 3], vec![0; 6]).expect("labels");
    let three = Tensor::vector(&cpu, &[1.0; 3]).expect("3");
    let instance = |x, w, eps, slope, dy| ops::instance_norm_backward(x, w, None, eps, slope, dy);
    let refused = [
        (instance(&x, None, EPS, 0.01, &other), ["dy", "[1, 2, 1, 1, 3]", "[1, 2, 1, 3, 1]"]),
        (instance(&x, None, EPS, 0.01, &labels), ["dy", "f32", "u8"]),
        (instance(&x, Some(&three), EPS, 0.01, &x), ["weight", "[1, 2, 1, 1, 1]", "[1, 3, 1, 1, 1]"]),
        (instance(&x, None, -1.0, 0.01, &x), ["eps", "0 or more", "-1"]),
        (instance(&x, None, EPS, f32::NAN, &x), ["slope", "finite", "NaN"]),
        (
            ops::batch_norm_train_backward(&single, None, None, EPS, 1.0, &single),
            ["at least 2", "1 in shape", "[1, 2, 1, 1, 1]"],
        ),
    ];
    for (result, parts) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
