//! Volumes: validation, orientation, grids, resampling onto a grid.

use nephron_compute::ops::Interpolation;
use nephron_compute::{Device, Tensor};
use nephron_imaging::volume::{Affine, Grid, Orientation, Volume, Voxels};
use rand::Rng;

use crate::support::{compiles_only, devices, rng};

/// Every order and direction of the axes, with different voxel sizes and a slight rotation.
const TILTED: Affine = Affine([[0.1, 0.05, -2.9, 40.0], [-0.02, -0.9, 0.1, 55.0], [-0.7, 0.03, 0.2, -20.0]]);

fn counted(shape: [usize; 3], affine: Affine) -> Volume {
    let values: Vec<i16> = (0..shape.iter().product::<usize>() as i16).collect();
    Volume::new(shape, Voxels::I16(values.into()), affine).expect("a volume")
}

fn value(volume: &Volume, [i, j, k]: [usize; 3]) -> f32 {
    let [_, h, w] = volume.shape();
    volume.voxels().to_f32()[(k * h + j) * w + i]
}

fn indices(volume: &Volume) -> impl Iterator<Item = [usize; 3]> {
    let [d, h, w] = volume.shape();
    (0..d * h * w).map(move |n| [n % w, n / w % h, n / w / h])
}

fn apply(affine: &Affine, index: [usize; 3]) -> [f64; 3] {
    affine.apply(index.map(|n| n as f64))
}

fn assert_near(what: &str, got: [f64; 3], want: [f64; 3], bound: f64) {
    let near = (0..3).all(|axis| (got[axis] - want[axis]).abs() <= bound);
    assert!(near, "{what}: {got:?}, expected {want:?}");
}

#[test]
fn unsound_volumes_are_refused() {
    let u8s = |n: usize| Voxels::U8(vec![0; n].into());
    let refused = |shape, voxels, affine, needles: &[&str]| {
        let message = Volume::new(shape, voxels, affine).expect_err("unsound").to_string();
        assert!(needles.iter().all(|n| message.contains(n)), "{message} lacks one of {needles:?}");
    };
    refused([2, 2, 2], u8s(7), Affine::IDENTITY, &["8 voxels", "[2, 2, 2]", "found 7"]);
    refused([2, 0, 2], u8s(0), Affine::IDENTITY, &["[2, 0, 2]"]);
    refused([usize::MAX, 3, 2], u8s(6), Affine::IDENTITY, &["memory"]);
    refused([1, 1, 1], u8s(1), Affine([[1.0; 4]; 3]), &["invertible", "determinant 0"]);
    refused([1, 1, 1], u8s(1), Affine([[f64::NAN; 4]; 3]), &["finite", "NaN"]);
}

#[test]
fn orientation_codes_are_nibabels() {
    let diagonal = |x: f64, y: f64, z: f64| Affine([[x, 0.0, 0.0, 5.0], [0.0, y, 0.0, 6.0], [0.0, 0.0, z, 7.0]]);
    assert_eq!(Orientation::of(&diagonal(1.0, 2.0, 3.0)), Orientation::RAS);
    assert_eq!(Orientation::of(&diagonal(-1.0, -2.0, 3.0)), Orientation::LPS);
    assert_eq!(Orientation::of(&TILTED).to_string(), "IPL");
    // Two columns whose largest component is along the same axis still get different axes.
    let steep = Affine([[0.8, 0.7, 0.0, 0.0], [-0.6, 0.7, 0.0, 0.0], [0.0, 0.1, 1.0, 0.0]]);
    assert_eq!(Orientation::of(&steep).to_string(), "RAS");
    for code in ["RAS", "LPS", "IPL", "SAR", "AIL"] {
        assert_eq!(code.parse::<Orientation>().expect("a code").to_string(), code);
    }
    for wrong in ["", "RA", "RASS", "RAL", "XYZ"] {
        let message = wrong.parse::<Orientation>().expect_err("no code").to_string();
        assert!(message.contains("RAS") && message.contains(wrong), "{message}");
    }
}

