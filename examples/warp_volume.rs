//! Resamples an image and its mask through a transform onto another grid: `cargo run --release --example warp_volume`.

use nephron::ops::Interpolation;
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::Phase;
use nephron::registration::transform;
use nephron::volume::{Affine, Grid, KIDNEY};
use nephron::{Device, Result};

fn main() -> Result<()> {
    let options = PhantomOptions { phases: vec![Phase::Portal], spacing: [3.0, 3.0, 5.0], ..Default::default() };
    let patient = generate(&options)?;
    let (scan, mask) = (&patient.phases[0].image, patient.phases[0].mask.to_volume());
    let device = Device::auto();

    // out(p) = scan(map(p)) for points p of the patient in RAS millimetres: 10 mm towards the head and a turn about z.
    let (sin, cos) = 5f64.to_radians().sin_cos();
    let map = Affine([[cos, -sin, 0.0, 0.0], [sin, cos, 0.0, 0.0], [0.0, 0.0, 1.0, 10.0]]);
    // The new grid has the same field of view and voxels of 2 mm.
    let grid = Grid::with_spacing(scan, [2.0; 3])?;

    let image = transform::warp(scan, &map, &grid, Interpolation::Linear, &device)?;
    // Labels are resampled separately, so that no label appears between two others.
    let labels = transform::warp_largest(&mask, &map, &grid, &device)?.to_labels()?;
    println!("image {:?} of {:?} mm to {:?} of {:?} mm", scan.shape(), scan.spacing(), image.shape(), image.spacing());
    let before = mask.to_labels()?.volume_ml(&[KIDNEY]);
    println!("kidneys {before:.1} ml before, {:.1} ml after", labels.volume_ml(&[KIDNEY]));
    Ok(())
}
