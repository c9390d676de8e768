//! The iterations of registrations and how they end: many pairs at once, on device and host, on coarse masks and full grids, and
//! with errors.

use nephron_compute::ops::Channels;
use nephron_compute::ops::affine_dice_optimizer::CHECK_EVERY;
use nephron_compute::{Device, Error};
use nephron_imaging::registration::{
    Outcome, Registration, RegistrationOptions, Start, Transformation, register, register_all,
};
use nephron_imaging::volume::{Affine, Volume, Voxels};

use crate::kidneys::{grid, kidneys, motion, scan};
use crate::registration_support::{refused, worst_error};
use crate::support::{compiles_only, devices};

fn bare(found: Registration) -> Registration {
    Registration { seconds: 0.0, ..found }
}

/// Checks that pairs that are registered together have the same bits as alone. Returns the iterations of each pair, 0 where it is an
/// error or the device only compiles.
fn as_alone(pairs: &[[&Volume; 2]], device: &Device, options: &RegistrationOptions) -> Vec<usize> {
    let all = register_all(pairs, device, options).expect("options");
    assert_eq!(all.len(), pairs.len());
    let same = |(i, (found, [fixed, moving])): (usize, (nephron_compute::Result<Registration>, &[&Volume; 2]))| {
        if let Err(Error::Kernel { message, .. }) = &found {
            panic!("{}: {message}", device.name());
        }
        let RegistrationOptions { transformation, channels, .. } = options;
        match (found, register(fixed, moving, device, options)) {
            _ if compiles_only(device) => 0,
            (Ok(found), Ok(alone)) => {
                let iterations = found.iterations;
                assert_eq!(bare(found), bare(alone), "{} {transformation} {channels} {i}", device.name());
                iterations
            }
            (found, alone) => {
                let [found, alone] = [found, alone].map(|r| r.expect_err("both or neither").to_string());
                assert_eq!(found, alone);
                assert!(found.contains("moving mask") && found.contains("found none"), "{found}");
                0
            }
        }
    };
    all.into_iter().zip(pairs).enumerate().map(same).collect()
}

/// Pairs of different sizes that end after different numbers of iterations have the same bits as alone, and an invalid pair among them
/// is an error in its place.
#[test]
fn many_pairs_end_as_each_does_alone() {
    let small = grid([12, 14, 20], [9.0, 9.0, 12.0]);
    let other = grid([14, 12, 18], [-9.0, 10.0, 11.0]);
    let fixed = scan(&small, &Affine::IDENTITY, kidneys);
    let moved = |plan, degrees, shift| scan(plan, &motion(degrees, 1.0, shift).inverse().expect("a motion"), kidneys);
    let empty = scan(&small, &Affine::IDENTITY, |_| 0);
    let moving = [
        moved(&small, 4.0, [9.0, 0.0, 3.0]),
        fixed.clone(),
        empty,
        moved(&other, -7.0, [0.0, 12.0, -6.0]),
        moved(&other, 2.0, [3.0, 3.0, 3.0]),
    ];
    let mut pairs: Vec<[&Volume; 2]> = moving.iter().map(|moving| [&fixed, moving]).collect();
    // A fixed mask of another size, so that channel memberships and records have other offsets than in the other pairs.
    pairs.insert(1, [&moving[3], &fixed]);
    let ways = [
        (Transformation::Affine, Some(14.0), "2/1,2"),
        (Transformation::Affine, None, "1/2/1,2"),
        (Transformation::Rigid, None, "1"),
        (Transformation::Similarity, None, "1/2/1,2"),
    ];
    for (transformation, resolution, sets) in ways {
        let options = RegistrationOptions {
            transformation,
            channels: sets.parse().expect("sets of labels"),
            resolution,
            max_iterations: 70,
            tolerance: 1e-3,
            window: 12,
            ..Default::default()
        };
        for device in devices() {
            let iterations = as_alone(&pairs, device, &options);
            if !compiles_only(device) {
                assert!(iterations.iter().enumerate().all(|(i, n)| (*n == 0) == (i == 3)), "{iterations:?}");
                let some = iterations.iter().filter(|n| **n > 0);
                assert!(some.clone().min() < some.max(), "{} {transformation}: {iterations:?}", device.name());
            }
        }
    }
    assert!(register_all(&[], &Device::Cpu, &RegistrationOptions::default()).expect("nothing").is_empty());
}

