//! affine_dice on any sets of labels.

use nephron_compute::Device;
use nephron_compute::ops::affine_dice::{MAX_CHANNELS, reference};
use nephron_compute::ops::{AffineDiceParams, Channels, PaddingMode};
use rand::Rng;

use crate::affine_dice::{IDENTITY, K, TURN, assert_agrees, away_from_faces, run};
use crate::support::{devices, rng};

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
