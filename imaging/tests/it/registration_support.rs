//! Functions that the tests of registration share: a call on every device, and calls that must be refused.

use nephron_compute::{Device, Error};
use nephron_imaging::registration::{Registration, RegistrationOptions, register};
use nephron_imaging::volume::{Affine, Volume, Voxels};

use crate::support::{compiles_only, devices};

pub fn on_devices(f: impl Fn(&Device) -> nephron_compute::Result<Registration>, check: impl Fn(&str, &Registration)) {
    for device in devices() {
        match f(device) {
            // Kernels are only compiled there, so the result has no meaning; a kernel that does not compile is a failure.
            Err(Error::Kernel { message, .. }) => panic!("{}: {message}", device.name()),
            _ if compiles_only(device) => {}
            result => check(&device.name(), &result.expect("registration")),
        }
    }
}

pub fn refused(fixed: &Volume, moving: &Volume, options: &RegistrationOptions, parts: &[&str]) {
    let message = register(fixed, moving, &Device::Cpu, options).expect_err("must be refused").to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}: expected {parts:?}");
}

/// The largest distance between the images of a labelled voxel under two maps.
pub fn worst_error(mask: &Volume, found: &Affine, truth: &Affine) -> f64 {
    let Voxels::U8(labels) = mask.voxels() else { panic!("a mask") };
    let [_, h, w] = mask.shape();
    let mut worst = 0.0f64;
    for (i, _) in labels.iter().enumerate().filter(|(_, l)| **l > 0) {
        let at = mask.affine().apply([(i % w) as f64, (i / w % h) as f64, (i / w / h) as f64]);
        let (a, b) = (found.apply(at), truth.apply(at));
        worst = worst.max((0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f64>().sqrt());
    }
    worst
}
