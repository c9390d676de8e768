//! Compiles one source for one GPU, or reads the outcome of an earlier compilation, and parses the report of ptxas.

use std::fs;
use std::hash::Hash;

use cubecl_common::hash::StableHasher;
use serde::{Deserialize, Serialize};

use crate::machine_code;
use crate::nvrtc::{Compiled, Failure};
use crate::properties::Architecture;
use crate::record::{self, Resources};
use crate::toolkit::{self, Toolkit};

/// Must be changed when cached outcomes of older versions of this file may no longer be used.
const FORMAT: u32 = 3;

/// The outcome of a compilation. It is the same every time and therefore cached.
#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Compiled(Resources),
    Refused(String),
}

/// Compiles `source` for `arch`. Fails when it does not compile, spills, or lost its tensor-core instructions.
/// `shared_bytes` is the shared memory of the launch, which ptxas does not know.
pub(crate) fn check(
    toolkit: &Toolkit,
    source: &str,
    arch: Architecture,
    shared_bytes: u32,
) -> (Resources, Result<(), String>) {
    let mut resources = match outcome(toolkit, source, arch) {
        Ok(Outcome::Compiled(resources)) => resources,
        Ok(Outcome::Refused(log)) => return (Resources::default(), Err(format!("does not compile: {log}"))),
        Err(reason) => return (Resources::default(), Err(reason)),
    };
    resources.shared_bytes += shared_bytes;
    let judged = judge(&resources, asks_for_tensor_cores(source));
    (resources, judged)
}

fn judge(resources: &Resources, tensor_cores: bool) -> Result<(), String> {
    let Resources { registers, spill_store_bytes, spill_load_bytes, .. } = *resources;
    if spill_store_bytes > 0 || spill_load_bytes > 0 {
        return Err(format!(
            "spills {spill_store_bytes} bytes and loads {spill_load_bytes} back, with {registers} registers"
        ));
    }
    if tensor_cores && resources.code.matrix == 0 {
        return Err("asks for tensor cores, but its machine code has no instruction for them".into());
    }
    Ok(())
}

fn outcome(toolkit: &Toolkit, source: &str, arch: Architecture) -> Result<Outcome, String> {
    let hash = hash(source, arch, &toolkit.nvrtc.version);
    let file = record::cache_file(hash, "json");
    if let Some(outcome) = record::read(&file) {
        return Ok(outcome);
    }
    let outcome = match compile(toolkit, source, arch) {
        Ok(compiled) => {
            let mut resources = parse_log(&compiled.log)
                .ok_or_else(|| format!("ptxas's report is not understood: {}", compiled.log.trim()))?;
            resources.code = machine_code::count(&compiled.cubin, arch).ok_or("the machine code is not understood")?;
            Outcome::Compiled(resources)
        }
        Err(Failure::Source(log)) => Outcome::Refused(errors_first(&log)),
        Err(Failure::Compiler(reason)) => return Err(format!("NVRTC failed: {reason}")),
    };
    record::write(&file, &outcome).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(outcome)
}

/// The options of cubecl-cuda, and the report of ptxas.
fn options(toolkit: &Toolkit, arch: Architecture) -> Vec<String> {
    vec![
        format!("--gpu-architecture={}", arch.name),
        format!("--include-path={}", toolkit.include.display()),
        format!("--include-path={}", toolkit.include.join("cccl").display()),
        "-lineinfo".into(),
        "--ptxas-options=-v".into(),
    ]
}

fn compile(toolkit: &Toolkit, source: &str, arch: Architecture) -> Result<Compiled, Failure> {
    let mut options = options(toolkit, arch);
    match with_precompiled_headers(source) {
        Some(source) if toolkit.nvrtc.precompiles_headers => {
            let folder = toolkit::verdict_folder();
            fs::create_dir_all(&folder).map_err(|e| Failure::Compiler(format!("{}: {e}", folder.display())))?;
            options.extend(["--pch".into(), format!("--pch-dir={}", folder.display())]);
            toolkit.nvrtc.compile(&source, &options)
        }
        _ => toolkit.nvrtc.compile(source, &options),
    }
}

/// The headers of barriers. They cost 1.3 s of the 2 s that a kernel with asynchronous copies takes to compile.
const BARRIER_HEADERS: [&str; 3] = ["cooperative_groups.h", "cooperative_groups/memcpy_async.h", "cuda/barrier"];

/// A source whose headers of barriers NVRTC parses once in each process and for each GPU; None where it has none. They come first, so
/// that one precompiled header serves all kernels; the machine code is the same. (A precompiled header holds addresses, and no other
/// process can use it.)
fn with_precompiled_headers(source: &str) -> Option<String> {
    let includes = BARRIER_HEADERS.map(|header| format!("#include <{header}>\n"));
    let has_all = includes.iter().all(|include| source.contains(include));
    has_all.then(|| format!("{}#pragma nv_hdrstop\n#line 1\n{source}", includes.concat()))
}

/// A source in a canonical order. CubeCL writes type definitions before the kernel, and declarations of variables and shared memory in
/// it, in an order that differs between processes; arrays of equal size in shared memory swap their positions.
fn hash(source: &str, arch: Architecture, version: &str) -> u128 {
    let (definitions, body) = source.split_at(source.find("extern \"C\" __global__").unwrap_or(0));
    let (declarations, body): (Vec<_>, Vec<_>) = body.lines().partition(|line| is_declaration(line));
    let declarations = declarations.into_iter().filter_map(|line| line.split("dynamic_shared_mem[").next());
    let mut unordered: Vec<_> = definitions.lines().chain(declarations).collect();
    unordered.sort_unstable();
    let mut hasher = StableHasher::new();
    (FORMAT, version, arch.name, unordered, body).hash(&mut hasher);
    hasher.finalize()
}

/// `float l_mut_7;`, or a name for a part of shared memory, with its comment.
fn is_declaration(line: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    matches!(words[..], [_, name] if ["l_mut_", "l_arr_"].iter().any(|p| name.starts_with(p)) && name.ends_with(';'))
        || line.contains("&dynamic_shared_mem[")
        || line.contains("(dynamic_shared_mem[")
        || words.starts_with(&["//", "Shared"])
}

fn asks_for_tensor_cores(source: &str) -> bool {
    ["wmma::", "mma.sync"].iter().any(|word| source.contains(word))
}

/// NVRTC's log with errors before warnings.
fn errors_first(log: &str) -> String {
    let (errors, rest): (Vec<_>, Vec<_>) = log.lines().partition(|line| line.contains("error"));
    errors.into_iter().chain(rest).collect::<Vec<_>>().join("\n")
}

/// Parses the report of ptxas: `0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads` and `Used 62 registers, ...,
/// 4096 bytes smem`. Functions that were not inlined have lines of their own; the largest number counts.
fn parse_log(log: &str) -> Option<Resources> {
    let before = |what: &str| {
        let parts = log.lines().flat_map(|line| line.split([',', ':']));
        let numbers = parts.filter_map(|part| part.trim_end().strip_suffix(what)?.split_whitespace().last());
        numbers.filter_map(|number| number.parse::<u32>().ok()).max()
    };
    Some(Resources {
        registers: before("registers")?,
        spill_store_bytes: before("bytes spill stores")?,
        spill_load_bytes: before("bytes spill loads")?,
        stack_bytes: before("bytes stack frame")?,
        shared_bytes: before("bytes smem").unwrap_or(0),
        code: machine_code::Counts::default(),
    })
}

#[cfg(test)]
mod tests;
