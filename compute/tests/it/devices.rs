//! Naming and opening devices, and their errors. Launches that fail are tested in `src/device/gpu_tests.rs`.

use std::sync::{Arc, Mutex};

use nephron_compute::ops::{self, Conv3dAlgorithm, Conv3dParams};
use nephron_compute::{DType, Device, DeviceOptions, DeviceSpec, Error, Tensor};
use tracing_subscriber::layer::SubscriberExt;

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
        assert!(matches!(error, Error::UnknownDevice { .. }), "{text}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(&format!("'{text}'")), "{message}");
    }
}

#[test]
fn devices_that_are_not_there_say_so() {
    for spec in [DeviceSpec::Cuda(Some(99)), DeviceSpec::Vulkan(Some(99))] {
        let error = Device::open(spec).expect_err("nobody has a hundred");
        assert!(matches!(error, Error::Device { .. }), "{error:?}");
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
const MAX_BYTES: u64 = 4 << 30;

#[test]
fn a_buffer_over_the_limit_names_both_sizes() {
    for device in devices().iter().filter(|d| d.max_buffer_bytes() < MAX_BYTES) {
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

/// The messages that the library logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{value:?}");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().expect("the log").push(text.0);
    }
}

/// Two openings of one GPU work in turns, each by its own options, and their tensors go together.
#[test]
fn options_belong_to_the_device_and_not_to_the_process() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    for device in devices().iter().filter(|d| **d != Device::Cpu) {
        let preferring =
            |by| device.with_options(device.options().into_owned().with_conv3d(Some(by))).expect("options");
        let pair = [preferring(Conv3dAlgorithm::Naive), preferring(Conv3dAlgorithm::Direct)];
        assert!(pair[0] == pair[1] && pair[0].options() != pair[1].options());
        let on = |device: &Device| {
            let x: Vec<f32> = (0..3 * 4 * 5 * 6).map(|i| (i % 7) as f32).collect();
            let w: Vec<f32> = (0..8 * 3 * 27).map(|i| (i % 5) as f32).collect();
            let x = Tensor::from_ncdhw(device, [1, 3, 4, 5, 6], DType::F32, &x).expect("x");
            (x, Tensor::from_ncdhw(device, [8, 3, 3, 3, 3], DType::F32, &w).expect("w"))
        };
        let params = Conv3dParams { padding: [1; 3], ..Conv3dParams::default() };
        let [(x, w), (x_other, _)] = [on(&pair[0]), on(&pair[1])];
        let run = |x: &Tensor| ops::conv3d(x, &w, None, &params).and_then(|y| y.to_ndhwc()).expect("conv3d");
        for _ in 0..2 {
            assert!(run(&x) == run(&x_other) || compiles_only(device), "{}", device.name());
        }
        let lines = std::mem::take(&mut *log.0.lock().expect("the log"));
        for by in ["naive", "direct"] {
            let said = lines.iter().filter(|l| l.starts_with("conv3d f32") && l.ends_with(by)).count();
            assert_eq!(said, 1, "{by} on {}: {lines:?}", device.name());
        }
    }
}

#[test]
fn a_kernel_dump_begins_when_a_device_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = DeviceOptions::default().with_kernel_dump(Some(folder.path().join("late")));
    for device in devices().iter().filter(|d| **d != Device::Cpu) {
        let message = device.with_options(options.clone()).expect_err("too late").to_string();
        assert!(message.contains("kernel dump") && message.contains("opened"), "{message}");
    }
    assert!(!folder.path().join("late").exists());
}
