//! From the header's fields to an affine, as nibabel reads them, and back.

use super::header::{Fields, Version};
use crate::volume::Affine;

/// Which of the three methods of NIfTI gave the affine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeometrySource {
    /// The sform: the rows of the affine, used when sform_code is not 0.
    Sform,
    /// The qform: a quaternion, an offset and the voxel size, used when only qform_code is not 0.
    Qform,
    /// The voxel size alone: the origin is the middle of the image and, by nibabel's convention, x runs to the left.
    Pixdim,
}

/// The qform: a rotation, a voxel size and an offset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Qform {
    /// The coordinate system, NIFTI_XFORM_*, never 0.
    pub code: i64,
    /// The quaternion's b, c, d as stored; a = sqrt(1 - b^2 - c^2 - d^2).
    pub quaternion: [f64; 3],
    /// The map from an index to RAS+ millimetres.
    pub affine: Affine,
}

/// The geometry of a header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// The method that gave `affine`.
    pub source: GeometrySource,
    /// The coordinate system of the sform, NIFTI_XFORM_*: 0 for none, 1 scanner, 2 aligned, 3 Talairach, 4 MNI.
    pub sform_code: i64,
    /// The qform, where the header has a valid one.
    pub qform: Option<Qform>,
    /// The map from an index to RAS+ millimetres.
    pub affine: Affine,
    /// Millimetres along (i, j, k) by pixdim, which may differ from the affine's: nnU-Net's and ITK's readers take these.
    pub pixdim: [f64; 3],
}

impl Geometry {
    /// Scanner coordinates (code 1) for an image that was not read from a file: a sform, and a qform where the axes are orthogonal.
    pub(super) fn scanner(affine: Affine) -> Self {
        let mut fields = Fields::default();
        let qform = write_qform(&mut fields, 1, &affine, None, Version::Two).map(|affine| Qform {
            code: 1,
            quaternion: fields.quatern,
            affine,
        });
        Self { source: GeometrySource::Sform, sform_code: 1, qform, affine, pixdim: affine.spacing() }
    }
}

/// Reads the geometry; `axes` is the number of axes in the header, `shape` the first three lengths (i, j, k). Conditions that the
/// user should know of and that do not prevent reading are added to `warnings`.
pub(super) fn read(
    fields: &Fields,
    version: Version,
    axes: usize,
    shape: [usize; 3],
    warnings: &mut Vec<String>,
) -> Result<Geometry, String> {
    let spacing = voxel_size(fields, axes, warnings)?;
    let qform = match fields.qform_code {
        0 => None,
        code => match qform_affine(fields, version.rounding(), spacing, warnings) {
            Ok(affine) => Some(Qform { code, quaternion: fields.quatern, affine }),
            Err(reason) if fields.sform_code == 0 => return Err(reason),
            Err(reason) => {
                warnings.push(format!("{reason}; the sform is used"));
                None
            }
        },
    };
    let sform = (fields.sform_code != 0).then_some(Affine(fields.srow));
    let fault = sform.as_ref().and_then(|affine| fault(affine).map(|reason| format!("its sform {reason}")));
    let (source, affine) = match (sform, &qform, fault) {
        (Some(affine), _, None) => (GeometrySource::Sform, affine),
        (Some(_), Some(qform), Some(reason)) => {
            warnings.push(format!("{reason}; the qform is used"));
            (GeometrySource::Qform, qform.affine)
        }
        (Some(_), None, Some(reason)) => return Err(reason),
        (None, Some(qform), _) => (GeometrySource::Qform, qform.affine),
        (None, None, _) => {
            warnings
                .push("neither sform nor qform: the orientation is a guess (x to the left, y forward, z up)".into());
            (GeometrySource::Pixdim, centred(shape, spacing))
        }
    };
    if let Some(reason) = self::fault(&affine) {
        return Err(format!("its affine {reason}"));
    }
    check_consistency(&affine, spacing, shape, qform.as_ref(), warnings);
    Ok(Geometry { source, sform_code: fields.sform_code, qform, affine, pixdim: spacing })
}

/// What keeps an affine from being a geometry.
fn fault(affine: &Affine) -> Option<String> {
    if affine.0.as_flattened().iter().any(|v| !v.is_finite()) {
        return Some("has values that are not finite".into());
    }
    let singular = affine.inverse().is_err();
    singular.then(|| format!("is singular (determinant {:e}), no geometry", affine.determinant()))
}

