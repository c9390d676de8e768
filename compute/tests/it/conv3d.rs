//! conv3d and its gradients.

use nephron_compute::ops::conv3d::reference::{self, Sums};
use nephron_compute::ops::{self, Conv3dParams};
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::support::{
    assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform, with_tf32,
};

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub x: Shape,
    pub w: Shape,
    pub params: Conv3dParams,
}

const ONE: [usize; 3] = [1; 3];

pub fn case(x: Shape, w: Shape, stride: [usize; 3], padding: [usize; 3], dilation: [usize; 3], groups: usize) -> Case {
    Case { x, w, params: Conv3dParams { stride, padding, dilation, groups } }
}

fn chosen() -> Vec<Case> {
    const NONE: [usize; 3] = [0; 3];
    vec![
        case([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], ONE, NONE, ONE, 1),
        case([2, 3, 5, 7, 11], [5, 3, 3, 3, 3], ONE, ONE, ONE, 1),
        case([1, 4, 7, 9, 5], [8, 4, 3, 3, 3], [2; 3], ONE, ONE, 1),
        case([1, 3, 3, 8, 7], [6, 3, 1, 3, 3], [1, 2, 2], [0, 1, 1], ONE, 1),
        case([1, 2, 6, 3, 4], [3, 2, 3, 1, 1], [2, 1, 1], [1, 0, 0], ONE, 1),
        // groups; depthwise; depthwise with two outputs a channel
        case([2, 6, 3, 4, 5], [4, 3, 3, 3, 3], ONE, ONE, ONE, 2),
        case([1, 7, 4, 3, 9], [7, 1, 3, 3, 3], ONE, ONE, ONE, 7),
        case([1, 3, 3, 4, 13], [6, 1, 3, 3, 3], [1, 1, 2], ONE, ONE, 3),
        // dilation, alone and with a stride that shares and does not share a factor with it
        case([1, 2, 7, 8, 9], [4, 2, 3, 3, 3], ONE, [2; 3], [2; 3], 1),
        case([1, 2, 9, 8, 11], [3, 2, 3, 2, 3], [2, 3, 4], [2, 1, 3], [3, 2, 2], 1),
        // slices: a dilated bottleneck, and a pyramid's rate beyond the image, where only the middle tap meets voxels
        case([1, 24, 1, 9, 11], [20, 24, 1, 3, 3], ONE, [0, 4, 4], [1, 4, 4], 1),
        case([2, 18, 1, 5, 6], [17, 18, 1, 3, 3], ONE, [0, 36, 36], [1, 36, 36], 1),
        // padding larger than the input; a stride larger than the kernel
        case([1, 2, 1, 2, 3], [3, 2, 3, 3, 3], ONE, [3, 4, 5], ONE, 1),
        case([2, 3, 5, 7, 10], [4, 3, 1, 2, 1], [3; 3], NONE, ONE, 1),
        // pointwise and even kernels; a 2D stem
        case([1, 17, 2, 3, 5], [19, 17, 1, 1, 1], ONE, NONE, ONE, 1),
        case([1, 3, 4, 6, 7], [2, 3, 2, 4, 2], [2, 1, 2], [1, 2, 0], ONE, 1),
        case([2, 3, 1, 15, 13], [8, 3, 1, 7, 7], [1, 2, 2], [0, 3, 3], ONE, 1),
        // stems over more than one brick, with channels that fill none
        case([1, 1, 5, 9, 35], [32, 1, 3, 3, 3], ONE, ONE, ONE, 1),
        case([2, 2, 6, 7, 19], [44, 2, 3, 3, 3], [1, 2, 1], [1, 0, 1], [2, 1, 1], 1),
        case([1, 4, 3, 18, 11], [9, 4, 1, 3, 3], [1, 1, 3], [0, 1, 1], ONE, 1),
        // heads
        case([1, 32, 5, 9, 7], [3, 32, 1, 1, 1], ONE, NONE, ONE, 1),
        case([2, 17, 3, 5, 11], [8, 17, 1, 1, 1], ONE, NONE, ONE, 1),
        // more than two registers of outputs; sums longer than L1 holds
        case([1, 16, 2, 5, 8], [67, 16, 3, 3, 3], ONE, ONE, ONE, 1),
        case([1, 150, 1, 4, 5], [20, 150, 1, 3, 3], ONE, [0, 1, 1], ONE, 1),
        // whole tiles of the largest shapes, several steps and cubes of them
        case([1, 32, 4, 8, 9], [64, 32, 3, 3, 3], ONE, ONE, ONE, 1),
        case([1, 40, 24, 24, 24], [64, 40, 1, 1, 1], ONE, NONE, ONE, 1),
    ]
}

