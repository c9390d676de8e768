//! Transforms as ITK text files (`.tfm`), in LPS millimetres.

use std::io::Write;
use std::path::Path;

use crate::io::write_atomic;
use crate::volume::Affine;
use nephron_compute::error::Result;
use nephron_compute::ops::affine_dice::Matrix;

/// The transform as ITK text (`.tfm`): an `AffineTransform_double_3_3` that maps points of the fixed scan to points of the moving
/// scan in LPS millimetres, as ITK's resampling filters expect.
pub fn itk_text(transform: &Affine) -> String {
    let lps = flip_lps_ras(&transform.0);
    let numbers = lps.iter().flat_map(|row| &row[..3]).chain(lps.iter().map(|row| &row[3]));
    // Adding 0 turns -0 into 0, which reads better.
    let numbers: Vec<String> = numbers.map(|v| format!("{}", v + 0.0)).collect();
    format!(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: {}\n\
         FixedParameters: 0 0 0\n",
        numbers.join(" ")
    )
}

/// Writes the text of [`itk_text`] to a file.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_itk(path: impl AsRef<Path>, transform: &Affine) -> Result<()> {
    write_atomic(path, |file| file.write_all(itk_text(transform).as_bytes()))
}

/// The affine transform of an ITK text file, in RAS millimetres, or what is wrong with the text.
pub(super) fn parse_itk(text: &str) -> Result<Affine, String> {
    let values = |key: &str| text.lines().filter_map(|l| l.strip_prefix(key)).map(str::trim).collect::<Vec<_>>();
    let kinds = values("Transform:");
    let affine = ["AffineTransform_", "MatrixOffsetTransformBase_"];
    let [kind] = kinds[..] else {
        return Err(format!("expected an ITK text file with one transform, found {} lines 'Transform:'", kinds.len()));
    };
    if !(affine.iter().any(|name| kind.starts_with(name)) && kind.ends_with("_3_3")) {
        return Err(format!("expected AffineTransform_double_3_3, found the transform {kind}"));
    }
    let numbers = |key: &str, count: usize| -> Result<Vec<f64>, String> {
        let line = values(key).first().copied().unwrap_or_default();
        let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers {
            Ok(numbers) if numbers.len() == count => Ok(numbers),
            _ => Err(format!("expected {count} numbers after '{key}', found '{line}'")),
        }
    };
    let (p, centre) = (numbers("Parameters:", 12)?, numbers("FixedParameters:", 3)?);
    let mut lps: Matrix = std::array::from_fn(|r| [p[3 * r], p[3 * r + 1], p[3 * r + 2], p[9 + r] + centre[r]]);
    for row in &mut lps {
        row[3] -= (0..3).map(|k| row[k] * centre[k]).sum::<f64>();
    }
    Ok(Affine(flip_lps_ras(&lps)))
}

/// Converts a matrix from LPS to RAS or back: the first two axes point in opposite directions.
fn flip_lps_ras(matrix: &Matrix) -> Matrix {
    let sign = [-1.0, -1.0, 1.0];
    std::array::from_fn(|r| std::array::from_fn(|c| sign[r] * matrix[r][c] * if c < 3 { sign[c] } else { 1.0 }))
}
