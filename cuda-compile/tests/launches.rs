//! Launches that are accepted, and every kind of launch that must fail.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_cuda_compile::{CudaCompileDevice, CudaCompileRuntime, Verdict, problem, verdicts};

type R = CudaCompileRuntime;

/// The device; None where there is no CUDA compiler, which is a failure if NEPHRON_REQUIRE names it.
fn client() -> Option<ComputeClient<R>> {
    match problem() {
        None => Some(R::client(&CudaCompileDevice)),
        Some(reason) => {
            let required = std::env::var("NEPHRON_REQUIRE").is_ok_and(|r| r.contains("cuda-compile"));
            assert!(!required, "cuda-compile is required: {reason}");
            eprintln!("SKIPPED on cuda-compile: {reason}");
            None
        }
    }
}

/// The records of the kernel function of that name in this file.
fn verdicts_on(function: &str) -> Vec<Verdict> {
    let prefix = format!("launches::{function}#");
    verdicts().into_iter().filter(|v| v.kernel.starts_with(&prefix)).collect()
}

fn array(handle: &Handle, len: usize) -> ArrayArg<R> {
    // SAFETY: nothing runs.
    unsafe { ArrayArg::from_raw_parts(handle.clone(), len) }
}

/// The error of the next flush, which must name the kernel.
fn failure(client: &ComputeClient<R>, kernel: &str) -> String {
    let message = client.flush().expect_err("the launch fails").to_string();
    assert!(message.contains(&format!("kernel launches::{kernel}")), "{message}");
    message
}

#[cube(launch_unchecked)]
fn double<F: Float>(x: &Array<F>, y: &mut Array<F>) {
    if ABSOLUTE_POS < y.len() {
        y[ABSOLUTE_POS] = x[ABSOLUTE_POS] + x[ABSOLUTE_POS];
    }
}

#[test]
fn a_good_kernel_compiles_for_both_gpus() {
    let Some(client) = client() else { return };
    let (x, y) = (client.create_from_slice(&[0; 64]), client.empty(64));
    // SAFETY: nothing runs.
    unsafe {
        double::launch_unchecked::<f32, R>(
            &client,
            CubeCount::new_single(),
            CubeDim::new_1d(16),
            array(&x, 16),
            array(&y, 16),
        );
    }
    assert_eq!(client.read_one(y).expect("nothing failed").to_vec(), vec![0xff; 64]);
    let verdicts = verdicts_on("double");
    for arch in ["sm_80", "sm_90a"] {
        let verdict = verdicts.iter().find(|v| v.arch == arch).expect("a verdict for each GPU");
        assert_eq!((verdict.types.as_str(), verdict.units, &verdict.failure), ("f32", 16, &None));
        assert!((4..64).contains(&verdict.resources.registers), "{verdict:?}");
    }
}

/// Keeps `COUNT` values of each unit live over a barrier, with the registers that 1024 units in a cube have.
#[cube(launch_unchecked)]
fn hoards(x: &Array<f32>, y: &mut Array<f32>, #[comptime] count: usize) {
    let mut kept = Array::<f32>::new(count);
    #[unroll]
    for i in 0..count {
        kept[i] = x[i * 1024 + UNIT_POS_X as usize];
    }
    sync_cube();
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..count {
        sum = sum * kept[i] + kept[count - 1 - i];
    }
    y[UNIT_POS_X as usize] = sum;
}

#[test]
fn a_kernel_that_spills_fails_on_every_launch() {
    let Some(client) = client() else { return };
    let buffer = client.empty(1024);
    for _ in 0..2 {
        // SAFETY: nothing runs.
        unsafe {
            hoards::launch_unchecked::<R>(
                &client,
                CubeCount::new_single(),
                CubeDim::new_1d(1024),
                array(&buffer, 256),
                array(&buffer, 256),
                200,
            );
        }
        let message = failure(&client, "hoards");
        assert!(message.contains("sm_80: spills") && message.contains("registers"), "{message}");
    }
    client.flush().expect("a failure is reported once");
    assert!(verdicts_on("hoards").iter().all(|v| v.failure.is_some() && v.resources.spill_store_bytes > 0));
}

#[cube(launch_unchecked)]
fn explodes(y: &mut Array<f32>, #[comptime] fuse: usize) {
    comptime!(assert!(fuse > 3, "the fuse is {fuse}, at least 4 is needed"));
    y[UNIT_POS_X as usize] = 1.0;
}