/// A fixed grid of 9 x 9 x 9 bricks, more than the 528 cubes (thread blocks) that at most work on a pair, and a pair of fewer bricks.
#[test]
fn masks_of_many_bricks_register_beside_small_ones() {
    let (large, small) = (grid([36, 72, 66], [3.0, 3.0, 4.0]), grid([12, 14, 20], [9.0, 9.0, 12.0]));
    let truth = motion(4.0, 1.0, [9.0, 0.0, 3.0]).inverse().expect("a motion");
    let [fixed, other] = [&large, &small].map(|plan| scan(plan, &Affine::IDENTITY, kidneys));
    let moving = scan(&small, &truth, kidneys);
    let pairs = [[&other, &moving], [&fixed, &moving], [&moving, &fixed]];
    for sets in ["2/1,2", "1/2/1,2"] {
        let options = RegistrationOptions {
            channels: sets.parse().expect("sets of labels"),
            resolution: None,
            max_iterations: 2,
            ..Default::default()
        };
        let host = register(&fixed, &moving, &Device::Cpu, &options).expect("registration");
        for device in devices() {
            let iterations = as_alone(&pairs, device, &options);
            if !compiles_only(device) {
                assert_eq!(iterations, [2, 2, 2]);
                let found = register(&fixed, &moving, device, &options).expect("registration");
                // The bound is as below; bricks that no cube worked on would be a tenth of the masks or more.
                let off = (found.loss - host.loss).abs();
                assert!(off < 2e-3, "{} {sets}: {} {}", device.name(), found.loss, host.loss);
            }
        }
    }
}

/// The loop on the device against the loop on the host: the same path except for rounding, to the same end.
#[test]
fn devices_iterate_as_the_host_does() {
    let plan = grid([12, 14, 20], [9.0, 9.0, 12.0]);
    let fixed = scan(&plan, &Affine::IDENTITY, kidneys);
    let moving = scan(&plan, &motion(5.0, 1.02, [6.0, -4.0, 3.0]).inverse().expect("a motion"), kidneys);
    for transformation in Transformation::ALL {
        let options = RegistrationOptions {
            transformation,
            resolution: None,
            max_iterations: 20,
            tolerance: 0.0,
            ..Default::default()
        };
        let host = register(&fixed, &moving, &Device::Cpu, &options).expect("registration");
        assert_eq!((host.iterations, host.outcome), (20, Outcome::Stopped));
        for device in devices().iter().filter(|d| !compiles_only(d)) {
            let found = register(&fixed, &moving, device, &options).expect("registration");
            assert_eq!((found.iterations, found.outcome), (20, Outcome::Stopped), "{}", device.name());
            // In f32 the paths diverge where a derivative is below its rounding, or a voxel crosses a face between cells: a step of
            // Adam then has the opposite sign. A step is 0.01 of half the grid, 0.9 mm along its longest edge. Far from the end it
            // changes the Dice of the tumour (of 17 mm; that of two spheres falls by 0.75 for a distance of one radius) by 0.04, and
            // 2e-3 is a twentieth of that.
            assert!(
                (found.loss - host.loss).abs() < 2e-3,
                "{} {transformation}: {} {}",
                device.name(),
                found.loss,
                host.loss
            );
            let apart = worst_error(&fixed, &found.transform, &host.transform);
            assert!(apart < 1.0, "{} {transformation}: {apart} mm apart", device.name());
        }
    }

    // Both end by the same rule, at the same check for convergence or the next one.
    let options = RegistrationOptions {
        transformation: Transformation::Rigid,
        resolution: None,
        tolerance: 1e-3,
        window: 12,
        ..Default::default()
    };
    let host = register(&fixed, &moving, &Device::Cpu, &options).expect("registration");
    assert!(host.outcome == Outcome::Converged && host.iterations > 20, "{host:?}");
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let found = register(&fixed, &moving, device, &options).expect("registration");
        assert_eq!(found.outcome, Outcome::Converged, "{}", device.name());
        let apart = found.iterations.abs_diff(host.iterations);
        assert!(apart <= CHECK_EVERY, "{}: {} {}", device.name(), found.iterations, host.iterations);
    }
}

