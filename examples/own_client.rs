//! A convolution on an application's own CubeCL client, with a buffer that the application made and reads itself:
//! `cargo run --example own_client`. For a software Vulkan adapter, set VK_DRIVER_FILES to its driver.

#[cfg(feature = "vulkan")]
fn main() -> nephron::Result<()> {
    use nephron::cubecl::Runtime;
    use nephron::cubecl_wgpu::{RuntimeOptions, Vulkan, WgpuDevice, WgpuRuntime, init_setup};
    use nephron::ops::{Conv3dParams, conv3d};
    use nephron::{DType, Device, Error, Tensor};

    // The application has an adapter, a client, and an image of 8 x 8 x 8 voxels with one channel.
    let adapter = WgpuDevice::DefaultDevice;
    init_setup::<Vulkan>(&adapter, RuntimeOptions::default());
    let client = WgpuRuntime::client(&adapter);
    let image: Vec<u8> = (0..512).flat_map(|i| ((i % 8) as f32).to_ne_bytes()).collect();
    let buffer = client.create_from_slice(&image);

    // nephron makes a device of that client and a tensor of that buffer, and computes the mean of three neighbours along x.
    let device = Device::from_client("own", client.clone())?;
    let x = Tensor::from_handle(&device, buffer, [1, 1, 8, 8, 8], DType::F32)?;
    let w = Tensor::from_ncdhw(&device, [1, 1, 1, 1, 3], DType::F32, &[1.0 / 3.0; 3])?;
    let y = conv3d(&x, &w, None, &Conv3dParams { padding: [0, 0, 1], ..Default::default() })?;

    // The application reads the result with its own client.
    let bytes = client.read_one(y.handle()?.clone()).map_err(|e| Error::Data(e.to_string()))?;
    let row: Vec<f32> = bytes.chunks_exact(4).take(8).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
    println!("{:?} by {device:?}: {row:?}", y.shape());
    let inside = row[1..7].iter().zip(1..).all(|(mean, i)| (mean - i as f32).abs() < 1e-5);
    if inside { Ok(()) } else { Err(Error::Data(format!("not the means of neighbours: {row:?}"))) }
}

#[cfg(not(feature = "vulkan"))]
fn main() {
    eprintln!("this example needs the feature vulkan");
}
