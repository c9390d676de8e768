//! The class of ITK's in which a transform is written.

use super::Record;
use super::kinds;
use super::rotation::{Rotation, to_euler, to_versor};
use crate::registration::Transformation;
use crate::volume::Affine;

/// The largest difference of an element of the matrix that passes as rounding: a point a metre from the origin moves by 1e-9 mm.
const TOLERANCE: f64 = 1e-12;

/// A map of LPS millimetres as ITK's class of a family, or as an AffineTransform where it is not of that family: a
/// rigid search from a start that scales gives a map that scales.
pub(super) fn record(map: &Affine, family: Transformation) -> Record {
    own_class(map, family).unwrap_or_else(|| {
        let (matrix, translation) = parts(map);
        new("AffineTransform", &[matrix.as_flattened(), &translation], &[0.0; 3])
    })
}

/// A map of LPS millimetres as the class of the narrowest family that it is of.
pub(super) fn narrowest(map: &Affine) -> Record {
    let families = [Transformation::Translation, Transformation::Rigid, Transformation::Similarity];
    let found = families.into_iter().find_map(|family| own_class(map, family));
    found.unwrap_or_else(|| record(map, Transformation::Affine))
}

fn parts(map: &Affine) -> (Rotation, [f64; 3]) {
    (map.0.map(|[a, b, c, _]| [a, b, c]), map.0.map(|row| row[3]))
}

/// The record of the family's own class, if the map is of the family.
fn own_class(map: &Affine, family: Transformation) -> Option<Record> {
    let (matrix, translation) = parts(map);
    let own = match family {
        Transformation::Affine => None,
        Transformation::Translation => Some(new("TranslationTransform", &[&translation], &[])),
        Transformation::Rigid => {
            // ITK-SNAP, 3D Slicer and ANTs know it, and unlike a versor it keeps its digits near a half turn. The fourth fixed
            // parameter is ComputeZYX.
            Some(new("Euler3DTransform", &[&to_euler(&matrix), &translation], &[0.0; 4]))
        }
        Transformation::Similarity => {
            let scale = map.determinant().cbrt();
            let versor = to_versor(&matrix.map(|row| row.map(|v| v / scale)));
            Some(new("Similarity3DTransform", &[&versor, &translation, &[scale]], &[0.0; 3]))
        }
    };
    // What a reader makes of it decides, not what the matrix looks like.
    let is_same = |record: &Record| match kinds::affine(record) {
        Ok(read) => read.0.as_flattened().iter().zip(map.0.as_flattened()).all(|(a, b)| (a - b).abs() <= TOLERANCE),
        Err(_) => false,
    };
    own.filter(is_same)
}

fn new(class: &str, parameters: &[&[f64]], fixed: &[f64]) -> Record {
    Record {
        kind: format!("{class}_double_3_3"),
        // -0 and 0 are the same; the former only looks odd.
        parameters: parameters.concat().iter().map(|v| v + 0.0).collect(),
        fixed: fixed.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::transform::itk::rotation::{from_euler, product};

    fn map(scale: f64, angles: [f64; 3], translation: [f64; 3]) -> Affine {
        let matrix = from_euler(angles, false);
        Affine(std::array::from_fn(|r| {
            let [a, b, c] = matrix[r].map(|v| v * scale);
            [a, b, c, translation[r]]
        }))
    }

    #[test]
    fn a_map_that_is_not_of_the_family_is_written_as_affine() {
        let moved = [4.0, -7.5, 100.25];
        let (shift, turn) = (map(1.0, [0.0; 3], moved), map(1.0, [0.2, -0.1, 0.4], moved));
        let (grown, mirrored) = (map(1.1, [0.2, -0.1, 0.4], moved), map(-1.0, [0.2, -0.1, 0.4], moved));
        let mut skewed = grown;
        skewed.0[0][1] += 1e-6;
        let class = |map: &Affine, family| {
            let record = record(map, family);
            let read = kinds::affine(&record).expect("a transform");
            for (a, b) in read.0.as_flattened().iter().zip(map.0.as_flattened()) {
                assert!((a - b).abs() <= 1e-14, "{record:?} of {map:?}");
            }
            record.kind.trim_end_matches("Transform_double_3_3").to_owned()
        };
        use Transformation::{Affine as Any, Rigid, Similarity, Translation};
        for (map, [translation, rigid, similarity]) in [
            (&shift, ["Translation", "Euler3D", "Similarity3D"]),
            (&turn, ["Affine", "Euler3D", "Similarity3D"]),
            (&grown, ["Affine", "Affine", "Similarity3D"]),
            (&skewed, ["Affine", "Affine", "Affine"]),
            (&mirrored, ["Affine", "Affine", "Similarity3D"]),
        ] {
            assert_eq!(class(map, Translation), translation);
            assert_eq!(class(map, Rigid), rigid);
            assert_eq!(class(map, Similarity), similarity);
            assert_eq!(class(map, Any), "Affine");
            let first = [translation, rigid, similarity].into_iter().find(|name| *name != "Affine").unwrap_or("Affine");
            assert_eq!(narrowest(map).kind, format!("{first}Transform_double_3_3"));
        }
        // Nothing of this is finite, and nothing panics.
        for broken in [map(0.0, [0.0; 3], moved), map(f64::NAN, [0.0; 3], moved)] {
            Transformation::ALL.into_iter().for_each(|family| drop(record(&broken, family)));
        }
        let turned = product(&from_euler([0.1, 0.0, 0.0], false), &from_euler([0.2, 0.0, 0.0], false));
        assert!((to_euler(&turned)[0] - 0.3).abs() < 1e-15);
    }
}
