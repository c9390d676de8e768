//! The globals that a checkpoint's pickle may name, and the effect of calling each.

use super::{Id, Machine, Parsed, TensorView, Value};
use crate::io::numbers::Number;
use nephron_compute::shown;

/// A global that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::io) enum Callable {
    /// `OrderedDict` and `defaultdict`: a dict.
    Dict,
    /// `torch._utils._rebuild_tensor_v2`: a tensor.
    Tensor,
    /// `torch._utils._rebuild_parameter`, with or without a state: the tensor that is its first argument.
    Parameter,
    /// The type of a storage: `torch.FloatStorage` and its like.
    Storage(Number),
    /// A global that stands beside the weights and holds none: calls of it are ignored.
    Inert,
    /// nnU-Net's function that keeps the largest component, which is named and never called.
    KeepLargest,
    /// `numpy.dtype`: a type by its name.
    NumpyType,
    /// `numpy.core.multiarray.scalar`: an integer of a type and its bytes.
    NumpyScalar,
}

/// Largest number of arguments of a call and of axes of a tensor; no call that is understood has more. Nothing longer is copied,
/// because a pickle can refer to a value again with two bytes, and the work and memory of reading must stay proportional to the
/// size of the file.
const MAX_ITEMS: usize = 16;
/// Largest key of a storage in bytes, for the same reason.
const MAX_KEY_BYTES: usize = 64;

/// The global `module.name`; None for one that does not belong in a checkpoint.
pub(super) fn callable(module: &str, name: &str) -> Option<Callable> {
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") => Callable::Dict,
        ("torch._utils", "_rebuild_tensor_v2") => Callable::Tensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Callable::Parameter,
        ("torch", storage) if storage.ends_with("Storage") => Callable::Storage(match storage {
            "FloatStorage" => Number::F32,
            "DoubleStorage" => Number::F64,
            "HalfStorage" => Number::F16,
            "BFloat16Storage" => Number::BF16,
            "LongStorage" => Number::I64,
            "IntStorage" => Number::I32,
            "ShortStorage" => Number::I16,
            "CharStorage" => Number::I8,
            "ByteStorage" => Number::U8,
            "BoolStorage" => Number::Bool,
            _ => return None,
        }),
        ("torch", "device" | "Size") => Callable::Inert,
        ("torch", dtype) if is_dtype(dtype) => Callable::Inert,
        // Python 3 writes `builtins`, protocol 2 the name of Python 2.
        (
            "builtins" | "__builtin__",
            "set" | "frozenset" | "list" | "dict" | "tuple" | "int" | "float" | "bool" | "str",
        )
        | ("builtins" | "__builtin__", "complex" | "bytearray" | "slice")
        | ("_codecs", "encode")
        | ("numpy", "dtype" | "ndarray")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
        | ("collections", "Counter")
        | ("argparse", "Namespace")
        | ("types", "SimpleNamespace")
        | ("datetime", "datetime" | "date" | "timedelta")
        | ("pathlib" | "pathlib._local", "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath" | "PureWindowsPath") => {
            Callable::Inert
        }
        _ => return None,
    })
}

fn is_dtype(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    matches!(stem, "float" | "bfloat" | "half" | "double" | "int" | "uint" | "long" | "short" | "bool")
}

