//! Writing into a wider buffer: what is written is what a buffer of its own gets, and what is between stays as it was.

use super::*;
use crate::device::test_gpus::{all_gpus, compiles_only};
use crate::device::{Device, Gpu};
use crate::ops::conv_transpose3d::reference;
use crate::ops::{ConvTranspose3dAlgorithm as Algorithm, ConvTranspose3dParams};
use crate::tensor::{Shape, Tensor};

/// Small whole numbers, different for each `salt`.
fn whole(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 31 + salt * 17 + i / 7) % 5) as f32 - 2.0).collect()
}

fn tensor(gpu: &Gpu, shape: Shape, dtype: DType, salt: usize) -> Tensor {
    let data = whole(shape.iter().product(), salt);
    Tensor::from_ncdhw(&Device::Gpu(gpu.clone()), shape, dtype, &data).expect("a tensor")
}

#[test]
fn channels_between_others_are_written_and_no_others() {
    // Input, weight, stride, pitch and offset: as a decoder joins a skip, and nothing that divides anything.
    let cases: [(Shape, Shape, Placement); 4] = [
        ([1, 16, 3, 4, 5], [16, 8, 2, 2, 2], Placement { pitch: 24, offset: 0 }),
        ([2, 16, 2, 3, 7], [16, 8, 1, 2, 2], Placement { pitch: 24, offset: 16 }),
        ([1, 7, 3, 5, 7], [7, 5, 3, 1, 2], Placement { pitch: 11, offset: 3 }),
        ([1, 33, 5, 5, 7], [33, 34, 2, 2, 2], Placement { pitch: 36, offset: 1 }),
    ];
    for gpu in all_gpus() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            if !Device::Gpu(gpu.clone()).supports(dtype) {
                continue;
            }
            for (xs, ws, placement) in cases {
                let params = ConvTranspose3dParams { stride: [ws[2], ws[3], ws[4]], ..Default::default() };
                let problem = ConvTranspose3dProblem::new(xs, ws, params).expect("shapes that fit");
                let (x, w) = (tensor(&gpu, xs, dtype, 1), tensor(&gpu, ws, dtype, 2));
                let floats = |shape: Shape, salt| {
                    whole(shape.iter().product(), salt).into_iter().map(f64::from).collect::<Vec<_>>()
                };
                let want = reference::conv_transpose3d(&floats(xs, 1), xs, &floats(ws, 2), ws, None, &params);
                for algorithm in Algorithm::ALL {
                    let wide = written(&gpu, [&x, &w], placement, &problem, algorithm);
                    if compiles_only(&gpu) {
                        continue;
                    }
                    let [n, co, d, h, width] = want.shape;
                    for voxel in 0..n * d * h * width {
                        for c in 0..placement.pitch {
                            let got = f64::from(wide[voxel * placement.pitch + c]);
                            let own = c.checked_sub(placement.offset).filter(|c| *c < co);
                            let place =
                                |c| (voxel / (d * h * width) * co + c) * d * h * width + voxel % (d * h * width);
                            let want = own.map_or(GUARD.into(), |c| want.value[place(c)]);
                            assert!(
                                got == want,
                                "{algorithm} {dtype} {xs:?} {placement:?}: {voxel}, {c}: {got}, {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// [`launch_conv_transpose3d`] on a device of any runtime.
fn launch(
    gpu: &Gpu,
    dtype: DType,
    buffers: ConvTranspose3dHandles<'_>,
    placement: Placement,
    problem: &ConvTranspose3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<()> {
    let plan = plan(problem, &DeviceCaps::of(gpu, dtype), algorithm)?;
    gpu.run(|client| client.conv_transpose3d_planned(dtype, buffers, placement, problem, &plan))
}

/// In the channels of others.
const GUARD: f32 = 77.0;

/// The whole wide buffer.
fn written(
    gpu: &Gpu,
    [x, w]: [&Tensor; 2],
    placement: Placement,
    problem: &ConvTranspose3dProblem,
    algorithm: Algorithm,
) -> Vec<f32> {
    let [n, _, d, h, width] = problem.output_shape();
    let shape = [n, placement.pitch, d, h, width];
    let guard = vec![GUARD; shape.iter().product()];
    let y = Tensor::from_ncdhw(&Device::Gpu(gpu.clone()), shape, x.dtype(), &guard).expect("a buffer");
    let handles = [x, w, &y].map(|t| t.gpu_handle(gpu).expect("a handle"));
    let [x_buffer, w_buffer, y_buffer] = &handles;
    let buffers = ConvTranspose3dHandles { x: x_buffer, w: w_buffer, b: None, y: y_buffer };
    let launched = launch(gpu, x.dtype(), buffers, placement, problem, Some(algorithm));
    launched.expect("a launch");
    y.to_ndhwc().unwrap_or_else(|e| panic!("{algorithm} {placement:?}: {e}"))
}

#[test]
fn channels_past_the_pitch_are_refused() {
    let problem = ConvTranspose3dProblem::new([1, 2, 1, 1, 1], [2, 5, 1, 1, 1], Default::default()).expect("it fits");
    for gpu in all_gpus() {
        let buffer = gpu.alloc(256).expect("a buffer");
        let buffers = ConvTranspose3dHandles { x: &buffer, w: &buffer, b: None, y: &buffer };
        let refused = |placement| {
            let launched = launch(&gpu, DType::F32, buffers, placement, &problem, None);
            launched.expect_err("must be refused").to_string()
        };
        let message = refused(Placement { pitch: 7, offset: 3 });
        assert!(message.contains("at most the buffer's 7") && message.contains("5 from 3 on"), "{message}");
        refused(Placement { pitch: 7, offset: usize::MAX });
    }
}
