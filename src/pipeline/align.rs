//! Stage 2: every phase onto the grid of the reference phase, driven by the masks, cut to the slices that all cover.

use super::{PhaseScan, Study};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::Interpolation;
use crate::phase::Phase;
use crate::registration::transform::warp;
use crate::registration::{self, Registration, RegistrationOptions};
use crate::volume::{Affine, Grid, Volume};

/// The phases on one grid.
#[derive(Debug, Clone)]
pub struct Alignment {
    /// The phase whose grid it is.
    pub reference: Phase,
    /// First and last slice kept, counted from the feet on the reference's own grid.
    pub slices: [usize; 2],
    /// Image and mask of every phase on the kept slices, in the order given.
    pub scans: Study,
    /// How each phase was moved; none for the reference.
    pub moves: Vec<Option<Registration>>,
}

/// Moves every phase onto the reference ([`PhaseSet::reference`](crate::phase::PhaseSet::reference)). All scans have their axes in
/// the orientation of the result, in which the slices are stacked along d.
///
/// # Errors
/// None of the phases that can be the reference; a mask that cannot be registered (the phase is named); phases that share no
/// slice.
pub fn align(study: &Study, options: &RegistrationOptions, device: &Device) -> Result<Alignment> {
    let reference = study.phases().reference()?;
    let fixed = study.scan(reference).ok_or_else(|| Error::Data("no reference phase".into()))?;
    let grid = fixed.image().grid();
    // All in one launch.
    let others = study.scans().iter().filter(|scan| scan.phase() != reference);
    let (fixed_mask, masks) = (fixed.mask().to_volume(), others.map(|s| s.mask().to_volume()).collect::<Vec<_>>());
    let pairs: Vec<[&Volume; 2]> = masks.iter().map(|mask| [&fixed_mask, mask]).collect();
    let mut found = registration::register_all(&pairs, device, options)?.into_iter();
    let (mut moved, mut moves) = (Vec::new(), Vec::new());
    let mut slices = [0, grid.shape[0] - 1];
    for scan in study.scans() {
        let phase = scan.phase();
        if phase == reference {
            moved.push(scan.clone());
            moves.push(None);
            continue;
        }
        let found = found.next().unwrap_or_else(|| Err(Error::Data("expected a registration, found none".into())));
        let found = found.map_err(|e| e.context(format!("{phase} phase")))?;
        let covered = covered_slices(&grid, &scan.image().grid(), &found.transform)?;
        slices = [slices[0].max(covered[0]), slices[1].min(covered[1])];
        moved.push(on_grid(scan, &grid, &found.transform, device)?);
        moves.push(Some(found));
    }
    if slices[0] > slices[1] {
        return Err(Error::Data(format!("the phases share no slice of the {reference} phase")));
    }
    let scans = Study::new(moved.iter().map(|scan| scan.slices(slices)).collect::<Result<Vec<_>>>()?)?;
    Ok(Alignment { reference, slices, scans, moves })
}

/// Image (trilinear) and mask (nearest) as they lie on `grid` under `transform`, a map from its points to the scan's.
fn on_grid(scan: &PhaseScan, grid: &Grid, transform: &Affine, device: &Device) -> Result<PhaseScan> {
    let image = warp(scan.image(), transform, grid, Interpolation::Linear, device)?;
    let mask = warp(&scan.mask().to_volume(), transform, grid, Interpolation::Nearest, device)?;
    PhaseScan::new(scan.phase(), image, mask.to_labels()?)
}

/// The slices of `fixed` whose centre lies among the slices of `moving`.
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
