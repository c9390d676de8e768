//! Files of ITK's transforms: read, written, and refused.

use nephron_compute::Error;
use nephron_imaging::registration::{Transformation, transform};
use nephron_imaging::volume::Affine;

use crate::kidneys::motion;

#[test]
fn transforms_are_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let map = motion(12.0, 0.93, [4.0, -7.5, 100.25]);
    transform::write_itk(at("a.tfm"), &map).expect("written");
    let back = transform::read(at("a.tfm")).expect("read");
    for (a, b) in map.0.as_flattened().iter().zip(back.0.as_flattened()) {
        assert!((a - b).abs() < 1e-12, "{map:?} {back:?}");
    }
    // ITK's form with a centre: x' = A (x - c) + c + t, in LPS. A doubles, so the centre stays where t = 0.
    let centred = "#Insight Transform File V1.0\n#Transform 0\nTransform: MatrixOffsetTransformBase_double_3_3\n\
                   Parameters: 2 0 0 0 2 0 0 0 2 0 0 0\nFixedParameters: 10 -20 30\n";
    std::fs::write(at("b.tfm"), centred).expect("written");
    let doubled = transform::read(at("b.tfm")).expect("read");
    assert_eq!(doubled.apply([-10.0, 20.0, 30.0]), [-10.0, 20.0, 30.0]);
    assert_eq!(doubled.apply([-9.0, 20.0, 30.0]), [-8.0, 20.0, 30.0]);
    for (text, part) in [
        ("", "no line 'Transform:'"),
        ("Transform: BSplineTransform_double_3_3\nParameters: 0 0 0 0 0 0\n", "BSplineTransform_double_3_3"),
        ("Transform: Euler2DTransform_double_2_2\nParameters: 0 0 0\n", "Euler2DTransform_double_2_2"),
        (
            "Transform: AffineTransform_double_3_3\nParameters: 1 0 0\nFixedParameters: 0 0 0\n",
            "expected 12 parameters",
        ),
        ("Transform: AffineTransform_double_3_3\nParameters: 1 x 0\n", "found 'x'"),
        ("Transform: VersorTransform_double_3_3\nParameters: 1 1 0\nFixedParameters: 0 0 0\n", "length 1 at most"),
        ("Transform: CompositeTransform_double_3_3\n", "found none"),
        (&centred.repeat(2), "a CompositeTransform in front of several, found 2"),
        (&centred.replace("2 0 0 0 2 0", "2 0 0 0 inf 0"), "finite"),
        (&centred.replace("2 0 0 0 2 0", "0 0 0 0 2 0"), "invertible"),
    ] {
        std::fs::write(at("c.tfm"), text).expect("written");
        let message = transform::read(at("c.tfm")).expect_err("refused").to_string();
        assert!(message.contains(part) && message.contains("c.tfm"), "{message}");
    }
}

