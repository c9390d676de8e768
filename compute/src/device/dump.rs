//! The kernel dump: the source of every kernel that is compiled, and its resources on CUDA.
//!
//! CubeCL logs all kernels that it compiles to one file. Here that log becomes one file for each kernel and a table.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files::write_atomic;

/// The columns of kernels.csv.
const HEAD: [&str; 7] =
    ["file", "kernel", "registers", "local_bytes", "shared_bytes", "cubes_a_multiprocessor", "note"];

const START: &str = "[START_KERNEL_COMPILATION]";
const END: &str = "[END_KERNEL_COMPILATION]";
/// CubeCL writes its log on a thread of its own: largest number of times that the log is read until it is complete.
const MAX_READS: u32 = 100;
/// The time between two reads of the log.
const PAUSE: Duration = Duration::from_millis(50);

/// The resources that a kernel needs on the device it was compiled for.
struct Usage {
    registers: u32,
    local_bytes: u32,
    /// Shared memory, and the number of cubes (thread blocks) that are resident on a multiprocessor at once. None where shared memory is
    /// sized at the launch, of which CubeCL's log says nothing.
    shared: Option<[u32; 2]>,
}

/// One kernel of the log.
struct Kernel<'a> {
    name: String,
    /// The language as CubeCL names it: `cpp`, `wgsl` or `spirv`.
    language: &'a str,
    source: &'a str,
}

/// Prepares `folder` and returns the path of the log that CubeCL is to write.
///
/// # Errors
/// A folder that cannot be made.
pub(super) fn begin(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, "the folder cannot be created", e))?;
    let log = log_in(folder);
    if log.exists() {
        fs::remove_file(&log).map_err(|e| Error::io(&log, "cannot be removed", e))?;
    }
    Ok(log)
}

fn log_in(folder: &Path) -> PathBuf {
    folder.join("cubecl.log")
}

/// Writes a file for each kernel that was compiled since [`begin`] (`.cu`, `.wgsl`, `.spvasm`) and `kernels.csv`, which on CUDA
/// contains their registers, local and shared memory and occupancy on the GPU of this index. Returns the number of kernels.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn finish(folder: &Path, gpu: usize) -> Result<usize> {
    let text = settled(&log_in(folder));
    let kernels: Vec<Kernel<'_>> = text.split(START).skip(1).filter_map(parse).collect();
    let path = folder.join("kernels.csv");
    let failed = |e: csv::Error| Error::io(&path, "cannot be written", e);
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(HEAD).map_err(failed)?;
    for (i, kernel) in kernels.iter().enumerate() {
        let extension = match kernel.language {
            "cpp" => "cu",
            "spirv" => "spvasm",
            other => other,
        };
        let file = format!("{i:03}_{}.{extension}", kernel.name);
        let source = folder.join(&file);
        write_atomic(&source, |out| out.write_all(kernel.source.as_bytes()))?;
        let usage = if kernel.language == "cpp" { usage(kernel.source, gpu) } else { Err("not a CUDA kernel".into()) };
        let (numbers, note) = match usage {
            Ok(Usage { registers, local_bytes, shared: Some([shared, cubes]) }) => {
                ([registers, local_bytes, shared, cubes].map(|n| n.to_string()), String::new())
            }
            Ok(Usage { registers, local_bytes, shared: None }) => (
                [registers.to_string(), local_bytes.to_string(), String::new(), String::new()],
                "its shared memory is sized at the launch, which CubeCL's log does not tell".into(),
            ),
            Err(reason) => (Default::default(), reason),
        };
        let cells = [file, kernel.name.clone()].into_iter().chain(numbers).chain([note]);
        table.write_record(cells).map_err(failed)?;
    }
    let table = table.into_inner().map_err(|e| Error::io(&path, "cannot be written", e.into_error()))?;
    write_atomic(&path, |out| out.write_all(&table))?;
    let _ = fs::remove_file(log_in(folder));
    Ok(kernels.len())
}

