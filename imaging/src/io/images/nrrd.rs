//! NRRD ("nearly raw raster data") of versions 1 to 5: `field: value` lines up to an empty one. Source: teem's definition of the
//! format.

use std::collections::BTreeMap;
use std::path::Path;

use super::header::{RawImage, beside, from_lps, lines, numbers, sizes};
use crate::io::numbers::{ByteOrder, Number};
use crate::io::source::Compression;
use nephron_compute::error::{Error, Result};
use nephron_compute::shown;

/// Reads the header.
pub(super) fn header(path: &Path) -> Result<RawImage> {
    let (lines, end) = lines(path, str::is_empty)?;
    parse(path, &lines, end).map_err(|reason| Error::file(path, format!("NRRD: {reason}")))
}

fn parse(path: &Path, lines: &[String], end: u64) -> Result<RawImage, String> {
    let magic = lines.first().map(String::as_str).unwrap_or_default();
    if !matches!(magic, "NRRD0001" | "NRRD0002" | "NRRD0003" | "NRRD0004" | "NRRD0005") {
        return Err(format!("expected NRRD0001 to NRRD0005 at the start, found {}", shown(magic)));
    }
    let mut fields: BTreeMap<String, &str> = BTreeMap::new();
    for line in &lines[1..] {
        // Comments, and pairs of key and value, which have := between them.
        let is_field = !line.starts_with('#') && !line.contains(":=");
        if let Some((name, value)) = line.split_once(':').filter(|_| is_field) {
            fields.insert(name.trim().to_ascii_lowercase().replace(' ', ""), value.trim());
        }
    }
    let get = |name: &str| fields.get(name).copied();
    let need = |name: &str| get(&name.replace(' ', "")).ok_or_else(|| format!("{name} is missing"));
    let axes = match need("dimension")? {
        "2" => 2,
        "3" => 3,
        other => {
            return Err(format!("expected an image of 3 axes and one value a voxel, found dimension {}", shown(other)));
        }
    };
    let size = sizes("sizes", need("sizes")?, axes)?;
    let number = number(need("type")?)?;
    let compression = match need("encoding")?.to_ascii_lowercase().as_str() {
        "raw" => Compression::None,
        "gzip" | "gz" => Compression::Gzip,
        other => return Err(format!("encoding: expected raw or gzip, found {}", shown(other))),
    };
    let order = match get("endian").map(str::to_ascii_lowercase).as_deref() {
        Some("little") => ByteOrder::Little,
        Some("big") => ByteOrder::Big,
        None if number.size() == 1 => ByteOrder::Little,
        None => return Err(format!("endian: expected little or big for voxels of {number}, found none")),
        Some(other) => return Err(format!("endian: expected little or big, found {}", shown(other))),
    };
    let (columns, origin) = geometry(&fields, axes)?;
    let (data, start) = match get("datafile") {
        None => (path.to_path_buf(), end),
        Some(list) if list.starts_with("LIST") || list.contains('%') => {
            return Err(format!("expected voxels in one file, found {}", shown(list)));
        }
        Some(name) => (beside(path, name), 0),
    };
    if let Some(skip) = get("lineskip").filter(|skip| *skip != "0") {
        return Err(format!("line skip: expected 0, found {}", shown(skip)));
    }
    // Axes of colours or vectors are values of a voxel, whatever their place.
    let plain = ["domain", "space", "time", "none", "???"];
    let kinds = get("kinds").unwrap_or_default();
    if let Some(kind) = kinds.split_whitespace().find(|kind| !plain.contains(&kind.to_ascii_lowercase().as_str())) {
        return Err(format!("kinds: expected domain or space along each axis, found {}", shown(kind)));
    }
    let offset = match get("byteskip").unwrap_or("0") {
        "-1" if compression == Compression::None => None,
        text => {
            let bytes: u64 = text.parse().map_err(|_| format!("byte skip: expected bytes, found {}", shown(text)))?;
            if bytes > 0 && compression == Compression::Gzip {
                return Err(format!("byte skip: expected 0 before compressed voxels, found {bytes}"));
            }
            Some(
                start
                    .checked_add(bytes)
                    .ok_or_else(|| format!("byte skip: expected bytes of a file, found {bytes}"))?,
            )
        }
    };
    let header = path.to_path_buf();
    let affine = from_lps(columns, origin);
    Ok(RawImage { header, data, offset, compression, number, order, size, affine })
}

