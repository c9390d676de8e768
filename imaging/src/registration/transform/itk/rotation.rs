//! Rotations as ITK parametrises them, and back.

pub(super) type Rotation = [[f64; 3]; 3];

pub(super) fn diagonal([x, y, z]: [f64; 3]) -> Rotation {
    [[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, z]]
}

pub(super) fn product(a: &Rotation, b: &Rotation) -> Rotation {
    std::array::from_fn(|r| std::array::from_fn(|c| (0..3).map(|k| a[r][k] * b[k][c]).sum()))
}

/// Rotations about x, y and z: z x y, or z y x where ComputeZYX is set.
pub(super) fn from_euler([x, y, z]: [f64; 3], zyx: bool) -> Rotation {
    let about_x = [[1.0, 0.0, 0.0], [0.0, x.cos(), -x.sin()], [0.0, x.sin(), x.cos()]];
    let about_y = [[y.cos(), 0.0, y.sin()], [0.0, 1.0, 0.0], [-y.sin(), 0.0, y.cos()]];
    let (first, second) = if zyx { (about_x, about_y) } else { (about_y, about_x) };
    product(&about_z(z), &product(&second, &first))
}

fn about_z(angle: f64) -> Rotation {
    let (sin, cos) = angle.sin_cos();
    [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]
}

/// The angles about x, y and z of a rotation z x y.
///
/// The first row of x y is (cos y, 0, sin y) and its second column (0, cos x, sin x). Where x is a quarter turn, z and y turn about
/// one axis and z is not determined; y and x follow from what z leaves, so that the three are right together.
pub(super) fn to_euler(rotation: &Rotation) -> [f64; 3] {
    let z = (-rotation[0][1]).atan2(rotation[1][1]);
    let rest = product(&about_z(-z), rotation);
    [rest[2][1].atan2(rest[1][1]), rest[0][2].atan2(rest[0][0]), z]
}

/// The rotation of a unit quaternion by its vector part; its scalar part is 0 or more.
pub(super) fn from_versor([x, y, z]: [f64; 3]) -> Result<Rotation, String> {
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

/// The matrix of a quaternion (x, y, z, w). One that is not a unit scales by the square of its length, as in ITK.
pub(super) fn from_quaternion([x, y, z, w]: [f64; 4]) -> Rotation {
    let [xx, yy, zz, ww] = [x * x, y * y, z * z, w * w];
    [
        [ww + xx - yy - zz, 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), ww - xx + yy - zz, 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), ww - xx - yy + zz],
    ]
}

/// The vector part of a rotation's unit quaternion whose scalar part is 0 or more.
///
/// Each of the four parts is the root of a sum of the diagonal. The largest is taken of it and the others are quotients by
/// it, which loses no digits. Source: S. W. Shepperd, Quaternion from rotation matrix, 1978.
pub(super) fn to_versor(m: &Rotation) -> [f64; 3] {
    let trace = m[0][0] + m[1][1] + m[2][2];
    let largest = (0..3).fold(0, |best, k| if m[k][k] > m[best][best] { k } else { best });
    if trace > m[largest][largest] {
        let w = (1.0 + trace).max(0.0).sqrt() / 2.0;
        return [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]].map(|v| v / (4.0 * w));
    }
    let (i, j, k) = (largest, (largest + 1) % 3, (largest + 2) % 3);
    let part = (1.0 + m[i][i] - m[j][j] - m[k][k]).max(0.0).sqrt() / 2.0;
    let mut versor = [0.0; 3];
    versor[i] = part;
    versor[j] = (m[i][j] + m[j][i]) / (4.0 * part);
    versor[k] = (m[i][k] + m[k][i]) / (4.0 * part);
    if m[k][j] < m[j][k] { versor.map(|v| -v) } else { versor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_same(got: &Rotation, want: &Rotation, bound: f64) {
        for (a, b) in got.as_flattened().iter().zip(want.as_flattened()) {
            assert!((a - b).abs() <= bound, "{got:?}, expected {want:?}");
        }
    }

    /// Angles over the whole circle, quarter turns about x, where two axes coincide, and their neighbours.
    #[test]
    fn angles_and_versors_give_the_rotation_back() {
        let quarter = std::f64::consts::FRAC_PI_2;
        for x in [-quarter, -quarter + 1e-9, -0.7, 0.0, 0.3, 1.5, quarter - 1e-7, quarter] {
            for y in [-3.0, -quarter, -0.2, 0.0, 0.4, quarter, 2.5] {
                for z in [-2.8, -quarter, 0.0, 0.1, quarter, 3.1] {
                    let rotation = from_euler([x, y, z], false);
                    assert_same(&from_euler(to_euler(&rotation), false), &rotation, 1e-14);
                    let versor = to_versor(&rotation);
                    let squares: f64 = versor.iter().map(|v| v * v).sum();
                    assert!(squares <= 1.0 + 1e-14, "{versor:?}");
                    // Within an angle of a of a half turn the scalar part a / 2 is a root of 1 - squares, which has an error of some 1e-16.
                    let bound = 1e-14 / (1.0 - squares).max(1e-16).sqrt();
                    assert_same(&from_versor(versor).expect("a versor"), &rotation, bound);
                    let [a, b, c] = versor;
                    assert_same(&from_quaternion([a, b, c, (1.0 - squares).max(0.0).sqrt()]), &rotation, bound);
                }
            }
        }
    }

    #[test]
    fn half_turns_have_versors_of_length_1() {
        for (rotation, want) in [
            (diagonal([1.0, -1.0, -1.0]), [1.0, 0.0, 0.0]),
            (diagonal([-1.0, 1.0, -1.0]), [0.0, 1.0, 0.0]),
            (diagonal([-1.0, -1.0, 1.0]), [0.0, 0.0, 1.0]),
        ] {
            assert_eq!(to_versor(&rotation), want);
            assert_same(&from_euler(to_euler(&rotation), false), &rotation, 1e-15);
        }
    }
}
