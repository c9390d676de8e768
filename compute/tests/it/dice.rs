//! dice and dice_ce, with their gradients.

use nephron_compute::ops::dice::reference::{self, Reference};
use nephron_compute::{DType, Device, Shape, Tensor, ops};
use rand::Rng;

use crate::support::{
    assert_close, assert_exact, compiles_only, devices, f64s, float_types, gamma, integers, rng, tensor, uniform,
};

pub(crate) const SHAPES: [Shape; 6] =
    [[1, 1, 1, 1, 1], [2, 3, 5, 7, 11], [1, 1, 1, 1, 257], [3, 17, 1, 1, 2], [1, 2, 24, 25, 31], [2, 8, 3, 4, 5]];

/// Number of roundings in a value: a unit's chain of at most 32 products, 8 + 32 additions in the cube, the coefficients and
/// the last few operations, doubled because bounds hold to first order. Sums on the CPU and between cubes are f64.
const K: usize = 2 * (2 * 32 + 8 + 32 + 8);

/// The same with the softmax before it. Vulkan allows an exponential 3 + 2 |x| ulp and a logarithm 3; logits here
/// differ by 8 at most, so p is off by 2 (3 + 16) + 8 roundings, its normalisation by as many and the channels.
pub(crate) const K_SOFTMAX: usize = K + 2 * (2 * (2 * 19 + 8) + 17 + 8);

/// The loss, which is no tensor, held to the same rule.
pub(crate) fn assert_loss(what: &str, device: &Device, got: f32, want: &Reference, k: usize) {
    if compiles_only(device) {
        return;
    }
    let bound = gamma(k) * want.loss_magnitude + want.loss.abs() * f64::from(f32::EPSILON);
    let got = f64::from(got);
    assert!(
        (got - want.loss).abs() <= bound,
        "{what} on {}: {got}, expected {} +- {bound:e}",
        device.name(),
        want.loss
    );
}

/// Logits from -4 to 4 in steps that every storage type holds.
pub(crate) fn logits(rng: &mut impl Rng, len: usize) -> Vec<f32> {
    uniform(rng, len).iter().map(|v| 4.0 * v).collect()
}

pub(crate) fn labels(rng: &mut impl Rng, shape: Shape) -> Vec<u8> {
    let [n, c, d, h, w] = shape;
    (0..n * d * h * w).map(|_| rng.random_range(0..c as u8)).collect()
}

#[test]
fn dice_of_whole_numbers_is_exact() {
    let mut rng = rng();
    let shape = [2, 3, 3, 5, 7];
    let (p, g) = (integers(&mut rng, 630, 9), integers(&mut rng, 630, 9));
    let want = reference::dice(shape, &f64s(&p), &f64s(&g), 1.0);
    for device in devices() {
        for dtype in float_types(device) {
            let got = ops::dice(&tensor(device, shape, dtype, &p), &tensor(device, shape, dtype, &g), 1.0);
            let got = got.expect("dice");
            assert!(compiles_only(device) || got.loss == want.loss as f32, "{} on {}", got.loss, device.name());
        }
    }
    // 2 I / (P + G) = 4 / 8: powers of two all the way to the gradient.
    let (p, g) = ([1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 0.0, 2.0]);
    let want = reference::dice([1, 1, 1, 2, 2], &f64s(&p), &f64s(&g), 0.0);
    assert_eq!(want.gradient, [-0.375, 0.125, 0.125, -0.375]);
    for device in devices() {
        for dtype in float_types(device) {
            let shape = [1, 1, 1, 2, 2];
            let got = ops::dice(&tensor(device, shape, dtype, &p), &tensor(device, shape, dtype, &g), 0.0);
            assert_exact("dice: dp", &got.expect("dice").dp, &want.gradient);
        }
    }
}

#[test]
fn dice_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let len = shape.iter().product();
        let p: Vec<f32> = uniform(&mut rng, len).iter().map(|v| v.abs()).collect();
        let g: Vec<f32> = uniform(&mut rng, len).iter().map(|v| v.abs()).collect();
        for smooth in [1e-5f32, 1.0] {
            let want = reference::dice(shape, &f64s(&p), &f64s(&g), smooth.into());
            for device in devices() {
                for dtype in float_types(device) {
                    let got = ops::dice(&tensor(device, shape, dtype, &p), &tensor(device, shape, dtype, &g), smooth);
                    let got = got.expect("dice");
                    assert_loss("dice", device, got.loss, &want, K);
                    assert_close("dice: dp", &got.dp, &want.gradient, &want.gradient_magnitude, K);
                }
            }
        }
    }
}

#[test]
fn dice_ce_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let [n, _, d, h, w] = shape;
        let z = logits(&mut rng, shape.iter().product());
        let labels = labels(&mut rng, shape);
        let want = reference::dice_ce(shape, &f64s(&z), &labels, f64::from(1e-5f32));
        for device in devices() {
            let labels = Tensor::from_u8(device, [n, 1, d, h, w], labels.clone()).expect("labels");
            for dtype in float_types(device) {
                let got = ops::dice_ce(&tensor(device, shape, dtype, &z), &labels, 1e-5).expect("dice_ce");
                assert_loss("dice_ce", device, got.loss, &want, K_SOFTMAX);
                assert_close("dice_ce: dlogits", &got.dlogits, &want.gradient, &want.gradient_magnitude, K_SOFTMAX);
            }
        }
    }
}

