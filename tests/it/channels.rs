//! affine_dice on any sets of labels, and registrations that are many at once.

use nephron::io::{nifti, npy};
use nephron::ops::affine_dice::{CHECK_EVERY, MAX_CHANNELS, reference};
use nephron::ops::{AffineDiceParams, Channels, PaddingMode};
use nephron::registration::{
    Outcome, Registration, RegistrationOptions, Start, Transformation, register, register_all,
};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{Device, Error};
use rand::Rng;

use crate::affine_dice::{IDENTITY, K, TURN, assert_agrees, away_from_faces, run};
use crate::registration::{grid, kidneys, motion, on_devices, scan, worst_error};
use crate::support::{self, compiles_only, devices, rng};

/// One to four, nested, apart, overlapping, with labels that nothing has.
const SETS: [&str; 7] = ["2", "7,255", "1/2", "2,3/3,7", "3/1,2/1,2,3", "1/2/7/1,2,3,7,255", "2/1,2/99/255"];

fn channels(text: &str) -> Channels {
    text.parse().expect("sets of labels")
}

fn labels(rng: &mut impl Rng, shape: [usize; 3]) -> Vec<u8> {
    (0..shape.iter().product()).map(|_| [0, 0, 1, 2, 3, 7, 255][rng.random_range(0..7)]).collect()
}

#[test]
fn any_sets_of_labels_agree_with_the_reference() {
    let mut rng = rng();
    for (fixed_shape, moving_shape) in [([7, 9, 19], [8, 6, 11]), ([1, 5, 3], [2, 1, 4])] {
        let (fixed, moving) = (labels(&mut rng, fixed_shape), labels(&mut rng, moving_shape));
        let (fixed, moving) = ((&fixed[..], fixed_shape), (&moving[..], moving_shape));
        for sets in SETS {
            for (padding, base) in [(PaddingMode::Border, IDENTITY), (PaddingMode::Zeros, TURN)] {
                let params = AffineDiceParams { padding, channels: channels(sets), ..Default::default() };
                let oracle = |theta: &_| reference::affine_dice(fixed, moving, theta, &params);
                let (theta, want) = away_from_faces(&mut rng, base, oracle);
                assert_eq!(want.dice.len(), params.channels.count());
                for device in devices() {
                    let got = run(device, fixed, moving, &theta, &params);
                    let k = if *device == Device::Cpu { 0 } else { K };
                    assert_agrees(&format!("{sets} {theta:?} {padding:?}"), device, &got, &want, k);
                }
            }
        }
    }
}

/// The CPU's gradient against central differences of its own loss, both in f64: relative error below 1e-4.
#[test]
fn gradients_of_any_sets_are_central_differences() {
    let mut rng = rng();
    let shape = [6, 7, 8];
    let (fixed, moving) = (labels(&mut rng, shape), labels(&mut rng, shape));
    let (fixed, moving) = ((&fixed[..], shape), (&moving[..], shape));
    for sets in SETS {
        for padding in [PaddingMode::Border, PaddingMode::Zeros] {
            let params = AffineDiceParams { padding, channels: channels(sets), ..Default::default() };
            let oracle = |theta: &_| reference::affine_dice(fixed, moving, theta, &params);
            let (theta, _) = away_from_faces(&mut rng, IDENTITY, oracle);
            let got = run(&Device::Cpu, fixed, moving, &theta, &params).dtheta;
            let largest = got.as_flattened().iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(largest > 0.0, "{sets}");
            for i in 0..12 {
                let at = |step: f64| {
                    let mut theta = theta;
                    theta[i / 4][i % 4] += step;
                    run(&Device::Cpu, fixed, moving, &theta, &params).loss
                };
                let slope = (at(1e-7) - at(-1e-7)) / 2e-7;
                let off = (got[i / 4][i % 4] - slope).abs();
                // Each loss is of 336 voxels, rounded to 1e-14 of 1 at worst: 1e-7 of the slope, and the third
                // derivative takes 1e-12 more. The largest slopes are of 0.01 and above, so that 1e-4 of them is what
                // is left.
                assert!(off <= 1e-4 * largest, "{sets} {padding:?} {i}: {} {slope}", got[i / 4][i % 4]);
            }
        }
    }
}

