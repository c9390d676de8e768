//! The affine transform between two masks: `cargo run --release --example register_masks [FIXED.nii.gz MOVING.nii.gz]`.
//! Without arguments it uses the kidneys of a synthetic patient in two phases.

use nephron::io::nifti;
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::Phase;
use nephron::registration::{RegistrationOptions, register, transform};
use nephron::{Device, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (fixed, moving) = match (arguments.next(), arguments.next()) {
        (Some(fixed), Some(moving)) => {
            (nifti::read_labels(fixed)?.labels.to_volume(), nifti::read_labels(moving)?.labels.to_volume())
        }
        _ => {
            let phases = vec![Phase::Portal, Phase::Arterial];
            let patient = generate(&PhantomOptions { phases, spacing: [3.0, 3.0, 4.0], ..Default::default() })?;
            (patient.phases[0].mask.to_volume(), patient.phases[1].mask.to_volume())
        }
    };

    // Each mask has its own grid; the transform maps points of the fixed to points of the moving scan, RAS millimetres.
    let found = register(&fixed, &moving, &Device::auto(), &RegistrationOptions::default())?;
    let dice = [found.identity, found.centre_of_mass, found.aligned].map(|overlap| overlap.kidney.hard);
    println!("kidney Dice {:.3} as scanned, {:.3} by centres of mass, {:.3} aligned", dice[0], dice[1], dice[2]);
    println!("{} iterations; fixed to moving point: {:?}", found.iterations, found.transform.0);
    for warning in &found.warnings {
        println!("note: {warning}");
    }

    let path = std::env::temp_dir().join("register_masks.tfm");
    transform::write_itk(&path, &found.transform)?;
    println!("written for ITK and 3D Slicer: {}", path.display());
    Ok(())
}
