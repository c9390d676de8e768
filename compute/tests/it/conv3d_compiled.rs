//! What CUDA's compiler makes of the convolutions on matrix instructions.

use nephron_compute::ops::{self, Conv3dParams};
use nephron_compute::{DType, Shape, Tensor};

use crate::conv3d::assert_names;
use crate::support::{self, devices};

/// The layers of the kidney U-Net, and one of each other kind, through CUDA's compiler: matrix instructions in the inner loop, copies of 16 bytes, and
/// enough warps to hide what they wait for.
#[test]
fn matrix_kernels_keep_what_they_promise() {
    use ops::Conv3dAlgorithm as By;
    for device in devices().iter().filter(|d| crate::support::compiles_only(d)) {
        for (by, channels, size) in
            [(By::ImplicitGemm, 32, 96), (By::ImplicitGemm, 64, 64), (By::ImplicitGemm, 320, 8), (By::Halo, 32, 48)]
        {
            let x = Tensor::zeros(device, [1, channels, size, size, size], DType::F16).expect("zeros");
            let w = Tensor::zeros(device, [channels, channels, 3, 3, 3], DType::F16).expect("zeros");
            let params = Conv3dParams { padding: [1; 3], ..Conv3dParams::default() };
            ops::conv3d_by(by, &x, &w, None, &params, &ops::ConvEpilogue::NONE).expect("a launch");
            device.synchronize().unwrap_or_else(|e| panic!("{by}, {channels} channels: {e}"));
        }
        let verdicts = nephron_cuda_compile::verdicts().into_iter();
        // Loads and stores as wide as they come, and whole chunks of channels.
        let whole = |options: &str| options.starts_with("n: 8, p: 2") && !options.contains("chunk: 16");
        let wide: Vec<_> = verdicts.filter(|v| whole(&v.options)).collect();
        // What is not a matrix instruction is addresses, copies and waiting: docs/performance.md says how much.
        for (kernel, tilings, instructions) in [("conv3d_implicit_gemm", 2, 14), ("conv3d_halo", 1, 5)] {
            let wide: Vec<_> = wide.iter().filter(|v| v.kernel.contains(kernel)).collect();
            assert!(wide.len() >= 2 * tilings, "{tilings} tilings of {kernel} for two GPUs: {wide:#?}");
            for v in wide {
                let code = v.resources.code;
                assert!(v.warps >= 8, "{v:#?}");
                assert!(code.wide_loads >= 4 && code.loop_multiplications >= 16, "{v:#?}");
                assert!(code.loop_instructions <= instructions * code.loop_multiplications, "{v:#?}");
            }
        }
    }
}

/// f32 on matrix instructions where that is allowed, through CUDA's compiler; each test is a process of its own.
#[test]
fn f32_is_rounded_to_tf32_only_where_that_is_allowed() {
    use ops::Conv3dAlgorithm as By;
    for device in devices().iter().filter(|d| crate::support::compiles_only(d)) {
        let x = Tensor::zeros(device, [1, 32, 16, 16, 16], DType::F32).expect("zeros");
        let w = Tensor::zeros(device, [64, 32, 3, 3, 3], DType::F32).expect("zeros");
        let params = Conv3dParams { padding: [1; 3], ..Conv3dParams::default() };
        let run = |by| ops::conv3d_by(by, &x, &w, None, &params, &ops::ConvEpilogue::NONE);
        let kernels = [By::ImplicitGemm, By::Halo];
        for by in kernels {
            assert_names(&run(by).expect_err("not allowed").to_string(), &["tf32 allowed", "found f32"]);
        }
        let device = &support::with_tf32(device);
        let x = Tensor::zeros(device, [1, 32, 16, 16, 16], DType::F32).expect("zeros");
        let run = |by, epilogue| ops::conv3d_by(by, &x, &w, None, &params, &epilogue);
        for by in kernels {
            run(by, ops::ConvEpilogue::NONE).expect("a launch");
            run(by, ops::ConvEpilogue::RELU).expect("a launch");
            device.synchronize().unwrap_or_else(|e| panic!("{by}: {e}"));
        }
        let tf32: Vec<_> =
            nephron_cuda_compile::verdicts().into_iter().filter(|v| v.options.contains("Tf32")).collect();
        assert!(tf32.len() >= 4, "two kernels for two GPUs: {tf32:#?}");
        for v in tf32 {
            assert!(v.resources.code.loop_multiplications >= 16 && v.warps >= 8, "{v:#?}");
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
            ops::conv3d_by(by, &x, &w, None, &params, &ops::ConvEpilogue::NONE).expect("a launch");
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
