//! Functions that the tests of all crates share: the available devices, seeded inputs, and comparisons that NaN fails.

pub mod checkpoint_file;
pub mod nifti_file;
pub mod zip_file;

use std::path::PathBuf;
use std::sync::OnceLock;

use cubecl_core::Runtime;
use nephron_compute::{DType, Device, DeviceOptions, DeviceSpec, Error, Shape, Tensor};
use nephron_cuda_compile::{CudaCompileDevice, CudaCompileRuntime};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The folder of the repository; NEPHRON_TEST_ROOT is its path where it was moved after the build.
pub fn root() -> PathBuf {
    std::env::var_os("NEPHRON_TEST_ROOT")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), PathBuf::from)
}

/// Every device that the tests run on: the CPU, and the other backends where they are available. A missing backend that NEPHRON_REQUIRE
/// names (`vulkan,cuda-compile`) is a failure; any other is printed to standard error.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let required = std::env::var("NEPHRON_REQUIRE").unwrap_or_default();
        let mut found = vec![Device::Cpu];
        let guarded = DeviceOptions::default().with_guard_buffers(true);
        let opened = [DeviceSpec::Vulkan(None), DeviceSpec::Cuda(None)]
            .map(|spec| (spec.to_string(), Device::open_with(spec, guarded.clone())));
        let compiler = compiler().and_then(|device| device.with_options(guarded));
        for (name, device) in opened.into_iter().chain([("cuda-compile".to_owned(), compiler)]) {
            match device {
                Ok(device) => found.push(device),
                Err(error) => {
                    assert!(!required.split(',').any(|r| r == name), "{name} is required: {error}");
                    eprintln!("SKIPPED on {name}: {error}");
                }
            }
        }
        found
    })
}

/// The same device with tf32 allowed.
pub fn with_tf32(device: &Device) -> Device {
    device.with_options(device.options().into_owned().with_tf32(true)).expect("options that an open device takes")
}

/// The device that compiles every kernel for CUDA and runs nothing.
fn compiler() -> Result<Device, Error> {
    match nephron_cuda_compile::problem() {
        Some(reason) => Err(Error::Device { device: "cuda-compile".into(), reason }),
        None => Device::from_client("cuda-compile", CudaCompileRuntime::client(&CudaCompileDevice)),
    }
}

/// Whether kernels are only compiled on this device, so that results have no meaning.
pub fn compiles_only(device: &Device) -> bool {
    device.name() == "cuda-compile"
}

/// The float types that a device supports.
pub fn float_types(device: &Device) -> Vec<DType> {
    [DType::F32, DType::F16, DType::BF16].into_iter().filter(|d| device.supports(*d)).collect()
}

/// A generator with a new seed in each run; the seed is printed, so that a failure can be repeated with NEPHRON_SEED.
pub fn rng() -> ChaCha8Rng {
    let seed = match std::env::var("NEPHRON_SEED") {
        Ok(seed) => seed.parse().expect("NEPHRON_SEED is a whole number"),
        Err(_) => rand::rng().next_u64(),
    };
    eprintln!("NEPHRON_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// Uniform in [-1, 1), representable in f16 and bf16 so that every storage type holds the same numbers.
pub fn uniform(rng: &mut impl Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| half::bf16::from_f32(rng.random_range(-1.0f32..1.0)).to_f32()).collect()
}

/// Whole numbers from -k to k: sums of their products are exact in f32.
pub fn integers(rng: &mut impl Rng, len: usize, k: i32) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-k..=k) as f32).collect()
}

/// The values as f64, for the references.
pub fn f64s(data: &[f32]) -> Vec<f64> {
    data.iter().map(|&v| v.into()).collect()
}

/// A float tensor of data in PyTorch's order.
pub fn tensor(device: &Device, shape: Shape, dtype: DType, data: &[f32]) -> Tensor {
    Tensor::from_ncdhw(device, shape, dtype, data).expect("a tensor of the given shape")
}

/// gamma_k = k u / (1 - k u): the relative error of k chained f32 roundings (Higham, Accuracy and Stability, 3.1).
pub fn gamma(k: usize) -> f64 {
    let ku = k as f64 * f64::from(f32::EPSILON) / 2.0;
    ku / (1.0 - ku)
}

/// Half an ulp of the storage type, relative, plus its smallest subnormal step.
pub fn storage_rounding(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => value.abs() * 2f64.powi(-11) + 2f64.powi(-25),
        DType::BF16 => value.abs() * 2f64.powi(-8) + 2f64.powi(-133),
        _ => value.abs() * 2f64.powi(-24) + 2f64.powi(-149),
    }
}

/// Compares a result with the oracle's, both in PyTorch's order: |got - want| <= gamma_k * magnitude + storage rounding,
/// where `magnitude` is the oracle's sum of absolute terms, element by element. On `cuda-compile` it only waits for the compiler.
pub fn assert_close(what: &str, got: &Tensor, want: &[f64], magnitude: &[f64], k: usize) {
    let device = got.device();
    let data = got.to_ncdhw().unwrap_or_else(|e| panic!("{what} on {}: {e}", device.name()));
    if compiles_only(&device) {
        return;
    }
    assert_eq!(data.len(), want.len(), "{what} on {}", device.name());
    for (i, (&got_value, (&want, &magnitude))) in data.iter().zip(want.iter().zip(magnitude)).enumerate() {
        let value = f64::from(got_value);
        let bound = gamma(k) * magnitude + storage_rounding(got.dtype(), want.abs().max(magnitude * gamma(k)));
        let same_special = (want.is_nan() && value.is_nan()) || want == value;
        assert!(
            same_special || (value - want).abs() <= bound,
            "{what} on {} {}: element {i} is {value}, expected {want} +- {bound:e}",
            device.name(),
            got.dtype()
        );
    }
}

/// Bit-for-bit equality with the oracle (integer-valued inputs).
pub fn assert_exact(what: &str, got: &Tensor, want: &[f64]) {
    let device = got.device();
    let data = got.to_ncdhw().unwrap_or_else(|e| panic!("{what} on {}: {e}", device.name()));
    if compiles_only(&device) {
        return;
    }
    assert_eq!(data.len(), want.len(), "{what} on {}", device.name());
    for (i, (&value, &want)) in data.iter().zip(want).enumerate() {
        assert!(
            f64::from(value) == want,
            "{what} on {} {}: element {i} is {value}, expected {want}",
            device.name(),
            got.dtype()
        );
    }
}
