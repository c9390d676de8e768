//! The progress of a segmentation, and ending it early: `cargo run --release --example progress_and_cancel [SECONDS]`.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::Phase;
use nephron::pipeline::Stage;
use nephron::{Device, Error, ModelOptions, Precision, Result, SegmentOptions, Segmenter};

fn main() -> Result<()> {
    let limit = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1.0);
    let options = PhantomOptions { phases: vec![Phase::Portal], ..Default::default() };
    let patient = generate(&options)?;
    let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo"));
    let segmenter = Segmenter::load(model, &ModelOptions::default(), Precision::Fastest, &Device::auto())?;

    let (started, limit) = (Instant::now(), Duration::from_secs_f64(limit));
    let found = segmenter.segment(&patient.phases[0].image, &SegmentOptions::default(), &mut |stage| {
        match stage {
            Stage::Preparing => println!("preparing"),
            Stage::Tiles(done, all) => println!("tile {done} of {all}, {:.1} s", started.elapsed().as_secs_f64()),
        }
        // The callback runs after each tile. It could also test a flag that a signal handler or another thread sets.
        if started.elapsed() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match found {
        Ok(found) => println!("done: {} tiles", found.tiles),
        Err(Error::Cancelled) => println!("cancelled after {:.1} s", started.elapsed().as_secs_f64()),
        Err(other) => return Err(other),
    }
    Ok(())
}
