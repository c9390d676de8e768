//! What is known of a kernel after compilation, and the files that keep it over processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::listing::Counts;
use crate::toolkit;

/// What ptxas says that a kernel takes. Everything is per unit (CUDA thread) but the shared memory, which is per cube.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// 32-bit registers.
    pub registers: u32,
    /// Bytes of registers written to local memory for want of registers.
    pub spill_store_bytes: u32,
    /// Bytes read back.
    pub spill_load_bytes: u32,
    /// Bytes of local memory: spills, and arrays indexed by values not known to the compiler.
    pub stack_bytes: u32,
    /// Bytes of shared memory, those asked for at launch included.
    pub shared_bytes: u32,
    /// What the machine code is made of.
    pub code: Counts,
}

impl Resources {
    /// Warps that a multiprocessor of an A100 or H100 holds of 64, with cubes of `units` units: the least of what its
    /// registers (65536, dealt out in 256 a warp), its shared memory (`SHARED` bytes, 1 KiB a cube on top) and its 32
    /// cubes allow.
    pub fn warps(&self, units: u32) -> u32 {
        /// Of the A100, the smaller of the two.
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
    /// Path of the kernel function, and a hash of its types, options and cube size.
    pub kernel: String,
    /// Its generic arguments.
    pub types: String,
    /// Its compile-time arguments.
    pub options: String,
    /// `sm_80`
    pub arch: String,
    /// Units (CUDA threads) a cube.
    pub units: u32,
    /// Warps of 64 that fit on a multiprocessor.
    pub warps: u32,
    /// Length of the CUDA C++ source in bytes.
    pub source_bytes: usize,
    /// What it takes; zeros where it does not compile.
    pub resources: Resources,
    /// Why the kernel is not acceptable.
    pub failure: Option<String>,
}

/// The verdicts of all kernels launched since `scripts/test` last emptied the list, sorted by kernel.
pub fn verdicts() -> Vec<Verdict> {
    let files = fs::read_dir(toolkit::used_folder()).into_iter().flatten().flatten().map(|file| file.path());
    // Another process may be writing: what is not renamed yet is not there yet.
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut all: Vec<_> = files.filter_map(|path| read::<Vec<Verdict>>(&path)).flatten().collect();
    all.sort_by(|a, b| (&a.kernel, &a.arch).cmp(&(&b.kernel, &b.arch)));
    all
}

/// Keeps what a launch of `kernel` gave, for [`verdicts`].
pub(crate) fn keep(kernel: &str, verdicts: &[Verdict]) -> io::Result<()> {
    let name: String = kernel.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    write(&toolkit::used_folder().join(format!("{name}.json")), &verdicts)
}

/// Where what NVRTC said of the code with this hash is kept.
pub(crate) fn cache_file(hash: u128, extension: &str) -> PathBuf {
    toolkit::verdict_folder().join(format!("{hash:032x}.{extension}"))
}

/// The content of a file, or nothing where it is missing or not understood (written by another version).
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes in one step, so that other processes see the old file or the new one.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}
