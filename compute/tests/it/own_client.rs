//! Devices, tensors and launches for an application that holds a CubeCL client of its own.

use nephron_compute::cubecl_cuda::CudaRuntime;
use nephron_compute::cubecl_wgpu::WgpuRuntime;
use nephron_compute::ops::conv_block::gpu::{HaloBuffers, HaloInput, launch_conv_block};
use nephron_compute::ops::conv3d::{Conv3dParams, Conv3dProblem};
use nephron_compute::ops::norm::NormProblem;
use nephron_compute::ops::norm::gpu::{Affine, Statistics, launch_apply_in_place};
use nephron_compute::ops::{self, ConvBlockNorm};
use nephron_compute::{DType, Device, Tensor};

use crate::support::{compiles_only, devices, integers, rng};

/// Runs `$body` with the client of each GPU that computes: real ones, or a software adapter.
macro_rules! for_each_client {
    (|$client:ident| $body:block) => {
        for device in devices().iter().filter(|d| !compiles_only(d)) {
            let Device::Gpu(gpu) = device else { continue };
            if let Some($client) = gpu.client::<WgpuRuntime>() {
                $body
            } else if let Some($client) = gpu.client::<CudaRuntime>() {
                $body
            } else {
                panic!("{}: another runtime", device.name());
            }
        }
    };
}

fn bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn a_buffer_of_an_own_client_goes_through_an_op_and_back() {
    for_each_client!(|client| {
        let device = Device::from_client("own", client.clone()).expect("a device");
        assert_eq!(device.name(), "own");
        let buffer = client.create_from_slice(&bytes(&[-1.0, 0.0, 2.0, -3.0, 4.0]));
        let x = Tensor::from_handle(&device, buffer.clone(), [1, 1, 1, 1, 5], DType::F32).expect("a tensor");
        let y = device.on_device_thread(|| ops::relu(&x)).expect("an op");
        let read = client.read_one(y.handle().expect("a buffer").clone()).expect("data");
        assert_eq!(floats(&read)[..5], [0.0, 0.0, 2.0, 0.0, 4.0]);

        let refused = Tensor::from_handle(&device, buffer.clone(), [1, 1, 1, 2, 3], DType::F32).expect_err("too short");
        let message = refused.to_string();
        assert!(message.contains("at least 24 bytes") && message.contains("found 20 bytes"), "{message}");
        // Labels are read in words of four.
        let seven = client.create_from_slice(&[1; 7]);
        assert!(Tensor::from_handle(&device, seven, [1, 1, 1, 1, 7], DType::U8).is_err());
        // Another device, though of the same client.
        let other = Device::from_client("other", client.clone()).expect("a device");
        let z = Tensor::from_handle(&other, buffer, [1, 1, 1, 1, 5], DType::F32).expect("a tensor");
        assert!(ops::add(&x, &z).is_err());
    });
    let cpu = Tensor::vector(&Device::Cpu, &[1.0]).expect("a tensor");
    assert!(cpu.handle().is_err());
}

#[test]
fn a_launch_on_raw_handles_writes_its_buffer_and_refuses_a_short_one() {
    for_each_client!(|client| {
        let x = client.create_from_slice(&bytes(&[-2.0, 3.0, -4.0]));
        let y = client.create_from_slice(&bytes(&[9.0; 4]));
        ops::activation::gpu::launch_leaky_relu(client, DType::F32, &x, &y, 3, 0.5).expect("a launch");
        assert_eq!(floats(&client.read_one(y.clone()).expect("data")), [-1.0, 3.0, -2.0, 9.0]);
        let refused = ops::activation::gpu::launch_leaky_relu(client, DType::F32, &x, &y, 4, 0.5);
        let message = refused.expect_err("x has three elements").to_string();
        assert!(
            message.contains("leaky_relu: x") && message.contains("at least 16 bytes (4 elements of 4)"),
            "{message}"
        );
        assert!(message.contains("found 12 bytes"), "{message}");
    });
}

/// A convolution with the statistics of its norm, then the norm in place: what the op on tensors does.
#[test]
fn a_block_launched_on_raw_handles_is_the_op() {
    let mut rng = rng();
    let (input, weight) = ([1, 4, 3, 5, 6], [8, 4, 3, 3, 3]);
    let params = Conv3dParams { padding: [1; 3], ..Conv3dParams::default() };
    let problem = Conv3dProblem::new(input, weight, params).expect("shapes that fit");
    let [x, w] = [input, weight].map(|shape| integers(&mut rng, shape.iter().product(), 3));
    for_each_client!(|client| {
        let device = Device::from_client("own", client.clone()).expect("a device");
        let tensor = |shape, data: &[f32]| Tensor::from_ncdhw(&device, shape, DType::F32, data).expect("a tensor");
        let (x, w) = (tensor(input, &x), tensor(weight, &w));
        let norm = ConvBlockNorm { weight: None, bias: None, eps: 1e-5, slope: 0.25 };
        let want = ops::conv_block(&[&x], &w, None, &params, &norm).expect("an op").to_ndhwc().expect("data");

        let shape = problem.output_shape();
        let norm = NormProblem { groups: 1, positions: shape[2..].iter().product(), channels: shape[1] };
        let [mean, inverse_sd, variance] = [(); 3].map(|()| client.empty(4 * shape[1]));
        let statistics = Statistics { mean, inverse_sd, variance };
        let y = client.empty(4 * want.len());
        let buffers = HaloBuffers { w: w.handle().expect("a buffer"), b: None, y: &y };
        let source = HaloInput::Plain(x.handle().expect("a buffer"));
        launch_conv_block(client, DType::F32, source, buffers, &statistics, 1e-5, &problem, None).expect("a launch");
        launch_apply_in_place(client, DType::F32, &statistics, &Affine::default(), 0.25, &y, norm).expect("a launch");
        let got = floats(&client.read_one(y).expect("data"));
        assert_eq!(got, want);
    });
}
