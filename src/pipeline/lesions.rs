//! Lesions: connected components of the tumour, matched over the phases.
//!
//! In each phase, the connected components of the tumour with at least [`MIN_LESION_ML`] are the candidates. Candidates of different
//! phases belong to one lesion when they share at least a quarter of the smaller one's voxels on the common grid. After alignment a
//! lesion overlaps itself far more than that (the paper's tumours with a Dice of 0.85) and its neighbours far less. So a lesion that
//! is split in one phase is still one lesion, and two lesions that are merged in one phase are one. A candidate without an
//! overlapping partner in some phase is merged with the nearest candidate of that phase if the distance of their centres is at most
//! the larger one's radius, that of a sphere of its volume. Where the grids differ, only this rule applies.
//!
//! Smaller components never merge lesions. Each is attached to the lesion with which it shares most voxels, if that is at least a
//! quarter of the smaller one's; all others are only counted ([`SmallComponents`]). Where no component has [`MIN_LESION_ML`], the
//! largest component of each phase is its candidate. Lesions are numbered from 1 by their mean volume over all phases, the largest
//! first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::side::{Midline, Side};
use super::{PhaseScan, Study};
use crate::error::{Error, Result};
use crate::phase::Phase;
use crate::volume::components::{DisjointSets, overlaps};
use crate::volume::{Component, Diameter, Grid, LabelVolume, TUMOUR};

/// Smallest volume of a lesion in millilitres: a sphere of 6 mm diameter, about which CT gives no information.
pub const MIN_LESION_ML: f64 = 0.1;
/// A phase with less than this fraction of a lesion's mean volume may have missed it.
const FAINT: f64 = 0.1;

/// Which lesions are classified. As text and in JSON: `largest`, `all`, `together` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LesionChoice {
    /// The lesion with the largest volume among those that are present in every phase.
    #[default]
    Largest,
    /// Every lesion.
    All,
    /// The lesion with this number, counted from 1.
    Number(usize),
    /// All tumour voxels as one lesion, as the paper's authors crop them, for models that were trained in that way.
    Together,
}

impl std::fmt::Display for LesionChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Largest => f.write_str("largest"),
            Self::All => f.write_str("all"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Together => f.write_str("together"),
        }
    }
}

impl From<LesionChoice> for String {
    fn from(choice: LesionChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for LesionChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl std::str::FromStr for LesionChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "largest" => Ok(Self::Largest),
            "all" => Ok(Self::All),
            "together" => Ok(Self::Together),
            _ => match text.parse() {
                Ok(number @ 1..) => Ok(Self::Number(number)),
                _ => Err(Error::argument("lesion", "largest, all, together or a number from 1", text)),
            },
        }
    }
}

/// A lesion in one phase, on the grid of that phase's mask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LesionInPhase {
    /// The phase.
    pub phase: Phase,
    /// Volume in millilitres; 0 where the lesion was not found.
    pub volume_ml: f64,
    /// Its diameters.
    #[serde(flatten)]
    pub diameter: Diameter,
    /// The centre in RAS+ millimetres; None where the lesion was not found.
    pub centre: Option<[f64; 3]>,
    /// Its voxels. They are not in `result.json`: a lesion that was read from it has none.
    #[serde(skip)]
    voxels: Component,
}

/// One lesion over the phases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lesion {
    /// The number of the lesion, from 1 for the largest.
    pub number: usize,
    /// Volume in millilitres, the mean over all phases.
    pub volume_ml: f64,
    /// The side of the patient; None where the masks do not show both kidneys.
    #[serde(default)]
    pub side: Option<Side>,
    /// The lesion in each phase, in the order of the study.
    pub phases: Vec<LesionInPhase>,
}

impl Lesion {
    /// The phases in which it was not found.
    pub fn missing(&self) -> Vec<Phase> {
        self.phases.iter().filter(|p| p.centre.is_none()).map(|p| p.phase).collect()
    }

    /// The phases that show less than a tenth of its mean volume, with the volume there in millilitres.
    pub fn faint(&self) -> Vec<(Phase, f64)> {
        let faint = |p: &&LesionInPhase| p.centre.is_some() && p.volume_ml < FAINT * self.volume_ml;
        self.phases.iter().filter(faint).map(|p| (p.phase, p.volume_ml)).collect()
    }

    /// A mask of only its voxels, labelled as tumour, on the grid of a phase's `mask`. None for a phase in which it was not found.
    ///
    /// # Errors
    /// [`Error::Shape`] for a lesion of masks of another shape.
    pub(super) fn mask(&self, phase: Phase, mask: &LabelVolume) -> Result<Option<LabelVolume>> {
        let Some(own) = self.phases.iter().find(|p| p.phase == phase && p.centre.is_some()) else { return Ok(None) };
        own.voxels.ensure_shape(mask.shape())?;
        let mut painted = vec![0; mask.shape().iter().product()];
        own.voxels.paint(&mut painted, TUMOUR)?;
        mask.with_labels(painted).map(Some)
    }
}

