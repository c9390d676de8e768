//! Registration with other channels than the default ones.

use nephron_compute::Device;
use nephron_compute::ops::Channels;
use nephron_imaging::registration::{RegistrationOptions, register};
use nephron_imaging::volume::{Affine, Volume, Voxels};

use crate::kidneys::{grid, motion, scan};
use crate::registration_support::{on_devices, worst_error};

pub(crate) fn channels(text: &str) -> Channels {
    text.parse().expect("sets of labels")
}

/// Other labels than kidney and tumour: three organs, each a channel.
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
            // A GPU computes it in f32.
            assert!((mean + found.loss).abs() < 1e-6 && found.warnings.is_empty(), "{device}: {found:?}");
        },
    );

    // A missing organ is left out, with a warning.
    let Voxels::U8(voxels) = moving.voxels() else { panic!("a mask") };
    let without: Vec<u8> = voxels.iter().map(|&l| if l == 7 { 0 } else { l }).collect();
    let without = Volume::new(moving.shape(), Voxels::U8(without.into()), moving.affine()).expect("a volume");
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
