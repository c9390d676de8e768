//! Families of transforms, the start and the space of the search, and soft masks.

use nephron_compute::Device;
use nephron_compute::ops::PaddingMode;
use nephron_imaging::registration::{Loss, RegistrationOptions, Space, Start, Transformation, register, transform};
use nephron_imaging::volume::{Affine, Volume, Voxels};
use rand::Rng;

use crate::kidneys::{grid, kidneys, motion, scan};
use crate::registration_support::{on_devices, refused, worst_error};
use crate::support;
/// Every family recovers a transform that it contains, and returns a transform of its own.
#[test]
fn every_family_of_maps_finds_its_own() {
    let fixed = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &Affine::IDENTITY, kidneys);
    for (transformation, truth, bound) in [
        (Transformation::Translation, motion(0.0, 1.0, [14.0, -9.0, 7.0]), 2.0),
        (Transformation::Rigid, motion(7.0, 1.0, [10.0, -4.0, 6.0]), 2.0),
        (Transformation::Similarity, motion(7.0, 1.08, [10.0, -4.0, 6.0]), 2.0),
    ] {
        let back = truth.inverse().expect("a motion");
        let moving = scan(&grid([44, 48, 70], [3.0, 3.0, 4.0]), &back, kidneys);
        for padding in [PaddingMode::Border, PaddingMode::Zeros] {
            let options = RegistrationOptions { transformation, padding, ..Default::default() };
            on_devices(
                |device| register(&fixed, &moving, device, &options),
                |device, found| {
                    let error = worst_error(&fixed, &found.transform, &truth);
                    assert!(error < bound, "{device} {transformation} {padding:?}: off by {error} mm");
                    let a = found.transform.0.map(|row| [row[0], row[1], row[2]]);
                    let dot = |i: usize, j: usize| (0..3).map(|k| a[k][i] * a[k][j]).sum::<f64>();
                    let scale = if transformation == Transformation::Similarity { dot(0, 0) } else { 1.0 };
                    for i in 0..3 {
                        for j in 0..3 {
                            let want = if i == j { scale } else { 0.0 };
                            assert!((dot(i, j) - want).abs() < 1e-9, "{transformation}: {a:?}");
                        }
                    }
                },
            );
        }
    }
}

/// The derivative of the loss by the parameters of every family, for both edge rules and both values of align_corners, against central
/// differences of the loss: the relative error is below 1e-4 on random masks.
#[test]
fn gradients_of_every_family_are_central_differences() {
    let mut rng = support::rng();
    let labels = |rng: &mut rand_chacha::ChaCha8Rng, shape: [usize; 3]| {
        let voxels: Vec<u8> = (0..shape.iter().product()).map(|_| rng.random_range(0..3)).collect();
        Volume::new(shape, Voxels::U8(voxels.into()), grid(shape, [3.0, 2.0, -4.0]).affine).expect("a volume")
    };
    let (fixed, moving) = (labels(&mut rng, [9, 10, 11]), labels(&mut rng, [8, 12, 10]));
    for transformation in Transformation::ALL {
        for padding in [PaddingMode::Border, PaddingMode::Zeros] {
            for align_corners in [true, false] {
                let options = RegistrationOptions { transformation, padding, align_corners, ..Default::default() };
                let loss = Loss::new(&fixed, &moving, &Device::Cpu, &options).expect("a loss");
                let at: Vec<f64> = loss.start().iter().map(|v| v + rng.random_range(-0.05..0.05)).collect();
                let gradient = loss.value_and_gradient(&at).expect("a gradient").1;
                let value = |at: &[f64]| loss.value_and_gradient(at).expect("a loss").0;
                let largest = gradient.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                for i in 0..at.len() {
                    let along = |step: f64| {
                        let mut at = at.clone();
                        at[i] += step;
                        value(&at)
                    };
                    // The loss has kinks where a voxel crosses a face between cells, so two steps are compared and the smaller
                    // one is used where they agree.
                    let want = [1e-6, 1e-7, 1e-8].map(|h| (along(h) - along(-h)) / (2.0 * h));
                    let apart = want.iter().map(|w| (gradient[i] - w).abs()).fold(f64::INFINITY, f64::min);
                    assert!(apart <= 1e-4 * largest, "{transformation} {padding:?} {i}: {} {want:?}", gradient[i]);
                }
            }
        }
    }
}

#[test]
fn a_start_can_be_given_and_is_checked() {
    let fixed = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &Affine::IDENTITY, kidneys);
    let truth = motion(25.0, 1.0, [30.0, 10.0, -5.0]);
    let moving = scan(&grid([60, 60, 70], [3.0, 3.0, 4.0]), &truth.inverse().expect("a motion"), kidneys);
    let given = RegistrationOptions { start: Start::Given(truth), max_iterations: 20, ..Default::default() };
    let found = register(&fixed, &moving, &Device::Cpu, &given).expect("registration");
    assert!(worst_error(&fixed, &found.transform, &truth) < 2.0, "{:?}", found.transform);

    let mut broken = truth;
    broken.0[1][2] = f64::NAN;
    let start = |t| RegistrationOptions { start: Start::Given(t), ..Default::default() };
    refused(&fixed, &moving, &start(broken), &["given transform", "finite", "NaN"]);
    let flat = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]);
    refused(&fixed, &moving, &start(flat), &["given transform", "invertible", "determinant"]);
    let away = motion(0.0, 1.0, [4000.0, 0.0, 0.0]);
    refused(&fixed, &moving, &start(away), &["do not overlap under the given transform"]);
}