/// The voxel size of pixdim, by its absolute value as ITK takes it. A sform says the size where pixdim has 0 or no number.
fn voxel_size(fields: &Fields, axes: usize, warnings: &mut Vec<String>) -> Result<[f64; 3], String> {
    let columns = Affine(fields.srow).spacing();
    let mut spacing = [fields.pixdim[1], fields.pixdim[2], fields.pixdim[3]];
    for (axis, step) in spacing.iter_mut().enumerate() {
        if axis >= axes && *step == 0.0 {
            *step = 1.0; // an image of fewer axes says nothing about the others
        }
        let found = *step;
        let sound = |size: f64| size.is_finite() && size > 0.0;
        if sound(-found) {
            warnings.push(format!("the voxel size along axis {} is {found} mm (pixdim); {} is used", axis + 1, -found));
            *step = -found;
        } else if !sound(found) && fields.sform_code != 0 && sound(columns[axis]) {
            let by = columns[axis];
            warnings.push(format!(
                "the voxel size along axis {} is {found} mm (pixdim); the sform's {by} is used",
                axis + 1
            ));
            *step = by;
        } else if !sound(found) {
            return Err(format!("the voxel size along axis {} is {found} mm (pixdim), expected more than 0", axis + 1));
        }
    }
    Ok(spacing)
}

/// Millimetres for a header in metres or micrometres, as ITK reads it.
pub(super) fn in_millimetres(mut fields: Fields, warnings: &mut Vec<String>) -> Fields {
    let (unit, scale) = match fields.units & 7 {
        1 => ("metres", 1e3),
        3 => ("micrometres", 1e-3),
        _ => return fields,
    };
    warnings.push(format!("the header's unit is {unit}: its lengths are converted to millimetres"));
    fields.pixdim[1..4].iter_mut().for_each(|v| *v *= scale);
    fields.qoffset.iter_mut().for_each(|v| *v *= scale);
    fields.srow.as_flattened_mut().iter_mut().for_each(|v| *v *= scale);
    fields.units = fields.units & !7 | 2;
    fields
}

fn check_consistency(
    affine: &Affine,
    spacing: [f64; 3],
    shape: [usize; 3],
    qform: Option<&Qform>,
    warnings: &mut Vec<String>,
) {
    let found = affine.spacing();
    if (0..3).any(|a| (found[a] - spacing[a]).abs() > 0.01 * spacing[a]) {
        warnings.push(format!(
            "the affine's voxel size {found:.4?} differs from pixdim's {spacing:.4?}; it is used, but for \
             segment's resampling, which goes by pixdim as nnU-Net does"
        ));
    }
    warnings.extend(skew_warning(affine));
    if let Some(qform) = qform {
        let apart = farthest(affine, &qform.affine, shape);
        if apart > 0.5 * found.iter().copied().fold(f64::INFINITY, f64::min) {
            warnings.push(format!("sform and qform differ by up to {apart:.2} mm; the sform is used"));
        }
    }
}

/// The warning of axes that are not at right angles, in any format.
pub(crate) fn skew_warning(affine: &Affine) -> Option<String> {
    let cosine = affine.largest_cosine();
    (cosine > 1e-3)
        .then(|| format!("the axes are not at right angles (cosine {cosine:.4}); the affine is used as it is"))
}

/// The largest distance in mm between the positions that two affines give to a corner of the image.
pub(super) fn farthest(a: &Affine, b: &Affine, shape: [usize; 3]) -> f64 {
    (0..8usize)
        .map(|corner| std::array::from_fn(|axis| if corner >> axis & 1 == 1 { shape[axis] as f64 - 1.0 } else { 0.0 }))
        .map(|index: [f64; 3]| {
            let (p, q) = (a.apply(index), b.apply(index));
            (0..3).map(|axis| (p[axis] - q[axis]).powi(2)).sum::<f64>().sqrt()
        })
        .fold(0.0, f64::max)
}

/// nibabel's fallback: a diagonal affine with the middle of the image at 0 and x flipped.
pub(super) fn centred(shape: [usize; 3], spacing: [f64; 3]) -> Affine {
    let signed = [-spacing[0], spacing[1], spacing[2]];
    Affine(std::array::from_fn(|r| {
        let mut row = [0.0; 4];
        row[r] = signed[r];
        row[3] = -(shape[r] as f64 - 1.0) / 2.0 * signed[r];
        row
    }))
}

