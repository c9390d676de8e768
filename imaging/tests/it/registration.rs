//! Affine registration of masks: recovered transforms, comparison with a loop in PyTorch, errors, transform files.

use nephron_compute::Device;
use nephron_compute::ops::Interpolation;
use nephron_imaging::registration::{Registration, RegistrationOptions, register, transform};
use nephron_imaging::volume::{Affine, Volume, Voxels};

use crate::kidneys::{grid, kidneys, motion, scan};
use crate::registration_support::{on_devices, refused, worst_error};
use crate::support::{compiles_only, devices};
/// Fixed and moving scan of different shape, spacing and orientation.
#[test]
fn a_known_motion_is_found() {
    let fixed = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &Affine::IDENTITY, kidneys);
    let truth = motion(8.0, 0.95, [20.0, -9.0, 7.0]);
    let back = truth.inverse().expect("a motion");
    for (shape, spacing) in [([40, 44, 80], [3.0, 3.0, 4.0]), ([34, 60, 60], [-3.6, 2.5, -5.0])] {
        let moving = scan(&grid(shape, spacing), &back, kidneys);
        let found = register(&fixed, &moving, &Device::Cpu, &RegistrationOptions::default()).expect("registration");
        let error = worst_error(&fixed, &found.transform, &truth);
        assert!(error < 2.5, "off by {error} mm, a voxel has 2.5 and more");
        assert!(found.converged && found.warnings.is_empty(), "{:?}", found.warnings);
        let (before, centred, after) = (&found.identity, &found.centre_of_mass, &found.aligned);
        assert!(before.kidney.soft < centred.kidney.soft, "{before:?} {centred:?}");
        assert!(centred.kidney.soft + 0.1 < after.kidney.soft, "{centred:?} {after:?}");
        // The remaining difference is due to the voxels of 4 and 5 mm.
        assert!(after.kidney.hard > 0.93 && after.tumour.is_some_and(|t| t.hard > 0.92), "{after:?}");
    }
}

/// The results are consistent: theta, the transform in millimetres and the warped mask describe the same map.
#[test]
fn theta_and_the_warped_mask_agree_with_the_report() {
    let fixed = scan(&grid([30, 36, 48], [4.0, 4.0, 5.0]), &Affine::IDENTITY, kidneys);
    let back = motion(-6.0, 1.04, [5.0, 12.0, -8.0]).inverse().expect("a motion");
    let moving = scan(&grid([36, 48, 30], [-6.0, 3.0, 4.5]), &back, kidneys);
    for align_corners in [true, false] {
        let options = RegistrationOptions { align_corners, ..Default::default() };
        let found = register(&fixed, &moving, &Device::Cpu, &options).expect("registration");
        let warped = transform::warp(&moving, &found.transform, &fixed.grid(), Interpolation::Nearest, &Device::Cpu)
            .expect("warp");
        let (Voxels::U8(a), Voxels::U8(b)) = (fixed.voxels(), warped.voxels()) else { panic!("masks stay masks") };
        let count = |f: &dyn Fn(u8, u8) -> bool| a.iter().zip(b.iter()).filter(|(a, b)| f(**a, **b)).count() as f64;
        let dice = 2.0 * count(&|a, b| a > 0 && b > 0) / (count(&|a, _| a > 0) + count(&|_, b| b > 0));
        // Rounding may change the nearest label of a voxel at a boundary.
        assert!((dice - found.aligned.kidney.hard).abs() < 1e-3, "{dice} {:?}", found.aligned);

        let params = nephron_compute::ops::AffineDiceParams { align_corners, smooth: 0.0, ..Default::default() };
        let tensor = |v: &Volume| v.to_tensor(&Device::Cpu).expect("a tensor");
        let soft =
            nephron_compute::ops::affine_dice(&tensor(&fixed), &tensor(&moving), &found.theta, &params).expect("dice");
        assert!((soft.dice[1] - found.aligned.kidney.soft).abs() < 1e-9, "{soft:?} {:?}", found.aligned);
    }
}