/// Each of ITK's kinds as SimpleITK 2.5 or ITK 5.4 writes it, and where it moves the point (7, -11, 13), LPS.
const ITK: [(&str, [f64; 3]); 23] = [
    ("Transform: IdentityTransform_double_3_3\nParameters: \nFixedParameters: ", [7.0, -11.0, 13.0]),
    ("Transform: TranslationTransform_double_3_3\nParameters: 1.5 -2 3\nFixedParameters: ", [8.5, -13.0, 16.0]),
    (
        "Transform: ScaleTransform_double_3_3\nParameters: 1.1 0.9 1.05\nFixedParameters: 90 90 90",
        [-1.3000000000000114, -0.9000000000000057, 9.149999999999991],
    ),
    (
        "Transform: Euler3DTransform_double_3_3\nParameters: 0.1 -0.05 0.2 5 -3 8\nFixedParameters: 10 20 30 0",
        [18.684437737157744, -11.980815332025134, 17.862044263330368],
    ),
    (
        "Transform: Euler3DTransform_double_3_3\nParameters: 0.1 -0.05 0.2 5 -3 8\nFixedParameters: 10 20 30 1",
        [18.83442419261101, -11.963520636340382, 17.865162939338084],
    ),
    (
        "Transform: VersorTransform_double_3_3\nParameters: 0 0.05990004998809689 0.07986673331746252\nFixedParameters: 10 20 30",
        [9.96037249608417, -11.24398402309385, 13.182988017320387],
    ),
    (
        "Transform: VersorRigid3DTransform_double_3_3\nParameters: 0 0.05990004998809689 0.07986673331746252 4 -6 2\nFixedParameters: 50 60 70",
        [16.347064028794996, -23.473828706719754, 19.855371530039818],
    ),
    (
        "Transform: Similarity3DTransform_double_3_3\nParameters: 0 0.05990004998809689 0.07986673331746252 4 -6 2 1.1\nFixedParameters: 50 60 70",
        [12.581770431674487, -31.221211577391728, 14.640908683043797],
    ),
    (
        "Transform: AffineTransform_double_3_3\nParameters: 0.9800665778412416 0.19866933079506122 0 -0.19866933079506122 0.9800665778412416 0 0 0 1 3 4 -5\nFixedParameters: 10 20 30",
        [3.9010510118293777, -5.786055920693304, 8.0],
    ),
    (
        "Transform: CompositeTransform_double_3_3\n#Transform 1\nTransform: Euler3DTransform_double_3_3\nParameters: 0.1 -0.05 0.2 5 -3 8\nFixedParameters: 10 20 30 0\nTransform: AffineTransform_double_3_3\nParameters: 0.9800665778412416 0.19866933079506122 0 -0.19866933079506122 0.9800665778412416 0 0 0 1 3 4 -5\nFixedParameters: 10 20 30",
        [14.763178635178722, -6.957821987360019, 13.259657642454442],
    ),
    (
        "Transform: Euler3DTransform_float_3_3\nParameters: 0.1 -0.05 0.2 5 -3 8\nFixedParameters: 10 20 30 0",
        [18.684437737157744, -11.980815332025134, 17.862044263330368],
    ),
    (
        "Transform: MatrixOffsetTransformBase_double_3_3\nParameters: 1.1 0.1 0.2 0.3 0.9 0.4 0.5 0.6 1.2 1 2 3\nFixedParameters: 10 20 30",
        [1.200000000000001, -13.600000000000001, -7.5],
    ),
    (
        "Transform: ScaleLogarithmicTransform_double_3_3\nParameters: 0.1 -0.05 0.02\nFixedParameters: 90 90 90",
        [-1.729186200278761, -6.074171874572116, 11.444496817939807],
    ),
    // Not a unit, and not made one.
    (
        "Transform: QuaternionRigidTransform_double_3_3\nParameters: 0.1 0.2 -0.3 0.92736 5 -3 8\nFixedParameters: 10 20 30",
        [-10.994933708799998, -1.0576216576000022, 21.9632583168],
    ),
    (
        "Transform: ScaleVersor3DTransform_double_3_3\nParameters: 0.1 0.2 -0.3 4 -6 2 1.1 0.9 1.05\nFixedParameters: 50 60 70",
        [-42.18946496054192, 43.917860803244004, 31.732085548648712],
    ),
    (
        "Transform: ScaleSkewVersor3DTransform_double_3_3\nParameters: 0.1 0.2 -0.3 4 -6 2 1.1 0.9 1.05 0.01 -0.02 0.03 0.04 -0.05 0.06\nFixedParameters: 50 60 70",
        [-41.75946496054191, 40.34786080324401, 29.622085548648716],
    ),
    (
        "Transform: ComposeScaleSkewVersor3DTransform_double_3_3\nParameters: 0.1 0.2 -0.3 4 -6 2 1.1 0.9 1.05 0.01 -0.02 0.03\nFixedParameters: 50 60 70",
        [-38.29096192182133, 44.113585336423, 34.0304029170082],
    ),
    // The last is applied first: x is doubled, then moved.
    (
        "Transform: CompositeTransform_double_3_3\n#Transform 1\nTransform: TranslationTransform_double_3_3\nParameters: 1.5 -2 3\nFixedParameters: \n#Transform 2\nTransform: AffineTransform_double_3_3\nParameters: 2 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0",
        [15.5, -13.0, 16.0],
    ),
    // SimpleITK cannot hold these, and the points are those of ITK 5.4. A centre among the parameters counts, not the fixed one.
    (
        "Transform: CenteredAffineTransform_double_3_3\nParameters: 1.1 0.1 0.2 0.3 0.9 0.4 0.5 0.6 1.2 10 20 30 1 2 3\nFixedParameters: 7 8 9",
        [1.200000000000001, -13.600000000000001, -7.5],
    ),
    (
        "Transform: FixedCenterOfRotationAffineTransform_double_3_3\nParameters: 1.1 0.1 0.2 0.3 0.9 0.4 0.5 0.6 1.2 1 2 3\nFixedParameters: 10 20 30",
        [1.200000000000001, -13.600000000000001, -7.5],
    ),
    (
        "Transform: ScalableAffineTransform_double_3_3\nParameters: 1.1 0.1 0.2 0.3 0.9 0.4 0.5 0.6 1.2 1 2 3\nFixedParameters: 10 20 30",
        [1.200000000000001, -13.600000000000001, -7.5],
    ),
    (
        "Transform: CenteredEuler3DTransform_double_3_3\nParameters: 0.1 -0.05 0.2 10 20 30 5 -3 8\nFixedParameters: 0 0 0 1",
        [18.83442419261101, -11.963520636340382, 17.865162939338084],
    ),
    (
        "Transform: CenteredEuler3DTransform_double_3_3\nParameters: 0.1 -0.05 0.2 10 20 30 5 -3 8\nFixedParameters: 0 0 0 0",
        [18.684437737157744, -11.980815332025134, 17.862044263330368],
    ),
];

