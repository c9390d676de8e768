//! conv_transpose3d.

use nephron_compute::ops::conv_transpose3d::reference;
use nephron_compute::ops::{self, ConvTranspose3dParams};
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, integers, rng, tensor, uniform};

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub x: Shape,
    pub w: Shape,
    pub params: ConvTranspose3dParams,
}

fn case(x: Shape, w: Shape, stride: [usize; 3], padding: [usize; 3]) -> Case {
    Case { x, w, params: ConvTranspose3dParams { stride, padding } }
}

pub fn cases() -> Vec<Case> {
    vec![
        case([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1; 3], [0; 3]),
        // kernel = stride, as decoders use it
        case([1, 4, 2, 3, 5], [4, 6, 2, 2, 2], [2; 3], [0; 3]),
        case([2, 5, 3, 4, 3], [5, 3, 1, 2, 2], [1, 2, 2], [0; 3]),
        case([1, 33, 2, 3, 7], [33, 18, 2, 2, 2], [2; 3], [0; 3]),
        case([1, 7, 5, 3, 11], [7, 13, 3, 1, 2], [3, 1, 2], [0; 3]),
        case([1, 19, 3, 5, 7], [19, 8, 1, 1, 1], [1; 3], [0; 3]),
        // whole tiles and more of them, several steps
        case([2, 72, 3, 8, 11], [72, 24, 2, 2, 2], [2; 3], [0; 3]),
        case([1, 40, 2, 9, 8], [40, 36, 1, 2, 2], [1, 2, 2], [0; 3]),
        // kernel over and under the stride: overlap, and outputs that only the bias reaches
        case([1, 3, 3, 5, 4], [3, 4, 3, 3, 3], [2; 3], [1; 3]),
        case([2, 2, 4, 3, 5], [2, 7, 4, 3, 5], [2, 1, 3], [1, 0, 2]),
        case([1, 2, 3, 2, 4], [2, 3, 1, 2, 2], [3, 3, 5], [0; 3]),
        case([1, 3, 5, 7, 2], [3, 2, 3, 1, 1], [1; 3], [2, 0, 0]),
    ]
}

/// Shapes nobody chose, the padding below half of what it cuts.
pub fn drawn(rng: &mut impl Rng) -> Case {
    let (ci, co) = (rng.random_range(1..9), rng.random_range(1..9));
    let mut case = case([rng.random_range(1..3), ci, 0, 0, 0], [ci, co, 0, 0, 0], [1; 3], [0; 3]);
    for a in 0..3 {
        case.x[2 + a] = rng.random_range(1..6);
        case.w[2 + a] = rng.random_range(1..5);
        case.params.stride[a] = rng.random_range(1..4);
        let full = (case.x[2 + a] - 1) * case.params.stride[a] + case.w[2 + a];
        case.params.padding[a] = rng.random_range(0..full.div_ceil(2).min(3));
    }
    case
}

pub fn len(shape: Shape) -> usize {
    shape.iter().product()
}

fn check(case: &Case, x: &[f32], w: &[f32], b: Option<&[f32]>, compare: impl Fn(&str, &Tensor, &[f64], &[f64])) {
    let bias = b.map(f64s);
    let want = reference::conv_transpose3d(&f64s(x), case.x, &f64s(w), case.w, bias.as_deref(), &case.params);
    for device in devices() {
        let bias = b.map(|b| Tensor::vector(device, b).expect("bias"));
        for dtype in float_types(device) {
            let (x, w) = (tensor(device, case.x, dtype, x), tensor(device, case.w, dtype, w));
            for (name, y) in by_every_algorithm(&x, &w, bias.as_ref(), &case.params) {
                let y = y.unwrap_or_else(|e| panic!("{name} {case:?}: {e}"));
                assert_eq!(y.shape(), want.shape, "{case:?}");
                assert_eq!(y.dtype(), dtype, "{case:?}");
                compare(&format!("conv_transpose3d by {name} {case:?}"), &y, &want.value, &want.magnitude);
            }
        }
    }
}

/// The op as it would be done, and on a GPU by each algorithm that can do it.
fn by_every_algorithm(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    params: &ConvTranspose3dParams,
) -> Vec<(String, nephron_compute::Result<Tensor>)> {
    let mut all = vec![("default".to_owned(), ops::conv_transpose3d(x, w, b, params))];
    #[cfg(feature = "gpu")]
    all.extend(
        crate::conv_algorithms::able_transposed(x, w.shape(), params)
            .into_iter()
            .map(|by| (by.to_string(), ops::conv_transpose3d_by(by, x, w, b, params))),
    );
    all
}

#[test]
fn whole_numbers_are_exact() {
    let mut rng = rng();
    for case in cases() {
        let (x, w) = (integers(&mut rng, len(case.x), 1), integers(&mut rng, len(case.w), 2));
        let b = integers(&mut rng, case.w[1], 9);
        check(&case, &x, &w, Some(&b), |what, got, want, magnitude| {
            // bf16 holds whole numbers up to 256.
            if got.dtype() != DType::BF16 || magnitude.iter().all(|m| *m <= 256.0) {
                assert_exact(what, got, want);
            }
        });
    }
}

