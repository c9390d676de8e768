//! affine_dice on any sets of labels, and registration by them.

use nephron::Device;
use nephron::io::{nifti, npy};
use nephron::ops::affine_dice::{MAX_CHANNELS, reference};
use nephron::ops::{AffineDiceParams, Channels, PaddingMode};
use nephron::registration::{RegistrationOptions, register};
use nephron::volume::{Affine, Volume, Voxels};
use rand::Rng;

use crate::affine_dice::{IDENTITY, K, TURN, assert_agrees, away_from_faces, run};
use crate::registration::{grid, kidneys, motion, on_devices, scan, worst_error};
use crate::support::{self, devices, rng};

/// One to four, nested, apart, overlapping, with labels that nothing has.
const SETS: [&str; 7] = ["2", "7,255", "1/2", "2,3/3,7", "3/1,2/1,2,3", "1/2/7/1,2,3,7,255", "2/1,2/99/255"];

pub(crate) fn channels(text: &str) -> Channels {
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
