//! affine_dice: loss, Dice and d loss / d theta.

use nephron_compute::ops::affine_dice::{Matrix, reference};
use nephron_compute::ops::{AffineDiceOutput, AffineDiceParams, PaddingMode, affine_dice};
use nephron_compute::{DType, Device, Tensor};
use rand::Rng;

use crate::support::{compiles_only, devices, gamma, rng};

/// Number of roundings in a sum: 6 for a position, 10 for a sample and its slopes, 4 for a term, a unit's chain (one brick of
/// a cube here), 8 + 32 in the cube, doubled because bounds hold to first order. The rest is f64.
pub(crate) const K: usize = 2 * (6 + 10 + 4 + 1 + 8 + 32);

/// [d, h, w] of the fixed and the moving mask.
const SHAPES: [([usize; 3], [usize; 3]); 5] = [
    ([1, 1, 1], [1, 1, 1]),
    ([5, 7, 11], [5, 7, 11]),
    ([9, 8, 17], [7, 13, 6]),
    ([1, 12, 13], [1, 11, 14]),
    ([4, 1, 2], [6, 5, 1]),
];

/// Labels 0 to 3, the last of which counts as background.
fn noise(rng: &mut impl Rng, shape: [usize; 3]) -> Vec<u8> {
    (0..shape.iter().product()).map(|_| rng.random_range(0..4)).collect()
}

/// A kidney with a tumour in it: label 1 in an ellipsoid about the middle, 2 in a part of it.
fn blob(shape: [usize; 3], offset: [f64; 3]) -> Vec<u8> {
    let [d, h, w] = shape;
    let mut out = Vec::with_capacity(d * h * w);
    for z in 0..d {
        for y in 0..h {
            for x in 0..w {
                let at = [z, y, x];
                let r2: f64 = (0..3)
                    .map(|k| {
                        let half = shape[k] as f64 / 2.0;
                        ((at[k] as f64 + 0.5 - half - offset[k]) / (half * 0.62)).powi(2)
                    })
                    .sum();
                out.push(if r2 > 1.0 { 0 } else { 1 + u8::from(x > w / 2 && y < h / 2 + 2) });
            }
        }
    }
    out
}

/// Close to the identity, or a flip of axes, with every entry moved a little.
fn near(rng: &mut impl Rng, base: Matrix, amount: f64) -> Matrix {
    base.map(|row| row.map(|v| v + rng.random_range(-amount..amount)))
}

pub(crate) const IDENTITY: Matrix = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
pub(crate) const TURN: Matrix = [[0.0, -1.0, 0.0, 0.1], [0.8, 0.0, 0.0, 0.0], [0.0, 0.2, -1.1, -0.2]];

pub(crate) fn run(
    device: &Device,
    fixed: (&[u8], [usize; 3]),
    moving: (&[u8], [usize; 3]),
    theta: &Matrix,
    params: &AffineDiceParams,
) -> AffineDiceOutput {
    let mask = |(labels, [d, h, w]): (&[u8], [usize; 3])| {
        Tensor::from_u8(device, [1, 1, d, h, w], labels.to_vec()).expect("labels")
    };
    affine_dice(&mask(fixed), &mask(moving), theta, params).expect("affine_dice")
}

fn modes() -> Vec<AffineDiceParams> {
    let mut modes = vec![];
    for align_corners in [true, false] {
        for padding in [PaddingMode::Border, PaddingMode::Zeros] {
            for smooth in [1.0, 1e-5] {
                modes.push(AffineDiceParams { align_corners, smooth, padding, ..Default::default() });
            }
        }
    }
    modes
}

fn oracle(
    fixed: (&[u8], [usize; 3]),
    moving: (&[u8], [usize; 3]),
    theta: &Matrix,
    params: &AffineDiceParams,
) -> reference::Reference {
    reference::affine_dice(fixed, moving, theta, params)
}

pub(crate) fn assert_agrees(
    what: &str,
    device: &Device,
    got: &AffineDiceOutput,
    want: &reference::Reference,
    k: usize,
) {
    if compiles_only(device) {
        return;
    }
    let name = device.name();
    let close = |part: &str, got: f64, want: f64, magnitude: f64| {
        // 1e-12 of the magnitude is f64's share: sums of at most 1e3 terms.
        let bound = (gamma(k) + 1e-12) * magnitude;
        assert!((got - want).abs() <= bound, "{what} on {name}: {part} is {got}, expected {want} +- {bound:e}");
    };
    close("loss", got.loss, want.loss, want.loss_magnitude);
    assert_eq!(got.dice.len(), want.dice.len());
    for (got, &want_dice) in got.dice.iter().zip(&want.dice) {
        close("dice", *got, want_dice, want.dice.len() as f64 * want.loss_magnitude);
    }
    for r in 0..3 {
        for c in 0..4 {
            close(&format!("dtheta[{r}][{c}]"), got.dtheta[r][c], want.dtheta[r][c], want.dtheta_magnitude[r][c]);
        }
    }
}

