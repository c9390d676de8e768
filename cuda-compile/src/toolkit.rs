//! The paths of NVRTC and its headers, and of the files of outcomes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::nvrtc::Nvrtc;

/// The compiler and its files, opened once for each process.
pub(crate) struct Toolkit {
    pub(crate) nvrtc: Nvrtc,
    pub(crate) include: PathBuf,
}

/// The toolkit of this machine, or why it is not available.
pub(crate) fn get() -> &'static Result<Toolkit, String> {
    static TOOLKIT: OnceLock<Result<Toolkit, String>> = OnceLock::new();
    TOOLKIT.get_or_init(open)
}

fn open() -> Result<Toolkit, String> {
    let root = root()?;
    let include = root.join("include");
    // One header of each wheel: runtime, crt and cccl.
    for header in ["cuda_runtime.h", "cuda_fp16.h", "crt/mma.h", "cccl/cuda/barrier"] {
        if !include.join(header).exists() {
            return Err(format!("no {header} in {}", include.display()));
        }
    }
    let library = ["lib", "lib64"].iter().find_map(|lib| library(&root.join(lib)));
    let library = library.ok_or_else(|| format!("no libnvrtc.so in lib or lib64 of {}", root.display()))?;
    Ok(Toolkit { nvrtc: Nvrtc::load(&library)?, include })
}

/// The folder of the toolkit.
pub(crate) fn root() -> Result<PathBuf, String> {
    for name in ["NEPHRON_CUDA_TOOLKIT", "CUDA_PATH"] {
        if let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            return if path.is_dir() { Ok(path) } else { Err(format!("{name} is no folder: {}", path.display())) };
        }
    }
    let own = target().join("cuda-toolkit/nvidia/cu13");
    if own.is_dir() {
        Ok(own)
    } else {
        Err("no CUDA compiler: run scripts/toolchain, or set NEPHRON_CUDA_TOOLKIT to a folder with lib and include"
            .into())
    }
}

/// `libnvrtc.so` or `libnvrtc.so.13`; not `libnvrtc-builtins.so`, which it loads itself.
fn library(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("libnvrtc.so")))
        .collect();
    found.sort();
    found.into_iter().next()
}

/// The folder of outcomes, by the hash of the code that was compiled.
pub(crate) fn verdict_folder() -> PathBuf {
    target().join("cuda-compile")
}

/// The folder with a record for each kernel that was launched since `scripts/test` emptied it.
pub(crate) fn used_folder() -> PathBuf {
    verdict_folder().join("used")
}

/// Cargo's target folder: CARGO_TARGET_DIR, else the folder above this executable that Cargo has marked. (CACHEDIR.TAG is not a
/// reliable mark: it is missing where the folder existed before Cargo used it.)
fn target() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let executable = std::env::current_exe().unwrap_or_default();
    let marked = || executable.ancestors().skip(1).find(|f| f.join(".rustc_info.json").exists()).map(Path::to_path_buf);
    given.or_else(marked).unwrap_or_else(std::env::temp_dir)
}
