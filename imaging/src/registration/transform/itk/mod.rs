//! Transforms as ITK's text files (`.tfm`) and MATLAB files (`.mat`), in LPS millimetres.

mod kinds;
mod matlab;

use std::io::Write;
use std::path::Path;

use crate::io::write_atomic;
use crate::volume::Affine;
use nephron_compute::error::Result;
use nephron_compute::ops::affine_dice::Matrix;
use nephron_compute::shown;

/// The transform as ITK text (`.tfm`): an `AffineTransform_double_3_3` from points of the fixed scan to points of the
/// moving scan in LPS millimetres, which is what ITK resamples with.
pub fn itk_text(transform: &Affine) -> String {
    let lps = turned(&transform.0);
    let numbers = lps.iter().flat_map(|row| &row[..3]).chain(lps.iter().map(|row| &row[3]));
    // -0 and 0 are the same; the former only looks odd.
    let numbers: Vec<String> = numbers.map(|v| format!("{}", v + 0.0)).collect();
    format!(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: {}\n\
         FixedParameters: 0 0 0\n",
        numbers.join(" ")
    )
}

/// Writes [`itk_text`].
///
/// # Errors
/// As [`write_atomic`].
pub fn write_itk(path: impl AsRef<Path>, transform: &Affine) -> Result<()> {
    write_atomic(path, |file| file.write_all(itk_text(transform).as_bytes()))
}

/// One of ITK's transforms as it stands in a file.
#[derive(Debug, Default, PartialEq)]
struct Record {
    /// Such as `Euler3DTransform_double_3_3`.
    kind: String,
    parameters: Vec<f64>,
    fixed: Vec<f64>,
}

/// The transform of an ITK file, text or MATLAB's level 4, in RAS millimetres, or what is wrong with it.
///
/// A composite applies its last transform first, as ITK's stack does.
pub(super) fn parse_itk(bytes: &[u8]) -> Result<Affine, String> {
    const HDF5: &[u8] = b"\x89HDF";
    if bytes.starts_with(HDF5) {
        return Err(
            "is an HDF5 file, expected ITK text or MATLAB's level 4: convert it with ConvertTransformFile".into()
        );
    }
    let records = match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => parse_text(text)?,
        _ => matlab::parse(bytes)?,
    };
    let parts = match records.as_slice() {
        [composite, parts @ ..] if composite.kind.starts_with("CompositeTransform_") => parts,
        [_] => records.as_slice(),
        several => {
            let found = several.len();
            return Err(format!("expected one transform, or a CompositeTransform in front of several, found {found}"));
        }
    };
    if parts.is_empty() {
        return Err("expected a transform behind CompositeTransform, found none".into());
    }
    let mut all = Affine::IDENTITY;
    for part in parts {
        all = all.after(&kinds::affine(part)?);
    }
    Ok(Affine(turned(&all.0)))
}

fn parse_text(text: &str) -> Result<Vec<Record>, String> {
    let mut records: Vec<Record> = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with('#')) else { continue };
        let value = value.trim();
        if key == "Transform" {
            records.push(Record { kind: value.to_owned(), ..Record::default() });
            continue;
        }
        let Some(record) = records.last_mut() else { continue };
        let numbers = || -> Result<Vec<f64>, String> {
            let wrong = |word: &str| format!("expected numbers behind '{key}:', found '{}'", shown(word));
            value.split_whitespace().map(|word| word.parse().map_err(|_| wrong(word))).collect()
        };
        match key {
            "Parameters" => record.parameters = numbers()?,
            "FixedParameters" => record.fixed = numbers()?,
            _ => {}
        }
    }
    if records.is_empty() {
        return Err("expected an ITK text file, found no line 'Transform:'".into());
    }
    Ok(records)
}

/// From LPS to RAS or back: their first two axes point the other way.
fn turned(matrix: &Matrix) -> Matrix {
    let sign = [-1.0, -1.0, 1.0];
    std::array::from_fn(|r| std::array::from_fn(|c| sign[r] * matrix[r][c] * if c < 3 { sign[c] } else { 1.0 }))
}
