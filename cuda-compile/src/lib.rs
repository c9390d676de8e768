//! A CubeCL runtime for tests: it has CUDA's compiler and no GPU. Every kernel that is launched on it becomes CUDA C++,
//! and NVRTC compiles that for `sm_80` and `sm_90a`; nothing runs, and every read returns 0xff bytes (NaN).
//!
//! A launch fails when the kernel's expansion panics, when its grid or shared memory does not fit the GPU, when NVRTC
//! refuses the source, when registers spill, or when a kernel that asks for tensor cores got none. The failure names the
//! kernel and is what the next `flush`, `sync` or read returns.
//!
//! The toolkit (NVRTC, headers, nvdisasm; no driver) comes from `scripts/toolchain`, or from `NEPHRON_CUDA_TOOLKIT` or
//! `CUDA_PATH`, a folder with `lib` and `include`. Verdicts are kept in `target/cuda-compile`, so a kernel is compiled
//! once and not once a process; `scripts/kernel-table` prints those of the last test run.

mod check;
mod listing;
mod name;
mod nvrtc;
mod properties;
mod record;
mod runtime;
mod server;
mod toolkit;

pub use listing::Counts;
pub use record::{Verdict, verdicts};
pub use runtime::{CudaCompileDevice, CudaCompileRuntime};

/// Why kernels cannot be compiled here: what is missing, and where it was looked for.
pub fn problem() -> Option<String> {
    toolkit::get().as_ref().err().cloned()
}