#[test]
fn an_expansion_that_panics_is_an_error() {
    let Some(client) = client() else { return };
    let y = client.empty(128);
    // SAFETY: nothing runs.
    unsafe {
        explodes::launch_unchecked::<R>(&client, CubeCount::new_single(), CubeDim::new_1d(32), array(&y, 32), 1);
    }
    let message = failure(&client, "explodes");
    assert!(message.contains("the fuse is 1"), "{message}");
}

#[test]
fn a_read_reports_a_failed_launch() {
    let Some(client) = client() else { return };
    let y = client.empty(128);
    // SAFETY: nothing runs.
    unsafe {
        explodes::launch_unchecked::<R>(&client, CubeCount::new_single(), CubeDim::new_1d(32), array(&y, 32), 2);
    }
    let error = client.read_one(y.clone()).expect_err("the launch failed").to_string();
    assert!(error.contains("the fuse is 2"), "{error}");
    assert_eq!(client.read_one(y).expect("reported once").len(), 128);
}

#[cube(launch_unchecked)]
fn stages(y: &mut Array<f32>, #[comptime] len: usize) {
    let mut stage = SharedMemory::<f32>::new(len);
    stage[UNIT_POS_X as usize] = 1.0;
    sync_cube();
    y[UNIT_POS_X as usize] = stage[(UNIT_POS_X ^ 1) as usize];
}

#[test]
fn shared_memory_is_counted_and_limited() {
    let Some(client) = client() else { return };
    let y = client.empty(128);
    let launch = |kib: usize| {
        // SAFETY: nothing runs.
        unsafe {
            stages::launch_unchecked::<R>(
                &client,
                CubeCount::new_single(),
                CubeDim::new_1d(32),
                array(&y, 32),
                kib << 8,
            );
        }
    };
    launch(100);
    client.flush().expect("100 KiB fit");
    assert!(verdicts_on("stages").iter().any(|v| v.resources.shared_bytes == 100 << 10));
    launch(200);
    let message = failure(&client, "stages");
    assert!(message.contains("204800") && message.contains("166912"), "{message}");
}

#[test]
fn grids_that_cuda_refuses_are_refused() {
    let Some(client) = client() else { return };
    let y = client.empty(128);
    let launch = |count, dim| {
        // SAFETY: nothing runs.
        unsafe { stages::launch_unchecked::<R>(&client, count, dim, array(&y, 32), 32) };
    };
    launch(CubeCount::Static(1, 0, 1), CubeDim::new_1d(32));
    assert!(failure(&client, "stages").contains("(1, 0, 1)"));
    launch(CubeCount::Static(1, 65_536, 1), CubeDim::new_1d(32));
    assert!(failure(&client, "stages").contains("65536"));
    launch(CubeCount::new_single(), CubeDim::new_1d(2048));
    assert!(failure(&client, "stages").contains("2048"));
}

/// One 16 x 16 tile computed by one warp.
#[cube(launch_unchecked)]
fn multiplies(a: &Array<half::f16>, b: &Array<half::f16>, c: &mut Array<f32>) {
    let (rows, accumulator) = (cmma::MatrixLayout::RowMajor, cmma::MatrixIdent::Accumulator);
    let undefined = cmma::MatrixLayout::Undefined;
    let sum = cmma::Matrix::<f32>::from_value(accumulator, 16usize, 16usize, 16usize, undefined, 0.0);
    let left =
        cmma::Matrix::<half::f16>::from_slice(cmma::MatrixIdent::A, 16usize, 16usize, 16usize, rows, &a.to_slice(), 16);
    let right =
        cmma::Matrix::<half::f16>::from_slice(cmma::MatrixIdent::B, 16usize, 16usize, 16usize, rows, &b.to_slice(), 16);
    cmma::execute::<half::f16, half::f16, f32, f32>(&left, &right, &sum, &sum);
    cmma::store(&mut c.to_slice_mut(), &sum, 16, rows);
}

#[test]
fn tensor_cores_are_found_in_the_machine_code() {
    let Some(client) = client() else { return };
    let (a, c) = (client.empty(512), client.empty(1024));
    // SAFETY: nothing runs.
    unsafe {
        multiplies::launch_unchecked::<R>(
            &client,
            CubeCount::new_single(),
            CubeDim::new_1d(32),
            array(&a, 256),
            array(&a, 256),
            array(&c, 256),
        );
    }
    client.flush().expect("it compiles");
    // The number is not checked, because other builds of this test may have records in the same target folder.
    let verdicts = verdicts_on("multiplies");
    for arch in ["sm_80", "sm_90a"] {
        assert!(verdicts.iter().any(|v| v.arch == arch), "no verdict for {arch}: {verdicts:?}");
    }
    assert!(verdicts.iter().all(|v| v.resources.code.matrix >= 2), "{verdicts:?}");
}
