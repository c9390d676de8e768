//! A convolution on a chosen device: `cargo run --release --example conv3d [cpu|cuda:0|vulkan:0|auto]`.

use nephron::ops::{self, Conv3dParams};
use nephron::{DType, Device, DeviceOptions, DeviceSpec, Result, Tensor};

fn main() -> Result<()> {
    let spec: DeviceSpec = std::env::args().nth(1).as_deref().unwrap_or("auto").parse()?;
    // Options belong to the opened device; another device may be open with other options.
    let device = Device::open_with(spec, DeviceOptions::default().with_tf32(true))?;

    // Shapes are PyTorch's: [n, c, d, h, w] and [co, ci, kd, kh, kw]. The example uses f16 where the device supports it.
    let dtype = if device.supports(DType::F16) { DType::F16 } else { DType::F32 };
    let (input, weight) = ([1, 32, 16, 64, 64], [64, 32, 3, 3, 3]);
    let values = |shape: [usize; 5]| -> Vec<f32> {
        (0..shape.iter().product::<usize>()).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect()
    };
    let x = Tensor::from_ncdhw(&device, input, dtype, &values(input))?;
    let w = Tensor::from_ncdhw(&device, weight, dtype, &values(weight))?;
    let bias = Tensor::vector(&device, &[0.1; 64])?;

    let y = ops::conv3d(&x, &w, Some(&bias), &Conv3dParams { padding: [1; 3], ..Conv3dParams::default() })?;
    let y = ops::leaky_relu(&y, 0.01)?;

    // Reading waits for the device and returns an error for any launch that failed.
    let first = y.to_ncdhw()?[0];
    println!("{dtype} on {}: {:?}, first value {first}", device.name(), y.shape());
    Ok(())
}