#[test]
fn every_linear_transform_of_itk_moves_points_as_itk_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("itk.tfm");
    for (text, [x, y, z]) in ITK {
        std::fs::write(&path, format!("#Insight Transform File V1.0\n#Transform 0\n{text}\n")).expect("written");
        let found = transform::read(&path).unwrap_or_else(|e| panic!("{text}: {e}"));
        // RAS: the first two axes point the other way.
        for (got, want) in found.apply([-7.0, 11.0, 13.0]).into_iter().zip([-x, -y, z]) {
            assert!((got - want).abs() < 1e-9, "{text}: {got}, expected {want}");
        }
    }
}

/// A matrix of MATLAB's level 4.
fn matlab(name: &str, values: &[f64]) -> Vec<u8> {
    let header = [0, values.len() as i32, 1, 0, name.len() as i32 + 1];
    let bytes = header.iter().flat_map(|v| v.to_le_bytes()).chain(name.bytes()).chain([0]);
    bytes.chain(values.iter().flat_map(|v| v.to_le_bytes())).collect()
}

#[test]
fn matlab_files_of_ants_are_read_and_broken_ones_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("0GenericAffine.mat");
    let parameters = [1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0, 3.0, 4.0, -5.0];
    let affine = matlab("AffineTransform_double_3_3", &parameters);
    let whole = [affine.clone(), matlab("fixed", &[10.0, 20.0, 30.0])].concat();
    std::fs::write(&path, &whole).expect("written");
    let found = transform::read(&path).expect("a transform");
    // LPS (7, -11, 13): y is doubled about 20, then (3, 4, -5) is added.
    assert_eq!(found.apply([-7.0, 11.0, 13.0]), [-10.0, 38.0, 8.0]);
    let huge = [affine[..4].to_vec(), i32::MAX.to_le_bytes().to_vec(), affine[8..].to_vec()].concat();
    let big_endian = [1000i32.to_le_bytes().to_vec(), affine[4..].to_vec()].concat();
    for (bytes, part) in [
        (whole[..whole.len() - 3].to_vec(), "cut short"),
        (huge, "values with a name"),
        (big_endian, "little-endian"),
        (matlab("fixed", &[0.0; 3]), "fixed parameters alone"),
        (b"\x89HDF\r\n\x1a\n".to_vec(), "ConvertTransformFile"),
        (vec![0xff; 7], "cut short"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        let message = transform::read(&path).expect_err("refused").to_string();
        assert!(message.contains(part) && message.contains("0GenericAffine.mat"), "{message}");
    }
}

/// A rotation of Euler's angles 0.1, -0.05 and 0.2, as SimpleITK computes it, in LPS.
const TURN: [[f64; 3]; 3] = [
    [0.9798330285738417, -0.19767681165408388, -0.029173862447215645],
    [0.1935309142629756, 0.975170327201816, -0.10765044435412294],
    [0.04972948160146045, 0.09983341664682815, 0.9937606691655043],
];

/// The map of RAS millimetres that scales and turns by [`TURN`] and moves by (5, -3, 8) in LPS.
fn turned(scale: f64) -> Affine {
    let (sign, moved) = ([-1.0, -1.0, 1.0], [5.0, -3.0, 8.0]);
    Affine(std::array::from_fn(|r| {
        let [a, b, c] = std::array::from_fn(|c| sign[r] * sign[c] * TURN[r][c] * scale);
        [a, b, c, sign[r] * moved[r]]
    }))
}

/// The class and the numbers of a text file.
fn numbers(text: &str) -> (String, Vec<f64>) {
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).expect("a line").trim().to_owned();
    let numbers = line("Parameters:").split(' ').map(|number| number.parse().expect("a number")).collect();
    (line("Transform:"), numbers)
}

