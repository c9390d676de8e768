//! Connected components of a label, and their diameters.
//!
//! Voxels are neighbours when they share a face, an edge or a corner (26-neighbourhood): in scans of thick slices an oblique
//! structure is connected from slice to slice by edges and corners alone, and fewer neighbours would split it.

use super::Affine;
use nephron_compute::error::{Error, Result};

/// A run of voxels of one row, `row` = z * h + y: `start` is its first x, `end` the x after its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    row: usize,
    start: usize,
    end: usize,
}

/// A set of voxels of a volume, stored as runs in the order of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Component {
    runs: Vec<Run>,
    /// The shape of the volume, [d, h, w].
    shape: [usize; 3],
}

/// The largest distance between two points of a component in millimetres; a voxel counts as a box.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Diameter {
    /// The largest distance in any direction (PyRadiomics' `Maximum3DDiameter`).
    pub maximum_3d_diameter_mm: f64,
    /// The largest distance within one slice of fixed z, as it is measured on axial images (PyRadiomics'
    /// `Maximum2DDiameterSlice`).
    pub maximum_2d_diameter_mm: f64,
}

/// The connected components of `label` in a mask of `shape` [d, h, w], sorted by size, the largest first; components of equal
/// size keep their order in the mask.
///
/// Apart from one pass over the mask, time and memory are proportional to the number of runs, not of voxels.
pub fn components(labels: &[u8], shape: [usize; 3], label: u8) -> Vec<Component> {
    let [d, h, w] = shape;
    let mut runs: Vec<Run> = Vec::new();
    // The index of each row's first run.
    let mut first = Vec::with_capacity(d * h + 1);
    for (row, values) in labels.chunks_exact(w.max(1)).take(d * h).enumerate() {
        first.push(runs.len());
        let mut at = 0;
        while let Some(skip) = values[at..].iter().position(|v| *v == label) {
            let start = at + skip;
            let end = values[start..].iter().position(|v| *v != label).map_or(w, |n| start + n);
            runs.push(Run { row, start, end });
            at = end;
        }
    }
    first.resize(d * h + 1, runs.len());

    let mut sets = DisjointSets::new(runs.len());
    for row in 0..d * h {
        let (z, y) = (row / h, row % h);
        // The neighbouring rows that were visited before.
        let above = [
            (z, y.wrapping_sub(1)),
            (z.wrapping_sub(1), y.wrapping_sub(1)),
            (z.wrapping_sub(1), y),
            (z.wrapping_sub(1), y + 1),
        ];
        for (z, y) in above.into_iter().filter(|(z, y)| *z < d && *y < h) {
            let other = z * h + y;
            let (mut a, mut b) = (first[row], first[other]);
            while a < first[row + 1] && b < first[other + 1] {
                if runs[a].start <= runs[b].end && runs[b].start <= runs[a].end {
                    sets.join(a, b);
                }
                if runs[a].end < runs[b].end { a += 1 } else { b += 1 }
            }
        }
    }
    let mut components: Vec<Component> = Vec::new();
    let mut index = vec![usize::MAX; runs.len()];
    for (i, run) in runs.iter().enumerate() {
        let root = sets.root(i);
        if index[root] == usize::MAX {
            index[root] = components.len();
            components.push(Component { runs: vec![], shape });
        }
        components[index[root]].runs.push(*run);
    }
    components.sort_by_cached_key(|c| std::cmp::Reverse(c.voxels()));
    components
}

impl Component {
    /// Number of voxels.
    pub fn voxels(&self) -> usize {
        self.runs.iter().map(|r| r.end - r.start).sum()
    }

    /// Number of voxels that both components contain.
    pub fn overlap(&self, other: &Self) -> usize {
        overlaps(&[self], &[other]).into_iter().map(|(_, count)| count).sum()
    }

    /// The union of several disjoint components of one volume.
    ///
    /// # Errors
    /// [`Error::Shape`] for components of volumes of different shapes.
    pub fn joined<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Result<Self> {
        let mut all = Self::default();
        for part in parts.into_iter().filter(|p| !p.runs.is_empty()) {
            if all.runs.is_empty() {
                all.shape = part.shape;
            }
            part.ensure_shape(all.shape)?;
            all.runs.extend(&part.runs);
        }
        all.runs.sort_unstable();
        Ok(all)
    }

    /// The mean index (i, j, k) of its voxels; None for a component without voxels.
    pub fn centre(&self) -> Option<[f64; 3]> {
        let h = self.shape[1];
        let (mut sum, mut count) = ([0.0; 3], 0.0);
        for run in &self.runs {
            let length = (run.end - run.start) as f64;
            let middle = (run.start + run.end - 1) as f64 / 2.0;
            let index = [middle, (run.row % h) as f64, (run.row / h) as f64];
            (0..3).for_each(|a| sum[a] += index[a] * length);
            count += length;
        }
        (count > 0.0).then(|| sum.map(|s| s / count))
    }

