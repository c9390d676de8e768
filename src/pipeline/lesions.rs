//! Tumours as single lesions, each the same one in every phase.
//!
//! In each phase the connected components of label 2 are the candidates. Components of different phases are one lesion when
//! they share at least a quarter of the smaller one's voxels on the common grid: after alignment a lesion overlaps itself far
//! more (the paper's tumours with a Dice of 0.85), and its neighbours far less. So a lesion that falls to pieces in one phase
//! is still one, and two that one phase cannot tell apart are one. What has met nothing in some phase is joined with the
//! nearest that is there, if the distance of their centres is at most the sum of their radii, those of spheres of their
//! volumes; where the grids differ this rule is the only one. Lesions are numbered from 1 by their mean volume over all
//! phases, the largest first. Below [`LEAST_ML`] they are specks of the segmentation: counted, not listed, unless there is
//! nothing else.

use serde::Serialize;

use super::classify::PhaseImage;
use super::crop::{TUMOUR, labels};
use crate::error::{Error, Result};
use crate::phase::Phase;
use crate::volume::components::Sets;
use crate::volume::{Affine, Component, Diameter, Volume, Voxels, components};

/// Millilitres that a lesion has at least: a ball of 6 mm, of which a CT says nothing.
pub const LEAST_ML: f64 = 0.1;

/// Which lesions are classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LesionChoice {
    /// The one with the largest volume.
    #[default]
    Largest,
    /// Every one.
    All,
    /// The one of this number, from 1.
    Number(usize),
}

impl std::str::FromStr for LesionChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "largest" => Ok(Self::Largest),
            "all" => Ok(Self::All),
            _ => match text.parse() {
                Ok(number @ 1..) => Ok(Self::Number(number)),
                _ => Err(Error::argument("lesion", "largest, all or a number from 1", text)),
            },
        }
    }
}

/// A lesion in one phase, on the grid of that phase's mask.
#[derive(Debug, Clone, Serialize)]
pub struct LesionInPhase {
    /// Which phase.
    pub phase: Phase,
    /// Millilitres; 0 where it was not found.
    pub volume_ml: f64,
    /// How far across it is.
    #[serde(flatten)]
    pub diameter: Diameter,
    /// Its centre, millimetres RAS+; None where it was not found.
    pub centre: Option<[f64; 3]>,
    #[serde(skip)]
    voxels: Component,
}

/// One lesion over the phases.
#[derive(Debug, Clone, Serialize)]
pub struct Lesion {
    /// From 1, the largest first.
    pub number: usize,
    /// Millilitres, the mean over all phases.
    pub volume_ml: f64,
    /// In the order of the phases that were given.
    pub phases: Vec<LesionInPhase>,
}

impl Lesion {
    /// The phases it was not found in.
    pub fn missing(&self) -> Vec<Phase> {
        self.phases.iter().filter(|p| p.centre.is_none()).map(|p| p.phase).collect()
    }

    /// A mask of its voxels alone, as label 2, in a phase's `mask`. None for a phase it is not in.
    pub(super) fn mask(&self, phase: Phase, mask: &Volume) -> Option<Volume> {
        let own = self.phases.iter().find(|p| p.phase == phase && p.centre.is_some())?;
        let [d, h, w] = mask.shape;
        let mut painted = vec![0; d * h * w];
        own.voxels.paint(&mut painted, w, TUMOUR);
        Some(Volume { voxels: Voxels::U8(painted.into()), ..mask.clone() })
    }
}

/// What is too small to be listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Specks {
    /// How many.
    pub count: usize,
    /// Millilitres of all together, the mean over the phases.
    pub volume_ml: f64,
}

/// A component of one phase.
struct Part {
    /// Place in the list of phases.
    phase: usize,
    component: Component,
    ml: f64,
    centre: [f64; 3],
}

/// The lesions of a patient, the largest first, and what is too small to be one.
///
/// # Errors
/// A mask that is damaged or not u8.
pub fn find(phases: &[PhaseImage]) -> Result<(Vec<Lesion>, Specks)> {
    let mut parts = Vec::new();
    for (phase, p) in phases.iter().enumerate() {
        p.mask.validate()?;
        let [_, h, _] = p.mask.shape;
        for component in components(labels(&p.mask)?, p.mask.shape, TUMOUR) {
            let centre = component.centre(h).map(|at| p.mask.affine.apply(at)).unwrap_or_default();
            let ml = component.voxels() as f64 * voxel_ml(&p.mask.affine);
            parts.push(Part { phase, component, ml, centre });
        }
    }
    let groups = nearest(&by_overlap(&parts, phases));
    let mut lesions: Vec<Lesion> = groups.iter().map(|group| lesion(group, phases)).collect();
    // Stable: of equals the first stays the first.
    lesions.sort_by(|a, b| b.volume_ml.total_cmp(&a.volume_ml));
    lesions.iter_mut().zip(1..).for_each(|(lesion, number)| lesion.number = number);
    let listed = lesions.iter().filter(|l| l.number == 1 || l.volume_ml >= LEAST_ML).count();
    let specks = lesions.split_off(listed);
    Ok((lesions, Specks { count: specks.len(), volume_ml: specks.iter().map(|l| l.volume_ml).sum() }))
}

