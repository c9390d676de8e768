//! Launches that fail must become errors: CubeCL logs most of them and carries on with stale data.

use super::*;
use crate::device::test_gpus::{all_gpus, compiles_only, computing_gpus, with_client};

fn argument<R: Runtime>(handle: &Handle, len: usize) -> ArrayArg<R> {
    // SAFETY: the kernels below stay within the guarded buffer.
    unsafe { ArrayArg::from_raw_parts(handle.clone(), len) }
}

/// Launches on the device's thread, as ops do.
fn launch(gpu: &Gpu, f: impl FnOnce() + Send) -> Result<()> {
    gpu.run(|_| {
        f();
        Ok(())
    })
}

/// The message of a launch that fails, or of the synchronisation after it: an error of this device, on one line, reported once.
fn failure(gpu: &Gpu, f: impl FnOnce() + Send) -> String {
    let error = launch(gpu, f).and_then(|()| gpu.synchronize()).expect_err("a launch failed");
    assert!(matches!(&error, Error::Kernel { device, .. } if device == gpu.name()), "{error:?}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    gpu.synchronize().expect("a failure is reported once");
    message
}

/// Checks that the device still works.
fn assert_alive(gpu: &Gpu) {
    let y = gpu.alloc(4 * 32).expect("a buffer");
    launch(gpu, || with_client!(gpu, client => ones(client, &y, 32))).expect("a launch");
    let bytes = gpu.read(&y, 4 * 32).unwrap_or_else(|e| panic!("{e}"));
    assert!(compiles_only(gpu) || bytes.chunks(4).all(|b| b == 1.0f32.to_ne_bytes()), "{}", gpu.name());
}

#[cube(launch_unchecked)]
fn fill(y: &mut Array<f32>) {
    y[ABSOLUTE_POS] = 1.0;
}

/// Writes 1 to `units` elements, whatever the length of `y`.
fn ones<R: Runtime>(client: &ComputeClient<R>, y: &Handle, units: u32) {
    // SAFETY: the tests launch as many units as the guarded buffer has elements.
    unsafe { fill::launch_unchecked(client, CubeCount::new_single(), CubeDim::new_1d(units), argument(y, 32)) };
}

#[cube(launch_unchecked)]
fn explode(y: &mut Array<f32>, #[comptime] fuse: usize) {
    comptime!(assert!(fuse > 3, "the fuse is {fuse}, at least 4 is needed"));
    y[ABSOLUTE_POS] = 1.0;
}

/// Launches a kernel whose expansion panics.
fn detonate<R: Runtime>(client: &ComputeClient<R>, y: &Handle, fuse: usize) {
    // SAFETY: the kernel never runs.
    unsafe { explode::launch_unchecked(client, CubeCount::new_single(), CubeDim::new_1d(32), argument(y, 32), fuse) };
}

#[test]
fn an_expansion_that_panics_is_an_error_of_the_launch_and_the_device_survives() {
    for gpu in all_gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        // A device that only compiles catches the panic itself and reports it at the next synchronisation.
        if !compiles_only(&gpu) {
            let error = launch(&gpu, || with_client!(gpu, client => detonate(client, &y, 1))).expect_err("it panics");
            assert!(error.to_string().contains("the fuse is 1"), "{error}");
        }
        let message = failure(&gpu, || with_client!(gpu, client => detonate(client, &y, 3)));
        assert!(message.contains("the fuse is 3"), "{message}");
        assert_alive(&gpu);
    }
}

#[test]
fn a_read_fails_when_a_queued_launch_before_it_did() {
    for gpu in all_gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        with_client!(gpu, client => detonate(client, &y, 2));
        let message = gpu.read(&y, 4 * 32).expect_err("stale data").to_string();
        assert!(message.contains("the fuse is 2"), "{message}");
        assert_alive(&gpu);
    }
}

/// An application's hook that was installed after the device was opened, and that calls no other.
#[test]
fn another_panic_hook_hides_no_failure() {
    let gpus = computing_gpus();
    let ours = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let outcomes: Vec<_> = gpus
        .iter()
        .map(|gpu| {
            let y = gpu.alloc(4 * 32).expect("a buffer");
            let once = launch(gpu, || with_client!(gpu, client => detonate(client, &y, 1)));
            let nested = gpu.on_device_thread(|| launch(gpu, || with_client!(gpu, client => detonate(client, &y, 2))));
            (once, nested.expect("the thread lives"))
        })
        .collect();
    panic::set_hook(ours);
    for (gpu, (once, nested)) in gpus.iter().zip(outcomes) {
        for error in [once.expect_err("it panics"), nested.expect_err("it panics")] {
            assert!(matches!(&error, Error::Kernel { device, .. } if device == gpu.name()), "{error:?}");
            assert!(error.to_string().contains("panic hook"), "{error}");
        }
        assert_alive(gpu);
    }
}

