//! ITK's transforms of three dimensions as affine maps x' = A (x - c) + c + t.
//!
//! Source: ITK's Modules/Core/Transform, each class's ComputeMatrix.

use super::Record;
use super::rotation::{Rotation, diagonal, from_euler, from_quaternion, from_versor, product};
use crate::volume::Affine;
use nephron_compute::shown;

/// The affine map of a record, in the record's own (LPS) millimetres.
pub(super) fn affine(record: &Record) -> Result<Affine, String> {
    let kind = &record.kind;
    let known = "expected a rigid, similarity, affine, scale or translation transform of 3 dimensions";
    let unknown = || format!("{known}, found {}", shown(kind));
    let name = ["_double_3_3", "_float_3_3"].iter().find_map(|end| kind.strip_suffix(end)).ok_or_else(unknown)?;
    let p = &record.parameters;
    let expect = |count: usize| match p.len() {
        found if found == count => Ok(()),
        found => Err(format!("expected {count} parameters of {name}, found {found}")),
    };
    let vector = |first: usize| [p[first], p[first + 1], p[first + 2]];
    let zyx = || record.fixed.get(3).is_some_and(|flag| *flag != 0.0);
    // The transforms that are named Centered have their centre among the parameters.
    let mut own_centre = None;
    let (matrix, translation) = match name {
        // Written by ITK 4 with an empty list, and by others with none.
        "IdentityTransform" => (diagonal([1.0; 3]), [0.0; 3]),
        "TranslationTransform" => {
            expect(3)?;
            (diagonal([1.0; 3]), vector(0))
        }
        "ScaleTransform" => {
            expect(3)?;
            (diagonal(vector(0)), [0.0; 3])
        }
        "ScaleLogarithmicTransform" => {
            expect(3)?;
            (diagonal(vector(0).map(f64::exp)), [0.0; 3])
        }
        "AffineTransform"
        | "MatrixOffsetTransformBase"
        | "Rigid3DTransform"
        | "ScalableAffineTransform"
        | "FixedCenterOfRotationAffineTransform" => {
            expect(12)?;
            ([vector(0), vector(3), vector(6)], vector(9))
        }
        "CenteredAffineTransform" => {
            expect(15)?;
            own_centre = Some(vector(9));
            ([vector(0), vector(3), vector(6)], vector(12))
        }
        "Euler3DTransform" => {
            expect(6)?;
            (from_euler(vector(0), zyx()), vector(3))
        }
        "CenteredEuler3DTransform" => {
            expect(9)?;
            own_centre = Some(vector(3));
            (from_euler(vector(0), zyx()), vector(6))
        }
        "QuaternionRigidTransform" => {
            expect(7)?;
            (from_quaternion([p[0], p[1], p[2], p[3]]), vector(4))
        }
        "VersorTransform" => {
            expect(3)?;
            (from_versor(vector(0))?, [0.0; 3])
        }
        "VersorRigid3DTransform" => {
            expect(6)?;
            (from_versor(vector(0))?, vector(3))
        }
        "Similarity3DTransform" => {
            expect(7)?;
            (from_versor(vector(0))?.map(|row| row.map(|v| v * p[6])), vector(3))
        }
        "ScaleVersor3DTransform" => {
            expect(9)?;
            (added(&from_versor(vector(0))?, vector(6), [0.0; 6]), vector(3))
        }
        "ScaleSkewVersor3DTransform" => {
            expect(15)?;
            let skew = std::array::from_fn(|i| p[9 + i]);
            (added(&from_versor(vector(0))?, vector(6), skew), vector(3))
        }
        "ComposeScaleSkewVersor3DTransform" => {
            expect(12)?;
            let skew = [[1.0, p[9], p[10]], [0.0, 1.0, p[11]], [0.0, 0.0, 1.0]];
            (product(&from_versor(vector(0))?, &product(&diagonal(vector(6)), &skew)), vector(3))
        }
        _ => return Err(unknown()),
    };
    let centre = match (own_centre, record.fixed.as_slice()) {
        (Some(centre), _) => centre,
        (None, []) => [0.0; 3],
        // Some transforms have no centre, and nothing or a 0 in its place.
        _ if matches!(name, "TranslationTransform" | "IdentityTransform") => [0.0; 3],
        (None, [x, y, z] | [x, y, z, _]) => [*x, *y, *z],
        (None, other) => {
            return Err(format!("expected 3 fixed parameters of {name}, the centre, found {}", other.len()));
        }
    };
    Ok(Affine(std::array::from_fn(|r| {
        let turned: f64 = (0..3).map(|k| matrix[r][k] * centre[k]).sum();
        let [a, b, c] = matrix[r];
        [a, b, c, translation[r] + centre[r] - turned]
    })))
}

/// ITK adds scales and skews (the rows of the matrix without its diagonal) to the rotation instead of multiplying by them.
fn added(rotation: &Rotation, scale: [f64; 3], [xy, xz, yx, yz, zx, zy]: [f64; 6]) -> Rotation {
    let [x, y, z] = scale.map(|scale| scale - 1.0);
    let terms = [[x, xy, xz], [yx, y, yz], [zx, zy, z]];
    std::array::from_fn(|r| std::array::from_fn(|c| rotation[r][c] + terms[r][c]))
}
