//! The optimiser on the device, as another crate would use it: against the one on the host, and what it refuses.

use nephron_compute::ops::affine_dice::{AffineDice, Frame, Parameters, Parametrization};
use nephron_compute::ops::affine_dice_optimizer::{
    DeviceOptimizer, MAX_WINDOW, Minimum, Objective, StopReason, Task, minimize_on_host,
};
use nephron_compute::ops::{Channels, PaddingMode};
use nephron_compute::{Device, Tensor};
use rand::{Rng, SeedableRng};

use crate::affine_dice_channels::channels;
use crate::support::{compiles_only, devices};

const FIXED: [usize; 3] = [9, 11, 10];
const MOVING: [usize; 3] = [10, 9, 12];

/// A pair of random masks, the same on every device.
fn masks(device: &Device, padding: PaddingMode, channels: &Channels) -> AffineDice {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut mask = |[d, h, w]: [usize; 3]| {
        let labels: Vec<u8> = (0..d * h * w).map(|_| rng.random_range(0..4)).collect();
        Tensor::from_u8(device, [1, 1, d, h, w], labels).expect("labels")
    };
    let (fixed, moving) = (mask(FIXED), mask(MOVING));
    AffineDice::new(&fixed, &moving, padding, channels).expect("masks")
}

fn objective(weights: &[f64]) -> Objective {
    Objective {
        smooth: 0.75,
        weights: weights.to_vec(),
        learning_rate: 1e-4,
        max_iterations: 4,
        window: 3,
        tolerance: 0.0,
    }
}

/// Maps whose `pre` and `post` differ in every entry.
fn parametrizations() -> Vec<(Parametrization, Vec<f64>)> {
    let turn = |size: [usize; 3]| [size[2], size[1], size[0]];
    let normalised = Parametrization::from(&Frame::normalised(turn(FIXED), turn(MOVING), true));
    let theta = vec![0.93, 0.04, -0.03, 0.021, -0.05, 1.04, 0.06, -0.017, 0.02, 0.07, 0.95, 0.033];
    let pre = [[0.9, 0.1, -0.05, -4.2], [-0.08, 1.1, 0.07, -4.9], [0.03, -0.06, 0.97, -4.1]];
    let post = [[1.05, -0.04, 0.02, 5.3], [0.06, 0.94, 0.03, 3.8], [-0.07, 0.05, 1.02, 4.6]];
    let mut all = vec![(normalised, theta)];
    for count in [3, 6, 7] {
        let parameters = Parameters::Motion { count, shift_unit: 6.5 };
        let start = [0.021, -0.013, 0.034, 0.05, -0.07, 0.04, 0.03][..count].to_vec();
        all.push((Parametrization { pre, post, parameters }, start));
    }
    all
}

/// Four iterations on the device against the host's in f64; motions of every kind together. Every field of the records
/// that host and kernels share has a value of its own here, so that one read for another gives another loss or step.
#[test]
fn iterations_on_the_device_are_the_hosts() {
    for (sets, weights, padding) in [
        ("2/1,2", vec![0.7, 0.3], PaddingMode::Border),
        ("3/1/1,2,3", vec![0.5, 0.2, 0.3], PaddingMode::Zeros),
        ("3/1/2/1,2", vec![0.4, 0.1, 0.2, 0.3], PaddingMode::Border),
    ] {
        let (channels, objective) = (channels(sets), objective(&weights));
        let on_host = masks(&Device::Cpu, padding, &channels);
        let all = parametrizations();
        for device in devices().iter().filter(|d| **d != Device::Cpu) {
            let on_device = masks(device, padding, &channels);
            assert!(DeviceOptimizer::accepts(&on_device) && !DeviceOptimizer::accepts(&on_host));
            for some in [&all[..1], &all[1..]] {
                let tasks = tasks_of(&on_device, some, &objective);
                let found = DeviceOptimizer::new(&tasks).expect("tasks").run().expect("minima");
                if compiles_only(device) {
                    continue;
                }
                for (found, task) in found.iter().zip(tasks_of(&on_host, some, &objective)) {
                    let what = format!("{sets} {:?} on {}", task.parametrization.parameters, device.name());
                    let want = minimize_on_host(&task).expect("a minimum");
                    assert_agrees(&what, found, &want, objective.learning_rate);
                    assert_ne!(found.parameters, task.start, "{what}: a step was taken and lowered the loss");
                }
            }
        }
    }
}