fn ellipsoid(shape: [usize; 3], centre: [f64; 3], radii: [f64; 3]) -> Volume {
    let [d, h, w] = shape;
    let label = |i: usize| {
        let at: [f64; 3] = [(i / w / h) as f64 - centre[0], (i / w % h) as f64 - centre[1], (i % w) as f64 - centre[2]];
        let far = |o: [f64; 3]| (0..3).map(|k| (at[k] - o[k]).powi(2)).sum::<f64>();
        if far([1.7, 2.2, -1.3]) <= 6.1 {
            2
        } else {
            u8::from((0..3).map(|k| (at[k] / radii[k]).powi(2)).sum::<f64>() <= 1.0)
        }
    };
    let voxels: Vec<u8> = (0..d * h * w).map(label).collect();
    Volume::new(shape, Voxels::U8(voxels.into()), Affine::IDENTITY).expect("a volume")
}

/// The paper's loop in PyTorch, 80 iterations; see tests/golden/registration.py.
#[test]
fn iterations_agree_with_pytorch() {
    let shape = [14, 16, 19];
    let fixed = ellipsoid(shape, [6.3, 7.4, 8.8], [3.2, 4.4, 6.1]);
    let moving = ellipsoid(shape, [7.1, 6.2, 10.3], [3.9, 4.0, 5.3]);
    for line in include_str!("../../../tests/golden/registration.txt").lines().filter(|l| !l.starts_with('#')) {
        let v: Vec<f64> = line.split(' ').map(|v| v.parse().expect("a number")).collect();
        let options = RegistrationOptions {
            align_corners: v[0] == 1.0,
            max_iterations: 80,
            tolerance: 0.0,
            window: 80,
            resolution: None,
            ..Default::default()
        };
        on_devices(
            |device| register(&fixed, &moving, device, &options),
            |device, found| {
                // In f64 the paths differ by rounding only; in f32 also at faces of cells, where gradients jump.
                let (loss, theta) = if device == "cpu" { (1e-9, 1e-6) } else { (2e-3, 2e-2) };
                assert!((found.loss - v[1]).abs() < loss, "{device}: {} {}", found.loss, v[1]);
                for (got, want) in found.theta.as_flattened().iter().zip(&v[2..]) {
                    assert!((got - want).abs() < theta, "{device}: {:?} {:?}", found.theta, &v[2..]);
                }
                assert_eq!(found.iterations, 80, "{device}");
            },
        );
    }
}

#[test]
fn a_single_slice_registers() {
    let plane = |x: f64, y: f64| {
        scan(&grid([1, 44, 72], [2.5, 2.5, 5.0]), &Affine::IDENTITY, |p| kidneys([p[0] + x, p[1] + y, 20.0]))
    };
    let found = register(&plane(0.0, 0.0), &plane(7.0, -4.0), &Device::Cpu, &Default::default()).expect("registration");
    assert!(found.aligned.kidney.hard > 0.96, "{:?}", found.aligned);
    let [x, y, _] = found.transform.apply([0.0; 3]);
    assert!((x + 7.0).abs() < 1.3 && (y - 4.0).abs() < 1.3, "{:?}", found.transform);
}

#[test]
fn the_same_bits_every_time() {
    let fixed = scan(&grid([20, 24, 32], [6.0, 6.0, 8.0]), &Affine::IDENTITY, kidneys);
    let back = motion(5.0, 1.0, [9.0, 0.0, 3.0]).inverse().expect("a motion");
    let moving = scan(&grid([20, 24, 32], [6.0, 6.0, 8.0]), &back, kidneys);
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let run = || {
            let options = RegistrationOptions { max_iterations: 12, ..Default::default() };
            let found = register(&fixed, &moving, device, &options).expect("registration");
            Registration { seconds: 0.0, ..found }
        };
        assert_eq!(run(), run(), "{}", device.name());
    }
}