#[test]
fn reorienting_moves_voxels_and_keeps_them_in_place() {
    let volume = counted([3, 4, 5], TILTED);
    for target in ["RAS", "LPS", "SAR", "AIL", "IPL"] {
        let target: Orientation = target.parse().expect("a code");
        let turned = volume.reorient(target).expect("turned");
        assert_eq!(turned.orientation(), target);
        let mut seen = vec![false; turned.voxels().len()];
        for index in indices(&turned) {
            // The value is the index of the voxel in the original.
            let n = value(&turned, index) as usize;
            let origin = [n % 5, n / 5 % 4, n / 20];
            assert_near("place", apply(&turned.affine(), index), apply(&volume.affine(), origin), 1e-12);
            seen[n] = true;
        }
        assert!(seen.iter().all(|s| *s), "every voxel is there once");
        let back = turned.reorient(volume.orientation()).expect("turned back");
        assert_eq!((back.shape(), back.voxels()), (volume.shape(), volume.voxels()));
        for (row, want) in back.affine().0.iter().zip(&volume.affine().0) {
            assert_near("affine", [row[0], row[1], row[2]], [want[0], want[1], want[2]], 0.0);
            assert!((row[3] - want[3]).abs() < 1e-12);
        }
    }
}

#[test]
fn grids_have_the_spacing_asked_for() {
    let cases = [
        // size, spacing, asked, expected size
        ([512, 512, 107], [0.78125, 0.78125, 5.0], [1.5, 1.5, 3.0], [267, 267, 178]),
        ([5, 6, 7], [1.0, 1.0, 1.0], [2.0, 4.0, 2.0], [2, 2, 4]), // 2.5, 1.5 and 3.5: halves to even
        ([3, 1, 2], [1.0, 1.0, 1.0], [100.0, 2.0, 0.5], [1, 1, 4]),
    ];
    for (size, spacing, asked, expected) in cases {
        let affine = Affine(std::array::from_fn(|r| {
            let row = TILTED.0[r];
            let length = TILTED.spacing();
            [row[0] / length[0] * spacing[0], row[1] / length[1] * spacing[1], row[2] / length[2] * spacing[2], row[3]]
        }));
        let [w, h, d] = size;
        let volume = Volume::new([d, h, w], Voxels::U8(vec![0; w * h * d].into()), affine).expect("a volume");
        let grid = Grid::with_spacing(&volume, asked).expect("a grid");
        let [nd, nh, nw] = grid.shape;
        assert_eq!([nw, nh, nd], expected);
        assert_near("spacing", grid.affine.spacing(), asked, 1e-12);
        let centre = |n: [usize; 3]| n.map(|n| (n as f64 - 1.0) / 2.0);
        assert_near("centre", grid.affine.apply(centre([nw, nh, nd])), affine.apply(centre(size)), 1e-10);
        assert_eq!(Orientation::of(&grid.affine), volume.orientation());
    }
    let volume = counted([2, 2, 2], Affine::IDENTITY);
    for wrong in [[0.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, f64::NAN], [f64::INFINITY, 1.0, 1.0], [1e-9, 1.0, 1.0]]
    {
        let message = Grid::with_spacing(&volume, wrong).expect_err("no grid").to_string();
        assert!(message.contains(&format!("{:?}", wrong[0])), "{message}");
    }
}

#[test]
fn resampling_onto_its_own_grid_changes_nothing() {
    let volume = counted([4, 5, 6], TILTED);
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        for interpolation in [Interpolation::Nearest, Interpolation::Linear] {
            let same = volume.resample_to(&volume.grid(), interpolation, device).expect("resampled");
            let floats = Voxels::F32(volume.voxels().to_f32().into());
            let want = if interpolation == Interpolation::Nearest { volume.voxels() } else { &floats };
            assert_eq!(same.voxels(), want, "{}", device.name());
            assert_eq!((same.shape(), same.affine()), (volume.shape(), volume.affine()));
        }
    }
}

/// Values that are a linear function of the position in the patient are the same function on every grid.
#[test]
fn a_ramp_in_millimetres_stays_one() {
    let ramp = |p: [f64; 3]| 0.5 * p[0] - 0.25 * p[1] + 2.0 * p[2] + 3.0;
    let blank = counted([6, 7, 9], TILTED);
    let values: Vec<f32> = indices(&blank).map(|index| ramp(apply(&TILTED, index)) as f32).collect();
    let volume = Volume::new(blank.shape(), Voxels::F32(values.into()), TILTED).expect("a volume");
    let turned = volume.reorient(Orientation::LPS).expect("turned");
    let grids = [Grid::with_spacing(&volume, [0.3, 1.7, 2.0]).expect("a grid"), turned.grid()];
    let inverse = TILTED.inverse().expect("invertible");
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        for grid in &grids {
            let result = volume.resample_to(grid, Interpolation::Linear, device).expect("resampled");
            for index in indices(&result) {
                let place = apply(&grid.affine, index);
                let at = inverse.apply(place);
                // Beyond the outermost centres their values continue: the value is that of the nearest point of their box.
                let inside = std::array::from_fn(|a| at[a].clamp(0.0, [8.0, 6.0, 5.0][a]));
                let (want, got) = (ramp(TILTED.apply(inside)), f64::from(value(&result, index)));
                assert!((got - want).abs() < 1e-3, "{} at {index:?}: {got}, expected {want}", device.name());
            }
        }
    }
}