/// Where the iterations on the coarse masks converge with the last one that is allowed, none is left for the full grids, with a
/// warning. And where the coarse masks lose a label completely, all iterations run on the full grids.
#[test]
fn thinning_does_not_hide_the_full_grids() {
    let plan = grid([20, 24, 32], [6.0, 6.0, 8.0]);
    let fixed = scan(&plan, &Affine::IDENTITY, kidneys);
    let options = |channels, resolution, max_iterations| RegistrationOptions {
        channels,
        resolution: Some(resolution),
        max_iterations,
        tolerance: 1.0,
        window: 10,
        ..Default::default()
    };
    let found = register(&fixed, &fixed, &Device::Cpu, &options(Channels::default(), 12.0, 20)).expect("registration");
    assert_eq!((found.iterations, found.outcome, found.converged), (20, Outcome::Stopped, false));
    assert!(found.warnings.iter().any(|w| w.contains("all of 20") && w.contains("full grids")), "{:?}", found.warnings);
    let found = register(&fixed, &fixed, &Device::Cpu, &options(Channels::default(), 12.0, 40)).expect("registration");
    assert_eq!((found.iterations, found.outcome), (40, Outcome::Converged));

    // For each label one mask has a kidney and the other a single voxel in it, which is not the nearest voxel of any coarse voxel of
    // 30 mm.
    let of = |most: u8, dot: [f64; 3]| {
        scan(&plan, &Affine::IDENTITY, move |p| match kidneys(p) {
            0 => 0,
            _ if (0..3).all(|k| (p[k] - dot[k]).abs() < 0.5) => 3 - most,
            _ => most,
        })
    };
    let (fixed, moving) = (of(1, [-57.0, 3.0, 4.0]), of(2, [-51.0, -3.0, 12.0]));
    let options =
        RegistrationOptions { start: Start::Identity, ..options("1/2".parse().expect("sets of labels"), 30.0, 20) };
    let found = register(&fixed, &moving, &Device::Cpu, &options).expect("registration");
    assert!(found.warnings.iter().any(|w| w.contains("all iterations run on the full grids")), "{:?}", found.warnings);
    assert_eq!(found.channels.iter().map(|c| c.weight).collect::<Vec<_>>(), [0.5, 0.5]);
}

/// With steps of half a grid the masks lose their overlap: there is a warning, and the transform of the lowest loss is kept.
#[test]
fn what_diverges_is_said() {
    let plan = grid([20, 24, 32], [6.0, 6.0, 8.0]);
    let fixed = scan(&plan, &Affine::IDENTITY, kidneys);
    let moving = scan(&plan, &motion(5.0, 1.0, [9.0, 0.0, 3.0]).inverse().expect("a motion"), kidneys);
    let options =
        RegistrationOptions { learning_rate: 1.0, transformation: Transformation::Translation, ..Default::default() };
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let found = register(&fixed, &moving, device, &options).expect("registration");
        assert!(found.outcome == Outcome::Diverged && !found.converged, "{}: {found:?}", device.name());
        assert!(
            found.warnings.iter().any(|w| w.contains("diverged") && w.contains("lower learning rate than 1")),
            "{:?}",
            found.warnings
        );
        assert!(found.aligned.kidney.soft >= found.centre_of_mass.kidney.soft - 1e-6, "{found:?}");
    }
}