/// The affine of the qform: R(quaternion) diag(spacing x, spacing y, qfac spacing z) and the offset.
fn qform_affine(
    fields: &Fields,
    rounding: f64,
    mut spacing: [f64; 3],
    warnings: &mut Vec<String>,
) -> Result<Affine, String> {
    let [b, c, d] = fields.quatern;
    let a2 = 1.0 - (b * b + c * c + d * d);
    // nibabel refuses an a^2 that is below 0 by more than rounding. A slightly longer quaternion is still a rotation once it is
    // normalised, so it is accepted with a warning.
    if a2.is_nan() || a2 < -0.01 {
        return Err(format!("its qform is not a rotation: the quaternion's b, c, d {b}, {c}, {d} are longer than 1"));
    }
    if a2 < -rounding {
        warnings.push(format!("the qform's quaternion is longer than 1 (by {:.1e}); it is normalised", -a2));
    }
    let qfac = fields.pixdim[0];
    if qfac == -1.0 {
        spacing[2] = -spacing[2];
    } else if qfac != 1.0 && qfac != 0.0 {
        warnings.push(format!("qfac (pixdim[0]) is {qfac}, expected 1 or -1; 1 is used"));
    }
    Ok(from_quaternion(fields.quatern, rounding, spacing, fields.qoffset))
}

/// The affine of a quaternion's b, c, d, signed voxel sizes and an offset. An a^2 below `rounding` counts as 0, as in nibabel: the
/// stored b, c and d cannot distinguish a half turn from one that is off by the root of their rounding.
fn from_quaternion([b, c, d]: [f64; 3], rounding: f64, steps: [f64; 3], offset: [f64; 3]) -> Affine {
    let a2 = 1.0 - (b * b + c * c + d * d);
    let a = if a2 < rounding { 0.0 } else { a2.sqrt() };
    let s = 2.0 / (a * a + b * b + c * c + d * d);
    let rotation = [
        [1.0 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
        [s * (b * c + a * d), 1.0 - s * (b * b + d * d), s * (c * d - a * b)],
        [s * (b * d - a * c), s * (c * d + a * b), 1.0 - s * (b * b + c * c)],
    ];
    Affine(std::array::from_fn(|r| {
        let row = rotation[r];
        [row[0] * steps[0], row[1] * steps[1], row[2] * steps[2], offset[r]]
    }))
}

/// Fills in the fields of a qform with `code` that represents `affine`, and returns the affine that a reader of this version gets
/// from them; None where the axes are not at right angles. The quaternion of `known` is reused where it is the same rotation,
/// because one whose a is nearly 0 loses digits each time it is computed anew.
pub(super) fn write_qform(
    fields: &mut Fields,
    code: i64,
    affine: &Affine,
    known: Option<&Qform>,
    version: Version,
) -> Option<Affine> {
    if affine.largest_cosine() > 1e-4 {
        return None;
    }
    let spacing = affine.spacing();
    let qfac = affine.determinant().signum();
    let unit = |m: &Affine| {
        let length = m.spacing();
        m.0.map(|r| [r[0] / length[0], r[1] / length[1], r[2] / length[2]])
    };
    let mut rotation = unit(affine);
    let same = |q: &&Qform| {
        let other = unit(&q.affine);
        (0..9).all(|i| (rotation.as_flattened()[i] - other.as_flattened()[i]).abs() < 1e-9)
    };
    fields.quatern = match known.filter(same) {
        Some(qform) => qform.quaternion.map(|v| version.round(v)),
        None => {
            rotation.iter_mut().for_each(|row| row[2] *= qfac);
            to_quaternion(rotation).map(|v| version.round(v))
        }
    };
    fields.qform_code = code;
    fields.qoffset = std::array::from_fn(|r| version.round(affine.0[r][3]));
    fields.pixdim[0] = qfac;
    fields.pixdim[1..4].copy_from_slice(&spacing.map(|v| version.round(v)));
    let [x, y, z] = spacing.map(|v| version.round(v));
    Some(from_quaternion(fields.quatern, version.rounding(), [x, y, z * qfac], fields.qoffset))
}

/// The b, c, d of a rotation's quaternion with a >= 0, computed from the largest of the four components so that no divisor is
/// small (Shepperd 1978).
fn to_quaternion(m: [[f64; 3]; 3]) -> [f64; 3] {
    let trace = m[0][0] + m[1][1] + m[2][2];
    let squares = [1.0 + trace, 1.0 + 2.0 * m[0][0] - trace, 1.0 + 2.0 * m[1][1] - trace, 1.0 + 2.0 * m[2][2] - trace];
    let largest = (1..4).fold(0, |best, i| if squares[i] > squares[best] { i } else { best });
    let twice = squares[largest].max(0.0).sqrt(); // Twice the largest component.
    let (bc, bd, cd) = (m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]);
    let (ab, ac, ad) = (m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]);
    let products = match largest {
        0 => [twice * twice, ab, ac, ad],
        1 => [ab, twice * twice, bc, bd],
        2 => [ac, bc, twice * twice, cd],
        _ => [ad, bd, cd, twice * twice],
    };
    let [a, b, c, d] = products.map(|p| p / (2.0 * twice));
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    [sign * b, sign * c, sign * d]
}