/// Positions on voxel centres: every sum is a whole number, and f32 holds it.
#[test]
fn shifts_by_whole_voxels_are_exact() {
    let mut rng = rng();
    let shape = [3, 5, 9];
    let (fixed, moving) = (noise(&mut rng, shape), noise(&mut rng, shape));
    let mut thetas = vec![IDENTITY, [[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]]];
    for (x, y, z) in [(0.25, 0.5, 1.0), (-0.5, 0.0, -1.0), (2.5, 0.0, 0.0)] {
        thetas.push([[1.0, 0.0, 0.0, x], [0.0, 1.0, 0.0, y], [0.0, 0.0, 1.0, z]]);
    }
    for theta in thetas {
        for padding in [PaddingMode::Border, PaddingMode::Zeros] {
            let params = AffineDiceParams { padding, ..Default::default() };
            let want = oracle((&fixed, shape), (&moving, shape), &theta, &params);
            for device in devices() {
                let got = run(device, (&fixed, shape), (&moving, shape), &theta, &params);
                if !compiles_only(device) {
                    assert_eq!(got.dice, want.dice, "{theta:?} on {}", device.name());
                    assert_eq!(got.loss, want.loss, "{theta:?} on {}", device.name());
                }
                assert_agrees("whole shifts", device, &got, &want, 0);
            }
        }
    }
}

#[test]
fn agrees_with_the_reference_on_noise() {
    let mut rng = rng();
    for (fixed_shape, moving_shape) in SHAPES {
        let (fixed, moving) = (noise(&mut rng, fixed_shape), noise(&mut rng, moving_shape));
        let (fixed, moving) = ((&fixed[..], fixed_shape), (&moving[..], moving_shape));
        for params in modes() {
            for base in [IDENTITY, TURN] {
                let (theta, want) = away_from_faces(&mut rng, base, |theta| oracle(fixed, moving, theta, &params));
                for device in devices() {
                    let got = run(device, fixed, moving, &theta, &params);
                    let k = if *device == Device::Cpu { 0 } else { K };
                    assert_agrees(&format!("{fixed:?} {moving:?} {theta:?} {params:?}"), device, &got, &want, k);
                }
            }
        }
    }
}