fn voxel_ml(affine: &Affine) -> f64 {
    affine.determinant().abs() / 1000.0
}

fn by_overlap<'a>(parts: &'a [Part], phases: &[PhaseImage]) -> Vec<Vec<&'a Part>> {
    let mut sets = Sets::new(parts.len());
    for (i, a) in parts.iter().enumerate() {
        for (j, b) in parts.iter().enumerate().skip(i + 1) {
            let [first, second] = [a, b].map(|p| &phases[p.phase].mask);
            if a.phase == b.phase || !first.grid().matches(&second.grid()) {
                continue;
            }
            let smaller = a.component.voxels().min(b.component.voxels());
            if 4 * a.component.overlap(&b.component) >= smaller {
                sets.join(i, j);
            }
        }
    }
    let single: Vec<[&Part; 1]> = parts.iter().map(|part| [part]).collect();
    gathered(&mut sets, single.iter().map(<[&Part; 1]>::as_slice))
}

/// Joins groups that no phase has both of, nearest first.
fn nearest<'a>(groups: &[Vec<&'a Part>]) -> Vec<Vec<&'a Part>> {
    let spheres: Vec<([f64; 3], f64)> = groups.iter().map(|group| sphere(group)).collect();
    let mut present: Vec<u64> = groups.iter().map(|g| g.iter().fold(0, |bits, p| bits | 1 << p.phase)).collect();
    let mut near = Vec::new();
    for (i, (a, radius)) in spheres.iter().enumerate() {
        for (j, (b, other)) in spheres.iter().enumerate().skip(i + 1) {
            let distance = (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f64>().sqrt();
            if present[i] & present[j] == 0 && distance <= radius + other {
                near.push((distance, i, j));
            }
        }
    }
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut sets = Sets::new(groups.len());
    for (_, i, j) in near {
        let (i, j) = (sets.root(i), sets.root(j));
        if present[i] & present[j] == 0 {
            sets.join(i, j);
            present[i.min(j)] |= present[i.max(j)];
        }
    }
    gathered(&mut sets, groups.iter().map(Vec::as_slice))
}

/// The items of each set, in order.
fn gathered<'a: 'b, 'b>(sets: &mut Sets, items: impl Iterator<Item = &'b [&'a Part]>) -> Vec<Vec<&'a Part>> {
    let mut groups: Vec<Vec<&Part>> = Vec::new();
    for (i, own) in items.enumerate() {
        groups.push(vec![]);
        groups[sets.root(i)].extend(own);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Centre and radius of the sphere of a group's volume, the mean over its phases.
fn sphere(group: &[&Part]) -> ([f64; 3], f64) {
    let mut counted: Vec<usize> = group.iter().map(|p| p.phase).collect();
    counted.sort_unstable();
    counted.dedup();
    let all: f64 = group.iter().map(|p| p.ml).sum();
    let centre =
        std::array::from_fn(|k| group.iter().map(|p| p.ml * p.centre[k]).sum::<f64>() / all.max(f64::MIN_POSITIVE));
    let cubic_mm = 1000.0 * all / counted.len().max(1) as f64;
    (centre, (0.75 * cubic_mm / std::f64::consts::PI).cbrt())
}

fn lesion(group: &[&Part], phases: &[PhaseImage]) -> Lesion {
    let in_phase = |(i, p): (usize, &PhaseImage)| {
        let voxels = Component::joined(group.iter().filter(|part| part.phase == i).map(|part| &part.component));
        let [_, h, _] = p.mask.shape;
        LesionInPhase {
            phase: p.phase,
            volume_ml: voxels.voxels() as f64 * voxel_ml(&p.mask.affine),
            diameter: voxels.diameter(h, &p.mask.affine),
            centre: voxels.centre(h).map(|at| p.mask.affine.apply(at)),
            voxels,
        }
    };
    let phases: Vec<LesionInPhase> = phases.iter().enumerate().map(in_phase).collect();
    let volume_ml = phases.iter().map(|p| p.volume_ml).sum::<f64>() / phases.len().max(1) as f64;
    Lesion { number: 0, volume_ml, phases }
}