/// What is written has ITK's class of the family, the parameters that SimpleITK gets from the same matrix, and reads back.
#[test]
fn families_are_written_as_their_own_classes() {
    let folder = tempfile::tempdir().expect("a folder");
    let shift = Affine([[1.0, 0.0, 0.0, -1.5], [0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0]]);
    let versor = [0.05220639856981492, -0.01985339682818769, 0.09843438600134446];
    let [p, q, r] = versor;
    for (family, map, class, want) in [
        (Transformation::Translation, shift, "TranslationTransform", vec![1.5, -2.0, 3.0]),
        (Transformation::Rigid, turned(1.0), "Euler3DTransform", vec![0.1, -0.05, 0.2, 5.0, -3.0, 8.0]),
        (Transformation::Similarity, turned(1.1), "Similarity3DTransform", vec![p, q, r, 5.0, -3.0, 8.0, 1.1]),
        (
            Transformation::Affine,
            shift,
            "AffineTransform",
            vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.5, -2.0, 3.0],
        ),
        (
            Transformation::Translation,
            turned(1.0),
            "AffineTransform",
            [TURN.as_flattened(), &[5.0, -3.0, 8.0]].concat(),
        ),
    ] {
        let [text, matlab] = ["a.tfm", "a.MAT"].map(|name| folder.path().join(name));
        for path in [&text, &matlab] {
            transform::write_itk_as(path, &map, family).expect("written");
            let read = transform::read(path).expect("a transform");
            for (a, b) in read.0.as_flattened().iter().zip(map.0.as_flattened()) {
                assert!((a - b).abs() <= 1e-14, "{path:?} {family}: {read:?}, expected {map:?}");
            }
        }
        let (name, found) = numbers(&std::fs::read_to_string(&text).expect("a file"));
        assert_eq!(name, format!("{class}_double_3_3"));
        assert_eq!(found.len(), want.len());
        for (a, b) in found.iter().zip(&want) {
            assert!((a - b).abs() <= 1e-14, "{name}: {found:?}, expected {want:?}");
        }
        let bytes = std::fs::read(&matlab).expect("a file");
        assert_eq!(bytes[20..20 + name.len()], *name.as_bytes());
    }
    // SimpleITK's own bytes of the same transform.
    let path = folder.path().join("t.mat");
    transform::write_itk_as(&path, &shift, Transformation::Translation).expect("written");
    let want = [matlab("TranslationTransform_double_3_3", &[1.5, -2.0, 3.0]), matlab("fixed", &[])].concat();
    assert_eq!(std::fs::read(&path).expect("a file"), want);
    let lost = transform::write_itk_as(folder.path().join("none/t.mat"), &shift, Transformation::Rigid);
    assert!(lost.expect_err("refused").to_string().contains("there is no folder"));
}

/// Several transforms make a composite that lists the last first; a MATLAB file has their product.
#[test]
fn a_chain_is_written_as_a_composite() {
    let folder = tempfile::tempdir().expect("a folder");
    let [text, matlab] = ["a.txt", "a.mat"].map(|name| folder.path().join(name));
    let shift = Affine([[1.0, 0.0, 0.0, -1.5], [0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0]]);
    let skewed = Affine([[1.0, 0.5, 0.0, 0.0], [0.0, 2.0, 0.0, -7.0], [0.0, 0.0, 1.0, 0.0]]);
    let chain = [turned(1.1), shift, turned(1.0), skewed];
    let product = chain.iter().fold(Affine::IDENTITY, |all, next| next.after(&all));
    for path in [&text, &matlab] {
        transform::write_itk_chain(path, &chain).expect("written");
        let read = transform::read(path).expect("a transform");
        for (a, b) in read.0.as_flattened().iter().zip(product.0.as_flattened()) {
            assert!((a - b).abs() <= 1e-13, "{path:?}: {read:?}, expected {product:?}");
        }
    }
    let lines = std::fs::read_to_string(&text).expect("a file");
    let classes: Vec<&str> = lines.lines().filter_map(|line| line.strip_prefix("Transform: ")).collect();
    let want = ["Composite", "Affine", "Euler3D", "Translation", "Similarity3D"];
    assert_eq!(classes, want.map(|class| format!("{class}Transform_double_3_3")));
    transform::write_itk_chain(&text, &[shift]).expect("written");
    assert_eq!(numbers(&std::fs::read_to_string(&text).expect("a file")).0, "TranslationTransform_double_3_3");
    let none = transform::write_itk_chain(&text, &[]).expect_err("refused");
    assert!(matches!(none, Error::Argument { .. }), "{none}");
}