/// Reads the log once it has stopped growing and its last kernel is complete.
fn settled(log: &Path) -> String {
    let (mut text, mut quiet) = (String::new(), 0);
    for _ in 0..MAX_READS {
        let now = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        quiet = if now == text { quiet + 1 } else { 0 };
        text = now;
        if quiet >= 4 && text.matches(START).count() == text.matches(END).count() {
            break;
        }
        sleep(PAUSE);
    }
    text
}

fn parse(entry: &str) -> Option<Kernel<'_>> {
    let (entry, _) = entry.split_once(END)?;
    let (head, rest) = entry.split_once("\nsource:\n```")?;
    let (language, source) = rest.split_once('\n')?;
    let source = source.trim_end().strip_suffix("```")?.trim_end();
    // The name is `nephron_kernels::conv3d::direct::conv3d_direct::Conv3dDirect<f32, ..>`, on one line or on several.
    let path = head.split_once("name: ")?.1.split(['<', '\n']).next()?.trim();
    let name: String = path.rsplit("::").next()?.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    Some(Kernel { name, language, source })
}

/// Compiles a kernel again, as CubeCL does, and reads its resources from the driver.
#[cfg(feature = "cuda")]
fn usage(source: &str, gpu: usize) -> Result<Usage, String> {
    super::faults::catch(|| cuda_usage(source, gpu)).and_then(|usage| usage)
}

#[cfg(not(feature = "cuda"))]
fn usage(_: &str, _: usize) -> Result<Usage, String> {
    Err("this build has no CUDA backend".into())
}

#[cfg(feature = "cuda")]
fn cuda_usage(source: &str, gpu: usize) -> Result<Usage, String> {
    use cudarc::driver::{CudaContext, sys::CUfunction_attribute as Attribute};
    use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};

    super::adapters::cuda_problem(gpu).map_or(Ok(()), Err)?;
    let entry = source.split_once("__launch_bounds__(").and_then(|(_, rest)| {
        let (units, rest) = rest.split_once(')')?;
        Some((units.split(',').next()?.trim().parse::<u32>().ok()?, rest.split('(').next()?.trim()))
    });
    let (units, name) = entry.ok_or("no entry point was found in its source")?;
    let context = CudaContext::new(gpu).map_err(|e| format!("{e:?}"))?;
    let (major, minor) = context.compute_capability().map_err(|e| format!("{e:?}"))?;
    let suffix = if major >= 9 { "a" } else { "" };
    let toolkit = cubecl_cuda::install::cuda_path().ok_or("no CUDA toolkit was found")?;
    let toolkit = toolkit.display();
    let options = CompileOptions {
        options: vec![format!("--gpu-architecture=compute_{major}{minor}{suffix}")],
        include_paths: vec![format!("{toolkit}/include"), format!("{toolkit}/include/cccl")],
        ..CompileOptions::default()
    };
    let ptx = compile_ptx_with_opts(source, options).map_err(|e| format!("{e:?}"))?;
    let module = context.load_module(ptx).map_err(|e| format!("{e:?}"))?;
    let function = module.load_function(name).map_err(|e| format!("{e:?}"))?;
    let get = |attribute| function.get_attribute(attribute).map(|v| v as u32).map_err(|e| format!("{e:?}"));
    let cubes =
        || function.occupancy_max_active_blocks_per_multiprocessor(units, 0, None).map_err(|e| format!("{e:?}"));
    // With dynamic shared memory the driver knows neither its size nor how many cubes it leaves room for.
    let is_sized_at_launch = source.contains("dynamic_shared_mem[]");
    let shared = || -> Result<_, String> { Ok([get(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?, cubes()?]) };
    Ok(Usage {
        registers: get(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
        local_bytes: get(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
        shared: if is_sized_at_launch { None } else { Some(shared()?) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_log_is_taken_apart() {
        let entry = "\nname: nephron_kernels::conv3d::direct::Conv3dDirect<\n    f32,\n>\nid: KernelId {}\nsource:\n```cpp\nvoid f() {\n}\n```\n[END_KERNEL_COMPILATION]\n";
        let kernel = parse(entry).expect("a kernel");
        assert_eq!((kernel.name.as_str(), kernel.language, kernel.source), ("Conv3dDirect", "cpp", "void f() {\n}"));
        assert!(parse("\nname: half").is_none());
    }
}