/// What the benches time, cut to a few voxels.
fn timed() -> Vec<Case> {
    let cut = |shape: &nephron_compute::bench_shapes::Conv| {
        let (stride, padding) = shape.stride_padding();
        case(shape.input(3), shape.weight(), stride, padding, ONE, 1)
    };
    nephron_compute::bench_shapes::CONVS.iter().map(cut).collect()
}

pub fn cases() -> Vec<Case> {
    chosen().into_iter().chain(timed()).collect()
}

/// Shapes nobody chose. Kernels always fit the padded input.
pub fn drawn(rng: &mut impl Rng) -> Case {
    let groups = rng.random_range(1..4);
    let (ci, co) = (rng.random_range(1..7), groups * rng.random_range(1..7));
    let mut case =
        case([rng.random_range(1..3), ci * groups, 0, 0, 0], [co, ci, 0, 0, 0], [1; 3], [0; 3], [1; 3], groups);
    for a in 0..3 {
        case.params.stride[a] = rng.random_range(1..4);
        case.params.dilation[a] = rng.random_range(1..3);
        case.params.padding[a] = rng.random_range(0..3);
        case.w[2 + a] = rng.random_range(1..4);
        let extent = (case.w[2 + a] - 1) * case.params.dilation[a] + 1;
        case.x[2 + a] = rng.random_range(extent.saturating_sub(2 * case.params.padding[a]).max(1)..9);
    }
    case
}

pub fn len(shape: Shape) -> usize {
    shape.iter().product()
}

/// Roundings of a sum of `terms` products, with a bias and a second stage.
pub fn roundings(terms: usize) -> usize {
    terms + 2
}

fn check(case: &Case, x: &[f32], w: &[f32], b: Option<&[f32]>, compare: impl Fn(&str, &Tensor, &Sums)) {
    let bias = b.map(f64s);
    let want = reference::conv3d(&f64s(x), case.x, &f64s(w), case.w, bias.as_deref(), &case.params);
    for device in devices() {
        let bias = b.map(|b| Tensor::vector(device, b).expect("bias"));
        for dtype in float_types(device) {
            let (x, w) = (tensor(device, case.x, dtype, x), tensor(device, case.w, dtype, w));
            for (name, y) in by_every_algorithm(&x, &w, bias.as_ref(), &case.params) {
                let y = y.unwrap_or_else(|e| panic!("{name} {case:?}: {e}"));
                assert_eq!(y.shape(), want.shape, "{case:?}");
                assert_eq!(y.dtype(), dtype, "{case:?}");
                compare(&format!("conv3d by {name} {case:?}"), &y, &want);
            }
        }
    }
}

/// The convolution as it would be done, and on a GPU by each algorithm that can do it.
fn by_every_algorithm(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    params: &Conv3dParams,
) -> Vec<(String, nephron_compute::Result<Tensor>)> {
    let mut all = vec![("default".to_owned(), ops::conv3d(x, w, b, params))];
    #[cfg(feature = "gpu")]
    all.extend(
        crate::conv_algorithms::able(x, w.shape(), params)
            .into_iter()
            .map(|by| (by.to_string(), ops::conv3d_by(by, x, w, b, params, &ops::ConvEpilogue::NONE))),
    );
    all
}

/// Are whole numbers up to `largest` exact in this type?
fn holds(dtype: DType, largest: f64) -> bool {
    largest
        <= match dtype {
            DType::F16 => 2048.0,
            DType::BF16 => 256.0,
            _ => 16_777_216.0,
        }
}

pub fn compare_exact(what: &str, got: &Tensor, want: &Sums) {
    if holds(got.dtype(), want.magnitude.iter().fold(0.0, |a, b| b.max(a))) {
        assert_exact(what, got, &want.value);
    }
}

fn check_whole_numbers(cases: &[Case]) {
    let mut rng = rng();
    for case in cases {
        let (x, w) = (integers(&mut rng, len(case.x), 3), integers(&mut rng, len(case.w), 2));
        let b = integers(&mut rng, case.w[0], 9);
        check(case, &x, &w, Some(&b), compare_exact);
    }
}