#[test]
fn a_point_in_the_patient_keeps_its_label() {
    let mut rng = rng();
    let shape = [7, 8, 9];
    let labels: Vec<u8> = (0..504).map(|_| rng.random_range(0..3)).collect();
    let volume = Volume::new(shape, Voxels::U8(labels.into()), TILTED).expect("a volume");
    let fine = Grid::with_spacing(&volume, [0.25, 0.3, 0.9]).expect("a grid");
    let inverse = TILTED.inverse().expect("invertible");
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let result = volume.resample_to(&fine, Interpolation::Nearest, device).expect("resampled");
        assert!(matches!(result.voxels(), Voxels::U8(_)), "labels stay labels");
        for index in indices(&result) {
            let at = inverse.apply(apply(&fine.affine, index));
            if at.iter().any(|v| ((v - v.floor()) - 0.5).abs() < 1e-4) {
                continue; // On the face between two voxels both values are right.
            }
            let nearest: [usize; 3] = std::array::from_fn(|a| at[a].round().clamp(0.0, [8.0, 7.0, 6.0][a]) as usize);
            assert_eq!(value(&result, index), value(&volume, nearest), "{} at {index:?}", device.name());
        }
    }
}

#[test]
fn outside_is_background() {
    let far =
        Grid { shape: [1, 1, 4], affine: Affine([[1.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]) };
    let image = Volume::new([1, 1, 2], Voxels::I16(vec![40, -7].into()), Affine::IDENTITY).expect("a volume");
    assert!(!far.is_apart_from(&image.grid()).expect("invertible"));
    let apart = Grid { affine: Affine([[1.0, 0.0, 0.0, 1.6], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]), ..far };
    assert!(apart.is_apart_from(&image.grid()).expect("invertible"));
    let mask = Volume::new([1, 1, 2], Voxels::U8(vec![2, 1].into()), Affine::IDENTITY).expect("a volume");
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let result = image.resample_to(&far, Interpolation::Linear, device).expect("resampled");
        assert_eq!(result.voxels().to_f32(), [-7.0, 40.0, -7.0, -7.0], "{}", device.name());
        let result = mask.resample_to(&far, Interpolation::Nearest, device).expect("resampled");
        assert_eq!(*result.voxels(), Voxels::U8(vec![0, 2, 1, 0].into()), "{}", device.name());
    }
}

#[test]
fn tensors_become_volumes() {
    let tensor = Tensor::from_u8(&Device::Cpu, [1, 1, 1, 2, 2], vec![0, 1, 2, 3]).expect("a tensor");
    let volume = Volume::from_tensor(&tensor, TILTED).expect("a volume");
    assert_eq!((volume.shape(), volume.voxels()), ([1, 2, 2], &Voxels::U8(vec![0, 1, 2, 3].into())));
    let two = Tensor::from_u8(&Device::Cpu, [1, 2, 1, 1, 1], vec![0, 1]).expect("a tensor");
    let message = Volume::from_tensor(&two, TILTED).expect_err("two channels").to_string();
    assert!(message.contains("[1, 1, d, h, w]") && message.contains("[1, 2, 1, 1, 1]"), "{message}");
}

#[test]
fn what_was_interpolated_of_integers_is_rounded_to_them() {
    let of = |voxels: Voxels| Volume::new([1, 1, voxels.len()], voxels, Affine::IDENTITY).expect("a volume");
    let values = || of(Voxels::F32(vec![-0.5, 1.5, 2.4, -1e6, 40_000.0, 254.6].into()));
    let rounded = |source: Voxels| values().rounded_like(&of(source)).expect("a volume").voxels().clone();
    // Halves away from zero; the ends of the type beyond it.
    assert_eq!(rounded(Voxels::I16(vec![-1].into())), Voxels::I16(vec![-1, 2, 2, -32768, 32767, 255].into()));
    let grey = Voxels::U8((0..100).collect::<Vec<_>>().into());
    assert_eq!(rounded(grey), Voxels::U8(vec![0, 2, 2, 0, 255, 255].into()));
    // Fractions of labels and of f32 stay.
    for kept in [Voxels::I16(vec![0, 3].into()), Voxels::U8(vec![0, 1].into()), Voxels::F32(vec![0.0].into())] {
        assert_eq!(rounded(kept), *values().voxels());
    }
    let integers = of(Voxels::I16(vec![7, -7].into()));
    assert_eq!(integers.clone().rounded_like(&values()).expect("a volume").voxels(), integers.voxels());
}