/// The moving mask is the mirror image of the fixed one and the given transform is almost singular: a better one mirrors space.
#[test]
fn a_map_that_folds_is_refused() {
    let plan = grid([20, 24, 32], [6.0, 6.0, 8.0]);
    let fixed = scan(&plan, &Affine::IDENTITY, kidneys);
    let scaled = |z: f64| Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, z, 0.0]]);
    let moving = scan(&plan, &scaled(-1.0), kidneys);
    let options = RegistrationOptions { start: Start::Given(scaled(0.02)), resolution: None, ..Default::default() };
    refused(&fixed, &moving, &options, &["mirrors space", "determinant -", "expected one above 0"]);
}

/// Masks whose codes do not fit into a buffer of the device are registered on the CPU, with the same bits as there and a warning.
#[test]
fn masks_too_large_for_a_device_go_to_the_cpu() {
    for device in devices().iter().filter(|d| **d != Device::Cpu) {
        // Codes take two bytes for each voxel, and may take half of a buffer.
        let voxels = device.max_buffer_bytes() / 4;
        if voxels > 1 << 26 {
            eprintln!("SKIPPED on {}: a mask of {voxels} voxels would be needed", device.name());
            continue;
        }
        let side = (voxels as f64).cbrt().ceil() as usize;
        let mut labels = vec![0u8; side * side * side];
        for (z, y, x) in (0..216).map(|i| (i / 36, i / 6 % 6, i % 6)) {
            labels[((z + 20) * side + y + 30) * side + x + 40] = 1 + u8::from(x > 2);
        }
        let mask = Volume::new([side; 3], Voxels::U8(labels.into()), Affine::IDENTITY).expect("a volume");
        let options = RegistrationOptions { resolution: None, max_iterations: 2, ..Default::default() };
        let found = register(&mask, &mask, device, &options).expect("registration");
        let warned = |w: &String| w.contains("on the CPU") && w.contains(&device.name()) && w.contains("bytes");
        assert!(found.warnings.iter().any(warned), "{:?}", found.warnings);
        let host = register(&mask, &mask, &Device::Cpu, &options).expect("registration");
        assert_eq!((found.theta, found.loss), (host.theta, host.loss), "{}", device.name());
    }
}

/// The number of times that the host waits for a device does not grow with the number of pairs: once on each level for the counts of
/// all masks, once for the overlap of all pairs at the start, and once every 40 iterations of all pairs.
#[test]
fn waits_do_not_grow_with_the_number_of_pairs() {
    let plan = grid([10, 12, 16], [10.0, 10.0, 14.0]);
    let fixed = scan(&plan, &Affine::IDENTITY, kidneys);
    let moving = scan(&plan, &motion(4.0, 1.0, [9.0, 0.0, 3.0]).inverse().expect("a motion"), kidneys);
    let options = RegistrationOptions {
        resolution: Some(20.0),
        max_iterations: 60,
        tolerance: 1.0,
        window: 10,
        ..Default::default()
    };
    for device in devices().iter().filter(|d| **d != Device::Cpu && !compiles_only(d)) {
        let waits = |pairs: usize| {
            let before = device.waits();
            let all = register_all(&vec![[&fixed, &moving]; pairs], device, &options).expect("options");
            for found in all {
                let found = found.expect("registration");
                assert_eq!((found.iterations, found.outcome), (40, Outcome::Converged), "{}", device.name());
            }
            device.waits() - before
        };
        // The smallest number of three runs: where tests share a process, others may wait for the device at the same time.
        let least = |pairs: usize| (0..3).map(|_| waits(pairs)).min().expect("three");
        assert_eq!((least(1), least(2), least(33)), (5, 5, 5), "{}", device.name());
    }
}
