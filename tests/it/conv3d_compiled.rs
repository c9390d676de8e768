//! What the convolution kernels promise, read from the machine code that CUDA's compiler makes of them.
#![cfg(feature = "cuda-compile")]

use nephron::ops::{self, Conv3dParams};
use nephron::{DType, Shape, Tensor};

use crate::support::devices;

/// The layers of design's table through CUDA's compiler: matrix instructions in the inner loop, copies of 16 bytes, and
/// enough warps to hide what they wait for.
#[test]
fn matrix_kernels_keep_what_they_promise() {
    for device in devices().iter().filter(|d| crate::support::compiles_only(d)) {
        for (channels, size) in [(32, 96), (64, 64), (320, 8)] {
            let x = Tensor::zeros(device, [1, channels, size, size, size], DType::F16).expect("zeros");
            let w = Tensor::zeros(device, [channels, channels, 3, 3, 3], DType::F16).expect("zeros");
            let params = Conv3dParams { padding: [1; 3], ..Conv3dParams::default() };
            ops::conv3d_by(ops::Conv3dAlgorithm::ImplicitGemm, &x, &w, None, &params).expect("a launch");
            device.synchronize().unwrap_or_else(|e| panic!("{channels} channels: {e}"));
        }
        let verdicts = nephron_cuda_compile::verdicts().into_iter();
        let wide: Vec<_> =
            verdicts.filter(|v| v.kernel.contains("conv3d_implicit_gemm") && v.options.starts_with("n: 8")).collect();
        assert!(wide.len() >= 4, "two tilings for two GPUs: {wide:#?}");
        for v in wide {
            let code = v.resources.code;
            assert!(v.warps >= 8, "{v:#?}");
            assert!(code.wide_loads >= 4 && code.loop_multiplications >= 16, "{v:#?}");
            // What is not a matrix instruction is addresses, copies and waiting: docs/performance.md says how much.
            assert!(code.loop_instructions <= 14 * code.loop_multiplications, "{v:#?}");
        }
    }
}

/// The first and the last layer through CUDA's compiler: a loop of FMAs and little else, loads of 16 bytes, warps.
#[test]
fn stems_and_heads_keep_what_they_promise() {
    for device in devices().iter().filter(|d| crate::support::compiles_only(d)) {
        let run = |x: Shape, w: Shape, padding, by| {
            let [x, w] = [x, w].map(|shape| Tensor::zeros(device, shape, DType::F16).expect("zeros"));
            let params = Conv3dParams { padding, ..Conv3dParams::default() };
            ops::conv3d_by(by, &x, &w, None, &params).expect("a launch");
            device.synchronize().unwrap_or_else(|e| panic!("{by}: {e}"));
        };
        run([1, 1, 128, 128, 128], [32, 1, 3, 3, 3], [1; 3], ops::Conv3dAlgorithm::Stem);
        run([1, 32, 128, 128, 128], [3, 32, 1, 1, 1], [0; 3], ops::Conv3dAlgorithm::Pointwise);
        let verdicts = nephron_cuda_compile::verdicts();
        let named = |kernel: &str, options: &str| {
            let of = |v: &&nephron_cuda_compile::Verdict| v.kernel.contains(kernel) && v.options.contains(options);
            let found: Vec<_> = verdicts.iter().filter(of).collect();
            assert!(found.len() >= 2, "{kernel} for two GPUs");
            found
        };
        for v in named("conv3d_stem", "groups: 4, ci: 1, kernel: [3, 3, 3]").iter().filter(|v| v.units == 256) {
            let code = v.resources.code;
            assert!(v.warps >= 16 && v.resources.spill_store_bytes == 0, "{v:#?}");
            // A row of taps is 192 FMAs a unit.
            assert!(code.loop_multiplications >= 192, "{v:#?}");
            assert!(100 * code.loop_multiplications >= 90 * code.loop_instructions, "{v:#?}");
        }
        for v in named("conv3d_pointwise", "ci: 32, co: 3").iter().filter(|v| v.types.contains("f16")) {
            assert!(v.warps >= 32 && v.resources.code.wide_loads >= 1, "{v:#?}");
        }
    }
}