#[test]
fn the_same_bits_every_time() {
    let mut rng = rng();
    let shape = [1, 3, 20, 30, 31];
    let z = logits(&mut rng, shape.iter().product());
    let labels = labels(&mut rng, shape);
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let labels = Tensor::from_u8(device, [1, 1, 20, 30, 31], labels.clone()).expect("labels");
        let run = || {
            let got = ops::dice_ce(&tensor(device, shape, DType::F32, &z), &labels, 1.0).expect("dice_ce");
            (got.loss.to_bits(), got.dlogits.to_ndhwc().expect("dlogits"))
        };
        assert_eq!(run(), run(), "{}", device.name());
    }
}

/// The reference's gradients against its own losses: central differences, step h, error h^2 times a third derivative.
#[test]
fn gradients_agree_with_finite_differences() {
    let mut rng = rng();
    let shape = [2, 3, 1, 2, 3];
    let z = f64s(&logits(&mut rng, 36));
    let p: Vec<f64> = z.iter().map(|v| v.abs() / 4.0).collect();
    let g: Vec<f64> = f64s(&uniform(&mut rng, 36)).iter().map(|v| v.abs()).collect();
    let labels = labels(&mut rng, shape);
    type Loss<'a> = Box<dyn Fn(&[f64]) -> Reference + 'a>;
    let losses: [(&[f64], Loss); 2] = [
        (&p, Box::new(|p| reference::dice(shape, p, &g, 0.5))),
        (&z, Box::new(|z| reference::dice_ce(shape, z, &labels, 0.5))),
    ];
    for (x, f) in losses {
        let gradient = f(x).gradient;
        for i in 0..x.len() {
            let at = |step: f64| {
                let mut x = x.to_vec();
                x[i] += step;
                f(&x).loss
            };
            let want = (at(1e-4) - at(-1e-4)) / 2e-4;
            assert!((gradient[i] - want).abs() <= 1e-7, "element {i}: {}, differences say {want}", gradient[i]);
        }
    }
}

/// Both empty and nothing to smooth with: they agree.
#[test]
fn two_empty_masks_agree() {
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let zero = tensor(device, [1, 2, 1, 1, 3], DType::F32, &[0.0; 6]);
        let got = ops::dice(&zero, &zero, 0.0).expect("dice");
        assert_eq!((got.loss, got.dp.to_ndhwc().expect("dp")), (0.0, vec![0.0; 6]), "{}", device.name());
    }
}

pub(crate) fn assert_refused<T: std::fmt::Debug>(result: nephron_compute::Result<T>, parts: &[&str]) {
    let message = result.expect_err("must be refused").to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}: expected {parts:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let of = |shape: Shape| Tensor::zeros(device, shape, DType::F32).expect("zeros");
        let labels = |shape: Shape, data: Vec<u8>| Tensor::from_u8(device, shape, data).expect("labels");
        let (x, l) = (of([1, 2, 1, 1, 3]), labels([1, 1, 1, 1, 3], vec![0, 1, 0]));
        assert_refused(ops::dice(&x, &of([1, 3, 1, 1, 2]), 1.0), &["[1, 2, 1, 1, 3]", "[1, 3, 1, 1, 2]"]);
        assert_refused(ops::dice(&x, &l, 1.0), &["[1, 2, 1, 1, 3]", "[1, 1, 1, 1, 3]"]);
        assert_refused(ops::dice(&l, &l, 1.0), &["f32", "u8"]);
        assert_refused(ops::dice(&x, &x, -1.0), &["0 or more", "-1"]);
        assert_refused(ops::dice(&x, &x, f32::NAN), &["finite", "NaN"]);
        let empty = of([1, 2, 0, 1, 3]);
        assert_refused(ops::dice(&empty, &empty, 1.0), &["size 0", "[1, 2, 0, 1, 3]"]);
        assert_refused(ops::dice_ce(&x, &x, 1.0), &["[1, 1, 1, 1, 3]", "[1, 2, 1, 1, 3]"]);
        assert_refused(ops::dice_ce(&x, &of([1, 1, 1, 1, 3]), 1.0), &["u8", "f32"]);
        let wrong = labels([1, 1, 1, 1, 3], vec![0, 7, 1]);
        assert_refused(ops::dice_ce(&x, &wrong, 1.0), &["below 2", "7"]);
    }
    let x = Tensor::zeros(&Device::Cpu, [1, 1, 1, 1, 1], DType::F32).expect("zeros");
    for device in devices().iter().filter(|d| **d != Device::Cpu) {
        let g = x.to_device(device).expect("copy");
        assert_refused(ops::dice(&x, &g, 1.0), &["cpu", &device.name()]);
    }
}