/// On grids of one spacing and size both spaces find the same transform; with different spacings the authors' space still aligns.
#[test]
fn grid_space_is_the_authors() {
    let fixed = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &Affine::IDENTITY, kidneys);
    let truth = motion(5.0, 1.0, [9.0, 0.0, 3.0]);
    let back = truth.inverse().expect("a motion");
    let whole = RegistrationOptions { resolution: None, ..Default::default() };
    let by_grid = RegistrationOptions { space: Space::Grid, ..whole };
    let moving = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &back, kidneys);
    let [world, own] = [whole, by_grid].map(|o| register(&fixed, &moving, &Device::Cpu, &o).expect("registration"));
    for (a, b) in world.theta.as_flattened().iter().zip(own.theta.as_flattened()) {
        assert!((a - b).abs() < 1e-6, "{:?} {:?}", world.theta, own.theta);
    }
    for (a, b) in world.transform.0.as_flattened().iter().zip(own.transform.0.as_flattened()) {
        assert!((a - b).abs() < 1e-4, "{:?} {:?}", world.transform, own.transform);
    }
    let moving = scan(&grid([50, 52, 60], [3.6, 2.7, 3.4]), &back, kidneys);
    let found = register(&fixed, &moving, &Device::Cpu, &by_grid).expect("registration");
    assert!(found.aligned.kidney.hard > 0.93, "{:?}", found.aligned);
    assert!(worst_error(&fixed, &found.transform, &truth) < 3.0, "{:?}", found.transform);
    let coarse = RegistrationOptions { resolution: Some(2.0), ..by_grid };
    refused(&fixed, &moving, &coarse, &["grid space", "full resolution"]);
}

/// Half as large is found, and said to be odd.
#[test]
fn a_change_of_volume_is_said() {
    let fixed = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &Affine::IDENTITY, kidneys);
    let moving = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &motion(0.0, 1.0 / 0.7, [0.0; 3]), kidneys);
    let found = register(&fixed, &moving, &Device::Cpu, &RegistrationOptions::default()).expect("registration");
    let volume = found.transform.determinant();
    assert!((volume - 0.343).abs() < 0.05, "{volume}");
    assert!(found.warnings.iter().any(|w| w.contains("changes volumes by a factor of 0.3")), "{:?}", found.warnings);
}

/// Labels are resampled separately: shares add up, no label appears between two others, and on its own grid a mask does not change.
#[test]
fn soft_masks_keep_their_labels() {
    let plan = grid([12, 14, 16], [8.0, 8.0, 8.0]);
    // Label 2 is next to background, and 7 next to both.
    let mask = scan(&plan, &Affine::IDENTITY, |p| match () {
        () if p[0].abs() < 30.0 && p[1].abs() < 30.0 => 2,
        () if p[2] > 20.0 => 7,
        () => 0,
    });
    let soft = transform::warp_soft(&mask, &Affine::IDENTITY, &plan, &Device::Cpu).expect("warp");
    assert_eq!(soft.labels, [2, 7]);
    assert!(soft.largest().expect("a mask").voxels() == mask.voxels());

    // A translation by a quarter of a voxel along x: at the boundary from 2 to 0 the shares are 3/4 on one side and 1/4 on the other.
    let shift = Affine([[1.0, 0.0, 0.0, 2.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    for device in support::devices().iter().filter(|d| !support::compiles_only(d)) {
        let soft = transform::warp_soft(&mask, &shift, &plan, device).expect("warp");
        let shares: Vec<Vec<f32>> = soft.shares.iter().map(|s| s.voxels().to_f32()).collect();
        let mut between = [0usize; 2];
        for (i, (a, b)) in shares[0].iter().zip(&shares[1]).enumerate() {
            assert!(*a >= 0.0 && *b >= 0.0 && a + b <= 1.0 + 1e-6, "{i}: {a} {b}");
            let part = |v: f32, want: f32| usize::from((v - want).abs() < 1e-6);
            between = [between[0] + part(*a, 0.75), between[1] + part(*a, 0.25)];
        }
        assert!(between[0] > 0 && between[0] == between[1], "{}: {between:?}", device.name());
        let largest = soft.largest().expect("a mask");
        assert!(transform::warp_largest(&mask, &shift, &plan, device).expect("warp").voxels() == largest.voxels());
        let Voxels::U8(labels) = largest.voxels() else { panic!("a mask") };
        assert!(labels.iter().all(|l| matches!(l, 0 | 2 | 7)));
        assert!(labels.contains(&2) && labels.contains(&7));
    }
    let odd = Volume::new([1, 1, 2], Voxels::F32(vec![0.5, 1.0].into()), Affine::IDENTITY).expect("a volume");
    let message = transform::warp_soft(&odd, &shift, &plan, &Device::Cpu).expect_err("refused").to_string();
    assert!(message.contains("0.5"), "{message}");
}
