//! Which algorithms can compute which convolutions. What the other tests run is what an algorithm says that it can do; the
//! lists here are what it must say, so that no kernel drops out of testing unnoticed.
#![cfg(feature = "gpu")]

use nephron_compute::device::Gpu;
use nephron_compute::ops::conv_plan::DeviceCaps;
use nephron_compute::ops::conv_problem::{Conv3dProblem, ConvTranspose3dProblem};
use nephron_compute::ops::{Conv3dAlgorithm, Conv3dParams, ConvTranspose3dAlgorithm, ConvTranspose3dParams};
use nephron_compute::{DType, Device, Shape, Tensor};

use crate::support::{devices, float_types, with_tf32};

/// Name, input, weight and parameters of a problem, and the algorithms that must be able to compute it.
type Typical = (&'static str, Shape, Shape, Conv3dParams, &'static [Conv3dAlgorithm]);

/// Name, weight, stride and padding of a problem, and the algorithms that must be able to compute it.
type TypicalTransposed = (&'static str, Shape, [usize; 3], [usize; 3], &'static [ConvTranspose3dAlgorithm]);

/// The algorithms that can convolve `x` with a weight of shape `w` on its device. The CPU has none to choose from.
pub fn able(x: &Tensor, w: Shape, params: &Conv3dParams) -> Vec<Conv3dAlgorithm> {
    let Device::Gpu(gpu) = x.device() else { return Vec::new() };
    let problem = Conv3dProblem::new(x.shape(), w, *params).expect("shapes that fit");
    able_to(&gpu, x.dtype(), &problem)
}

fn able_to(gpu: &Gpu, dtype: DType, problem: &Conv3dProblem) -> Vec<Conv3dAlgorithm> {
    let caps = DeviceCaps::of(gpu, dtype);
    Conv3dAlgorithm::ALL.into_iter().filter(|a| a.unsupported(problem, &caps).is_none()).collect()
}

/// As [`able`], for the transposed convolution.
pub fn able_transposed(x: &Tensor, w: Shape, params: &ConvTranspose3dParams) -> Vec<ConvTranspose3dAlgorithm> {
    let Device::Gpu(gpu) = x.device() else { return Vec::new() };
    let problem = ConvTranspose3dProblem::new(x.shape(), w, *params).expect("shapes that fit");
    let caps = DeviceCaps::of(&gpu, x.dtype());
    ConvTranspose3dAlgorithm::ALL.into_iter().filter(|a| a.unsupported(&problem, &caps).is_none()).collect()
}

#[test]
fn typical_convolutions_are_computed_by_every_algorithm_made_for_them() {
    use Conv3dAlgorithm::{Direct, Halo, ImplicitGemm, Naive, Pointwise, RegisterBlocked, Stem};
    let params = |stride, padding, dilation, groups| Conv3dParams { stride, padding, dilation, groups };
    let one = [1; 3];
    let same = params(one, one, one, 1);
    let flat = params(one, [0, 1, 1], one, 1);
    let typical: [Typical; 10] = [
        (
            "U-Net stem",
            [1, 1, 9, 9, 9],
            [32, 1, 3, 3, 3],
            same,
            &[Naive, Direct, Stem, RegisterBlocked, ImplicitGemm, Halo],
        ),
        (
            "stem of 4 channels",
            [1, 4, 9, 9, 9],
            [32, 4, 3, 3, 3],
            same,
            &[Naive, Direct, Stem, RegisterBlocked, ImplicitGemm, Halo],
        ),
        (
            "U-Net layer",
            [1, 32, 9, 9, 9],
            [32, 32, 3, 3, 3],
            same,
            &[Naive, Direct, RegisterBlocked, ImplicitGemm, Halo],
        ),
        (
            "U-Net bottom",
            [2, 320, 4, 4, 4],
            [320, 320, 3, 3, 3],
            same,
            &[Naive, Direct, RegisterBlocked, ImplicitGemm, Halo],
        ),
        (
            "stride 2",
            [1, 32, 9, 9, 9],
            [64, 32, 3, 3, 3],
            params([2; 3], one, one, 1),
            &[Naive, Direct, RegisterBlocked, ImplicitGemm],
        ),
        (
            "head",
            [1, 32, 9, 9, 9],
            [3, 32, 1, 1, 1],
            params(one, [0; 3], one, 1),
            &[Naive, Direct, Pointwise, RegisterBlocked, ImplicitGemm],
        ),
        (
            "2D layer",
            [1, 64, 1, 14, 14],
            [64, 64, 1, 3, 3],
            flat,
            &[Naive, Direct, RegisterBlocked, ImplicitGemm, Halo],
        ),
        (
            "ResNet stem",
            [1, 3, 1, 32, 32],
            [64, 3, 1, 7, 7],
            params([1, 2, 2], [0, 3, 3], one, 1),
            &[Naive, Direct, Stem, RegisterBlocked, ImplicitGemm],
        ),
        (
            "dilated",
            [1, 32, 9, 9, 9],
            [32, 32, 3, 3, 3],
            params(one, [2; 3], [2; 3], 1),
            &[Naive, Direct, RegisterBlocked, ImplicitGemm],
        ),
        ("depthwise", [1, 8, 9, 9, 9], [8, 1, 3, 3, 3], params(one, one, one, 8), &[Naive, Direct]),
    ];
    for device in devices() {
        for device in [device.clone(), with_tf32(device)] {
            let Device::Gpu(gpu) = &device else { continue };
            let cuda = device.name().starts_with("cuda");
            for dtype in float_types(&device) {
                for (name, x, w, params, expected) in &typical {
                    // CUDA multiplies f32 by matrix instructions as tf32 alone, in pieces of 16 bytes.
                    let matrix = dtype != DType::F32 || !cuda || (device.options().tf32 && x[1] % 4 == 0);
                    let kept = |a: &&Conv3dAlgorithm| matrix || ![ImplicitGemm, Halo].contains(*a);
                    let expected: Vec<_> = expected.iter().filter(kept).copied().collect();
                    let problem = Conv3dProblem::new(*x, *w, *params).expect("shapes that fit");
                    assert_eq!(able_to(gpu, dtype, &problem), expected, "{name} in {dtype} on {}", device.name());
                }
            }
        }
    }
}

#[test]
fn typical_transposed_convolutions_are_computed_by_every_algorithm_made_for_them() {
    use ConvTranspose3dAlgorithm::{Direct, Gemm};
    let typical: [TypicalTransposed; 5] = [
        ("decoder", [64, 32, 2, 2, 2], [2; 3], [0; 3], &[Direct, Gemm]),
        ("flat decoder", [320, 320, 1, 2, 2], [1, 2, 2], [0; 3], &[Direct, Gemm]),
        ("odd channels", [33, 17, 2, 2, 2], [2; 3], [0; 3], &[Direct, Gemm]),
        ("overlapping footprints", [64, 32, 3, 3, 3], [2; 3], [0; 3], &[Direct]),
        ("cut edges", [64, 32, 2, 2, 2], [2; 3], [0, 0, 1], &[Direct]),
    ];
    for device in devices().iter().filter(|d| **d != Device::Cpu) {
        for dtype in float_types(device) {
            for (name, w, stride, padding, expected) in &typical {
                let x = Tensor::zeros(device, [1, w[0], 3, 4, 5], dtype).expect("zeros");
                let params = ConvTranspose3dParams { stride: *stride, padding: *padding };
                assert_eq!(able_transposed(&x, *w, &params), *expected, "{name} in {dtype} on {}", device.name());
            }
        }
    }
}
