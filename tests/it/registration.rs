//! Affine registration of masks: recovered maps, PyTorch's loop, refusals, transform files, the command.

use std::path::Path;

use nephron::io::nifti;
use nephron::ops::Interpolation;
use nephron::registration::{Registration, RegistrationOptions, register, transform};
use nephron::volume::{Affine, Grid, Volume, Voxels};
use nephron::{Device, Error};

use crate::support::{self, compiles_only, devices};

/// A patient's kidneys: two ellipsoids, the left one with a tumour; points in RAS millimetres.
pub(crate) fn kidneys([x, y, z]: [f64; 3]) -> u8 {
    let inside = |centre: [f64; 3], radii: [f64; 3]| {
        ((x - centre[0]) / radii[0]).powi(2)
            + ((y - centre[1]) / radii[1]).powi(2)
            + ((z - centre[2]) / radii[2]).powi(2)
            <= 1.0
    };
    if inside([-62.0, 12.0, 31.0], [17.0, 15.0, 19.0]) {
        return 2;
    }
    u8::from(inside([-55.0, 0.0, 5.0], [25.0, 22.0, 48.0]) || inside([58.0, -6.0, -9.0], [24.0, 25.0, 45.0]))
}

/// The labels at every voxel of a grid, of a patient who has moved: a point p of the scan shows what was at `back` p.
pub(crate) fn scan(grid: &Grid, back: &Affine, labels: impl Fn([f64; 3]) -> u8) -> Volume {
    let [d, h, w] = grid.shape;
    let map = back.after(&grid.affine);
    let voxels = (0..d * h * w).map(|i| labels(map.apply([(i % w) as f64, (i / w % h) as f64, (i / w / h) as f64])));
    Volume::new(grid.shape, Voxels::U8(voxels.collect::<Vec<_>>().into()), grid.affine).expect("a volume")
}

/// A grid about the origin: spacing (i, j, k) in mm, negative to run towards left, back or feet.
pub(crate) fn grid(shape: [usize; 3], spacing: [f64; 3]) -> Grid {
    let [d, h, w] = shape;
    let mut affine = Affine::IDENTITY;
    for (k, size) in [w, h, d].into_iter().enumerate() {
        affine.0[k][k] = spacing[k];
        affine.0[k][3] = -spacing[k] * (size as f64 - 1.0) / 2.0;
    }
    Grid { shape, affine }
}

/// Turned about z then x by `degrees`, scaled, shifted.
pub(crate) fn motion(degrees: f64, scale: f64, shift: [f64; 3]) -> Affine {
    let (s, c) = degrees.to_radians().sin_cos();
    let turn = Affine([[c, -s, 0.0, 0.0], [s, c, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    let tilt = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, c, -s, 0.0], [0.0, s, c, 0.0]]);
    let mut map = turn.after(&tilt);
    for (row, shift) in map.0.iter_mut().zip(shift) {
        row[..3].iter_mut().for_each(|v| *v *= scale);
        row[3] = shift;
    }
    map
}