/// The steps along the axes and the origin, in LPS.
fn geometry(fields: &BTreeMap<String, &str>, axes: usize) -> Result<([[f64; 3]; 3], [f64; 3]), String> {
    let get = |name: &str| fields.get(name).copied();
    let mut columns = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let mut origin = [0.0; 3];
    if let Some(units) = get("spaceunits")
        && units.split_whitespace().any(|unit| unit.trim_matches('"') != "mm" && !unit.trim_matches('"').is_empty())
    {
        return Err(format!("space units: expected mm, found {}", shown(units)));
    }
    let Some(space) = get("space") else {
        if let Some(directions) = get("spacedirections") {
            return Err(format!("space directions {} without a space", shown(directions)));
        }
        // Without a space the axes are those of LPS, as ITK takes them.
        let Some(spacings) = get("spacings") else {
            // ITK would take a size of 1 for what they say.
            return match get("axismaxs") {
                Some(maxs) => Err(format!("axis maxs {} without spacings, which are expected", shown(maxs))),
                None => Ok((columns, origin)),
            };
        };
        let spacing: [f64; 3] = numbers("spacings", spacings, axes)?;
        for axis in 0..axes {
            if spacing[axis] <= 0.0 {
                return Err(format!("spacings: expected voxel sizes above 0, found {}", spacing[axis]));
            }
            columns[axis][axis] = spacing[axis];
        }
        if let Some(text) = get("axismins") {
            // A minimum is the outer face of the first voxel, unless the samples are nodes.
            let mins: [f64; 3] = numbers("axis mins", text, axes)?;
            let centers = get("centers").or_else(|| get("centerings")).unwrap_or_default();
            let mut centers = centers.split_whitespace();
            for axis in 0..axes {
                let is_node = centers.next().is_some_and(|center| center.eq_ignore_ascii_case("node"));
                origin[axis] = mins[axis] + if is_node { 0.0 } else { spacing[axis] / 2.0 };
            }
        }
        return Ok((columns, origin));
    };
    // Towards left and back, from what the space counts towards.
    let sign = match space.to_ascii_lowercase().as_str() {
        "left-posterior-superior" | "lps" => [1.0, 1.0],
        "right-anterior-superior" | "ras" => [-1.0, -1.0],
        "left-anterior-superior" | "las" => [1.0, -1.0],
        other => {
            return Err(format!("space: expected left-posterior-superior (or RAS, LAS), found {}", shown(other)));
        }
    };
    let to_lps = |v: [f64; 3]| [v[0] * sign[0], v[1] * sign[1], v[2]];
    let text = get("spacedirections").ok_or("space directions are missing")?;
    let vectors: Vec<&str> = text.split(')').map(str::trim).filter(|part| !part.is_empty()).collect();
    if vectors.len() != axes || axes != 3 {
        return Err(format!("space directions: expected 3 vectors, found {}", shown(text)));
    }
    for (column, vector) in columns.iter_mut().zip(vectors) {
        *column = to_lps(vector_of("space directions", vector)?);
    }
    if let Some(text) = get("spaceorigin") {
        origin = to_lps(vector_of("space origin", text.trim_end_matches(')'))?);
    }
    Ok((columns, origin))
}

/// `(1,0,0` without the closing parenthesis.
fn vector_of(name: &str, text: &str) -> Result<[f64; 3], String> {
    let inside = text.strip_prefix('(').ok_or_else(|| format!("{name}: expected (x,y,z), found {}", shown(text)))?;
    numbers(name, &inside.replace(',', " "), 3)
}

fn number(text: &str) -> Result<Number, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "signed char" | "int8" | "int8_t" => Number::I8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Number::U8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => Number::I16,
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Number::U16,
        "int" | "signed int" | "int32" | "int32_t" => Number::I32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Number::U32,
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => Number::I64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => Number::U64,
        "float" => Number::F32,
        "double" => Number::F64,
        _ => return Err(format!("type: expected a number type such as short, found {}", shown(text))),
    })
}
