//! MetaImage, the format of ITK and MetaIO: `Key = value` lines, of which ElementDataFile is the last.

use std::collections::BTreeMap;
use std::path::Path;

use super::header::{RawImage, beside, from_lps, lines, numbers, sizes};
use crate::io::numbers::{ByteOrder, Number};
use crate::io::source::Compression;
use nephron_compute::error::{Error, Result};
use nephron_compute::shown;

/// Reads the header.
pub(super) fn header(path: &Path) -> Result<RawImage> {
    let is_last = |line: &str| key(line).is_some_and(|(key, _)| key == "elementdatafile");
    let (lines, end) = lines(path, is_last)?;
    parse(path, &lines, end).map_err(|reason| Error::file(path, format!("MetaImage: {reason}")))
}

fn key(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.split_once('=')?;
    Some((key.trim().to_ascii_lowercase(), value.trim()))
}

fn parse(path: &Path, lines: &[String], end: u64) -> Result<RawImage, String> {
    let fields: BTreeMap<String, &str> = lines.iter().filter_map(|line| key(line)).collect();
    let get = |names: &[&str]| names.iter().find_map(|name| fields.get(*name).copied());
    let need = |name: &str| fields.get(&name.to_ascii_lowercase()).copied().ok_or_else(|| format!("{name} is missing"));
    let is_true = |name: &str, or: bool| get(&[name]).map_or(Ok(or), |value| truth(name, value));
    if let Some(object) = get(&["objecttype"]).filter(|object| !object.eq_ignore_ascii_case("image")) {
        return Err(format!("expected an image, found {}", shown(object)));
    }
    let axes = match need("NDims")? {
        "2" => 2,
        "3" => 3,
        other => return Err(format!("expected an image of 3 axes, found {}", shown(other))),
    };
    if let Some(channels) = get(&["elementnumberofchannels"]).filter(|n| *n != "1") {
        return Err(format!("expected one value a voxel, found {}", shown(channels)));
    }
    if !is_true("binarydata", true)? {
        return Err("BinaryData: expected True, found False: the voxels are text".into());
    }
    let size = sizes("DimSize", need("DimSize")?, axes)?;
    let spacing: [f64; 3] = match get(&["elementspacing", "elementsize"]) {
        Some(text) => numbers("ElementSpacing", text, axes)?,
        None => [1.0; 3],
    };
    let origin: [f64; 3] = match get(&["offset", "position", "origin"]) {
        Some(text) => numbers("Offset", text, axes)?,
        None => [0.0; 3],
    };
    // The direction of an axis is a row.
    let mut columns = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    if let Some(text) = get(&["transformmatrix", "rotation", "orientation"]) {
        let matrix: [f64; 9] = numbers("TransformMatrix", text, axes * axes)?;
        for (axis, column) in columns.iter_mut().enumerate().take(axes) {
            column[..axes].copy_from_slice(&matrix[axis * axes..(axis + 1) * axes]);
            let length = column.iter().map(|v| v * v).sum::<f64>().sqrt();
            // Spacing and direction would contradict each other.
            if (length - 1.0).abs() > 1e-3 {
                return Err(format!("TransformMatrix: expected rows of length 1, found {length}"));
            }
        }
    }
    for (axis, column) in columns.iter_mut().enumerate() {
        let step = if axis < axes { spacing[axis] } else { 1.0 };
        if step <= 0.0 {
            return Err(format!("ElementSpacing: expected voxel sizes above 0, found {step}"));
        }
        column.iter_mut().for_each(|v| *v *= step);
    }
    let number = number(need("ElementType")?)?;
    let big = is_true("binarydatabyteordermsb", false)? || is_true("elementbyteordermsb", false)?;
    let compression = if is_true("compresseddata", false)? { Compression::Zlib } else { Compression::None };
    let file = need("ElementDataFile")?;
    let (data, start) = match file {
        "" => return Err("ElementDataFile is empty".into()),
        local if local.eq_ignore_ascii_case("local") => (path.to_path_buf(), end),
        // A list of files, or a pattern of their names, to MetaIO.
        list if list.starts_with("LIST") || list.contains('%') => {
            return Err(format!("ElementDataFile: expected one file, found {}", shown(list)));
        }
        name => (beside(path, name), 0),
    };
    let offset = match get(&["headersize"]).unwrap_or("0") {
        "-1" if compression == Compression::None => None,
        text => {
            let bytes: u64 = text.parse().map_err(|_| format!("HeaderSize: expected bytes, found {}", shown(text)))?;
            Some(
                start
                    .checked_add(bytes)
                    .ok_or_else(|| format!("HeaderSize: expected bytes of a file, found {bytes}"))?,
            )
        }
    };
    Ok(RawImage {
        header: path.to_path_buf(),
        data,
        offset,
        compression,
        number,
        order: if big { ByteOrder::Big } else { ByteOrder::Little },
        size,
        affine: from_lps(columns, origin),
    })
}

/// MetaIO's truth: it looks at the first letter alone.
fn truth(name: &str, value: &str) -> Result<bool, String> {
    match value.chars().next() {
        Some('T' | 't' | '1') => Ok(true),
        Some('F' | 'f' | '0') => Ok(false),
        _ => Err(format!("{name}: expected True or False, found {}", shown(value))),
    }
}

/// MetaIO's types; its long is 32 bits on every machine.
fn number(text: &str) -> Result<Number, String> {
    Ok(match text.to_ascii_uppercase().as_str() {
        "MET_CHAR" => Number::I8,
        "MET_UCHAR" => Number::U8,
        "MET_SHORT" => Number::I16,
        "MET_USHORT" => Number::U16,
        "MET_INT" | "MET_LONG" => Number::I32,
        "MET_UINT" | "MET_ULONG" => Number::U32,
        "MET_LONG_LONG" => Number::I64,
        "MET_ULONG_LONG" => Number::U64,
        "MET_FLOAT" => Number::F32,
        "MET_DOUBLE" => Number::F64,
        _ => return Err(format!("ElementType: expected a number type such as MET_SHORT, found {}", shown(text))),
    })
}
