//! A CubeCL runtime for tests that has CUDA's compiler and no GPU. Every kernel that is launched on it is translated to CUDA C++ and
//! compiled by NVRTC for `sm_80` and `sm_90a`. Nothing runs, and every read returns bytes of 0xff (NaN).
//!
//! A launch fails when the expansion of the kernel panics, when its grid or shared memory exceeds the GPU, when NVRTC does not compile
//! the source, when registers spill, or when a kernel that requests tensor cores has no matrix instructions. The next `flush`, `sync`
//! or read returns the failure, which names the kernel.
//!
//! The toolkit (NVRTC and headers, and nvdisasm for a test; no driver) comes from `scripts/toolchain`, or from `NEPHRON_CUDA_TOOLKIT` or
//! `CUDA_PATH`, a folder with `lib` and `include`. Outcomes are kept in `target/cuda-compile`, so that a kernel is compiled once and not
//! once in every process; `scripts/kernel-table` prints those of the last test run.

mod check;
mod machine_code;
mod name;
mod nvrtc;
mod properties;
mod record;
mod runtime;
mod server;
mod toolkit;

pub use machine_code::Counts;
pub use record::{Verdict, verdicts};
pub use runtime::{CudaCompileDevice, CudaCompileRuntime};

/// Why kernels cannot be compiled on this machine: what is missing, and where it was searched. None where they can.
pub fn problem() -> Option<String> {
    toolkit::get().as_ref().err().cloned()
}
