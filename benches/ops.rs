//! Criterion benches of the shapes that the tests check: `cargo bench --bench ops`. NEPHRON_DEVICE names the device.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nephron::ops::{self, AffineDiceParams, Conv3dParams, Interpolation, Outside, ResampleParams};
use nephron::{DType, Device, Tensor, bench_shapes};

fn device() -> Device {
    let spec = std::env::var("NEPHRON_DEVICE").unwrap_or_else(|_| "auto".into());
    Device::open(spec.parse().expect("NEPHRON_DEVICE is auto, cpu, cuda[:n] or vulkan[:n]")).expect("the device")
}

/// Irregular numbers, by a hash of the index.
fn values(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn tensor(device: &Device, shape: [usize; 5]) -> Tensor {
    let data = values(shape.iter().product());
    Tensor::from_ncdhw(device, shape, DType::F32, &data).expect("a tensor")
}

/// Waits for the device, because launches are asynchronous.
fn finish(device: &Device, result: nephron::Result<Tensor>) {
    result.expect("a result");
    device.synchronize().expect("no fault");
}

fn conv3d(c: &mut Criterion) {
    let device = device();
    let mut group = c.benchmark_group(format!("conv3d f32 on {}", device.name()));
    for shape in bench_shapes::CONVS {
        let (x, w) = (tensor(&device, shape.input(usize::MAX)), tensor(&device, shape.weight()));
        let (stride, padding) = shape.stride_padding();
        let params = Conv3dParams { stride, padding, ..Conv3dParams::default() };
        let outputs = ops::conv3d(&x, &w, None, &params).expect("a result").len();
        group.throughput(Throughput::Elements((2 * outputs * w.len() / shape.channels[1]) as u64));
        group.bench_function(shape.name, |b| b.iter(|| finish(&device, ops::conv3d(&x, &w, None, &params))));
    }
    group.finish();
}

fn resample(c: &mut Criterion) {
    let device = device();
    let mut group = c.benchmark_group(format!("resample on {}", device.name()));
    let ct: Vec<i16> = values(100 * 256 * 256).iter().map(|v| (v * 1000.0) as i16).collect();
    let x = Tensor::from_i16(&device, [1, 1, 100, 256, 256], ct).expect("a tensor");
    let params = ResampleParams {
        size: [84, 120, 120],
        matrix: [[1.2, 0.0, 0.0, 0.1], [0.0, 2.14, 0.0, 0.5], [0.0, 0.0, 2.14, 0.5]],
        interpolation: Interpolation::Linear,
        outside: Outside::Border,
        intensity: None,
    };
    group.throughput(Throughput::Bytes((x.bytes() + 4 * 84 * 120 * 120) as u64));
    group.bench_function("i16 100x256x256 to 84x120x120", |b| b.iter(|| finish(&device, ops::resample(&x, &params))));
    group.finish();
}

fn affine_dice(c: &mut Criterion) {
    let device = device();
    let mut group = c.benchmark_group(format!("affine_dice on {}", device.name()));
    let shape = [1, 1, 64, 128, 128];
    let labels =
        |offset: usize| values(64 * 128 * 128 + offset)[offset..].iter().map(|v| (v.abs() * 3.0) as u8).collect();
    let fixed = Tensor::from_u8(&device, shape, labels(0)).expect("labels");
    let moving = Tensor::from_u8(&device, shape, labels(7)).expect("labels");
    let theta = [[1.02, 0.01, 0.0, 0.03], [-0.01, 0.98, 0.02, 0.0], [0.0, 0.01, 1.01, -0.05]];
    let params = AffineDiceParams::default();
    group.bench_function("dense labels 64x128x128", |b| {
        b.iter(|| ops::affine_dice(&fixed, &moving, &theta, &params).expect("a result").loss)
    });
    group.finish();
}

criterion_group!(benches, conv3d, resample, affine_dice);
criterion_main!(benches);