#[test]
fn whole_numbers_are_exact() {
    check_whole_numbers(&chosen());
}

#[test]
fn whole_numbers_are_exact_at_timed_shapes() {
    check_whole_numbers(&timed());
}

fn check_agreement(rng: &mut impl Rng, cases: &[Case]) {
    for (i, case) in cases.iter().enumerate() {
        let (x, w) = (uniform(rng, len(case.x)), uniform(rng, len(case.w)));
        let b = uniform(rng, case.w[0]);
        let terms = case.w[1..].iter().product();
        check(case, &x, &w, (i % 2 == 0).then_some(&b), |what, got, want| {
            // No bound for minimal filtering on the CPU, which has its own in its unit tests; on uniform data its errors are smaller.
            assert_close(what, got, &want.value, &want.magnitude, roundings(terms));
        });
    }
}

#[test]
fn agrees_with_the_reference() {
    check_agreement(&mut rng(), &chosen());
}

#[test]
fn agrees_with_the_reference_at_timed_and_drawn_shapes() {
    let mut rng = rng();
    let mut all = timed();
    all.extend((0..12).map(|_| drawn(&mut rng)));
    check_agreement(&mut rng, &all);
}

/// Whole numbers up to 1024 lose nothing in tf32, so the kernels that round to it must still be exact.
#[test]
#[cfg(feature = "gpu")]
fn whole_numbers_are_exact_in_tf32() {
    let mut rng = rng();
    let case = case([2, 20, 5, 9, 11], [40, 20, 3, 3, 3], [1; 3], [1; 3], [1; 3], 1);
    let (x, w) = (integers(&mut rng, len(case.x), 500), integers(&mut rng, len(case.w), 2));
    let want = reference::conv3d(&f64s(&x), case.x, &f64s(&w), case.w, None, &case.params);
    for device in devices().iter().filter(|d| **d != Device::Cpu) {
        let device = &with_tf32(device);
        let (x, w) = (tensor(device, case.x, DType::F32, &x), tensor(device, case.w, DType::F32, &w));
        for by in [ops::Conv3dAlgorithm::ImplicitGemm, ops::Conv3dAlgorithm::Halo] {
            let y = ops::conv3d_by(by, &x, &w, None, &case.params, &ops::ConvEpilogue::NONE).expect("conv3d");
            assert_exact(&format!("{by} with tf32 allowed"), &y, &want.value);
        }
    }
}

#[test]
fn the_same_bits_every_time() {
    let mut rng = rng();
    let (x, w) = (uniform(&mut rng, 24 * 11 * 13), uniform(&mut rng, 40 * 24 * 9));
    for device in devices().iter().filter(|d| !crate::support::compiles_only(d)) {
        let x = tensor(device, [1, 24, 1, 11, 13], DType::F32, &x);
        let w = tensor(device, [40, 24, 1, 3, 3], DType::F32, &w);
        let run = || ops::conv3d(&x, &w, None, &Conv3dParams::default()).and_then(|y| y.to_ndhwc()).expect("conv3d");
        assert!(run() == run(), "{}", device.name());
    }
}

#[test]
#[cfg(feature = "gpu")]
fn an_algorithm_that_cannot_is_refused_with_both_values() {
    for device in devices() {
        let x = Tensor::zeros(device, [1, 4, 3, 3, 3], DType::F32).expect("zeros");
        let w = Tensor::zeros(device, [4, 2, 1, 1, 1], DType::F32).expect("zeros");
        let params = Conv3dParams { groups: 2, ..Conv3dParams::default() };
        let by = ops::Conv3dAlgorithm::RegisterBlocked;
        let message =
            ops::conv3d_by(by, &x, &w, None, &params, &ops::ConvEpilogue::NONE).expect_err("two groups").to_string();
        let values = if *device == Device::Cpu { ["a GPU", "cpu"] } else { ["groups: expected 1", "found 2"] };
        assert_names(&message, &values);
    }
}

/// The message of a refused convolution on the CPU.
fn refusal(x: Shape, w: Shape, params: Conv3dParams) -> String {
    let zeros = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    ops::conv3d(&zeros(x), &zeros(w), None, &params).expect_err("must be refused").to_string()
}

pub fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{part}' is missing: {message}");
    }
}