/// The tumour components that are too small to be lesions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SmallComponents {
    /// Number of components, each counted once over the phases.
    pub count: usize,
    /// Volume of all together in millilitres, the mean over the phases.
    pub volume_ml: f64,
}

/// A component of one phase.
struct Part {
    /// The index of the phase in the study.
    phase: usize,
    component: Component,
    voxels: usize,
    ml: f64,
    centre: [f64; 3],
}

/// The lesions of a patient, the largest first, and the components that are too small to be lesions.
///
/// # Errors
/// None in practice: the components of a study's masks always fit their masks.
pub fn find(study: &Study) -> Result<(Vec<Lesion>, SmallComponents)> {
    let (parts, of_phase) = parts(study);
    let large = candidates(&parts, &of_phase);
    let shared = shared(&parts, &of_phase, study);
    // Candidates are joined with candidates, and small components with small ones, which therefore never merge two lesions.
    let mut sets = DisjointSets::new(parts.len());
    for &(i, j, count) in &shared {
        if large[i] == large[j] && 4 * count >= parts[i].voxels.min(parts[j].voxels) {
            sets.join(i, j);
        }
    }
    join_nearest(&mut sets, &parts, &large);
    let owners = owners(&mut sets, &parts, &large, &shared);

    let (mut lesions, mut small): (BTreeMap<usize, Vec<&Part>>, BTreeMap<usize, f64>) = Default::default();
    for (i, part) in parts.iter().enumerate() {
        let root = sets.root(i);
        if large[i] {
            lesions.entry(root).or_default().push(part);
        } else if let Some(owner) = owners.get(&i) {
            lesions.entry(*owner).or_default().push(part);
        } else {
            *small.entry(root).or_default() += part.ml;
        }
    }
    let mean = |ml: f64| ml / study.phases().count().max(1) as f64;
    let mut groups: Vec<(f64, Vec<&Part>)> =
        lesions.into_values().map(|group| (mean(group.iter().map(|p| p.ml).sum()), group)).collect();
    // The sort is stable: lesions of equal volume keep their order.
    groups.sort_by(|a, b| b.0.total_cmp(&a.0));
    let listed = groups.iter().enumerate().filter(|(i, group)| *i == 0 || group.0 >= MIN_LESION_ML).count();
    let left = groups.split_off(listed);
    let count = left.len() + small.len();
    let volume_ml = left.iter().map(|g| g.0).chain(small.into_values().map(mean)).sum();
    let midline = midline(study)?;
    let lesions = groups.iter().zip(1..).map(|((_, group), number)| lesion(number, group, study, &midline));
    Ok((lesions.collect::<Result<_>>()?, SmallComponents { count, volume_ml }))
}

/// All tumour voxels of each phase as one lesion with number 1; None where no phase has tumour voxels.
///
/// # Errors
/// As [`find`].
pub fn together(study: &Study) -> Result<Option<Lesion>> {
    let (parts, _) = parts(study);
    let all: Vec<&Part> = parts.iter().collect();
    if all.is_empty() { Ok(None) } else { lesion(1, &all, study, &midline(study)?).map(Some) }
}

/// The components of all phases, and the range of each phase among them; within a phase the largest is the first.
fn parts(study: &Study) -> (Vec<Part>, Vec<Range<usize>>) {
    let (mut parts, mut of_phase) = (Vec::new(), Vec::new());
    for (phase, mask) in study.scans().iter().map(PhaseScan::mask).enumerate() {
        let start = parts.len();
        for component in mask.components(TUMOUR) {
            let centre = component.centre().map(|at| mask.affine().apply(at)).unwrap_or_default();
            let voxels = component.voxels();
            let ml = voxels as f64 * mask.voxel_ml();
            parts.push(Part { phase, component, voxels, ml, centre });
        }
        of_phase.push(start..parts.len());
    }
    (parts, of_phase)
}

/// Whether each part is a candidate for a lesion.
fn candidates(parts: &[Part], of_phase: &[Range<usize>]) -> Vec<bool> {
    let mut large: Vec<bool> = parts.iter().map(|p| p.ml >= MIN_LESION_ML).collect();
    if !large.contains(&true) {
        for own in of_phase.iter().filter(|own| !own.is_empty()) {
            large[own.start] = true;
        }
    }
    large
}