/// Where one mask has no tumour, the other channel is aligned, with a warning.
#[test]
fn a_missing_tumour_is_left_out() {
    let fixed = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &Affine::IDENTITY, kidneys);
    let truth = motion(5.0, 1.0, [8.0, 3.0, -5.0]);
    let back = truth.inverse().expect("a motion");
    let moving = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &back, |p| kidneys(p).min(1));
    let found = register(&fixed, &moving, &Device::Cpu, &Default::default()).expect("registration");
    assert!(
        found.warnings.iter().any(|w| w.contains("the moving mask does not have a tumour")),
        "{:?}",
        found.warnings
    );
    assert!(found.aligned.tumour.is_none() && found.aligned.kidney.hard > 0.95, "{:?}", found.aligned);
    let error = worst_error(&fixed, &found.transform, &truth);
    assert!(error < 4.0, "off by {error} mm, a voxel has 3 to 4");
}

#[test]
fn what_cannot_be_registered_is_refused() {
    let plan = grid([10, 11, 12], [8.0, 8.0, 8.0]);
    let options = RegistrationOptions::default();
    let whole = scan(&plan, &Affine::IDENTITY, |p| u8::from(p[0].abs() < 9.0 && p[1].abs() < 9.0));
    let of = |f: &dyn Fn([f64; 3]) -> u8| scan(&plan, &Affine::IDENTITY, f);
    refused(&whole, &of(&|_| 0), &options, &["moving mask", "1 (kidney)", "highest label is 0"]);
    refused(&of(&|_| 3), &whole, &options, &["fixed mask", "highest label is 3"]);
    // Two separate parts with no voxels between them, where the other mask has its only part.
    refused(&whole, &of(&|p| u8::from(p[0].abs() > 30.0)), &options, &["do not overlap", "same organs"]);

    let odd = Volume::new([1, 1, 2], Voxels::F32(vec![0.5, 1.0].into()), Affine::IDENTITY).expect("a volume");
    refused(&odd, &whole, &options, &["fixed mask", "whole numbers", "0.5"]);
    let [_, h, w] = whole.shape();
    let short = Volume::new([9, h, w], whole.voxels().clone(), whole.affine()).expect_err("no volume").to_string();
    assert!(short.contains("9") && short.contains("1320"), "{short}");

    let base = RegistrationOptions::default();
    refused(&whole, &whole, &RegistrationOptions { learning_rate: 0.0, ..base }, &["learning rate", "above 0", "0"]);
    refused(&whole, &whole, &RegistrationOptions { smooth: f64::NAN, ..base }, &["smooth", "NaN"]);
    refused(&whole, &whole, &RegistrationOptions { tolerance: -1.0, ..base }, &["tolerance", "-1"]);
    refused(&whole, &whole, &RegistrationOptions { window: 0, ..base }, &["window", "1 or more"]);
    refused(&whole, &whole, &RegistrationOptions { window: 65_537, ..base }, &["window", "at most 65536", "65537"]);
    refused(&whole, &whole, &RegistrationOptions { max_iterations: 0, ..base }, &["max_iterations", "1 or more"]);
    refused(&whole, &whole, &RegistrationOptions { resolution: Some(-2.0), ..base }, &["resolution", "-2"]);
    refused(
        &whole,
        &whole,
        &RegistrationOptions { learning_rate: 1.5, ..base },
        &["learning rate", "at most 1", "1.5"],
    );
}

#[test]
fn itk_text_is_lps() {
    let map = Affine([[1.5, 0.25, -2.0, 10.0], [0.0, 1.0, 3.0, -20.0], [-0.5, 0.125, 1.0, 30.0]]);
    let want = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n\
                Parameters: 1.5 0.25 2 0 1 -3 0.5 -0.125 1 -10 20 30\nFixedParameters: 0 0 0\n";
    assert_eq!(transform::itk_text(&map), want);
}