/// Masks with room around them, whose boxes are smaller than the grids, and maps that take them out of sight.
#[test]
fn agrees_with_the_reference_on_blobs() {
    let mut rng = rng();
    let (fixed_shape, moving_shape) = ([10, 13, 21], [12, 15, 18]);
    let (fixed, moving) = (blob(fixed_shape, [0.0; 3]), blob(moving_shape, [0.5, -1.2, 2.3]));
    let (fixed, moving) = ((&fixed[..], fixed_shape), (&moving[..], moving_shape));
    let far = [[1.0, 0.0, 0.0, 1.7], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
    let small = IDENTITY.map(|row| row.map(|v| v * 3.0));
    for params in modes() {
        for base in [IDENTITY, TURN, far, small] {
            let (theta, want) = away_from_faces(&mut rng, base, |theta| oracle(fixed, moving, theta, &params));
            for device in devices() {
                let got = run(device, fixed, moving, &theta, &params);
                let k = if *device == Device::Cpu { 0 } else { K };
                assert_agrees(&format!("{theta:?} {params:?}"), device, &got, &want, k);
            }
        }
    }
}

/// PyTorch's autograd, in f64; see tests/golden/affine_dice.py. Its thetas keep coordinates off the faces of cells.
#[test]
fn agrees_with_pytorch() {
    let label = |at: [usize; 3], salt: usize| {
        let [z, y, x] = at;
        ((z * 7 + y * 13 + x * 29 + z * x * 3 + y * z * 5 + salt) % 11 % 4) as u8
    };
    let mask = |[d, h, w]: [usize; 3], salt| -> Vec<u8> {
        (0..d * h * w).map(|i| label([i / w / h, i / w % h, i % w], salt)).collect()
    };
    let (fixed_shape, moving_shape) = ([6, 9, 7], [8, 5, 10]);
    let (fixed, moving) = (mask(fixed_shape, 1), mask(moving_shape, 4));
    let (fixed, moving) = ((&fixed[..], fixed_shape), (&moving[..], moving_shape));
    let mut cases = 0;
    for line in include_str!("../../../tests/golden/affine_dice.txt").lines().filter(|l| !l.starts_with('#')) {
        let v: Vec<f64> = line.split(' ').map(|v| v.parse().expect("a number")).collect();
        let matrix = |at: usize| -> Matrix { std::array::from_fn(|r| std::array::from_fn(|c| v[at + 4 * r + c])) };
        let padding = if v[1] == 1.0 { PaddingMode::Border } else { PaddingMode::Zeros };
        let params = AffineDiceParams { align_corners: v[0] == 1.0, smooth: v[2], padding, ..Default::default() };
        let mut want = oracle(fixed, moving, &matrix(3), &params);
        assert!((want.loss - v[15]).abs() <= 1e-13, "reference: {} against {}", want.loss, v[15]);
        let pairs = want.dtheta.as_flattened().iter().zip(&v[16..]);
        assert!(pairs.clone().all(|(a, b)| (a - b).abs() <= 1e-12), "reference: {:?}", pairs.collect::<Vec<_>>());
        (want.loss, want.dtheta) = (v[15], matrix(16));
        for device in devices() {
            let got = run(device, fixed, moving, &matrix(3), &params);
            let k = if *device == Device::Cpu { 0 } else { K };
            assert_agrees(&format!("{params:?}"), device, &got, &want, k);
        }
        cases += 1;
    }
    assert_eq!(cases, 24);
}

/// Draws until no coordinate is within 1e-5 of a whole number, which f32 keeps on its side at these sizes.
pub(crate) fn away_from_faces(
    rng: &mut impl Rng,
    base: Matrix,
    f: impl Fn(&Matrix) -> reference::Reference,
) -> (Matrix, reference::Reference) {
    loop {
        let theta = near(rng, base, 0.15);
        let want = f(&theta);
        if want.face_distance > 1e-5 {
            return (theta, want);
        }
    }
}

/// The reference's gradient against its own loss. With no coordinate closer to a face than the differences reach, the
/// loss is a quotient of polynomials there: step 1e-7 leaves 1e-8 of rounding.
#[test]
fn the_gradient_agrees_with_finite_differences() {
    let mut rng = rng();
    let (fixed_shape, moving_shape) = ([5, 4, 7], [4, 6, 5]);
    let (fixed, moving) = (noise(&mut rng, fixed_shape), noise(&mut rng, moving_shape));
    let (fixed, moving) = ((&fixed[..], fixed_shape), (&moving[..], moving_shape));
    for params in modes() {
        let (theta, want) = away_from_faces(&mut rng, IDENTITY, |theta| oracle(fixed, moving, theta, &params));
        let got = run(&Device::Cpu, fixed, moving, &theta, &params);
        for r in 0..3 {
            for c in 0..4 {
                let at = |step: f64| {
                    let mut theta = theta;
                    theta[r][c] += step;
                    run(&Device::Cpu, fixed, moving, &theta, &params).loss
                };
                let slope = (at(1e-7) - at(-1e-7)) / 2e-7;
                for (who, value) in [("reference", want.dtheta[r][c]), ("cpu", got.dtheta[r][c])] {
                    assert!((value - slope).abs() <= 1e-7, "{who}: dtheta[{r}][{c}] {value}, differences say {slope}");
                }
            }
        }
    }
}

#[test]
fn empty_masks_have_a_loss_and_no_gradient() {
    let shape = [2, 3, 4];
    let (empty, full) = ([0u8; 24], [2u8; 24]);
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let got = run(device, (&full, shape), (&empty, shape), &IDENTITY, &AffineDiceParams::default());
        assert_eq!(got.dice, vec![1.0 / 25.0; 2], "{}", device.name());
        assert_eq!(got.dtheta, [[0.0; 4]; 3], "{}", device.name());
        let params = AffineDiceParams { smooth: 0.0, ..Default::default() };
        let got = run(device, (&empty, shape), (&empty, shape), &IDENTITY, &params);
        assert_eq!((got.loss, got.dtheta), (-1.0, [[0.0; 4]; 3]), "{}", device.name());
    }
}

#[test]
fn the_same_bits_every_time() {
    let shape = [19, 23, 31];
    let (fixed, moving) = (blob(shape, [0.0; 3]), blob(shape, [1.0, 2.0, -3.0]));
    let theta = near(&mut rng(), IDENTITY, 0.1);
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let run = || run(device, (&fixed, shape), (&moving, shape), &theta, &AffineDiceParams::default());
        assert_eq!(run(), run(), "{}", device.name());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |fixed: &Tensor, moving: &Tensor, theta: Matrix, smooth: f64, parts: &[&str]| {
        let params = AffineDiceParams { smooth, ..Default::default() };
        let message = affine_dice(fixed, moving, &theta, &params).expect_err("must be refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}: expected {parts:?}");
    };
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let of = |shape| Tensor::zeros(device, shape, DType::U8).expect("labels");
        let (ok, floats) = (of([1, 1, 2, 2, 2]), Tensor::zeros(device, [1, 1, 2, 2, 2], DType::F32).expect("zeros"));
        refused(&of([2, 1, 2, 2, 2]), &ok, IDENTITY, 1.0, &["[1, 1, d, h, w]", "[2, 1, 2, 2, 2]"]);
        refused(&ok, &of([1, 1, 0, 2, 2]), IDENTITY, 1.0, &["size 0", "[1, 1, 0, 2, 2]"]);
        refused(&ok, &floats, IDENTITY, 1.0, &["u8", "f32"]);
        refused(&ok, &ok, [[f64::NAN; 4]; 3], 1.0, &["finite", "NaN"]);
        refused(&ok, &ok, IDENTITY, -0.5, &["0 or more", "-0.5"]);
        let other = Tensor::zeros(&Device::Cpu, [1, 1, 2, 2, 2], DType::U8).expect("labels");
        if *device != Device::Cpu {
            refused(&ok, &other, IDENTITY, 1.0, &[&device.name(), "cpu"]);
        }
    }
}
