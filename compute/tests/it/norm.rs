//! instance_norm, batch_norm and batch_norm_train.

use nephron_compute::ops;
use nephron_compute::ops::norm::reference::{self, Bounded};
use nephron_compute::{DType, Device, Shape, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, rng, tensor, uniform};

/// Prime sizes, single voxels and channels, channel counts under, at and over a tile, vectors of 4, 2 and 1 channels, more
/// than one chunk of positions ([2, 32, 5, 11, 13] has three, [1, 1, 21, 20, 41] three of one channel).
pub(crate) const SHAPES: [Shape; 9] = [
    [1, 1, 1, 1, 1],
    [2, 3, 5, 7, 11],
    [1, 1, 1, 1, 257],
    [3, 17, 1, 1, 1],
    [1, 64, 4, 8, 9],
    [2, 32, 5, 11, 13],
    [1, 1, 21, 20, 41],
    [2, 35, 3, 3, 3],
    [1, 6, 2, 3, 5],
];
pub(crate) const EPS: f32 = 1e-5;
/// Chained roundings of a mean or variance: 8 additions of a block, up to 4 merges of 4 roundings in a unit, 8 levels of
/// the tree and up to 4 chunks of 4 roundings each, 8 more levels, then at most 16 ulps for square root, division and the
/// final product and sum (Vulkan grants division and square root 2.5 and 3 ulps).
pub(crate) const ROUNDINGS: usize = 8 + 4 * (4 + 8 + 4 + 8) + 16;

pub(crate) fn len(shape: Shape) -> usize {
    shape.iter().product()
}

pub(crate) struct Case {
    pub(crate) shape: Shape,
    pub(crate) x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    pub(crate) fn new(rng: &mut ChaCha8Rng, shape: Shape, x: Vec<f32>) -> Self {
        let [_, c, ..] = shape;
        Self { shape, x, weight: uniform(rng, c), bias: uniform(rng, c) }
    }

    /// Every choice of weight and bias: the oracle's parameters, then the tensors.
    pub(crate) fn each(&self, device: &Device, mut check: impl FnMut([Option<&[f64]>; 2], [Option<&Tensor>; 2])) {
        let (weight, bias) = (f64s(&self.weight), f64s(&self.bias));
        let on_device = |data| Tensor::vector(device, data).expect("a vector");
        let (w, b) = (on_device(&self.weight), on_device(&self.bias));
        check([Some(&weight), Some(&bias)], [Some(&w), Some(&b)]);
        check([None, Some(&bias)], [None, Some(&b)]);
        check([Some(&weight), None], [Some(&w), None]);
        check([None, None], [None, None]);
    }

    fn check_instance(&self, device: &Device, dtype: DType) {
        let x = tensor(device, self.shape, dtype, &self.x);
        self.each(device, |[weight, bias], [w, b]| {
            let want = reference::instance_norm(&f64s(&self.x), self.shape, weight, bias, EPS.into());
            let y = ops::instance_norm(&x, w, b, EPS).expect("instance_norm");
            close(&format!("instance_norm {:?}", self.shape), &y, &want);
        });
    }

    fn check_batch_train(&self, device: &Device, dtype: DType) {
        let x = tensor(device, self.shape, dtype, &self.x);
        self.each(device, |[weight, bias], [w, b]| {
            let [y, mean, var] = reference::batch_norm_train(&f64s(&self.x), self.shape, weight, bias, EPS.into());
            let got = ops::batch_norm_train(&x, w, b, EPS).expect("batch_norm_train");
            close(&format!("batch_norm_train {:?}", self.shape), &got.y, &y);
            assert_eq!(got.mean.shape(), [1, self.shape[1], 1, 1, 1]);
            close(&format!("batch_norm_train mean {:?}", self.shape), &got.mean, &mean);
            close(&format!("batch_norm_train var {:?}", self.shape), &got.var, &var);
        });
    }
}

fn close(what: &str, got: &Tensor, want: &Bounded) {
    assert_close(what, got, &want.value, &want.magnitude, ROUNDINGS);
}