/// The largest distance, over labelled voxels, between where two maps take them.
pub(crate) fn worst_error(mask: &Volume, found: &Affine, truth: &Affine) -> f64 {
    let Voxels::U8(labels) = &mask.voxels else { panic!("a mask") };
    let [_, h, w] = mask.shape;
    let mut worst = 0.0f64;
    for (i, _) in labels.iter().enumerate().filter(|(_, l)| **l > 0) {
        let at = mask.affine.apply([(i % w) as f64, (i / w % h) as f64, (i / w / h) as f64]);
        let (a, b) = (found.apply(at), truth.apply(at));
        worst = worst.max((0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f64>().sqrt());
    }
    worst
}

pub(crate) fn on_devices(f: impl Fn(&Device) -> nephron::Result<Registration>, check: impl Fn(&str, &Registration)) {
    for device in devices() {
        match f(device) {
            // Nothing ran there, so any result is as good as another; a kernel that does not compile is a failure.
            Err(Error::Kernel { message, .. }) => panic!("{}: {message}", device.name()),
            _ if compiles_only(device) => {}
            result => check(&device.name(), &result.expect("registration")),
        }
    }
}

/// Fixed and moving scan of different shape, spacing and orientation.
#[test]
fn a_known_motion_is_found() {
    let fixed = scan(&grid([40, 44, 64], [3.0, 3.0, 4.0]), &Affine::IDENTITY, kidneys);
    let truth = motion(8.0, 0.95, [20.0, -9.0, 7.0]);
    let back = truth.inverse().expect("a motion");
    for (shape, spacing) in [([40, 44, 64], [3.0, 3.0, 4.0]), ([34, 60, 50], [-3.6, 2.5, -5.0])] {
        let moving = scan(&grid(shape, spacing), &back, kidneys);
        let found = register(&fixed, &moving, &Device::Cpu, &RegistrationOptions::default()).expect("registration");
        let error = worst_error(&fixed, &found.transform, &truth);
        assert!(error < 2.5, "off by {error} mm, a voxel has 2.5 and more");
        assert!(found.converged && found.warnings.is_empty(), "{:?}", found.warnings);
        let (before, centred, after) = (&found.identity, &found.centre_of_mass, &found.aligned);
        assert!(before.kidney.soft < centred.kidney.soft, "{before:?} {centred:?}");
        assert!(centred.kidney.soft + 0.1 < after.kidney.soft, "{centred:?} {after:?}");
        // Voxels of 4 and 5 mm: the rest is their stairs.
        assert!(after.kidney.hard > 0.93 && after.tumour.is_some_and(|t| t.hard > 0.92), "{after:?}");
    }
}

/// What is reported must be what the files say: theta, the map in millimetres and the warped mask are one thing.
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
        let (Voxels::U8(a), Voxels::U8(b)) = (&fixed.voxels, &warped.voxels) else { panic!("masks stay masks") };
        let count = |f: &dyn Fn(u8, u8) -> bool| a.iter().zip(b.iter()).filter(|(a, b)| f(**a, **b)).count() as f64;
        let dice = 2.0 * count(&|a, b| a > 0 && b > 0) / (count(&|a, _| a > 0) + count(&|_, b| b > 0));
        // Rounding may move a voxel at a boundary of the nearest label.
        assert!((dice - found.aligned.kidney.hard).abs() < 1e-3, "{dice} {:?}", found.aligned);

        let params = nephron::ops::AffineDiceParams { align_corners, smooth: 0.0, ..Default::default() };
        let tensor = |v: &Volume| v.to_tensor(&Device::Cpu).expect("a tensor");
        let soft = nephron::ops::affine_dice(&tensor(&fixed), &tensor(&moving), &found.theta, &params).expect("dice");
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
    for line in include_str!("../golden/registration.txt").lines().filter(|l| !l.starts_with('#')) {
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
                // In f64 the paths part by rounding alone; f32 parts them at faces of cells, where gradients jump.
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

/// One mask without tumour: the other channel alone, and a word about it.
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

pub(crate) fn refused(fixed: &Volume, moving: &Volume, options: &RegistrationOptions, parts: &[&str]) {
    let message = register(fixed, moving, &Device::Cpu, options).expect_err("must be refused").to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}: expected {parts:?}");
}

#[test]
fn what_cannot_be_registered_is_refused() {
    let plan = grid([10, 11, 12], [8.0, 8.0, 8.0]);
    let options = RegistrationOptions::default();
    let whole = scan(&plan, &Affine::IDENTITY, |p| u8::from(p[0].abs() < 9.0 && p[1].abs() < 9.0));
    let of = |f: &dyn Fn([f64; 3]) -> u8| scan(&plan, &Affine::IDENTITY, f);
    refused(&whole, &of(&|_| 0), &options, &["moving mask", "1 (kidney)", "highest label is 0"]);
    refused(&of(&|_| 3), &whole, &options, &["fixed mask", "highest label is 3"]);
    // Two lumps with nothing between them where the other mask has its only one.
    refused(&whole, &of(&|p| u8::from(p[0].abs() > 30.0)), &options, &["do not meet", "same organs"]);

    let odd = Volume::new([1, 1, 2], Voxels::F32(vec![0.5, 1.0].into()), Affine::IDENTITY).expect("a volume");
    refused(&odd, &whole, &options, &["fixed mask", "whole numbers", "0.5"]);
    let mut short = whole.clone();
    short.shape[0] = 9;
    refused(&short, &whole, &options, &["9", "1320"]);

    let base = RegistrationOptions::default();
    refused(&whole, &whole, &RegistrationOptions { learning_rate: 0.0, ..base }, &["learning rate", "above 0", "0"]);
    refused(&whole, &whole, &RegistrationOptions { smooth: f64::NAN, ..base }, &["smooth", "NaN"]);
    refused(&whole, &whole, &RegistrationOptions { tolerance: -1.0, ..base }, &["tolerance", "-1"]);
    refused(&whole, &whole, &RegistrationOptions { window: 0, ..base }, &["window", "1 or more"]);
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

fn nephron(arguments: &[&str]) -> (i32, String, String) {
    let output = support::nephron().args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("it exits"), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_writes_its_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a name").to_owned();
    let plan = grid([30, 36, 48], [4.0, 4.0, 5.0]);
    let other = grid([28, 40, 44], [-4.5, 4.0, 5.0]);
    let back = motion(6.0, 0.97, [10.0, -6.0, 4.0]).inverse().expect("a motion");
    let fixed = scan(&plan, &Affine::IDENTITY, kidneys);
    let moving = scan(&other, &back, kidneys);
    let Voxels::U8(labels) = &moving.voxels else { panic!("a mask") };
    let ct: Vec<i16> = labels.iter().map(|l| i16::from(*l) * 100 - 50).collect();
    let ct = Volume::new(moving.shape, Voxels::I16(ct.into()), moving.affine).expect("a volume");
    for (name, volume) in [("fixed.nii.gz", &fixed), ("moving.nii.gz", &moving), ("ct.nii", &ct)] {
        nifti::write(path(name), &nifti::Image::new(volume.clone())).expect("a file");
    }
    let call = [
        "register",
        "--device",
        "cpu",
        "--json",
        "--fixed",
        &path("fixed.nii.gz"),
        "--moving",
        &path("moving.nii.gz"),
        "--image",
        &path("ct.nii"),
        "-o",
        &path("out"),
    ];
    let (code, out, err) = nephron(&call);
    assert_eq!(code, 0, "{err}");
    let printed: serde_json::Value = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
    let read = |name: &str| std::fs::read_to_string(folder.path().join("out").join(name)).expect("a file");
    let result: serde_json::Value = serde_json::from_str(&read("result.json")).expect("JSON");
    assert_eq!(printed, result);
    let kidney = |when: &str| result[when]["kidney"]["soft"].as_f64().expect("a number");
    assert!(kidney("identity") < kidney("centre_of_mass") && kidney("centre_of_mass") < kidney("aligned"), "{result}");
    assert!(result["iterations"].as_u64().is_some_and(|n| n > 0) && result["converged"] == true, "{result}");
    let file: serde_json::Value = serde_json::from_str(&read("transform.json")).expect("JSON");
    assert_eq!(file["theta"], result["theta"]);
    assert!(read("transform.tfm").contains("AffineTransform_double_3_3"));

    let warped = nifti::read_labels(folder.path().join("out/moving.nii.gz")).expect("the mask").volume;
    assert_eq!(warped.shape, fixed.shape);
    let image = nifti::read(folder.path().join("out/ct.nii")).expect("the image").volume;
    assert_eq!(image.shape, fixed.shape);
    let (Voxels::U8(mask), Voxels::U8(want)) = (&warped.voxels, &fixed.voxels) else { panic!("masks") };
    let same = mask.iter().zip(want.iter()).filter(|(a, b)| (**a > 0) == (**b > 0)).count();
    assert!(same as f64 > 0.99 * want.len() as f64, "{same} of {}", want.len());
    let values = image.voxels.to_f32();
    assert!(values.iter().all(|v| (-50.001..=150.001).contains(v)), "the values of the image, or between them");
    let mean = |inside: bool| {
        let chosen: Vec<f32> =
            values.iter().zip(mask.iter()).filter(|(_, l)| (**l > 0) == inside).map(|p| *p.0).collect();
        chosen.iter().sum::<f32>() / chosen.len() as f32
    };
    assert!(mean(true) > 40.0 && mean(false) < -45.0, "the image moved with the mask: {} {}", mean(true), mean(false));
}

#[test]
fn the_command_refuses_wrong_calls() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a name").to_owned();
    let mask = scan(&grid([10, 11, 12], [14.0, 8.0, 10.0]), &Affine::IDENTITY, kidneys);
    nifti::write(path("a.nii"), &nifti::Image::new(mask)).expect("a file");
    let (a, out) = (path("a.nii"), path("out"));
    let expect = |arguments: &[&str], code: i32, part: &str| {
        let (found, _, err) = nephron(&[&["register", "--device", "cpu"], arguments].concat());
        assert!(found == code && err.contains(part), "{arguments:?}: {found} {err}");
        assert!(!Path::new(&out).join("result.json").exists());
    };
    expect(&["--fixed", &a, "--moving", &a, "--image", &a, "-o", &out], 2, "would both be written");
    expect(&["--fixed", &a, "--moving", &a, "-o", &path("")], 2, "is an input");
    expect(&["--fixed", &a, "--moving", &a, "-o", &out, "--learning-rate", "0"], 2, "above 0");
    expect(&["--fixed", &a, "--moving", &a, "-o", &out, "--resolution", "tiny"], 2, "millimetres or full");
    expect(&["--fixed", &a, "--moving", &path("none.nii"), "-o", &out], 1, "none.nii");
    expect(&["--fixed", &a, "--moving", &a, "-o", &a], 1, "a.nii");
}
