//! Reads a pickle without executing anything: a stack machine over plain data.
//!
//! A pickle is a program whose opcodes may name any callable of Python. Here a global is data: those that state dicts consist of
//! are understood, those that checkpoints contain besides (NumPy scalars, devices, argument lists) become [`Value::Inert`], and
//! every other one is an error that names it. Nothing recurses, so that deep nesting cannot overflow the stack, and values are kept
//! in one arena, so that a container may contain itself.
//!
//! Sources: Python's `pickletools` for the opcodes, and the output of `torch.save` (`torch._utils`) for the tensors.

mod globals;
mod numpy;
mod reader;

use std::collections::HashMap;

use crate::io::numbers::Number;
pub(in crate::io) use globals::Callable;
use globals::callable;
use nephron_compute::shown;
pub(in crate::io) use numpy::KEEP_LARGEST;
use reader::{Parsed, Reader};

/// The index of a value in the arena.
pub(in crate::io) type Id = usize;

/// A view of a storage, from the arguments of `torch._utils._rebuild_tensor_v2`; offset and strides are in elements.
#[derive(Debug, Clone)]
pub(in crate::io) struct TensorView {
    pub(super) number: Number,
    /// The name of the storage in the archive.
    pub(super) storage: String,
    /// Number of elements of the whole storage.
    pub(super) elements: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A value of a pickle, as far as weights need it.
#[derive(Debug, Clone)]
pub(in crate::io) enum Value {
    Integer(i64),
    Text(String),
    /// A tuple, list or set.
    Sequence(Vec<Id>),
    /// Keys and values in the order in which they were set.
    Dict(Vec<(Id, Id)>),
    Callable(Callable),
    Storage {
        number: Number,
        key: String,
        elements: usize,
    },
    Tensor(Box<TensorView>),
    /// A string of bytes, and the name of a type of NumPy's; of [`Purpose::Postprocessing`] alone.
    Bytes(Vec<u8>),
    NumpyType(String),
    /// None, floats, bytes, and objects that hold no weights.
    Inert,
}

/// What a pickle is read for: which globals it may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::io) enum Purpose {
    /// The weights of a network.
    Weights,
    /// nnU-Net's postprocessing: its function's name and that function's arguments, which are NumPy's integers.
    Postprocessing,
}

/// The values of a pickle that was read.
#[derive(Debug)]
pub(in crate::io) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Runs the machine up to the opcode STOP.
    ///
    /// # Errors
    /// A message that says what is wrong, and at which byte.
    pub(in crate::io) fn read(bytes: &[u8], purpose: Purpose) -> Result<Self, String> {
        let mut machine = Machine {
            purpose,
            bytes: Reader { bytes, at: 0 },
            values: vec![],
            stack: vec![],
            marks: vec![],
            memo: HashMap::new(),
        };
        loop {
            let start = machine.bytes.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { values: machine.values, root }),
                Err(reason) => return Err(format!("{reason} (byte {start} of its pickle)")),
            }
        }
    }

    pub(in crate::io) fn root(&self) -> &Value {
        &self.values[self.root]
    }

    pub(in crate::io) fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }
}