/// The pairs of parts of different phases on one grid that share voxels, with the number of shared voxels.
fn shared(parts: &[Part], of_phase: &[Range<usize>], study: &Study) -> Vec<(usize, usize, usize)> {
    let of = |own: &Range<usize>| parts[own.clone()].iter().map(|p| &p.component).collect::<Vec<_>>();
    let grids: Vec<Grid> = study.scans().iter().map(|scan| scan.mask().grid()).collect();
    let mut found = Vec::new();
    for (a, first) in of_phase.iter().enumerate() {
        for (b, second) in of_phase.iter().enumerate().skip(a + 1) {
            if grids[a].matches(&grids[b]) {
                let pairs = overlaps(&of(first), &of(second)).into_iter();
                found.extend(pairs.map(|((i, j), count)| (first.start + i, second.start + j, count)));
            }
        }
    }
    found
}

/// Joins sets of candidates that have no phase in common, the nearest pairs first.
fn join_nearest(sets: &mut DisjointSets, parts: &[Part], large: &[bool]) {
    let mut groups: BTreeMap<usize, Vec<&Part>> = BTreeMap::new();
    for (i, part) in parts.iter().enumerate().filter(|(i, _)| large[*i]) {
        groups.entry(sets.root(i)).or_default().push(part);
    }
    let spheres: Vec<(usize, [f64; 3], f64)> =
        groups.iter().map(|(root, group)| (*root, centre(group), radius(group))).collect();
    let mut present: BTreeMap<usize, BTreeSet<usize>> =
        groups.iter().map(|(root, group)| (*root, group.iter().map(|p| p.phase).collect())).collect();
    let mut near = Vec::new();
    for (n, (i, a, radius)) in spheres.iter().enumerate() {
        for (j, b, other) in &spheres[n + 1..] {
            let distance = (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f64>().sqrt();
            if distance <= radius.max(*other) && present[i].is_disjoint(&present[j]) {
                near.push((distance, *i, *j));
            }
        }
    }
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, i, j) in near {
        let (i, j) = (sets.root(i), sets.root(j));
        if i != j && present[&i].is_disjoint(&present[&j]) {
            sets.join(i, j);
            let moved = present.remove(&i.max(j)).unwrap_or_default();
            present.entry(i.min(j)).or_default().extend(moved);
        }
    }
}

/// The set of candidates to which each small part is attached: the one with which it shares most voxels.
fn owners(
    sets: &mut DisjointSets,
    parts: &[Part],
    large: &[bool],
    shared: &[(usize, usize, usize)],
) -> BTreeMap<usize, usize> {
    let mut by_set: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for &(i, j, count) in shared.iter().filter(|(i, j, _)| large[*i] != large[*j]) {
        let (small, other) = if large[j] { (i, j) } else { (j, i) };
        if 4 * count >= parts[small].voxels.min(parts[other].voxels) {
            *by_set.entry((small, sets.root(other))).or_default() += count;
        }
    }
    let mut best: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for ((small, set), count) in by_set {
        let own = best.entry(small).or_insert((set, count));
        if count > own.1 {
            *own = (set, count);
        }
    }
    best.into_iter().map(|(small, (set, _))| (small, set)).collect()
}

fn centre(group: &[&Part]) -> [f64; 3] {
    let all: f64 = group.iter().map(|p| p.ml).sum();
    std::array::from_fn(|k| group.iter().map(|p| p.ml * p.centre[k]).sum::<f64>() / all.max(f64::MIN_POSITIVE))
}

/// The radius in millimetres of a sphere with a group's volume, the mean over the phases in which it occurs.
fn radius(group: &[&Part]) -> f64 {
    let counted: BTreeSet<usize> = group.iter().map(|p| p.phase).collect();
    let cubic_mm = 1000.0 * group.iter().map(|p| p.ml).sum::<f64>() / counted.len().max(1) as f64;
    (0.75 * cubic_mm / std::f64::consts::PI).cbrt()
}

/// All phases lie on each other, so that one serves.
fn midline(study: &Study) -> Result<Midline> {
    study.scans().first().map_or_else(|| Ok(Midline::unknown()), |scan| Midline::of(scan.mask()))
}

fn lesion(number: usize, group: &[&Part], study: &Study, midline: &Midline) -> Result<Lesion> {
    let in_phase = |(i, scan): (usize, &PhaseScan)| {
        let mask = scan.mask();
        let voxels = Component::joined(group.iter().filter(|part| part.phase == i).map(|part| &part.component))?;
        Ok(LesionInPhase {
            phase: scan.phase(),
            volume_ml: voxels.voxels() as f64 * mask.voxel_ml(),
            diameter: voxels.diameter(&mask.affine()),
            centre: voxels.centre().map(|at| mask.affine().apply(at)),
            voxels,
        })
    };
    let phases: Vec<LesionInPhase> = study.scans().iter().enumerate().map(in_phase).collect::<Result<_>>()?;
    let volume_ml = phases.iter().map(|p| p.volume_ml).sum::<f64>() / phases.len().max(1) as f64;
    let side = phases.iter().find_map(|p| p.centre).and_then(|centre| midline.side(centre));
    Ok(Lesion { number, volume_ml, side, phases })
}