#[test]
fn values_one_deviation_from_the_mean_normalise_exactly() {
    // Halves at mean - 1 and mean + 1: the variance is 1, so with eps 0 the result is -1 or 1, times weight plus bias.
    let shape = [2, 5, 2, 4, 4];
    let voxels = 32;
    let x: Vec<f32> = (0..len(shape))
        .map(|i| {
            let mean = ((i / voxels) % 5) as f32 * 4.0 - 8.0;
            if i % 2 == 0 { mean - 1.0 } else { mean + 1.0 }
        })
        .collect();
    let (weight, bias) = ([2.0, -1.0, 0.5, 3.0, 0.0], [1.0, 0.0, -4.0, 7.0, 5.0]);
    let want: Vec<f64> = (0..len(shape))
        .map(|i| {
            let c = (i / voxels) % 5;
            f64::from(if i % 2 == 0 { -weight[c] } else { weight[c] } + bias[c])
        })
        .collect();
    for device in devices() {
        let (w, b) = (Tensor::vector(device, &weight).expect("weight"), Tensor::vector(device, &bias).expect("bias"));
        for dtype in float_types(device) {
            let x = tensor(device, shape, dtype, &x);
            let y = ops::instance_norm(&x, Some(&w), Some(&b), 0.0).expect("instance_norm");
            assert_exact("instance_norm", &y, &want);
            let y = ops::batch_norm_train(&x, Some(&w), Some(&b), 0.0).expect("batch_norm_train").y;
            assert_exact("batch_norm_train", &y, &want);
        }
    }
}

/// The fixed shapes and a drawn one, each with data and parameters, on every device and type.
fn each_case(check: impl Fn(&Case, &Device, DType)) {
    let mut rng = rng();
    let drawn = [rng.random_range(1..4), rng.random_range(1..40), rng.random_range(1..6), rng.random_range(1..6), 5];
    for shape in SHAPES.into_iter().chain([drawn]) {
        let data = uniform(&mut rng, len(shape));
        let case = Case::new(&mut rng, shape, data);
        for device in devices() {
            for dtype in float_types(device) {
                check(&case, device, dtype);
            }
        }
    }
}

#[test]
fn instance_norm_agrees_with_the_reference() {
    each_case(Case::check_instance);
}

#[test]
fn batch_norm_in_training_agrees_with_the_reference() {
    each_case(|case, device, dtype| {
        let [n, _, d, h, w] = case.shape;
        if n * d * h * w > 1 {
            case.check_batch_train(device, dtype);
        }
    });
}

#[test]
fn batch_norm_in_inference_agrees_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let data = uniform(&mut rng, len(shape));
        let case = Case::new(&mut rng, shape, data);
        let mean = uniform(&mut rng, shape[1]);
        let var: Vec<f32> = uniform(&mut rng, shape[1]).into_iter().map(|v| v * v).collect();
        for device in devices() {
            let m = Tensor::vector(device, &mean).expect("mean");
            let v = Tensor::vector(device, &var).expect("var");
            for dtype in float_types(device) {
                let x = tensor(device, shape, dtype, &case.x);
                case.each(device, |[weight, bias], [w, b]| {
                    let (x64, mean, var) = (f64s(&case.x), f64s(&mean), f64s(&var));
                    let want = reference::batch_norm(&x64, shape, weight, bias, &mean, &var, EPS.into());
                    let y = ops::batch_norm(&x, w, b, &m, &v, EPS).expect("batch_norm");
                    assert_close("batch_norm", &y, &want.value, &want.magnitude, 16);
                });
            }
        }
    }
}

#[test]
fn a_mean_far_above_the_deviation_costs_no_digits() {
    let mut rng = rng();
    let shape = [1, 3, 7, 11, 13];
    for device in devices() {
        for dtype in float_types(device) {
            // Mean 1000 and deviation about 1; bf16 holds only every fourth whole number there.
            let mut x: Vec<f32> = match dtype {
                DType::BF16 => (0..len(shape)).map(|_| 1000.0 + 4.0 * rng.random_range(-2i32..=2) as f32).collect(),
                _ => (0..len(shape)).map(|_| 1000.0 + 0.5 * rng.random_range(-4i32..=4) as f32).collect(),
            };
            let case = Case::new(&mut rng, shape, x.clone());
            case.check_instance(device, dtype);
            case.check_batch_train(device, dtype);
            // The first voxel tells nothing of the rest: no shift guessed from it would help.
            let voxels = 7 * 11 * 13;
            for c in 0..3 {
                x[c * voxels] = 0.0;
            }
            Case::new(&mut rng, shape, x).check_instance(device, dtype);
        }
    }
}

