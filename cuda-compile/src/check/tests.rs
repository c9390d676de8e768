use super::*;
use crate::machine_code::Counts;

const LOG: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'conv_f_f16' for 'sm_80'
ptxas info    : Function properties for conv_f_f16
ptxas         .     128 bytes stack frame, 24 bytes spill stores, 36 bytes spill loads
ptxas info    : Used 62 registers, used 1 barriers, 128 bytes cumulative stack size, 4096 bytes smem, 392 bytes cmem[0]
ptxas info    : Compile time = 7.044 ms";

/// The toolkit; None where there is none, which is a failure if NEPHRON_REQUIRE names it.
fn toolkit() -> Option<&'static Toolkit> {
    match crate::toolkit::get() {
        Ok(toolkit) => Some(toolkit),
        Err(reason) => {
            let required = std::env::var("NEPHRON_REQUIRE").is_ok_and(|r| r.contains("cuda-compile"));
            assert!(!required, "cuda-compile is required: {reason}");
            eprintln!("SKIPPED on cuda-compile: {reason}");
            None
        }
    }
}

#[test]
fn every_number_of_the_report_is_read() {
    let expected = Resources {
        registers: 62,
        spill_store_bytes: 24,
        spill_load_bytes: 36,
        stack_bytes: 128,
        shared_bytes: 4096,
        code: Counts::default(),
    };
    assert_eq!(parse_log(LOG), Some(expected));
}

#[test]
fn the_largest_function_counts() {
    let other = LOG.replace("62", "70").replace("24 bytes", "0 bytes").replace("conv", "helper");
    let resources = parse_log(&format!("{LOG}\n{other}")).expect("two reports");
    assert_eq!((resources.registers, resources.spill_store_bytes), (70, 24));
}

#[test]
fn a_report_without_numbers_is_not_zeros() {
    assert_eq!(parse_log(""), None);
    assert_eq!(parse_log("ptxas info    : 0 bytes gmem"), None);
}

#[test]
fn spills_and_lost_tensor_cores_are_failures() {
    let good = Resources { registers: 10, ..Resources::default() };
    assert_eq!(judge(&good, false), Ok(()));
    let stack = Resources { stack_bytes: 64, ..good };
    assert_eq!(judge(&stack, false), Ok(()), "local arrays are reported, not refused");
    let spilled = judge(&Resources { spill_load_bytes: 8, ..good }, false).expect_err("a spill");
    assert!(spilled.contains("spills 0 bytes") && spilled.contains("loads 8"), "{spilled}");
    assert!(judge(&good, true).expect_err("no HMMA").contains("tensor cores"));
    assert_eq!(judge(&Resources { code: Counts { matrix: 2, ..Counts::default() }, ..good }, true), Ok(()));
}

#[test]
fn warps_are_limited_by_whatever_runs_out_first() {
    let resources = |registers, shared_bytes| Resources { registers, shared_bytes, ..Resources::default() };
    assert_eq!(resources(32, 0).warps(256), 64);
    assert_eq!(resources(128, 0).warps(128), 16);
    assert_eq!(resources(90, 0).warps(128), 20, "registers are dealt out in units of 8 a thread");
    assert_eq!(resources(32, 40 << 10).warps(128), 16);
    assert_eq!(resources(32, 0).warps(32), 32, "32 cubes at most");
}

#[test]
fn the_order_of_type_definitions_does_not_matter() {
    let arch = crate::properties::ARCHITECTURES[0];
    let kernel = "extern \"C\" __global__ void k() { a; b; }";
    let one = format!("struct a {{ int x; }};\nstruct b {{ int y; }};\n{kernel}");
    let two = format!("struct b {{ int y; }};\nstruct a {{ int x; }};\n{kernel}");
    assert_eq!(hash(&one, arch, "13.2"), hash(&two, arch, "13.2"));
    assert_ne!(hash(&one, arch, "13.2"), hash(&one.replace("a; b;", "b; a;"), arch, "13.2"));
    assert_ne!(hash(&one, arch, "13.2"), hash(&one, arch, "13.3"));
    assert_ne!(hash(&one, arch, "13.2"), hash(&one, crate::properties::ARCHITECTURES[1], "13.2"));
}