impl Machine<'_> {
    /// Pushes the result of `callee(*arguments)`, as described at [`Callable`].
    pub(super) fn call(&mut self, callee: Id, arguments: Id) -> Parsed<()> {
        let Value::Sequence(arguments) = &self.values[arguments] else {
            return Err("calls something with arguments that are not a tuple".into());
        };
        let arguments: Vec<Id> = arguments.iter().take(MAX_ITEMS).copied().collect();
        let made = match &self.values[callee] {
            // Python passes no arguments (to a defaultdict its factory) and sets the items afterwards.
            Value::Callable(Callable::Dict) => match arguments.first().map(|id| &self.values[*id]) {
                None | Some(Value::Callable(_) | Value::Inert) => Value::Dict(vec![]),
                Some(other) => {
                    return Err(format!("makes a dict of {}, expected nothing or a factory", describe(other)));
                }
            },
            Value::Callable(Callable::Tensor) => self.tensor(&arguments)?,
            Value::Callable(Callable::Parameter) => match arguments.first().map(|id| &self.values[*id]) {
                Some(Value::Tensor(view)) => Value::Tensor(view.clone()),
                _ => return Err("has a parameter that is not made of a tensor".into()),
            },
            Value::Callable(Callable::Inert) => Value::Inert,
            Value::Callable(Callable::NumpyType) => self.numpy_type(&arguments)?,
            Value::Callable(Callable::NumpyScalar) => self.numpy_scalar(&arguments)?,
            other => return Err(format!("calls {}, expected a name", describe(other))),
        };
        self.push(made);
        Ok(())
    }

    /// The tensor of the arguments (storage, offset, size, stride, ...).
    fn tensor(&self, arguments: &[Id]) -> Parsed<Value> {
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err(format!("makes a tensor of {} values, expected 4 or more", arguments.len()));
        };
        let Value::Storage { number, key, elements } = &self.values[*storage] else {
            return Err(format!("makes a tensor of {}, expected a storage", describe(&self.values[*storage])));
        };
        let (shape, strides) = (self.sizes(*shape)?, self.sizes(*strides)?);
        if shape.len() != strides.len() {
            return Err(format!("has a tensor of {} axes with {} strides", shape.len(), strides.len()));
        }
        let offset = self.size(*offset)?;
        let view = TensorView { number: *number, storage: key.clone(), elements: *elements, offset, shape, strides };
        Ok(Value::Tensor(Box::new(view)))
    }

    /// Pushes the storage of a persistent id ('storage', type, key, device, elements); its bytes are a file of the archive.
    pub(super) fn persistent(&mut self) -> Parsed<()> {
        let id = self.pop()?;
        let named = match &self.values[id] {
            Value::Sequence(parts) => parts.iter().take(MAX_ITEMS).map(|part| &self.values[*part]).collect::<Vec<_>>(),
            _ => vec![],
        };
        let [Value::Text(kind), Value::Callable(Callable::Storage(number)), Value::Text(key), _, elements, ..] =
            named.as_slice()
        else {
            return Err("has a persistent id that is not a storage of a known type".into());
        };
        let Value::Integer(elements) = elements else { return Err("has a storage without a length".into()) };
        let elements = usize::try_from(*elements).map_err(|_| format!("has a storage of {elements} values"))?;
        if kind != "storage" {
            return Err(format!("has a persistent '{}', expected a storage", shown(kind)));
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(format!("names a storage by {} bytes, expected at most {MAX_KEY_BYTES}", key.len()));
        }
        let storage = Value::Storage { number: *number, key: key.clone(), elements };
        self.push(storage);
        Ok(())
    }

    fn sizes(&self, id: Id) -> Parsed<Vec<usize>> {
        match &self.values[id] {
            Value::Sequence(items) if items.len() > MAX_ITEMS => {
                Err(format!("has a tensor of {} axes, expected at most {MAX_ITEMS}", items.len()))
            }
            Value::Sequence(items) => items.iter().map(|item| self.size(*item)).collect(),
            other => Err(format!("has sizes that are {}, expected a tuple of integers", describe(other))),
        }
    }

    fn size(&self, id: Id) -> Parsed<usize> {
        match &self.values[id] {
            Value::Integer(size) => usize::try_from(*size).map_err(|_| format!("has a size or stride of {size}")),
            other => Err(format!("has a size that is {}, expected an integer", describe(other))),
        }
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "an integer",
        Value::Text(_) => "a text",
        Value::Sequence(_) => "a list or tuple",
        Value::Dict(_) => "a dict",
        Value::Callable(_) => "a name that cannot be called",
        Value::Storage { .. } => "a storage",
        Value::Tensor(_) => "a tensor",
        Value::Bytes(_) | Value::NumpyType(_) | Value::Inert => "something that holds no weights",
    }
}
