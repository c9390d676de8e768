//! Kidneys and tumours in a CT, from file to file: `cargo run --release --example segment_nifti [SCAN.nii.gz MODEL_FOLDER]`.
//! Without arguments it uses a synthetic scan and the demo model, which was trained on such scans only.

use std::ops::ControlFlow;
use std::path::PathBuf;

use nephron::io::nifti;
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::Phase;
use nephron::{Device, ModelOptions, Precision, Result, SegmentOptions, Segmenter};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let demo_model = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo"));
    let (scan, model) = match (arguments.next(), arguments.next()) {
        (Some(scan), Some(model)) => (nifti::read_ct(scan)?, model),
        _ => {
            let options =
                PhantomOptions { phases: vec![Phase::Portal], spacing: [3.0, 3.0, 5.0], ..Default::default() };
            (nifti::Image::new(generate(&options)?.phases[0].image.clone()), demo_model)
        }
    };

    let device = Device::auto();
    let segmenter = Segmenter::load(&model, &ModelOptions::default(), Precision::Fastest, &device)?;
    let found = segmenter.segment(&scan.volume, &SegmentOptions::default(), &mut |_| ControlFlow::Continue(()))?;
    for (name, millilitres) in found.volumes_ml() {
        println!("{name}: {millilitres:.1} ml");
    }

    // The mask has the grid of the scan, and its file the scan's geometry and codes.
    let out = std::env::temp_dir().join("segment_nifti_mask.nii.gz");
    nifti::write(&out, &scan.with_volume(found.mask))?;
    println!("{} tiles on {}, written to {}", found.tiles, device.name(), out.display());
    Ok(())
}
