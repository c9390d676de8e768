//! Launches that fail must become errors: CubeCL logs most of them and carries on with stale data.

use super::*;
use crate::device::DeviceSpec;

/// Every GPU backend at hand, with guarded buffers.
fn gpus() -> Vec<Gpu> {
    crate::device::test_gpus::gpus(&[
        DeviceSpec::Vulkan(None),
        DeviceSpec::Cuda(None),
        #[cfg(feature = "cuda-compile")]
        DeviceSpec::CudaCompile,
    ])
}

fn argument<R: Runtime>(handle: &Handle, len: usize) -> ArrayArg<R> {
    // SAFETY: the kernels below stay within the guarded buffer.
    unsafe { ArrayArg::from_raw_parts(handle.clone(), len) }
}

/// What a synchronisation says of the launches before it; it must be ours, one line, and come once.
fn failure(gpu: &Gpu) -> String {
    let error = gpu.synchronize().expect_err("a launch failed");
    assert!(matches!(&error, Error::Kernel { device, .. } if device == gpu.name()), "{error:?}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    gpu.synchronize().expect("a failure is reported once");
    message
}

/// The device still does its work.
fn assert_alive(gpu: &Gpu) {
    let y = gpu.alloc(4 * 32).expect("a buffer");
    with_client!(gpu, client => ones(client, &y, 32));
    let bytes = gpu.read(&y, 4 * 32).unwrap_or_else(|e| panic!("{e}"));
    assert!(gpu.compiles_only() || bytes.chunks(4).all(|b| b == 1.0f32.to_ne_bytes()), "{}", gpu.name());
}

#[cube(launch_unchecked)]
fn fill(y: &mut Array<f32>) {
    y[ABSOLUTE_POS] = 1.0;
}

/// Writes 1 to `units` elements, however many `y` has.
fn ones<R: Runtime>(client: &ComputeClient<R>, y: &Handle, units: u32) {
    // SAFETY: the tests launch as many units as the guarded buffer has elements.
    unsafe { fill::launch_unchecked(client, CubeCount::new_single(), CubeDim::new_1d(units), argument(y, 32)) };
}

#[cube(launch_unchecked)]
fn explode(y: &mut Array<f32>, #[comptime] fuse: usize) {
    comptime!(assert!(fuse > 3, "the fuse is {fuse}, at least 4 is needed"));
    y[ABSOLUTE_POS] = 1.0;
}

#[test]
fn an_expansion_that_panics_is_an_error_and_the_device_survives() {
    for gpu in gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        // SAFETY: it never gets to run.
        with_client!(gpu, client => unsafe {
            explode::launch_unchecked(client, CubeCount::new_single(), CubeDim::new_1d(32), argument(&y, 32), 1)
        });
        let message = failure(&gpu);
        assert!(message.contains("the fuse is 1"), "{message}");
        assert_alive(&gpu);
    }
}

#[test]
fn a_read_fails_when_the_launch_before_it_did() {
    for gpu in gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        // SAFETY: it never gets to run.
        with_client!(gpu, client => unsafe {
            explode::launch_unchecked(client, CubeCount::new_single(), CubeDim::new_1d(32), argument(&y, 32), 2)
        });
        let message = gpu.read(&y, 4 * 32).expect_err("stale data").to_string();
        assert!(message.contains("the fuse is 2"), "{message}");
        assert_alive(&gpu);
    }
}

#[test]
fn a_cube_too_large_is_an_error_and_the_device_survives() {
    for gpu in gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        with_client!(gpu, client => ones(client, &y, 1 << 14));
        let message = failure(&gpu);
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

#[test]
fn shared_memory_over_the_limit_is_an_error_and_the_device_survives() {
    for gpu in gpus() {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        // SAFETY: it never gets to run.
        with_client!(gpu, client => unsafe {
            stage::launch_unchecked(client, CubeCount::new_single(), CubeDim::new_1d(32), argument(&y, 32), 1 << 18)
        });
        let message = failure(&gpu);
        assert!(message.contains("1048576"), "{message}");
        assert_alive(&gpu);
    }
}

#[test]
fn writing_past_the_end_is_found() {
    for gpu in gpus().iter().filter(|gpu| !gpu.compiles_only()) {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        with_client!(gpu, client => ones(client, &y, 33));
        let message = gpu.read(&y, 4 * 32).expect_err("33 writes to 32 elements").to_string();
        assert!(message.contains("past the end"), "{message}");
    }
}

#[test]
fn elements_that_a_kernel_skips_are_nan() {
    for gpu in gpus().iter().filter(|gpu| !gpu.compiles_only()) {
        let y = gpu.alloc(4 * 32).expect("a buffer");
        with_client!(gpu, client => ones(client, &y, 31));
        let bytes = gpu.read(&y, 4 * 32).expect("nothing failed");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        assert!(values[..31].iter().all(|v| *v == 1.0) && values[31].is_nan(), "{values:?}");
    }
}
