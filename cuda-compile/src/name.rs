//! What a kernel is called: CubeCL's entry points are only `conv_f_f16`, the same for every choice of tiles.

use std::fmt;

use cubecl_core::CubeTask;
use cubecl_runtime::id::KernelId;

use crate::runtime::CudaCompiler;

/// A kernel and the choices that make it one of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelName {
    /// `nephron_kernels::norm::moments::partial_moments`
    pub(crate) function: String,
    /// Generic arguments: `f16`
    pub(crate) types: String,
    /// Compile-time arguments: `lanes: 8, rows: 32`
    pub(crate) options: String,
    /// Of all of these and the cube's size.
    hash: u32,
}

impl KernelName {
    pub(crate) fn new(kernel: &dyn CubeTask<CudaCompiler>, id: &KernelId) -> Self {
        Self::parse(kernel.name(), &id.stable_format(), id.stable_hash() as u32)
    }

    fn parse(type_name: &str, id: &str, hash: u32) -> Self {
        let (path, arguments) = type_name.split_once('<').unwrap_or((type_name, ""));
        // The function is a module to CubeCL, with a type for the kernel in it.
        let function = path.rsplit_once("::").map_or(path, |(module, _)| module).to_owned();
        let types = arguments.trim_end_matches('>').split(", ").map(|path| path.rsplit("::").next().unwrap_or(path));
        let types = types.filter(|name| *name != "CudaCompileRuntime").collect::<Vec<_>>().join(" ");
        Self { function, types, options: options(id), hash }
    }

    /// The function and the hash: no other kernel's.
    pub(crate) fn unique(&self) -> String {
        format!("{}#{:08x}", self.function, self.hash)
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        if !self.types.is_empty() {
            write!(f, "<{}>", self.types)?;
        }
        if !self.options.is_empty() {
            write!(f, " ({})", self.options)?;
        }
        Ok(())
    }
}

/// The compile-time arguments in `..-Some(ConvInfo { x: ArrayCompilationArg { .. }, tile: 8, n: () })`, where every
/// other argument is a buffer or `()`.
fn options(id: &str) -> String {
    let fields = id.split_once("-Some(").and_then(|(_, info)| info.split_once("{ "));
    let Some((_, fields)) = fields else { return String::new() };
    let mut depth = 0i32;
    let at_top = |c: char| {
        depth += match c {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    };
    let fields = fields.strip_suffix(" })").unwrap_or(fields).split(at_top).map(str::trim);
    let chosen = fields.filter(|field| !field.ends_with(": ()") && !field.contains("CompilationArg"));
    chosen.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_named_by_its_function_types_and_options() {
        let type_name = "nephron_kernels::norm::moments::Moments<half::binary16::f16, \
                         nephron_cuda_compile::runtime::CudaCompileRuntime>";
        let id = format!(
            "{type_name}-u32-CubeDim {{ x: 256, y: 1, z: 1 }}-Unchecked-Some(MomentsInfo {{ lanes: 8, \
             x: ArrayCompilationArg {{ inplace: None }}, tile: (4, [8, 8]), bias: Some(3), groups: () }})"
        );
        let name = KernelName::parse(type_name, &id, 0x1a2b);
        assert_eq!(name.unique(), "nephron_kernels::norm::moments#00001a2b");
        assert_eq!(
            name.to_string(),
            "nephron_kernels::norm::moments<f16> (lanes: 8, tile: (4, [8, 8]), bias: Some(3))"
        );
    }

    #[test]
    fn a_kernel_without_choices_is_its_function() {
        let type_name = "tests::fill::Fill<nephron_cuda_compile::runtime::CudaCompileRuntime>";
        for info in ["None", "Some(FillInfo { y: ArrayCompilationArg { inplace: None } })"] {
            let id = format!("{type_name}-u32-CubeDim {{ x: 1, y: 1, z: 1 }}-Checked-{info}");
            assert_eq!(KernelName::parse(type_name, &id, 0).to_string(), "tests::fill");
        }
    }
}