#[test]
fn what_runs_on_the_devices_thread_gives_back_its_value_or_its_panic() {
    for gpu in all_gpus() {
        let here = std::thread::current().id();
        let value = gpu.on_device_thread(|| {
            assert_ne!(std::thread::current().id(), here);
            assert_alive(&gpu);
            7
        });
        assert_eq!(value.expect("a value"), 7);
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            gpu.on_device_thread(|| assert!(gpu.name().is_empty(), "on purpose"))
        }));
        let payload = panicked.expect_err("the panic goes on");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"on purpose"));
        gpu.synchronize().expect("that was no launch");
        assert_alive(&gpu);
    }
}

#[test]
fn a_cube_too_large_is_an_error_and_the_device_survives() {
    for gpu in all_gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        let message = failure(&gpu, || with_client!(gpu, client => ones(client, &y, 1 << 14)));
        assert!(message.contains("16384"), "{message}");
        assert_alive(&gpu);
    }
}

#[cube(launch_unchecked)]
fn stage(y: &mut Array<f32>, #[comptime] len: usize) {
    let mut shared = SharedMemory::<f32>::new(len);
    shared[UNIT_POS_X as usize] = 1.0;
    sync_cube();
    y[UNIT_POS_X as usize] = shared[(UNIT_POS_X ^ 1) as usize];
}

/// A kernel with a mebibyte of shared memory.
fn hoard<R: Runtime>(client: &ComputeClient<R>, y: &Handle) {
    // SAFETY: the kernel never runs.
    unsafe { stage::launch_unchecked(client, CubeCount::new_single(), CubeDim::new_1d(32), argument(y, 32), 1 << 18) };
}

#[test]
fn shared_memory_over_the_limit_is_an_error_and_the_device_survives() {
    for gpu in all_gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        let message = failure(&gpu, || with_client!(gpu, client => hoard(client, &y)));
        assert!(message.contains("1048576"), "{message}");
        assert_alive(&gpu);
    }
}

#[test]
fn writing_past_the_end_is_found() {
    for gpu in computing_gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        launch(&gpu, || with_client!(gpu, client => ones(client, &y, 33))).expect("a launch");
        let message = gpu.read(&y, 4 * 32).expect_err("33 writes to 32 elements").to_string();
        assert!(message.contains("past the end"), "{message}");
    }
}

#[test]
fn elements_that_a_kernel_skips_are_nan() {
    for gpu in computing_gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        launch(&gpu, || with_client!(gpu, client => ones(client, &y, 31))).expect("a launch");
        let bytes = gpu.read(&y, 4 * 32).expect("nothing failed");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        assert!(values[..31].iter().all(|v| *v == 1.0) && values[31].is_nan(), "{values:?}");
    }
}

#[test]
fn a_buffer_too_short_is_refused_with_both_sizes() {
    for gpu in all_gpus() {
        let [short, long] = [4 * 32, 4 * 500].map(|bytes| gpu.alloc(bytes).expect("a buffer"));
        // A guarded buffer is longer than requested, so the launch needs a length that exceeds that too.
        let refused = gpu.run(|client| client.relu(DType::F32, &long, &short, 400)).expect_err("y is too short");
        let found = short.size_in_used();
        let message = refused.to_string();
        assert!(message.contains("relu: y") && message.contains("1600 bytes"), "{message}");
        assert!(message.contains(&format!("found {found} bytes")), "{message}");
        let offset = long.clone().offset_start(4 * 256);
        let refused = gpu.run(|client| client.relu(DType::F32, &offset, &long, 400)).expect_err("x begins too late");
        assert!(refused.to_string().contains("relu: x"), "{refused}");
        let refused = gpu.run(|client| client.relu(DType::U8, &long, &long, 1)).expect_err("no float type");
        assert!(refused.to_string().contains("expected f32, f16 or bf16, found u8"), "{refused}");
        let refused = gpu.run(|client| client.relu(DType::F16, &long, &long, usize::MAX)).expect_err("too many");
        assert!(refused.to_string().contains(&usize::MAX.to_string()), "{refused}");
    }
}