#[test]
fn bad_shapes_are_refused_with_both_values() {
    let p = Conv3dParams::default();
    assert_names(&refusal([1, 2, 4, 4, 4], [3, 2, 3, 5, 3], p), &["along y", "at most 4", "5"]);
    let padded = Conv3dParams { padding: [0, 0, 1], dilation: [1, 1, 3], ..p };
    assert_names(&refusal([1, 2, 4, 4, 4], [3, 2, 3, 3, 3], padded), &["along x", "at most 6", "7"]);
    assert_names(&refusal([1, 3, 4, 4, 4], [2, 2, 1, 1, 1], p), &["weight", "3 channels", "2 in"]);
    assert_names(
        &refusal([1, 3, 4, 4, 4], [2, 1, 1, 1, 1], Conv3dParams { groups: 2, ..p }),
        &["groups", "3 input", "2"],
    );
    assert_names(
        &refusal([1, 4, 4, 4, 4], [3, 2, 1, 1, 1], Conv3dParams { groups: 2, ..p }),
        &["groups", "3 output", "2"],
    );
    assert_names(&refusal([1, 4, 4, 4, 4], [3, 4, 1, 1, 1], Conv3dParams { groups: 0, ..p }), &["groups", "0"]);
    assert_names(
        &refusal([1, 4, 4, 4, 4], [3, 4, 1, 1, 1], Conv3dParams { stride: [1, 0, 1], ..p }),
        &["stride", "[1, 0, 1]"],
    );
    assert_names(
        &refusal([1, 4, 4, 4, 4], [3, 4, 1, 1, 1], Conv3dParams { dilation: [0, 1, 1], ..p }),
        &["dilation", "[0, 1, 1]"],
    );
    let huge = Conv3dParams { padding: [usize::MAX, 0, 0], ..p };
    assert_names(&refusal([1, 4, 4, 4, 4], [3, 4, 1, 1, 1], huge), &["padding along z", &usize::MAX.to_string()]);
    let far = Conv3dParams { dilation: [1, 1, (1 << 31) - 1], ..p };
    assert_names(&refusal([1, 4, 4, 4, 4], [3, 4, 1, 1, 9], far), &["along x", "at most 4"]);
    let many = Conv3dParams { padding: [1 << 29; 3], ..p };
    assert_names(&refusal([1, 4, 4, 4, 4], [3, 4, 1, 1, 1], many), &["output", "1073741828"]);
    for axis in 0..5 {
        let (mut x, mut w) = ([1, 2, 4, 4, 4], [3, 2, 1, 1, 1]);
        x[axis] = 0;
        assert_names(&refusal(x, [3, 2, 1, 1, 1], p), &["input", "at least 1", &format!("{x:?}")]);
        w[axis] = 0;
        assert_names(&refusal([1, 2, 4, 4, 4], w, p), &["weight", "at least 1", &format!("{w:?}")]);
    }
}

#[test]
fn mixed_operands_are_refused() {
    let p = Conv3dParams::default();
    let float = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    let labels = Tensor::zeros(&Device::Cpu, [1, 1, 2, 2, 2], DType::U8).expect("labels");
    let weight = float([1, 1, 1, 1, 1]);
    assert_names(&ops::conv3d(&labels, &weight, None, &p).expect_err("labels").to_string(), &["f32", "u8"]);
    assert_names(&ops::conv3d(&weight, &labels, None, &p).expect_err("labels").to_string(), &["at most 1", "2"]);
    let bias = float([1, 2, 1, 1, 1]);
    let message = ops::conv3d(&weight, &weight, Some(&bias), &p).expect_err("two biases").to_string();
    assert_names(&message, &["bias", "[1, 1, 1, 1, 1]", "[1, 2, 1, 1, 1]"]);
    for device in devices().iter().skip(1) {
        let there = weight.to_device(device).expect("a copy");
        let message = ops::conv3d(&weight, &there, None, &p).expect_err("two devices").to_string();
        assert_names(&message, &["cpu", &device.name()]);
        if device.supports(DType::F16) {
            let half = Tensor::zeros(device, [1, 1, 1, 1, 1], DType::F16).expect("zeros");
            let message = ops::conv3d(&half, &there, None, &p).expect_err("two types").to_string();
            assert_names(&message, &["weight", "f16", "f32"]);
        }
    }
}
