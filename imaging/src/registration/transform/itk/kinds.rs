//! ITK's transforms of three dimensions as affine maps x' = A (x - c) + c + t.
//!
//! Source: ITK's Modules/Core/Transform, each class's ComputeMatrix.

use super::Record;
use crate::volume::Affine;
use nephron_compute::shown;

type Rotation = [[f64; 3]; 3];

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
    let (matrix, translation) = match name {
        "IdentityTransform" => (diagonal([1.0; 3]), [0.0; 3]),
        "TranslationTransform" => {
            expect(3)?;
            (diagonal([1.0; 3]), vector(0))
        }
        "ScaleTransform" => {
            expect(3)?;
            (diagonal(vector(0)), [0.0; 3])
        }
        "AffineTransform" | "MatrixOffsetTransformBase" | "Rigid3DTransform" => {
            expect(12)?;
            ([vector(0), vector(3), vector(6)], vector(9))
        }
        "Euler3DTransform" => {
            expect(6)?;
            (euler(vector(0), record.fixed.get(3).is_some_and(|flag| *flag != 0.0)), vector(3))
        }
        "VersorTransform" => {
            expect(3)?;
            (versor(vector(0))?, [0.0; 3])
        }
        "VersorRigid3DTransform" => {
            expect(6)?;
            (versor(vector(0))?, vector(3))
        }
        "Similarity3DTransform" => {
            expect(7)?;
            (versor(vector(0))?.map(|row| row.map(|v| v * p[6])), vector(3))
        }
        _ => return Err(unknown()),
    };
    let centre = match record.fixed.as_slice() {
        [] => [0.0; 3],
        // Some transforms have no centre, and nothing or a 0 in its place.
        _ if matches!(name, "TranslationTransform" | "IdentityTransform") => [0.0; 3],
        [x, y, z] | [x, y, z, _] => [*x, *y, *z],
        other => return Err(format!("expected 3 fixed parameters of {name}, the centre, found {}", other.len())),
    };
    Ok(Affine(std::array::from_fn(|r| {
        let turned: f64 = (0..3).map(|k| matrix[r][k] * centre[k]).sum();
        let [a, b, c] = matrix[r];
        [a, b, c, translation[r] + centre[r] - turned]
    })))
}

fn diagonal([x, y, z]: [f64; 3]) -> Rotation {
    [[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, z]]
}

fn product(a: &Rotation, b: &Rotation) -> Rotation {
    std::array::from_fn(|r| std::array::from_fn(|c| (0..3).map(|k| a[r][k] * b[k][c]).sum()))
}

/// Rotations about x, y and z: z x y, or z y x where ComputeZYX is set.
fn euler([x, y, z]: [f64; 3], zyx: bool) -> Rotation {
    let about_x = [[1.0, 0.0, 0.0], [0.0, x.cos(), -x.sin()], [0.0, x.sin(), x.cos()]];
    let about_y = [[y.cos(), 0.0, y.sin()], [0.0, 1.0, 0.0], [-y.sin(), 0.0, y.cos()]];
    let about_z = [[z.cos(), -z.sin(), 0.0], [z.sin(), z.cos(), 0.0], [0.0, 0.0, 1.0]];
    let (first, second) = if zyx { (about_x, about_y) } else { (about_y, about_x) };
    product(&about_z, &product(&second, &first))
}

/// The rotation of a unit quaternion by its vector part.
fn versor([x, y, z]: [f64; 3]) -> Result<Rotation, String> {
    let squares = x * x + y * y + z * z;
    // Written with a few digits, a half turn may be a little longer than 1.
    if squares.is_nan() || squares > 1.0 + 1e-6 {
        return Err(format!("expected a versor of length 1 at most, found {x}, {y}, {z}"));
    }
    let w = (1.0 - squares).max(0.0).sqrt();
    Ok([
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
    ])
}
