//! Stage 2: resamples every phase onto the grid of the reference phase, aligned by the masks and cropped to the slices that all
//! phases cover.

use super::{PhaseScan, Study};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::Interpolation;
use crate::phase::Phase;
use crate::registration::transform::warp;
use crate::registration::{self, Registration, RegistrationOptions};
use crate::volume::{Affine, Grid, Volume};

/// The phases on a common grid.
#[derive(Debug, Clone)]
pub struct Alignment {
    /// The phase whose grid is the common one.
    pub reference: Phase,
    /// The first and the last slice that were kept, counted from the feet on the reference's own grid.
    pub slices: [usize; 2],
    /// Image and mask of every phase on the common grid, in the order of the study.
    pub scans: Study,
    /// The registration of each phase, in the same order; None for the reference.
    pub registrations: Vec<Option<Registration>>,
}

/// Aligns every phase to the reference ([`PhaseSet::reference`](crate::phase::PhaseSet::reference)) by registering its mask to the
/// reference's mask; images are resampled trilinearly, masks to the nearest label. All scans must have the same orientation, with
/// axial slices along d.
///
/// # Errors
/// A study without a phase that can be the reference; a mask that cannot be registered (the error names the phase); phases that
/// share no slice.
pub fn align(study: &Study, options: &RegistrationOptions, device: &Device) -> Result<Alignment> {
    let reference = study.phases().reference()?;
    let fixed = study.scan(reference).ok_or_else(|| Error::Data("no reference phase".into()))?;
    let grid = fixed.image().grid();
    // All phases are registered together, which a GPU does in the same launches.
    let others = study.scans().iter().filter(|scan| scan.phase() != reference);
    let (fixed_mask, masks) = (fixed.mask().to_volume(), others.map(|s| s.mask().to_volume()).collect::<Vec<_>>());
    let pairs: Vec<[&Volume; 2]> = masks.iter().map(|mask| [&fixed_mask, mask]).collect();
    let mut found = registration::register_all(&pairs, device, options)?.into_iter();
    let (mut moved, mut registrations) = (Vec::new(), Vec::new());
    let mut slices = [0, grid.shape[0] - 1];
    for scan in study.scans() {
        let phase = scan.phase();
        if phase == reference {
            moved.push(scan.clone());
            registrations.push(None);
            continue;
        }
        let found = found.next().unwrap_or_else(|| Err(Error::Data("expected a registration, found none".into())));
        let found = found.map_err(|e| e.context(format!("{phase} phase")))?;
        let covered = covered_slices(&grid, &scan.image().grid(), &found.transform)?;
        slices = [slices[0].max(covered[0]), slices[1].min(covered[1])];
        moved.push(on_grid(scan, &grid, &found.transform, device)?);
        registrations.push(Some(found));
    }
    if slices[0] > slices[1] {
        return Err(Error::Data(format!("the phases share no slice of the {reference} phase")));
    }
    let scans = Study::new(moved.iter().map(|scan| scan.slices(slices)).collect::<Result<Vec<_>>>()?)?;
    Ok(Alignment { reference, slices, scans, registrations })
}

/// Image (trilinear, in the scan's own integer type) and mask (nearest) of a scan, resampled onto `grid` through `transform`, which maps points of `grid` to points
/// of the scan.
fn on_grid(scan: &PhaseScan, grid: &Grid, transform: &Affine, device: &Device) -> Result<PhaseScan> {
    let image = warp(scan.image(), transform, grid, Interpolation::Linear, device)?.rounded_like(scan.image())?;
    let mask = warp(&scan.mask().to_volume(), transform, grid, Interpolation::Nearest, device)?;
    PhaseScan::new(scan.phase(), image, mask.to_labels()?)
}

/// The first and the last slice of `fixed` whose centre is inside the slices of `moving`; an empty range where there is none.
fn covered_slices(fixed: &Grid, moving: &Grid, transform: &Affine) -> Result<[usize; 2]> {
    let [d, h, w] = fixed.shape;
    let map = moving.affine.inverse()?.after(transform).after(&fixed.affine);
    let inside = |k: usize| {
        let [_, _, at] = map.apply([(w as f64 - 1.0) / 2.0, (h as f64 - 1.0) / 2.0, k as f64]);
        at >= -0.5 && at <= moving.shape[0] as f64 - 0.5
    };
    let covered: Vec<usize> = (0..d).filter(|&k| inside(k)).collect();
    match (covered.first(), covered.last()) {
        (Some(&first), Some(&last)) => Ok([first, last]),
        _ => Ok([d, 0]),
    }
}