fn tasks_of<'a>(
    masks: &'a AffineDice,
    maps: &'a [(Parametrization, Vec<f64>)],
    objective: &'a Objective,
) -> Vec<Task<'a>> {
    maps.iter().map(|(parametrization, start)| Task { masks, parametrization, start, objective }).collect()
}

fn assert_agrees(what: &str, found: &Minimum, want: &Minimum, learning_rate: f64) {
    assert_eq!((found.iterations, found.reason), (want.iterations, want.reason), "{what}");
    // The sums are of about 1,000 terms of 1 in f32: 1e-5 of the loss is several times their rounding, and a change of
    // the smoothing term or of a weight by a thousandth shows.
    let close = |part: &str, a: f64, b: f64, bound: f64| assert!((a - b).abs() <= bound, "{what}: {part} {a} {b}");
    close("loss", found.loss, want.loss, 1e-5);
    close("first loss", found.ends[0], want.ends[0], 1e-5);
    close("last loss", found.ends[1], want.ends[1], 1e-5);
    assert_eq!(found.dice.len(), want.dice.len(), "{what}");
    found.dice.iter().zip(&want.dice).for_each(|(a, b)| close("dice", *a, *b, 1e-5));
    assert_eq!(found.parameters.len(), want.parameters.len(), "{what}");
    // A step is about a learning rate; f32 keeps parameters of 1 to 6e-8.
    for (a, b) in found.parameters.iter().zip(&want.parameters) {
        close("parameter", *a, *b, 0.02 * learning_rate);
    }
}

/// Iterations by hand: the state can be looked at in between, and the end is the same bits.
#[test]
fn iterations_may_be_taken_in_parts() {
    let channels = Channels::default();
    let objective = objective(&[0.5, 0.5]);
    for device in devices().iter().filter(|d| **d != Device::Cpu && !compiles_only(d)) {
        let masks = masks(device, PaddingMode::Border, &channels);
        for (parametrization, start) in parametrizations() {
            let task = Task { masks: &masks, parametrization: &parametrization, start: &start, objective: &objective };
            let mut parts = DeviceOptimizer::new(&[task, task]).expect("tasks");
            assert!(parts.advance(1).expect("an iteration"));
            assert_eq!(parts.minima()[1].parameters.len(), start.len());
            assert_eq!((parts.minima()[1].iterations, parts.minima()[1].reason), (1, StopReason::Stopped));
            assert!(!parts.advance(100).expect("the rest"));
            let whole = DeviceOptimizer::new(&[task]).expect("a task").run().expect("a minimum");
            assert_eq!(whole[0].iterations, 4);
            assert_eq!(parts.minima(), [whole[0].clone(), whole[0].clone()], "{}", device.name());
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let channels = Channels::default();
    let (parametrization, start) = parametrizations().remove(0);
    let good = objective(&[0.5, 0.5]);
    for device in devices().iter().filter(|d| **d != Device::Cpu) {
        let own = masks(device, PaddingMode::Border, &channels);
        let task = Task { masks: &own, parametrization: &parametrization, start: &start, objective: &good };
        let refused = |tasks: &[Task<'_>], parts: &[&str]| {
            let message = DeviceOptimizer::new(tasks).expect_err("refused").to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}: expected {parts:?}");
        };
        refused(&[], &["1 to 65535", "0"]);
        refused(&vec![task; 65_536], &["1 to 65535", "65536"]);
        refused(&[task, Task { start: &start[..11], ..task }], &["start", "12", "11"]);
        let bad = [start.clone(), vec![f64::NAN; 12]].concat();
        refused(&[Task { start: &bad[12..], ..task }], &["start", "finite", "NaN"]);
        let other = objective(&[1.0]);
        refused(&[Task { objective: &other, ..task }], &["weights", "2", "1"]);
        let long = Objective { window: MAX_WINDOW + 1, ..good.clone() };
        refused(&[Task { objective: &long, ..task }], &["window", "65536", "65537"]);
        let none = Objective { max_iterations: 0, ..good.clone() };
        refused(&[Task { objective: &none, ..task }], &["max_iterations", "1 or more"]);
        let zeros = masks(device, PaddingMode::Zeros, &channels);
        refused(&[task, Task { masks: &zeros, ..task }], &["padding", "Border", "Zeros"]);
        let host = masks(&Device::Cpu, PaddingMode::Border, &channels);
        refused(&[Task { masks: &host, ..task }], &["on a GPU", "on the CPU"]);
    }
}