pub(super) struct Machine<'a> {
    purpose: Purpose,
    bytes: Reader<'a>,
    pub(super) values: Vec<Value>,
    stack: Vec<Id>,
    /// The heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    /// Executes one opcode; returns the root at STOP.
    fn step(&mut self) -> Parsed<Option<Id>> {
        match self.bytes.byte()? {
            b'.' => return self.pop().map(Some),
            0x80 => self.bytes.skip(1)?,
            0x95 => self.bytes.skip(8)?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop().map(drop)?,
            b'1' => self.pop_to_mark().map(drop)?,
            b'2' => {
                let top = self.pop()?;
                self.stack.extend([top, top]);
            }
            b'N' => self.push(Value::Inert),
            0x88 => self.push(Value::Integer(1)),
            0x89 => self.push(Value::Integer(0)),
            b'J' => {
                let word = self.bytes.array().map(i32::from_le_bytes)?;
                self.push(Value::Integer(word.into()));
            }
            b'K' => {
                let word = self.bytes.byte()?;
                self.push(Value::Integer(word.into()));
            }
            b'M' => {
                let word = self.bytes.array().map(u16::from_le_bytes)?;
                self.push(Value::Integer(word.into()));
            }
            0x8a => {
                let length = self.bytes.byte()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.bytes.length32()?;
                self.long(length)?;
            }
            b'G' => {
                self.bytes.skip(8)?;
                self.push(Value::Inert);
            }
            b'X' => {
                let length = self.bytes.length32()?;
                self.text(length)?;
            }
            0x8c => {
                let length = self.bytes.byte()?;
                self.text(length.into())?;
            }
            0x8d => {
                let length = self.bytes.length64()?;
                self.text(length)?;
            }
            b'U' | b'C' => {
                let length = self.bytes.byte()?;
                self.raw(length.into())?;
            }
            b'T' | b'B' => {
                let length = self.bytes.length32()?;
                self.raw(length)?;
            }
            0x8e | 0x96 => {
                let length = self.bytes.length64()?;
                self.raw(length)?;
            }
            b')' | b']' | 0x8f => self.push(Value::Sequence(vec![])),
            b'}' => self.push(Value::Dict(vec![])),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' | b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Value::Sequence(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                let pairs = pairs(&items)?;
                self.push(Value::Dict(pairs));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            b'h' => {
                let key = self.bytes.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = self.bytes.array().map(u32::from_le_bytes)?;
                self.recall(key)?;
            }
            b'q' => {
                let key = self.bytes.byte()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = self.bytes.array().map(u32::from_le_bytes)?;
                self.remember(key)?;
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| "remembers too many values")?;
                self.remember(key)?;
            }
            b'c' => {
                let (module, name) = (self.bytes.line()?, self.bytes.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                    return Err("names something by a value that is not a text".into());
                };
                let (module, name) = (shown(module), shown(name));
                self.global(&module, &name)?;
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            0x92 => {
                let (_, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            // The state of an object: the `_metadata` of an OrderedDict, and nothing that is needed here of other objects.
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                self.ensure_native(object, state)?;
            }
            b'Q' => self.persistent()?,
            other => return Err(format!("has the opcode 0x{other:02x}, which no state dict needs")),
        }
        Ok(None)
    }

    pub(super) fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// Pops the top of the stack, but nothing below the last mark.
    pub(super) fn pop(&mut self) -> Parsed<Id> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err("takes a value from an empty stack".into());
        }
        self.stack.pop().ok_or_else(|| "takes a value from an empty stack".into())
    }

    fn top(&self) -> Parsed<Id> {
        self.stack.last().copied().ok_or_else(|| "looks at an empty stack".into())
    }

    fn pop_to_mark(&mut self) -> Parsed<Vec<Id>> {
        let height = self.marks.pop().ok_or("lacks a mark")?;
        Ok(self.stack.split_off(height.min(self.stack.len())))
    }

    /// Pushes a little-endian two's complement integer. One that does not fit into 64 bits cannot be a size or an offset.
    fn long(&mut self, length: usize) -> Parsed<()> {
        let bytes = self.bytes.take(length)?;
        let value = if length > 8 {
            Value::Inert
        } else {
            let fill = if bytes.last().is_some_and(|b| *b >= 0x80) { 0xff } else { 0 };
            let mut word = [fill; 8];
            word[..length].copy_from_slice(bytes);
            Value::Integer(i64::from_le_bytes(word))
        };
        self.push(value);
        Ok(())
    }

    fn text(&mut self, length: usize) -> Parsed<()> {
        let text = String::from_utf8_lossy(self.bytes.take(length)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn raw(&mut self, length: usize) -> Parsed<()> {
        let bytes = self.bytes.take(length)?;
        let value = if self.purpose == Purpose::Postprocessing { Value::Bytes(bytes.to_vec()) } else { Value::Inert };
        self.push(value);
        Ok(())
    }

    fn tuple(&mut self, length: usize) -> Parsed<()> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Sequence(items));
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Parsed<()> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::Sequence(list) => list.extend(items),
            Value::Inert => {}
            _ => return Err("appends to a value that is not a list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Parsed<()> {
        let pairs = pairs(items)?;
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(dict) => dict.extend(pairs),
            Value::Inert => {}
            _ => return Err("sets a key of a value that is not a dict".into()),
        }
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Parsed<()> {
        let id = self.memo.get(&key).ok_or_else(|| format!("recalls value {key}, which it never remembered"))?;
        self.stack.push(*id);
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Parsed<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Parsed<()> {
        let known = match self.purpose {
            Purpose::Weights => callable(module, name).ok_or_else(|| {
                format!("names {module}.{name}, which weights do not need: refused, and nothing was run; save state_dict() alone")
            }),
            Purpose::Postprocessing => numpy::callable(module, name).ok_or_else(|| {
                format!("names {module}.{name}, expected {}: refused, and nothing was run", numpy::KEEP_LARGEST)
            }),
        }?;
        self.push(Value::Callable(known));
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Parsed<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|[k, v]| (*k, *v)).collect())
    } else {
        Err("has a key without a value".into())
    }
}
