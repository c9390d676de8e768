//! Naming and opening devices, and what they refuse. Launches that fail are tested beside `src/device/gpu.rs`.

use nephron_compute::{DType, Device, DeviceSpec, Error, Tensor};

use crate::support::{compiles_only, devices};

#[test]
fn device_names_are_read_and_printed() {
    let cases = [
        ("auto", DeviceSpec::Auto),
        ("cpu", DeviceSpec::Cpu),
        ("cuda", DeviceSpec::Cuda(None)),
        ("cuda:3", DeviceSpec::Cuda(Some(3))),
        ("vulkan", DeviceSpec::Vulkan(None)),
        ("vulkan:0", DeviceSpec::Vulkan(Some(0))),
    ];
    for (text, spec) in cases {
        assert_eq!(text.parse::<DeviceSpec>().expect(text), spec);
        assert_eq!(spec.to_string(), text);
    }
    assert_eq!(DeviceSpec::default(), DeviceSpec::Auto);
}

#[test]
fn unknown_device_names_are_wrong_usage() {
    for text in ["", "gpu", "CUDA", "cpu:0", "auto:1", "cuda:", "cuda:x", "cuda:-1", "vulkan:0:1", "vulkan:1.5", " cpu"]
    {
        let error = text.parse::<DeviceSpec>().expect_err(text);
        assert!(matches!(error, Error::Usage(_)), "{text}: {error:?}");
        assert_eq!(error.exit_code(), 2);
        let message = error.to_string();
        assert!(message.contains(&format!("'{text}'")), "{message}");
    }
}

#[test]
fn devices_that_are_not_there_say_so() {
    for spec in [DeviceSpec::Cuda(Some(99)), DeviceSpec::Vulkan(Some(99))] {
        let error = Device::open(spec).expect_err("nobody has a hundred");
        assert!(matches!(error, Error::Device { .. }), "{error:?}");
        assert_eq!(error.exit_code(), 1);
        let message = error.to_string();
        assert!(message.contains(&format!("device {spec}: ")) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn auto_always_opens() {
    let device = Device::open(DeviceSpec::Auto).expect("the CPU at least");
    assert_eq!(device, Device::open(DeviceSpec::Auto).expect("again"), "the same device");
    device.synchronize().expect("nothing was launched");
}

#[test]
fn the_cpu_stores_no_half_floats() {
    for dtype in [DType::F16, DType::BF16] {
        assert!(!Device::Cpu.supports(dtype));
        let error = Tensor::from_ncdhw(&Device::Cpu, [1, 1, 1, 1, 2], dtype, &[1.0, 2.0]).expect_err("no f16 here");
        let message = error.to_string();
        assert!(message.contains("cpu") && message.contains(&dtype.to_string()), "{message}");
    }
}

#[test]
fn half_floats_become_f32_on_their_way_to_the_cpu() {
    for device in devices().iter().filter(|d| d.supports(DType::F16) && !compiles_only(d)) {
        let half = Tensor::from_ncdhw(device, [1, 2, 1, 1, 2], DType::F16, &[0.5, -2.0, 1.0, 0.0]).expect("f16");
        let host = half.to_device(&Device::Cpu).expect("a copy");
        assert_eq!((host.dtype(), host.device()), (DType::F32, Device::Cpu));
        assert_eq!(host.to_ncdhw().expect("data"), [0.5, -2.0, 1.0, 0.0]);
    }
}

/// Hosts without that much memory only promise it: the buffer is refused before anything is written.
const MOST_BYTES: u64 = 4 << 30;

#[test]
fn a_buffer_over_the_limit_names_both_sizes() {
    for device in devices().iter().filter(|d| d.max_buffer_bytes() < MOST_BYTES) {
        let limit = device.max_buffer_bytes();
        let shape = [1, 1, 1, 1, limit as usize + 1];
        let error = Tensor::zeros(device, shape, DType::U8).expect_err("over the limit");
        assert!(matches!(error, Error::BufferTooLarge { .. }), "{error:?}");
        let message = error.to_string();
        for part in [device.name(), limit.to_string(), (limit + 1).to_string()] {
            assert!(message.contains(&part), "{part} is missing: {message}");
        }
        let after = Tensor::from_u8(device, [1, 1, 1, 1, 3], vec![1, 2, 3]).expect("the device still works");
        device.synchronize().expect("nothing was launched");
        assert!(compiles_only(device) || after.to_u8().expect("data") == [1, 2, 3]);
    }
}

#[test]
fn a_shape_past_all_memory_is_refused_everywhere() {
    for device in devices() {
        let shape = [usize::MAX, 2, 3, 1, 1];
        let message = Tensor::zeros(device, shape, DType::F32).expect_err("too large").to_string();
        assert!(
            message.contains("fits in memory") && message.contains("[18446744073709551615, 2, 3, 1, 1]"),
            "{message}"
        );
    }
}

#[test]
fn empty_tensors_live_everywhere() {
    for device in devices() {
        for dtype in [DType::F32, DType::U8, DType::I16] {
            let empty = Tensor::zeros(device, [1, 2, 0, 4, 5], dtype).expect("no elements");
            assert!(empty.is_empty());
            assert_eq!(empty.to_ncdhw().expect("no data"), Vec::<f32>::new());
        }
    }
}
