//! Transforms as ITK's text files (`.tfm`) and MATLAB files (`.mat`), in LPS millimetres.

mod classes;
mod kinds;
mod matlab;
mod rotation;
mod text;

use std::io::Write;
use std::path::Path;

use crate::io::write_atomic;
use crate::registration::Transformation;
use crate::volume::Affine;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::Matrix;

/// The transform as ITK text (`.tfm`): an `AffineTransform_double_3_3` from points of the fixed scan to points of the
/// moving scan in LPS millimetres, which is what ITK resamples with.
pub fn itk_text(transform: &Affine) -> String {
    text::print(&[classes::record(&Affine(turned(&transform.0)), Transformation::Affine)])
}

/// As [`write_itk_as`] with [`Transformation::Affine`].
///
/// # Errors
/// As [`write_atomic`].
pub fn write_itk(path: impl AsRef<Path>, transform: &Affine) -> Result<()> {
    write_itk_as(path, transform, Transformation::Affine)
}

/// Writes a transform of a family as ITK's class for it: `AffineTransform`, `Similarity3DTransform`, `Euler3DTransform` or
/// `TranslationTransform`, in double, from points of the fixed scan to points of the moving scan in LPS millimetres. A
/// transform that is not of the family, by more than rounding, becomes an `AffineTransform`.
///
/// A path that ends in `.mat` becomes a MATLAB file of level 4, as ITK and ANTs write it, any other path text (`.tfm`, `.txt`).
///
/// # Errors
/// As [`write_atomic`].
pub fn write_itk_as(path: impl AsRef<Path>, transform: &Affine, family: Transformation) -> Result<()> {
    let path = path.as_ref();
    let record = classes::record(&Affine(turned(&transform.0)), family);
    let bytes = if is_matlab(path) { matlab::print(&record) } else { text::print(&[record]).into_bytes() };
    write_atomic(path, |file| file.write_all(&bytes))
}

/// Writes transforms that are applied one after the other, the first of them to points of the fixed scan: one as [`write_itk_as`]
/// does, several as a `CompositeTransform`, in which ITK lists the last first. Each is written as the class of the narrowest
/// family that it is of: translation, rigid, similarity or affine.
///
/// ITK cannot read a `CompositeTransform` from a MATLAB file. A path that ends in `.mat` gets the product of the transforms.
///
/// # Errors
/// [`Error::Argument`] without a transform; as [`write_atomic`].
pub fn write_itk_chain(path: impl AsRef<Path>, transforms: &[Affine]) -> Result<()> {
    let path = path.as_ref();
    let narrowest = |transform: &Affine| classes::narrowest(&Affine(turned(&transform.0)));
    let bytes = match transforms {
        [] => return Err(Error::argument("transforms to write", "at least one", 0)),
        several if is_matlab(path) => {
            let product = several.iter().fold(Affine::IDENTITY, |chain, next| next.after(&chain));
            matlab::print(&narrowest(&product))
        }
        [only] => text::print(&[narrowest(only)]).into_bytes(),
        several => {
            let composite = Record { kind: "CompositeTransform_double_3_3".into(), ..Record::default() };
            let records: Vec<Record> = std::iter::once(composite).chain(several.iter().rev().map(narrowest)).collect();
            text::print(&records).into_bytes()
        }
    };
    write_atomic(path, |file| file.write_all(&bytes))
}

fn is_matlab(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("mat"))
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
        Ok(text) if !text.contains('\0') => text::parse(text)?,
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

/// From LPS to RAS or back: their first two axes point the other way.
fn turned(matrix: &Matrix) -> Matrix {
    let sign = [-1.0, -1.0, 1.0];
    std::array::from_fn(|r| std::array::from_fn(|c| sign[r] * matrix[r][c] * if c < 3 { sign[c] } else { 1.0 }))
}
