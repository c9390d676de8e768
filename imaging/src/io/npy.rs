//! NumPy's .npy arrays, format 1.0 to 3.0. Every bool, integer and float type is read, in both byte orders and both axis orders;
//! f32 and u8 are written, little-endian and in C order. Values are returned in C order (last axis fastest).
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::io::{Read, Write};
use std::path::Path;

use super::numbers::{ByteOrder, Number};
use nephron_compute::error::{Error, Result};
use nephron_compute::shown;

/// Largest header in bytes, that of NumPy's own reader. Longer ones are structured types or attacks.
const MAX_HEADER: usize = 10_000;

#[derive(Clone, Copy, PartialEq)]
enum AxisOrder {
    C,
    Fortran,
}

struct Header {
    number: Number,
    byte_order: ByteOrder,
    axis_order: AxisOrder,
    shape: Vec<usize>,
}

/// Reads an array as f32 and returns its shape (empty for a scalar) and its values in C order.
///
/// # Errors
/// [`Error::File`] for a file that is not npy, is shorter than its shape claims, or has elements other than bool, integer or float.
pub fn read_f32(path: impl AsRef<Path>) -> Result<(Vec<usize>, Vec<f32>)> {
    let (header, bytes) = read(path.as_ref())?;
    let mut values = Vec::with_capacity(bytes.len() / header.number.size());
    header.number.decode(header.byte_order, &bytes, |v| values.push(v as f32));
    Ok((header.shape.clone(), in_c_order(&header, values)))
}

/// Reads an array of labels: whole numbers from 0 to 255 in any element type.
///
/// # Errors
/// As [`read_f32`], and for the first value that is not such a number.
pub fn read_u8(path: impl AsRef<Path>) -> Result<(Vec<usize>, Vec<u8>)> {
    let path = path.as_ref();
    let (header, bytes) = read(path)?;
    let mut values = Vec::with_capacity(bytes.len() / header.number.size());
    let mut wrong = None;
    header.number.decode(header.byte_order, &bytes, |v| {
        if f64::from(v as u8) != v {
            wrong.get_or_insert((values.len(), v));
        }
        values.push(v as u8);
    });
    match wrong {
        Some((i, v)) => Err(Error::file(path, format!("element {i} is {v}, labels are whole numbers from 0 to 255"))),
        None => Ok((header.shape.clone(), in_c_order(&header, values))),
    }
}

/// Writes f32 values in C order.
///
/// # Errors
/// [`Error::Shape`] where the number of values is not that of the shape, [`Error::File`] where the file cannot be written.
pub fn write_f32(path: impl AsRef<Path>, shape: &[usize], values: &[f32]) -> Result<()> {
    write(path.as_ref(), "<f4", shape, values, |v| v.to_le_bytes())
}

/// Writes labels in C order.
///
/// # Errors
/// As [`write_f32`].
pub fn write_u8(path: impl AsRef<Path>, shape: &[usize], values: &[u8]) -> Result<()> {
    write(path.as_ref(), "|u1", shape, values, |v| [v])
}

fn write<T: Copy, const N: usize>(
    path: &Path,
    descr: &str,
    shape: &[usize],
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> Result<()> {
    if elements(shape)? != values.len() {
        return Err(wrong_count(shape, values.len()));
    }
    let header = header(descr, shape)?;
    super::write_atomic(path, |out| {
        out.write_all(&header)?;
        values.iter().try_for_each(|&v| out.write_all(&bytes(v)))
    })
}

/// Number of values of a shape.
pub(super) fn elements(shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    count.ok_or_else(|| Error::shape("npy: shape", "of values that can be counted", format!("{shape:?}")))
}

pub(super) fn wrong_count(shape: &[usize], found: usize) -> Error {
    Error::shape("npy: values", format!("as many as shape {shape:?} has"), found)
}

/// Everything in front of the values, for an array in C order.
pub(super) fn header(descr: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let axes: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
    // Magic, version and length take 10 bytes; the whole header is a multiple of 64 that ends in a line feed.
    let padded = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    dict.extend(std::iter::repeat_n(' ', padded - 1 - dict.len()));
    dict.push('\n');
    let length = u16::try_from(padded).map_err(|_| Error::shape("npy: axes", "fewer", shape.len()))?;
    Ok([b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), dict.as_bytes()].concat())
}

