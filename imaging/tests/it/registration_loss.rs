//! `Loss` is the loss that `register` minimises: the same start, channels, weights, values and gradients.

use nephron_compute::Device;
use nephron_compute::ops::PaddingMode;
use nephron_imaging::registration::{
    Adam, Channels, Loss, Registration, RegistrationOptions, Space, Transformation, register,
};
use nephron_imaging::volume::{Affine, Volume};

use crate::kidneys::{grid, kidneys, motion, scan};
use crate::registration_channels::channels;
use crate::support::{compiles_only, devices};

/// Two scans of different shape, spacing and orientation, without label 3 in the moving one.
fn masks() -> [Volume; 2] {
    let organs = |p: [f64; 3]| if p[2] > 20.0 && kidneys(p) == 1 { 3 } else { kidneys(p) };
    let back = motion(5.0, 1.03, [6.0, -4.0, 3.0]).inverse().expect("a motion");
    let fixed = scan(&grid([12, 14, 20], [9.0, 9.0, 12.0]), &Affine::IDENTITY, organs);
    let moving = scan(&grid([14, 12, 18], [-9.0, 10.0, 11.0]), &back, kidneys);
    [fixed, moving]
}

/// Sets of labels with their weights; label 3 is in the fixed mask only.
const SETS: [(&str, &[f64]); 3] = [("2/1,2", &[0.5, 0.5]), ("3/1/2", &[0.0, 0.5, 0.5]), ("1,2,3/3", &[1.0, 0.0])];

fn every_options(check: impl Fn(&str, &RegistrationOptions, &[f64])) {
    for (sets, weights) in SETS {
        for space in [Space::World, Space::Grid] {
            for transformation in [Transformation::Affine, Transformation::Similarity] {
                let options = RegistrationOptions {
                    transformation,
                    channels: channels(sets),
                    space,
                    padding: PaddingMode::Zeros,
                    resolution: None,
                    tolerance: 0.0,
                    ..Default::default()
                };
                check(&format!("{sets} {space:?} {transformation}"), &options, weights);
            }
        }
    }
}

fn registered(masks: &[Volume; 2], device: &Device, options: &RegistrationOptions, iterations: usize) -> Registration {
    let options = RegistrationOptions { max_iterations: iterations, ..*options };
    register(&masks[0], &masks[1], device, &options).expect("registration")
}

fn close(what: &str, a: &Affine, b: &Affine, bound: f64) {
    for (a, b) in a.0.as_flattened().iter().zip(b.0.as_flattened()) {
        assert!((a - b).abs() <= bound, "{what}: {a} {b}");
    }
}

/// One iteration computes the loss at the start; Dice and weights of every channel are reported with it.
#[test]
fn the_loss_begins_where_registration_does() {
    let masks = masks();
    every_options(|what, options, weights| {
        for device in devices().iter().filter(|d| !compiles_only(d)) {
            let loss = Loss::new(&masks[0], &masks[1], device, options).expect("a loss");
            let found = registered(&masks, device, options, 1);
            assert_eq!(loss.weights(), weights, "{what}");
            assert_eq!(found.channels.iter().map(|c| c.weight).collect::<Vec<_>>(), weights, "{what}");
            let start = loss.start();
            let (value, _) = loss.value_and_gradient(&start).expect("a value");
            // On a GPU registration computes the loss in f32 from the sums that `Loss` adds up in f64.
            let bound = if *device == Device::Cpu { 0.0 } else { 2e-6 };
            assert!((value - found.loss).abs() <= bound, "{what} on {}: {value} {}", device.name(), found.loss);
            // The bound is in millimetres; theta is f32 on a GPU.
            let bound = if *device == Device::Cpu { 1e-9 } else { 1e-4 };
            close(what, &loss.transform(&start).expect("a map"), &found.transform, bound);
            // There is a warning about the missing channel and one that the moving kidney reaches the edge, and no other.
            let missing = weights.iter().filter(|w| **w == 0.0).count();
            let at_edge = loss.warnings().iter().filter(|w| w.contains("the moving mask reaches the edge")).count();
            assert_eq!((loss.warnings().len(), at_edge), (missing + 1, 1), "{what}: {:?}", loss.warnings());
            assert!(loss.warnings().iter().all(|w| found.warnings.contains(w)), "{what}: {:?}", found.warnings);
        }
    });
}

/// Adam over `Loss` is `register`: after some iterations the lowest loss has the same bits, and the transform differs only by the
/// conversion to millimetres and back, which gradients of another loss would not achieve.
#[test]
fn gradients_are_those_registration_follows() {
    const ITERATIONS: usize = 6;
    let masks = masks();
    every_options(|what, options, _| {
        let loss = Loss::new(&masks[0], &masks[1], &Device::Cpu, options).expect("a loss");
        let mut parameters = loss.start();
        let mut adam = Adam::new(options.learning_rate, parameters.len());
        let (mut lowest, mut best) = (f64::INFINITY, parameters.clone());
        for _ in 0..ITERATIONS {
            let (value, gradient) = loss.value_and_gradient(&parameters).expect("a value");
            if value < lowest {
                (lowest, best) = (value, parameters.clone());
            }
            adam.step(&mut parameters, &gradient);
        }
        assert_ne!(best, loss.start(), "{what}: the loss fell");
        let found = registered(&masks, &Device::Cpu, options, ITERATIONS);
        assert_eq!(found.loss, lowest, "{what}");
        close(what, &loss.transform(&best).expect("a map"), &found.transform, 1e-9);
    });
}

/// On grids of different spacing the two spaces start at different maps, so that a loss that ignored the space would fail.
#[test]
fn spaces_differ_at_the_start() {
    let [fixed, moving] = masks();
    let at = |space| {
        let options =
            RegistrationOptions { space, channels: Channels::default(), resolution: None, ..Default::default() };
        let loss = Loss::new(&fixed, &moving, &Device::Cpu, &options).expect("a loss");
        loss.transform(&loss.start()).expect("a map")
    };
    let (world, grids) = (at(Space::World), at(Space::Grid));
    assert!((0..3).any(|r| (0..3).any(|c| (world.0[r][c] - grids.0[r][c]).abs() > 0.05)), "{world:?} {grids:?}");
}

/// Masks that share no channel are refused as `register` refuses them.
#[test]
fn masks_without_a_shared_channel_are_refused() {
    let mask = |label: u8| {
        let plan = grid([12, 14, 20], [9.0, 9.0, 12.0]);
        scan(&plan, &Affine::IDENTITY, move |p| if kidneys(p) > 0 { label } else { 0 })
    };
    let (fixed, moving) = (mask(1), mask(2));
    let options = RegistrationOptions { channels: channels("1/2"), resolution: None, ..Default::default() };
    let refused = Loss::new(&fixed, &moving, &Device::Cpu, &options).expect_err("refused").to_string();
    let register = register(&fixed, &moving, &Device::Cpu, &options).expect_err("refused").to_string();
    assert!(refused.contains("1/2") && refused == register, "{refused}\n{register}");
}