    /// Writes `value` to its voxels in `mask`, which has the shape of its volume; a component without voxels accepts any mask.
    ///
    /// # Errors
    /// [`Error::Shape`] for a mask of another length.
    pub fn paint(&self, mask: &mut [u8], value: u8) -> Result<()> {
        let ([d, h, w], found) = (self.shape, mask.len());
        if !self.runs.is_empty() && found != d * h * w {
            return Err(Error::shape("component: mask", format!("{:?}", self.shape), format!("{found} voxels")));
        }
        for run in &self.runs {
            mask[run.row * w + run.start..run.row * w + run.end].fill(value);
        }
        Ok(())
    }

    /// Checks that it belongs to a volume of this shape [d, h, w]; a component without voxels fits any.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape.
    pub fn ensure_shape(&self, shape: [usize; 3]) -> Result<()> {
        if self.runs.is_empty() || self.shape == shape {
            return Ok(());
        }
        Err(Error::shape("component: volume", format!("{:?}", self.shape), format!("{shape:?}")))
    }

    /// Its diameters, where `affine` maps the volume's indices (i, j, k) to millimetres.
    ///
    /// The two farthest points are corners of voxels and corners of the convex hull of their own slice, so that only these are
    /// compared.
    pub fn diameter(&self, affine: &Affine) -> Diameter {
        let h = self.shape[1];
        let mut hulls: Vec<Vec<[f64; 3]>> = Vec::new();
        for slice in self.runs.chunk_by(|a, b| a.row / h == b.row / h) {
            let corners = slice.iter().flat_map(|r| {
                let (y, x0, x1) = (2 * (r.row % h) as i64, 2 * r.start as i64 - 1, 2 * r.end as i64 - 1);
                [[x0, y - 1], [x0, y + 1], [x1, y - 1], [x1, y + 1]]
            });
            let z = (slice[0].row / h) as f64;
            let point = |[x, y]: [i64; 2]| affine.apply([x as f64 / 2.0, y as f64 / 2.0, z - 0.5]);
            hulls.push(hull(corners.collect()).into_iter().map(point).collect());
        }
        let largest = |points: &[[f64; 3]]| {
            let pairs = points.iter().enumerate().flat_map(|(i, a)| points[i + 1..].iter().map(move |b| squared(a, b)));
            pairs.fold(0.0, f64::max)
        };
        let axial = hulls.iter().map(|h| largest(h)).fold(0.0, f64::max);
        // The hulls lie on the lower face of each slice; the upper face is one step along k away.
        let (below, above) = (affine.apply([0.0; 3]), affine.apply([0.0, 0.0, 1.0]));
        let step: [f64; 3] = std::array::from_fn(|a| above[a] - below[a]);
        let mut points = hulls.concat();
        points.extend(points.clone().iter().map(|p| -> [f64; 3] { std::array::from_fn(|a| p[a] + step[a]) }));
        Diameter { maximum_3d_diameter_mm: largest(&points).sqrt(), maximum_2d_diameter_mm: axial.sqrt() }
    }
}

fn squared(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    (0..3).map(|i| (a[i] - b[i]) * (a[i] - b[i])).sum()
}

/// The corners of the convex hull of points in a plane (Andrew's monotone chain).
fn hull(mut points: Vec<[i64; 2]>) -> Vec<[i64; 2]> {
    points.sort_unstable();
    points.dedup();
    let half = |points: &mut dyn Iterator<Item = [i64; 2]>| {
        let mut chain: Vec<[i64; 2]> = Vec::new();
        for c in points {
            while let [.., a, b] = chain.as_slice() {
                if (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0 {
                    break;
                }
                chain.pop();
            }
            chain.push(c);
        }
        chain
    };
    let (mut lower, mut upper) = (half(&mut points.iter().copied()), half(&mut points.iter().rev().copied()));
    lower.pop();
    upper.pop();
    lower.extend(upper);
    lower
}

/// Voxels that the components of two volumes share: ((index in `a`, index in `b`), count), sorted by the indices. One merge over
/// the sorted runs of all components: time is proportional to the number of runs, not of pairs of components.
pub fn overlaps(a: &[&Component], b: &[&Component]) -> Vec<((usize, usize), usize)> {
    let sorted = |list: &[&Component]| {
        let mut runs: Vec<(Run, usize)> =
            list.iter().enumerate().flat_map(|(i, c)| c.runs.iter().map(move |r| (*r, i))).collect();
        runs.sort_unstable();
        runs
    };
    let (first, second) = (sorted(a), sorted(b));
    let (mut i, mut j, mut shared) = (0, 0, std::collections::BTreeMap::new());
    while let (Some((x, own)), Some((y, other))) = (first.get(i), second.get(j)) {
        if x.row == y.row {
            let both = x.end.min(y.end).saturating_sub(x.start.max(y.start));
            if both > 0 {
                *shared.entry((*own, *other)).or_default() += both;
            }
        }
        if (x.row, x.end) < (y.row, y.end) { i += 1 } else { j += 1 }
    }
    shared.into_iter().collect()
}

/// Disjoint sets (union-find with path halving).
pub struct DisjointSets(Vec<usize>);

impl DisjointSets {
    /// `count` sets of one element each, numbered from 0.
    pub fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    /// The lowest element of the set that `i` belongs to.
    pub fn root(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    /// Merges the sets of two elements; the lower root stays.
    pub fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}