/// Reads the header, and exactly as many bytes as its shape needs.
fn read(path: &Path) -> Result<(Header, Vec<u8>)> {
    let (mut file, metadata) = super::open(path)?;
    let not_npy = || Error::file(path, "is not an npy file");
    let failed = |e: std::io::Error| Error::io(path, "cannot be read", e);

    let mut start = [0u8; 8];
    file.read_exact(&mut start).map_err(|_| not_npy())?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(not_npy());
    }
    let mut length = [0u8; 4];
    let length_bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(Error::file(path, format!("npy format {version} is not supported, expected 1, 2 or 3"))),
    };
    file.read_exact(&mut length[..length_bytes]).map_err(|_| not_npy())?;
    let header_length = u32::from_le_bytes(length) as usize;
    if header_length > MAX_HEADER {
        let reason = format!("its header claims {header_length} bytes, at most {MAX_HEADER} are expected");
        return Err(Error::file(path, reason));
    }
    let mut text = vec![0u8; header_length];
    file.read_exact(&mut text).map_err(|_| Error::file(path, "ends inside its header"))?;
    let header = parse(&String::from_utf8_lossy(&text)).map_err(|reason| Error::file(path, reason))?;

    let available = metadata.len().saturating_sub((8 + length_bytes + header_length) as u64);
    let needed = header.shape.iter().try_fold(header.number.size() as u64, |n, &d| n.checked_mul(d as u64));
    let Some(needed) = needed.filter(|&n| n <= available) else {
        let (shape, number) = (shown(&format!("{:?}", header.shape)), header.number);
        let reason = format!("its header claims shape {shape} of {number}, but only {available} bytes follow");
        return Err(Error::file(path, reason));
    };
    let mut bytes = Vec::with_capacity(needed as usize);
    file.take(needed).read_to_end(&mut bytes).map_err(failed)?;
    if (bytes.len() as u64) < needed {
        return Err(Error::file(path, format!("ends after {} of {needed} bytes", bytes.len())));
    }
    Ok((header, bytes))
}

/// Parses the header, a Python dict literal with three known keys. A general parser would recurse on hostile input.
fn parse(text: &str) -> Result<Header, String> {
    let descr = value(text, "descr")?;
    let quote =
        descr.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or("structured arrays are not supported")?;
    let descr = descr[1..].split(quote).next().unwrap_or_default();
    let (byte_order, code) = match descr.chars().next() {
        Some('<' | '|') => (ByteOrder::Little, &descr[1..]),
        Some('>') => (ByteOrder::Big, &descr[1..]),
        Some('=') if cfg!(target_endian = "big") => (ByteOrder::Big, &descr[1..]),
        Some('=') => (ByteOrder::Little, &descr[1..]),
        _ => (ByteOrder::Little, descr),
    };
    let number = match code {
        "b1" => Number::Bool,
        "i1" => Number::I8,
        "u1" => Number::U8,
        "i2" => Number::I16,
        "u2" => Number::U16,
        "i4" => Number::I32,
        "u4" => Number::U32,
        "i8" => Number::I64,
        "u8" => Number::U64,
        "f2" => Number::F16,
        "f4" => Number::F32,
        "f8" => Number::F64,
        _ => {
            let found = shown(descr);
            return Err(format!("elements of type '{found}' are not supported, expected bool, integer or float"));
        }
    };
    let order = value(text, "fortran_order")?;
    let axis_order = if order.starts_with("True") {
        AxisOrder::Fortran
    } else if order.starts_with("False") {
        AxisOrder::C
    } else {
        return Err("its header's fortran_order is neither True nor False".into());
    };
    let inner = value(text, "shape")?.strip_prefix('(').and_then(|s| s.split_once(')')).map(|(inner, _)| inner);
    let inner = inner.ok_or("its header's shape is not a tuple")?;
    let shape = inner
        .split(',')
        .map(str::trim)
        .filter(|axis| !axis.is_empty())
        .map(|axis| axis.parse().map_err(|_| format!("its header's shape has an axis of '{}'", shown(axis))))
        .collect::<Result<Vec<usize>, String>>()?;
    Ok(Header { number, byte_order, axis_order, shape })
}

/// The text after `'key':` in a Python dict literal.
fn value<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    [format!("'{key}'"), format!("\"{key}\"")]
        .iter()
        .find_map(|quoted| text.split_once(quoted.as_str()))
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
        .map(str::trim_start)
        .ok_or_else(|| format!("its header has no '{key}'"))
}

/// Reorders values from the header's axis order to C order (last axis fastest).
fn in_c_order<T: Copy>(header: &Header, values: Vec<T>) -> Vec<T> {
    if header.axis_order == AxisOrder::C || header.shape.len() < 2 {
        return values;
    }
    let shape = &header.shape;
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, &d| {
            let this = *stride;
            *stride *= d;
            Some(this)
        })
        .collect();
    let mut index = vec![0usize; shape.len()];
    let mut out = Vec::with_capacity(values.len());
    while out.len() < values.len() {
        out.push(values[index.iter().zip(&strides).map(|(i, s)| i * s).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}