#[test]
fn sets_are_read_and_checked() {
    assert_eq!(channels("2/1,2"), Channels::default());
    assert_eq!(Channels::default().to_string(), "2/1,2");
    assert_eq!(channels(" 3, 1 /255").to_string(), "1,3/255");
    assert_eq!(channels("1,1/1"), Channels::new(&[&[1], &[1]]).expect("two alike"));
    assert_eq!(channels("5/7").labels(1), [7]);
    assert!(channels("5/7").labels(2).is_empty() && !channels("5/7").contains(6));
    for (text, parts) in [
        ("", ["2/1,2", "''"]),
        ("1/", ["2/1,2", "'1/'"]),
        ("256", ["2/1,2", "'256'"]),
        ("tumour", ["2/1,2", "'tumour'"]),
        ("0", ["1 to 255", "[0]"]),
        ("1/2/3/4/5", ["1 to 4", "5 of them"]),
    ] {
        let message = text.parse::<Channels>().expect_err("refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
    }
    assert!(Channels::new(&[]).is_err() && Channels::new(&[&[]]).is_err());
    assert_eq!(MAX_CHANNELS, 4);
}

/// Labels of another kind than kidney and tumour: three organs, each a channel.
#[test]
fn other_labels_register() {
    let organ = |p: [f64; 3]| {
        let inside = |centre: [f64; 3], r: f64| (0..3).map(|k| (p[k] - centre[k]).powi(2)).sum::<f64>() <= r * r;
        match () {
            () if inside([-50.0, 10.0, 0.0], 30.0) => 5,
            () if inside([45.0, -20.0, 20.0], 26.0) => 7,
            () if inside([10.0, 40.0, -40.0], 22.0) => 40,
            () => 0,
        }
    };
    let plan = grid([20, 22, 32], [6.0, 6.0, 8.0]);
    let fixed = scan(&plan, &Affine::IDENTITY, organ);
    let truth = motion(6.0, 1.0, [9.0, -6.0, 5.0]);
    let moving = scan(&plan, &truth.inverse().expect("a motion"), organ);
    let options = RegistrationOptions { channels: channels("5/7/40"), ..Default::default() };
    on_devices(
        |device| register(&fixed, &moving, device, &options),
        |device, found| {
            let error = worst_error(&fixed, &found.transform, &truth);
            assert!(error < 5.0, "{device}: off by {error} mm, a voxel has 6 to 8");
            let (centred, aligned) = (found.centre_of_mass.kidney, found.aligned.kidney);
            assert!(found.aligned.tumour.is_none() && aligned.hard > centred.hard, "{device}: {found:?}");
            assert_eq!(found.channels.iter().map(|c| &c.labels[..]).collect::<Vec<_>>(), [&[5][..], &[7], &[40]]);
            let mean: f64 = found.channels.iter().map(|c| c.weight * c.dice).sum();
            // In f32 on a GPU.
            assert!((mean + found.loss).abs() < 1e-6 && found.warnings.is_empty(), "{device}: {found:?}");
        },
    );

    // One organ is gone: it is left out, and said.
    let Voxels::U8(voxels) = &moving.voxels else { panic!("a mask") };
    let without: Vec<u8> = voxels.iter().map(|&l| if l == 7 { 0 } else { l }).collect();
    let without = Volume::new(moving.shape, Voxels::U8(without.into()), moving.affine).expect("a volume");
    let found = register(&fixed, &without, &Device::Cpu, &options).expect("registration");
    assert_eq!(found.channels.iter().map(|c| c.weight).collect::<Vec<_>>(), [0.5, 0.0, 0.5]);
    assert!(found.warnings.iter().any(|w| w.contains("moving mask") && w.contains("[7]")), "{:?}", found.warnings);

    let refused = |sets: &str, parts: &[&str]| {
        let options = RegistrationOptions { channels: channels(sets), ..Default::default() };
        let message = register(&fixed, &without, &Device::Cpu, &options).expect_err("refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused("7", &["moving mask", "channels 7", "highest label is 40"]);
    refused("1,2", &["fixed mask", "1,2", "highest label is 40"]);
}

fn bare(found: Registration) -> Registration {
    Registration { seconds: 0.0, ..found }
}

/// As together, so alone: the same bits. Iterations of each pair, 0 where it is refused or the device only compiles.
fn as_alone(pairs: &[[&Volume; 2]], device: &Device, options: &RegistrationOptions) -> Vec<usize> {
    let all = register_all(pairs, device, options).expect("options");
    assert_eq!(all.len(), pairs.len());
    let same = |(i, (found, [fixed, moving])): (usize, (nephron::Result<Registration>, &[&Volume; 2]))| {
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

/// Pairs of different sizes that end after different numbers of iterations: each as it does alone, bit for bit, the odd
/// one out refused in its place.
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
    // A fixed mask of another size, so that neither members nor records begin where they do in every other pair.
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
            channels: channels(sets),
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

/// 9 x 9 x 9 bricks of the fixed grid, beyond the 528 cubes that sweep a pair at most, beside a pair of fewer.
#[test]
fn masks_of_many_bricks_register_beside_small_ones() {
    let (large, small) = (grid([36, 72, 66], [3.0, 3.0, 4.0]), grid([12, 14, 20], [9.0, 9.0, 12.0]));
    let truth = motion(4.0, 1.0, [9.0, 0.0, 3.0]).inverse().expect("a motion");
    let [fixed, other] = [&large, &small].map(|plan| scan(plan, &Affine::IDENTITY, kidneys));
    let moving = scan(&small, &truth, kidneys);
    let pairs = [[&other, &moving], [&fixed, &moving], [&moving, &fixed]];
    for sets in ["2/1,2", "1/2/1,2"] {
        let options =
            RegistrationOptions { channels: channels(sets), resolution: None, max_iterations: 2, ..Default::default() };
        let host = register(&fixed, &moving, &Device::Cpu, &options).expect("registration");
        for device in devices() {
            let iterations = as_alone(&pairs, device, &options);
            if !compiles_only(device) {
                assert_eq!(iterations, [2, 2, 2]);
                let found = register(&fixed, &moving, device, &options).expect("registration");
                // As below; a cube's bricks that nobody swept would be a tenth of the masks and more.
                let off = (found.loss - host.loss).abs();
                assert!(off < 2e-3, "{} {sets}: {} {}", device.name(), found.loss, host.loss);
            }
        }
    }
}

/// The device's own loop against the host's: the same path but for rounding, to the same end.
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
            // f32 parts the paths where a slope is below its rounding, or a voxel crosses a face between cells: a step
            // of Adam then goes the other way. A step is 0.01 of half the grid, 0.9 mm along its longest edge. Far from
            // the end it changes the Dice of the tumour (17 mm; of two balls it falls by 0.75 a radius) by 0.04: 2e-3
            // is a twentieth.
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

    // And to the same end, by the same rule, at this question or the next.
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

/// Converged on the thinned masks with the last iteration there was: nothing has looked at the full grids, and it is
/// said. And a label that thinning loses altogether is aligned on them from the start.
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

    // Of each label one mask has a kidney and the other a single voxel in it, which no thinned voxel of 30 mm is
    // nearest to.
    let of = |most: u8, dot: [f64; 3]| {
        scan(&plan, &Affine::IDENTITY, move |p| match kidneys(p) {
            0 => 0,
            _ if (0..3).all(|k| (p[k] - dot[k]).abs() < 0.5) => 3 - most,
            _ => most,
        })
    };
    let (fixed, moving) = (of(1, [-57.0, 3.0, 4.0]), of(2, [-51.0, -3.0, 12.0]));
    let options = RegistrationOptions { start: Start::Identity, ..options(channels("1/2"), 30.0, 20) };
    let found = register(&fixed, &moving, &Device::Cpu, &options).expect("registration");
    assert!(found.warnings.iter().any(|w| w.contains("full grids from the start")), "{:?}", found.warnings);
    assert_eq!(found.channels.iter().map(|c| c.weight).collect::<Vec<_>>(), [0.5, 0.5]);
}

/// Steps of half a grid lose the masks: said, and the map of the lowest loss kept.
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
        assert!(found.warnings.iter().any(|w| w.contains("diverged") && w.contains("below 1")), "{:?}", found.warnings);
        assert!(found.aligned.kidney.soft >= found.centre_of_mass.kidney.soft - 1e-6, "{found:?}");
    }
}

/// The command's own sets of labels, and the op's.
#[test]
fn the_commands_take_sets_of_labels() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let plan = grid([20, 24, 32], [6.0, 6.0, 8.0]);
    let organs = |p: [f64; 3]| [0, 9, 4][usize::from(kidneys(p))];
    let fixed = scan(&plan, &Affine::IDENTITY, organs);
    let moving = scan(&plan, &motion(4.0, 1.0, [9.0, 0.0, 3.0]).inverse().expect("a motion"), organs);
    for (name, volume) in [("fixed.nii.gz", &fixed), ("moving.nii.gz", &moving)] {
        nifti::write(path(name), &nifti::Image::new(volume.clone())).expect("a file");
    }
    let run = |arguments: &[&str]| {
        let output = support::nephron().args(["--device", "cpu"]).args(arguments).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (a, b, out) = (path("fixed.nii.gz"), path("moving.nii.gz"), path("out"));
    let register = ["register", "--json", "--fixed", &a, "--moving", &b, "-o", &out, "--channels"];
    let (code, out, err) = run(&[&register[..], &["4/4,9"]].concat());
    assert_eq!(code, Some(0), "{err}");
    let result: serde_json::Value = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
    assert_eq!(result["channels"][1]["labels"], serde_json::json!([4, 9]));
    assert_eq!(result["outcome"], "converged");
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let mean = (0..2).map(|c| number(&result["channels"][c]["dice"]) / 2.0).sum::<f64>();
    assert!((mean + number(&result["loss"])).abs() < 1e-12, "{result}");
    let kidney = |when: &str| number(&result[when]["kidney"]["soft"]);
    assert!(kidney("identity") < kidney("centre_of_mass") && kidney("centre_of_mass") < kidney("aligned"), "{result}");
    let plain: Vec<&str> = register.iter().copied().filter(|a| *a != "--json").collect();
    let (code, out, err) = run(&[&plain[..], &["4/4,9", "--transformation", "translation"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("channel 4: Dice 0.") && out.contains("channel 4,9: Dice 0."), "{out}");
    assert!(out.contains("all labels") && out.contains("converged after"), "{out}");
    let diverging = ["4/4,9", "--transformation", "translation", "--learning-rate", "1"];
    let (code, out, err) = run(&[&plain[..], &diverging].concat());
    assert!(code == Some(0) && out.contains("diverged after") && err.contains("diverged"), "{out} {err}");
    npy::write_u8(path("mask.npy"), &[2, 2, 2], &[1; 8]).expect("an array");
    let theta = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    npy::write_f32(path("theta.npy"), &[3, 4], &theta).expect("an array");
    let of = |name: &str, file: &str| format!("{name}={}", path(file));
    let [fixed, moving, theta] =
        [("fixed", "mask.npy"), ("moving", "mask.npy"), ("theta", "theta.npy")].map(|(name, file)| of(name, file));
    let op = ["op", "affine_dice", "--in", &fixed, "--in", &moving, "--in", &theta, "--attr"];
    let (code, _, err) = run(&[&op[..], &["channels=0"]].concat());
    assert!(
        code == Some(2) && err.contains("attribute 'channels' is '0'") && err.contains("1 to 255"),
        "{code:?} {err}"
    );
    let (code, _, err) = run(&[&op[..], &["channels=1"]].concat());
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = run(&[&register[..], &["4/0"]].concat());
    assert!(code == Some(2) && err.contains("1 to 255"), "{code:?} {err}");
    let (code, _, err) = run(&[&register[..], &["1/2"]].concat());
    assert!(code == Some(1) && err.contains("channels 1/2"), "{code:?} {err}");
}
