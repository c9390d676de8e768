//! The record of a compiled kernel, and the files that keep records between processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine_code::Counts;
use crate::toolkit;

/// The resources of a kernel as ptxas reports them. All are for one unit (CUDA thread), except shared memory, which is for one cube.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Number of 32-bit registers.
    pub registers: u32,
    /// Number of bytes that are spilled to local memory.
    pub spill_store_bytes: u32,
    /// Number of spilled bytes that are read back.
    pub spill_load_bytes: u32,
    /// Number of bytes of local memory: spills, and arrays with indices that the compiler does not know.
    pub stack_bytes: u32,
    /// Number of bytes of shared memory, including those of the launch.
    pub shared_bytes: u32,
    /// The counts of the machine code.
    pub code: Counts,
}

impl Resources {
    /// The occupancy: the number of warps, of 64, that are resident on a multiprocessor of an A100 or H100 with cubes of `units` units.
    /// It is limited by the registers (65536, allocated in steps of 256 for each warp), the shared memory (`SHARED` bytes, of which
    /// each cube needs 1 KiB more than its own) and the number of cubes (32).
    pub fn warps(&self, units: u32) -> u32 {
        /// The shared memory of an A100, the smaller of the two.
        const SHARED: u32 = 164 << 10;
        let warps = units.div_ceil(32).max(1);
        let registers = (self.registers.max(1) * 32).next_multiple_of(256);
        let by_registers = 65_536 / registers / warps;
        let by_shared = SHARED / (self.shared_bytes + 1024);
        by_registers.min(by_shared).min(64 / warps).min(32) * warps
    }
}

/// A kernel compiled for one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The path of the kernel function, and a hash of its types, options and cube size.
    pub kernel: String,
    /// The generic arguments.
    pub types: String,
    /// The compile-time arguments.
    pub options: String,
    /// The architecture, such as `sm_80`.
    pub arch: String,
    /// Number of units (CUDA threads) in a cube.
    pub units: u32,
    /// The occupancy in warps, of 64.
    pub warps: u32,
    /// The length of the CUDA C++ source in bytes.
    pub source_bytes: usize,
    /// The resources; zeros where the kernel does not compile.
    pub resources: Resources,
    /// Why the kernel is not acceptable; None where it is.
    pub failure: Option<String>,
}

/// The records of all kernels that were launched since `scripts/test` last emptied the list, sorted by kernel.
pub fn verdicts() -> Vec<Verdict> {
    let files = fs::read_dir(toolkit::used_folder()).into_iter().flatten().flatten().map(|file| file.path());
    // Another process may be writing a record; it is read only after it was renamed.
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut all: Vec<_> = files.filter_map(|path| read::<Vec<Verdict>>(&path)).flatten().collect();
    all.sort_by(|a, b| (&a.kernel, &a.arch).cmp(&(&b.kernel, &b.arch)));
    all
}

/// Writes the record of a launch of `kernel`, for [`verdicts`].
pub(crate) fn keep(kernel: &str, verdicts: &[Verdict]) -> io::Result<()> {
    let name: String = kernel.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    write(&toolkit::used_folder().join(format!("{name}.json")), &verdicts)
}

/// The file with the outcome of compiling the code with this hash.
pub(crate) fn cache_file(hash: u128, extension: &str) -> PathBuf {
    toolkit::verdict_folder().join(format!("{hash:032x}.{extension}"))
}

/// The content of a file; None where it is missing or was written by another version.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a file atomically, so that other processes see either the old file or the new one.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}