#[test]
fn agrees_with_the_reference() {
    let mut rng = rng();
    let mut all = cases();
    all.extend((0..12).map(|_| drawn(&mut rng)));
    for (i, case) in all.iter().enumerate() {
        let (x, w) = (uniform(&mut rng, len(case.x)), uniform(&mut rng, len(case.w)));
        let b = uniform(&mut rng, case.w[1]);
        let terms = case.w[0] * case.w[2..].iter().product::<usize>() + 2;
        check(case, &x, &w, (i % 2 == 0).then_some(&b), |what, got, want, magnitude| {
            assert_close(what, got, want, magnitude, terms);
        });
    }
}

/// The U-Net's upsampling through CUDA's compiler: matrix instructions in the inner loop, copies of 16 bytes, and enough
/// warps to hide what they wait for.
#[test]
fn the_matrix_product_keeps_what_it_promises() {
    for device in devices().iter().filter(|d| crate::support::compiles_only(d)) {
        for (channels, size) in [([64, 32], 64), ([128, 64], 32), ([320, 256], 8), ([320, 320], 4)] {
            let x = Tensor::zeros(device, [1, channels[0], size, size, size], DType::F16).expect("zeros");
            let w = Tensor::zeros(device, [channels[0], channels[1], 2, 2, 2], DType::F16).expect("zeros");
            let params = ConvTranspose3dParams { stride: [2; 3], padding: [0; 3] };
            ops::conv_transpose3d_by(ops::ConvTranspose3dAlgorithm::Gemm, &x, &w, None, &params).expect("a launch");
            device.synchronize().unwrap_or_else(|e| panic!("{channels:?}: {e}"));
        }
        let verdicts = nephron_cuda_compile::verdicts().into_iter();
        let wide: Vec<_> = verdicts
            .filter(|v| v.kernel.contains("conv_transpose3d_gemm") && v.options.starts_with("n: 8, p: 2, s: 8"))
            .collect();
        assert!(wide.len() >= 4, "two tilings for two GPUs: {wide:#?}");
        for v in wide.iter().filter(|v| v.options.contains("Mma")) {
            let code = v.resources.code;
            assert!(v.warps >= 8 && v.resources.spill_store_bytes == 0, "{v:#?}");
            assert!(code.wide_loads >= 4 && code.loop_multiplications >= 16, "{v:#?}");
        }
    }
}

/// The message of a refused operation on the CPU.
fn refusal(x: Shape, w: Shape, params: ConvTranspose3dParams) -> String {
    let zeros = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    ops::conv_transpose3d(&zeros(x), &zeros(w), None, &params).expect_err("must be refused").to_string()
}

pub fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{part}' is missing: {message}");
    }
}

#[test]
fn bad_operands_are_refused_with_both_values() {
    let p = ConvTranspose3dParams::default();
    assert_names(&refusal([1, 3, 2, 2, 2], [2, 4, 1, 1, 1], p), &["weight", "3 input", "2 in"]);
    let cut = ConvTranspose3dParams { padding: [0, 2, 0], ..p };
    assert_names(&refusal([1, 3, 2, 2, 2], [3, 4, 1, 3, 1], cut), &["along y", "half of the 4", "2"]);
    let huge = ConvTranspose3dParams { padding: [usize::MAX, 0, 0], ..p };
    assert_names(&refusal([1, 3, 2, 2, 2], [3, 4, 1, 3, 1], huge), &["along z", &usize::MAX.to_string()]);
    let far = ConvTranspose3dParams { stride: [1, 1, (1 << 31) - 1], ..p };
    assert_names(&refusal([1, 3, 2, 2, 9], [3, 4, 1, 3, 1], far), &["along x", "2147483648"]);
    let none = ConvTranspose3dParams { stride: [0, 1, 1], ..p };
    assert_names(&refusal([1, 3, 2, 2, 2], [3, 4, 1, 1, 1], none), &["stride", "[0, 1, 1]"]);
    for axis in 0..5 {
        let (mut x, mut w) = ([1, 2, 4, 4, 4], [2, 3, 1, 1, 1]);
        x[axis] = 0;
        assert_names(&refusal(x, [2, 3, 1, 1, 1], p), &["input", "at least 1", &format!("{x:?}")]);
        w[axis] = 0;
        assert_names(&refusal([1, 2, 4, 4, 4], w, p), &["weight", "at least 1", &format!("{w:?}")]);
    }
    let zeros = |shape, dtype| Tensor::zeros(&Device::Cpu, shape, dtype).expect("zeros");
    let (x, w) = (zeros([1, 1, 2, 2, 2], DType::F32), zeros([1, 2, 1, 1, 1], DType::F32));
    let labels = zeros([1, 1, 2, 2, 2], DType::U8);
    assert_names(&ops::conv_transpose3d(&labels, &w, None, &p).expect_err("labels").to_string(), &["f32", "u8"]);
    assert_names(&ops::conv_transpose3d(&x, &labels, None, &p).expect_err("labels").to_string(), &["f32", "u8"]);
    let message = ops::conv_transpose3d(&x, &w, Some(&x), &p).expect_err("no bias").to_string();
    assert_names(&message, &["bias", "[1, 2, 1, 1, 1]", "[1, 1, 2, 2, 2]"]);
}
