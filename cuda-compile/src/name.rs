//! The name of a kernel. CubeCL's entry points such as `conv_f_f16` are the same for every choice of tiles.

use std::fmt;
use std::hash::Hash;

use cubecl_common::hash::StableHasher;
use cubecl_core::CubeTask;
use cubecl_runtime::id::KernelId;

use crate::runtime::CudaCompiler;

/// A kernel with the choices that distinguish it from others of the same function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelName {
    /// The path of the function, such as `nephron_kernels::norm::moments::partial_moments`.
    pub(crate) function: String,
    /// The generic arguments, such as `f16`.
    pub(crate) types: String,
    /// The compile-time arguments, such as `lanes: 8, rows: 32`.
    pub(crate) options: String,
    /// A hash of all of these and the size of the cube.
    hash: u32,
}

impl KernelName {
    pub(crate) fn new(kernel: &dyn CubeTask<CudaCompiler>, id: &KernelId) -> Self {
        // CubeCL's `stable_hash` includes a `TypeId`, which differs between builds.
        let format = id.stable_format();
        let mut hasher = StableHasher::new();
        format.hash(&mut hasher);
        Self::parse(kernel.name(), &format, hasher.finalize() as u32)
    }

    fn parse(type_name: &str, id: &str, hash: u32) -> Self {
        let (path, arguments) = type_name.split_once('<').unwrap_or((type_name, ""));
        // CubeCL makes a module of the function, with a type for the kernel in it.
        let function = path.rsplit_once("::").map_or(path, |(module, _)| module).to_owned();
        let types = arguments.trim_end_matches('>').split(", ").map(|path| path.rsplit("::").next().unwrap_or(path));
        let types = types.filter(|name| *name != "CudaCompileRuntime").collect::<Vec<_>>().join(" ");
        Self { function, types, options: options(id), hash }
    }

    /// A unique name: the function and the hash.
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
    let info = id.split_once("-Some(").and_then(|(_, info)| info.strip_suffix(')'));
    let fields = info.and_then(chosen).unwrap_or_default();
    fields.strip_prefix("{ ").and_then(|f| f.strip_suffix(" }")).unwrap_or(&fields).to_owned()
}

/// A value as Rust's `Debug` writes it, without the names of structs and without values that are not choices.
fn chosen(value: &str) -> Option<String> {
    let (name, fields) = match value.split_once(" { ") {
        Some((name, rest)) if name.chars().all(char::is_alphanumeric) => (name, rest.strip_suffix(" }")?),
        _ => return (value != "()").then(|| value.to_owned()),
    };
    if name.ends_with("CompilationArg") {
        return None;
    }
    let field = |field: &str| {
        let (name, value) = field.trim().split_once(": ")?;
        Some(format!("{name}: {}", chosen(value)?))
    };
    let fields: Vec<_> = at_commas(fields).filter_map(field).collect();
    (!fields.is_empty()).then(|| format!("{{ {} }}", fields.join(", ")))
}

/// Splits at the commas that are in no brackets.
fn at_commas(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i32;
    text.split(move |c: char| {
        depth += match c {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    })
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
             x: ArrayCompilationArg {{ inplace: None }}, tile: (4, [8, 8]), bias: Some(3), groups: (), \
             g: Geometry {{ x: Window {{ stride: () }} }}, pad: Pad {{ x: Edge {{ low: 1, high: () }}, y: () }} }})"
        );
        let name = KernelName::parse(type_name, &id, 0x1a2b);
        assert_eq!(name.unique(), "nephron_kernels::norm::moments#00001a2b");
        assert_eq!(name.options, "lanes: 8, tile: (4, [8, 8]), bias: Some(3), pad: { x: { low: 1 } }");
        assert_eq!(name.to_string(), format!("nephron_kernels::norm::moments<f16> ({})", name.options));
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