#[test]
fn deviations_survive_a_large_mean() {
    // Seen from the result alone, with no bound that grows with the mean: y has mean 0 and deviation 1.
    let mut rng = rng();
    let shape = [1, 2, 8, 16, 16];
    let x: Vec<f32> = (0..len(shape)).map(|_| 1000.0 + rng.random_range(-1.7320508f32..1.7320508)).collect();
    for device in devices().iter().filter(|d| !crate::support::compiles_only(d)) {
        let y = ops::instance_norm(&tensor(device, shape, DType::F32, &x), None, None, EPS).expect("instance_norm");
        let y = f64s(&y.to_ncdhw().expect("values"));
        for y in y.chunks(8 * 16 * 16) {
            let mean = y.iter().sum::<f64>() / y.len() as f64;
            let var = y.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / y.len() as f64;
            assert!(mean.abs() < 2e-4 && (var - 1.0).abs() < 2e-4, "{}: mean {mean} variance {var}", device.name());
        }
    }
}

#[test]
fn a_single_voxel_gives_the_bias() {
    let shape = [2, 3, 1, 1, 1];
    let bias = [0.5, -2.0, 0.0];
    let want: Vec<f64> = (0..6).map(|i| f64::from(bias[i % 3])).collect();
    for device in devices() {
        let b = Tensor::vector(device, &bias).expect("bias");
        for dtype in float_types(device) {
            let x = tensor(device, shape, dtype, &[1000.0, -3.0, 0.25, 7.0, 1e4, -1e-3]);
            let y = ops::instance_norm(&x, None, Some(&b), EPS).expect("instance_norm");
            assert_exact("instance_norm", &y, &want);
        }
    }
}

#[test]
fn empty_tensors_give_empty_results() {
    for device in devices() {
        for shape in [[0, 2, 3, 3, 3], [1, 2, 0, 3, 3], [2, 0, 1, 1, 1]] {
            let x = tensor(device, shape, DType::F32, &[]);
            assert_eq!(ops::instance_norm(&x, None, None, EPS).expect("instance_norm").shape(), shape);
            let v = Tensor::vector(device, &vec![1.0; shape[1]]).expect("a vector");
            assert_eq!(ops::batch_norm(&x, None, None, &v, &v, EPS).expect("batch_norm").shape(), shape);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let cpu = Device::Cpu;
    let x = tensor(&cpu, [1, 2, 1, 1, 3], DType::F32, &[0.0; 6]);
    let single = tensor(&cpu, [1, 2, 1, 1, 1], DType::F32, &[0.0; 2]);
    let labels = Tensor::from_u8(&cpu, [1, 2, 1, 1, 1], vec![0; 2]).expect("labels");
    let (two, three) = (Tensor::vector(&cpu, &[1.0; 2]).expect("2"), Tensor::vector(&cpu, &[1.0; 3]).expect("3"));
    let y = |result: nephron_compute::Result<ops::BatchNormOutput>| result.map(|r| r.y);
    let refused: [(nephron_compute::Result<Tensor>, [&str; 3]); 8] = [
        (ops::instance_norm(&x, Some(&three), None, EPS), ["weight", "[1, 2, 1, 1, 1]", "[1, 3, 1, 1, 1]"]),
        (ops::instance_norm(&x, None, Some(&labels), EPS), ["bias", "f32", "u8"]),
        (ops::instance_norm(&labels, None, None, EPS), ["dtype", "f32", "u8"]),
        (ops::instance_norm(&x, None, None, -1.0), ["eps", "0 or more", "-1"]),
        (ops::instance_norm(&x, None, None, f32::NAN), ["eps", "finite", "NaN"]),
        (ops::batch_norm(&x, None, None, &three, &two, EPS), ["mean", "[1, 2, 1, 1, 1]", "[1, 3, 1, 1, 1]"]),
        (ops::batch_norm(&x, None, None, &two, &three, EPS), ["var", "[1, 2, 1, 1, 1]", "[1, 3, 1, 1, 1]"]),
        (y(ops::batch_norm_train(&single, None, None, EPS)), ["at least 2", "1 in shape", "[1, 2, 1, 1, 1]"]),
    ];
    for (result, parts) in refused {
        let message = result.expect_err("does not fit").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
