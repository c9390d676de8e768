//! Stage 2: every phase onto the grid of the reference phase, driven by the masks, cut to the slices that all cover.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::Interpolation;
use crate::phase::Phase;
use crate::registration::transform::warp;
use crate::registration::{self, Registration, RegistrationOptions};
use crate::volume::{Affine, Grid, Volume, Voxels};

/// A phase as it was scanned: image and mask on one grid.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Which phase.
    pub phase: Phase,
    /// CT in Hounsfield units.
    pub image: Volume,
    /// 1 kidney, 2 tumour; on the image's grid.
    pub mask: Volume,
}

/// The phases on one grid.
#[derive(Debug, Clone)]
pub struct Alignment {
    /// The phase whose grid it is.
    pub reference: Phase,
    /// First and last slice kept, counted from the feet on the reference's own grid.
    pub slices: [usize; 2],
    /// Image and mask of every phase on the kept slices, in the order given.
    pub scans: Vec<Scan>,
    /// How each phase was moved; none for the reference.
    pub moves: Vec<Option<Registration>>,
}

/// Which phase the others are moved onto: portal, without it arterial, without it delayed.
///
/// # Errors
/// None of the three is there.
pub fn reference(phases: &[Phase]) -> Result<Phase> {
    [Phase::Portal, Phase::Arterial, Phase::Delayed]
        .into_iter()
        .find(|p| phases.contains(p))
        .ok_or_else(|| Error::Usage("alignment needs a portal, arterial or delayed phase to align to".into()))
}

/// Moves every phase onto the reference. All scans have their axes in the orientation `axes` of the result, in which the
/// slices are stacked along d.
///
/// # Errors
/// A phase twice; a mask that cannot be registered (the phase is named); phases that share no slice.
pub fn align(scans: &[Scan], options: &RegistrationOptions, device: &Device) -> Result<Alignment> {
    let phases: Vec<Phase> = scans.iter().map(|s| s.phase).collect();
    for (i, scan) in scans.iter().enumerate() {
        scan.image.validate()?;
        scan.mask.validate()?;
        if !scan.image.grid().matches(&scan.mask.grid()) {
            let [image, mask] = [&scan.image, &scan.mask].map(|v| format!("{:?} at {:?}", v.shape, v.affine.0));
            return Err(Error::shape(format!("{} phase: mask", scan.phase), image, mask));
        }
        if phases[..i].contains(&scan.phase) {
            return Err(Error::Usage(format!("the {} phase is given twice", scan.phase)));
        }
    }
    let reference = reference(&phases)?;
    let fixed = scans.iter().find(|s| s.phase == reference).ok_or_else(|| Error::Data("no reference phase".into()))?;
    let grid = fixed.image.grid();
    // All in one launch.
    let others: Vec<&Scan> = scans.iter().filter(|scan| scan.phase != reference).collect();
    let pairs: Vec<[&Volume; 2]> = others.iter().map(|scan| [&fixed.mask, &scan.mask]).collect();
    let mut found = registration::register_all(&pairs, device, options)?.into_iter();
    let (mut moved, mut moves) = (Vec::new(), Vec::new());
    let mut slices = [0, grid.shape[0].saturating_sub(1)];
    for scan in scans {
        if scan.phase == reference {
            moved.push(scan.clone());
            moves.push(None);
            continue;
        }
        let found = found.next().unwrap_or_else(|| Err(Error::Data("expected a registration, found none".into())));
        let found = found.map_err(|e| Error::Data(format!("{} phase: {e}", scan.phase)))?;
        let covered = covered_slices(&grid, &scan.image.grid(), &found.transform)?;
        slices = [slices[0].max(covered[0]), slices[1].min(covered[1])];
        moved.push(on_grid(scan, &grid, &found.transform, device)?);
        moves.push(Some(found));
    }
    if slices[0] > slices[1] {
        return Err(Error::Data(format!("the phases share no slice of the {reference} phase")));
    }
    let scans = moved.iter().map(|s| cut(s, slices)).collect();
    Ok(Alignment { reference, slices, scans, moves })
}

/// Image (trilinear) and mask (nearest) as they lie on `grid` under `transform`, a map from its points to the scan's.
fn on_grid(scan: &Scan, grid: &Grid, transform: &Affine, device: &Device) -> Result<Scan> {
    Ok(Scan {
        phase: scan.phase,
        image: warp(&scan.image, transform, grid, Interpolation::Linear, device)?,
        mask: warp(&scan.mask, transform, grid, Interpolation::Nearest, device)?,
    })
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

fn cut(scan: &Scan, [first, last]: [usize; 2]) -> Scan {
    let volume = |v: &Volume| {
        let [_, h, w] = v.shape;
        let range = first * h * w..(last + 1) * h * w;
        let voxels = match &v.voxels {
            Voxels::U8(v) => Voxels::U8(v[range].to_vec().into()),
            Voxels::I16(v) => Voxels::I16(v[range].to_vec().into()),
            Voxels::F32(v) => Voxels::F32(v[range].to_vec().into()),
        };
        let mut step = Affine::IDENTITY;
        step.0[2][3] = first as f64;
        Volume { shape: [last + 1 - first, h, w], voxels, affine: v.affine.after(&step) }
    };
    Scan { phase: scan.phase, image: volume(&scan.image), mask: volume(&scan.mask) }
}