#[test]
fn the_order_of_declarations_does_not_matter() {
    let arch = crate::properties::ARCHITECTURES[0];
    let shared = |name: &str, at: usize| {
        let pointer = format!("float *{name} = reinterpret_cast<float*>(&dynamic_shared_mem[{at}]);");
        format!("// Shared array size: 8, 32 bytes\n{pointer}\n")
    };
    let kernel = |declarations: &str, rest: &str| {
        format!("extern \"C\" __global__ void k() {{\n{declarations}{rest}\nx = l_mut_1;\n}}")
    };
    let one = kernel(&(shared("a", 0) + &shared("b", 32)), "float l_mut_1;\nfloat l_mut_2;\nl_mut_1 = y;");
    let two = kernel(&(shared("b", 0) + &shared("a", 32)), "float l_mut_2;\nfloat l_mut_1;\nl_mut_1 = y;");
    assert_eq!(hash(&one, arch, "13.2"), hash(&two, arch, "13.2"));
    for other in [one.replace("l_mut_1 = y", "l_mut_2 = y"), one.replace("float l_mut_2", "int l_mut_2")] {
        assert_ne!(hash(&one, arch, "13.2"), hash(&other, arch, "13.2"));
    }
    let third =
        kernel(&(shared("a", 0) + &shared("b", 32) + &shared("c", 64)), "float l_mut_1;\nfloat l_mut_2;\nl_mut_1 = y;");
    assert_ne!(hash(&one, arch, "13.2"), hash(&third, arch, "13.2"));
}

#[test]
fn errors_come_before_warnings() {
    let log = "k(3): warning #177-D: variable is unused\n\nk(4): error: identifier \"x\" is undefined";
    assert!(errors_first(log).starts_with("k(4): error"));
}

#[test]
fn a_source_that_does_not_compile_is_refused_with_its_error() {
    let Some(toolkit) = toolkit() else { return };
    let source = "extern \"C\" __global__ void k(float* y) { y[0] = no_such_thing; }";
    for arch in crate::properties::ARCHITECTURES {
        // The second outcome comes from the cache.
        for _ in 0..2 {
            let (resources, judged) = check(toolkit, source, arch, 0);
            assert_eq!(resources, Resources::default());
            let reason = judged.expect_err("it does not compile");
            assert!(reason.contains("no_such_thing"), "{reason}");
        }
    }
}

/// A kernel with the headers that CubeCL includes for barriers.
const BARRIER: &str = "#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cuda/barrier>
extern \"C\" __global__ void k(const __half* x, float* y) {
    __shared__ cuda::barrier<cuda::thread_scope_block> barrier;
    __shared__ float stage[32];
    if (threadIdx.x == 0) init(&barrier, 32);
    __syncthreads();
    stage[threadIdx.x] = __half2float(x[threadIdx.x]);
    barrier.arrive_and_wait();
    y[threadIdx.x] = stage[31 - threadIdx.x];
}";

#[test]
fn precompiled_headers_are_used_and_leave_the_machine_code_as_it_is() {
    let Some(toolkit) = toolkit() else { return };
    assert_eq!(with_precompiled_headers(&BARRIER.replace("#include <cuda/barrier>\n", "")), None);
    let source = with_precompiled_headers(BARRIER).expect("it has barriers");
    for arch in crate::properties::ARCHITECTURES {
        let compile = |source: &str, more: &[String]| {
            let options = [&options(toolkit, arch)[..], more].concat();
            let compiled =
                toolkit.nvrtc.compile(source, &options).unwrap_or_else(|_| panic!("does not compile: {source}"));
            (machine_code::sections(&compiled.cubin).expect("a cubin"), parse_log(&compiled.log), compiled.log)
        };
        let folder = format!("--pch-dir={}", crate::toolkit::verdict_folder().display());
        let precompile = ["--pch".into(), folder, "--pch-messages=true".into()];
        let plain = compile(BARRIER, &[]);
        let (first, second) = (compile(&source, &precompile), compile(&source, &precompile));
        assert_eq!((&first.0, first.1), (&plain.0, plain.1));
        assert_eq!((&second.0, second.1), (&plain.0, plain.1));
        if toolkit.nvrtc.precompiles_headers {
            assert!(second.2.contains("using precompiled header"), "{}", second.2);
        }
    }
}
