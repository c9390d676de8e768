//! nnU-Net's plan for a data set: the spacing that images are resampled to, the patch, the network and the batch.
//!
//! Source: nnU-Net v2.8.1, `ExperimentPlanner` (Isensee et al., Nature Methods 18, 2021).

use super::fingerprint::{Fingerprint, percentile};
use super::topology::Topology;
use crate::error::{Error, Result};
use crate::pipeline::resampled_size;

/// Largest over smallest spacing above which a data set is anisotropic.
const ANISOTROPY: f64 = 3.0;
/// Elements of the feature maps of a batch of two patches that fit in 8 GB, and of a batch of twelve slices.
const ELEMENTS: [f64; 2] = [560e6, 85e6];
const REFERENCE_GB: f64 = 8.0;
const REFERENCE_BATCH: [f64; 2] = [2.0, 12.0];
const MIN_BATCH: usize = 2;
/// Largest number of channels.
const MAX_FEATURES: [usize; 2] = [320, 512];
/// Share of the data set's voxels that a batch may hold.
const MAX_COVERED: f64 = 0.05;
/// A low resolution is planned where the patch is smaller than this share of the median image.
const LOW_RESOLUTION_BELOW: f64 = 0.25;
const SPACING_STEP: f64 = 1.03;

/// What the plan is made for.
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannerOptions {
    /// The GPU memory that training should take, in GB as nnU-Net counts it.
    pub memory_gb: f64,
    /// Channels of the first stage.
    pub features: usize,
    /// The spacing that images are resampled to instead of the median, in mm along (z, y, x).
    pub spacing: Option<[f64; 3]>,
    /// The patch instead of the one that fits the memory, in voxels along the network's axes; rounded up to what the strides divide.
    pub patch: Option<[usize; 3]>,
    /// Images of a batch instead of what fits the memory.
    pub batch: Option<usize>,
}

impl Default for PlannerOptions {
    fn default() -> Self {
        Self { memory_gb: REFERENCE_GB, features: 32, spacing: None, patch: None, batch: None }
    }
}

/// Largest number of channels of the first stage.
const LARGEST_FIRST_STAGE: usize = 4096;
/// Largest number of voxels of a patch along an axis.
const LARGEST_PATCH: usize = 1 << 14;
/// Largest number of patches of a batch.
pub(super) const LARGEST_BATCH: usize = 4096;

/// A plan: where the axes go, and its configurations.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The image axis that each network axis is; the axis of the largest spacing is the first.
    pub transpose: [usize; 3],
    /// The medians of spacing and size of the cases, along the network's axes.
    pub median: ([f64; 3], [f64; 3]),
    /// The configurations `2d`, `3d_lowres`, where there is one, and `3d_fullres`.
    pub configurations: Vec<Configuration>,
}

/// A configuration of a plan. Lists have an entry for each axis: two in a plan for slices.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// Its name.
    pub name: &'static str,
    /// Millimetres.
    pub spacing: Vec<f64>,
    /// The median of the cases' sizes after resampling.
    pub median_size: Vec<f64>,
    /// Voxels of a patch.
    pub patch: Vec<usize>,
    /// Patches of a batch.
    pub batch: usize,
    /// Channels of each stage.
    pub features: Vec<usize>,
    /// Kernel of each stage.
    pub kernels: Vec<Vec<usize>>,
    /// Stride into each stage.
    pub strides: Vec<Vec<usize>>,
    /// Whether Dice is computed over the voxels of a batch instead of those of each patch.
    pub batch_dice: bool,
}

impl Plan {
    /// Plans for a data set of `cases` cases with `classes` labels, the background included.
    ///
    /// # Errors
    /// A fingerprint without cases; options out of range; a memory in which not even the smallest patch fits.
    pub fn new(fingerprint: &Fingerprint, classes: usize, options: &PlannerOptions) -> Result<Self> {
        let cases = fingerprint.spacings.len();
        if cases == 0 || fingerprint.shapes.len() != cases {
            return Err(Error::argument("plan: cases", "at least one", cases));
        }
        if !(options.memory_gb.is_finite() && options.memory_gb > 0.0) {
            return Err(Error::argument("plan: memory", "GB above 0", options.memory_gb));
        }
        let patch = options.patch.unwrap_or([1; 3]);
        for (what, value, most) in [
            ("features", options.features, LARGEST_FIRST_STAGE),
            ("batch", options.batch.unwrap_or(1), LARGEST_BATCH),
            ("patch along z", patch[0], LARGEST_PATCH),
            ("patch along y", patch[1], LARGEST_PATCH),
            ("patch along x", patch[2], LARGEST_PATCH),
        ] {
            if !(1..=most).contains(&value) {
                return Err(Error::argument(format!("plan: {what}"), format!("1 to {most}"), value));
            }
        }
        let target = match options.spacing {
            Some(spacing) if spacing.iter().all(|s| s.is_finite() && *s > 0.0) => spacing,
            Some(spacing) => return Err(Error::argument("plan: spacing", "mm above 0", format!("{spacing:?}"))),
            None => target_spacing(fingerprint),
        };
        let mut coarsest = 0;
        for a in 1..3 {
            if target[a] > target[coarsest] {
                coarsest = a;
            }
        }
        let rest: Vec<usize> = (0..3).filter(|&a| a != coarsest).collect();
        let transpose = [coarsest, rest[0], rest[1]];
        let sizes: Vec<[usize; 3]> = fingerprint
            .spacings
            .iter()
            .zip(&fingerprint.shapes)
            .map(|(spacing, shape)| resampled_size(*shape, *spacing, target))
            .collect();
        let median = transpose.map(|a| median_of(sizes.iter().map(|size| size[a] as f64)));
        let spacing = transpose.map(|a| target[a]);
        let planner = Planner { classes, options };
        let voxels = median.iter().product::<f64>() * cases as f64;
        let mut configurations = vec![planner.configuration("2d", &spacing[1..], &median[1..], voxels, true)?];
        if median[0] != 1.0 {
            let full = planner.configuration("3d_fullres", &spacing, &median, voxels, false)?;
            let low = planner.low_resolution(&full, cases)?;
            let batch_dice = low.is_some();
            configurations.extend(low);
            configurations.push(Configuration { batch_dice, ..full });
        }
        let medians = (
            transpose.map(|a| median_of(fingerprint.spacings.iter().map(|spacing| spacing[a]))),
            transpose.map(|a| median_of(fingerprint.shapes.iter().map(|shape| shape[a] as f64))),
        );
        Ok(Self { transpose, median: medians, configurations })
    }
}

fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    percentile(&values.collect::<Vec<_>>(), 50.0)
}

/// The median of the spacings. Where one axis is over three times as coarse as the others and has less than a third of their voxels,
/// the 10th percentile along it, so that most cases keep their slices.
fn target_spacing(fingerprint: &Fingerprint) -> [f64; 3] {
    let of = |a: usize| fingerprint.spacings.iter().map(|spacing| spacing[a]).collect::<Vec<_>>();
    let mut target: [f64; 3] = std::array::from_fn(|a| percentile(&of(a), 50.0));
    let size: [f64; 3] = std::array::from_fn(|a| median_of(fingerprint.shapes.iter().map(|shape| shape[a] as f64)));
    let worst = (1..3).fold(0, |worst, a| if target[a] > target[worst] { a } else { worst });
    let others = || (0..3).filter(|&a| a != worst);
    let coarsest = others().map(|a| target[a]).fold(f64::MIN, f64::max);
    let fewest = others().map(|a| size[a]).fold(f64::MAX, f64::min);
    if target[worst] > ANISOTROPY * coarsest && size[worst] * ANISOTROPY < fewest {
        let finer = percentile(&of(worst), 10.0);
        target[worst] = if finer < coarsest { coarsest + 1e-5 } else { finer };
    }
    target
}

struct Planner<'a> {
    classes: usize,
    options: &'a PlannerOptions,
}

impl Planner<'_> {
    /// The patch starts as a block of the images' extent in millimetres, 256^3 voxels or 2048^2, not larger than the median image,
    /// and shrinks along the axis on which it is longest relative to that image until a batch of two fits in memory.
    fn configuration(
        &self,
        name: &'static str,
        spacing: &[f64],
        median: &[f64],
        voxels: f64,
        batch_dice: bool,
    ) -> Result<Configuration> {
        let axes = spacing.len();
        let planar = usize::from(axes == 2);
        let most = MAX_FEATURES[planar].max(self.options.features);
        let features = |topology: &Topology| topology.features(self.options.features, most);
        let elements = |topology: &Topology| topology.feature_map_elements(&features(topology), self.classes);
        let given = self.options.patch.map(|patch| patch[3 - axes..].iter().map(|&p| p as f64).collect::<Vec<_>>());
        let block: f64 = if planar == 1 { 2048.0 * 2048.0 } else { 256.0 * 256.0 * 256.0 };
        let inverse: Vec<f64> = spacing.iter().map(|s| 1.0 / s).collect();
        let scale = (block / inverse.iter().product::<f64>()).powf(1.0 / axes as f64);
        let initial = || inverse.iter().zip(median).map(|(i, m)| (i * scale).round_ties_even().min(*m)).collect();
        let is_given = given.is_some();
        let mut topology = Topology::new(spacing, &given.unwrap_or_else(initial));
        let reference = ELEMENTS[planar] * self.options.memory_gb / REFERENCE_GB;
        while !is_given && elements(&topology) / REFERENCE_BATCH[planar] * 2.0 > reference {
            let share = |a: usize| topology.patch[a] as f64 / median[a];
            // The last of equal ones, as NumPy's argsort leaves them.
            let axis = (0..axes).fold(0, |axis, a| if share(a) >= share(axis) { a } else { axis });
            let shrunk = |step: usize| {
                let size = topology.patch[axis].checked_sub(step).filter(|size| *size > 0).ok_or_else(|| {
                    let found = format!("{} GB for a patch of {:?}", self.options.memory_gb, topology.patch);
                    Error::argument(
                        format!("plan: memory of {name}"),
                        "room for the feature maps of two patches",
                        found,
                    )
                })?;
                let mut patch: Vec<f64> = topology.patch.iter().map(|&p| p as f64).collect();
                patch[axis] = size as f64;
                Ok::<_, Error>(Topology::new(spacing, &patch))
            };
            // A smaller patch may have fewer stages, and then there are sizes between.
            topology = shrunk(shrunk(topology.multiple[axis])?.multiple[axis])?;
        }
        let estimate = elements(&topology);
        let fits = (reference / estimate * REFERENCE_BATCH[planar]).round_ties_even();
        let patch_voxels: f64 = topology.patch.iter().map(|&p| p as f64).product();
        let covered = (voxels * MAX_COVERED / patch_voxels).round_ties_even();
        let batch = self.options.batch.unwrap_or((fits.min(covered).max(0.0) as usize).max(MIN_BATCH));
        let features = features(&topology);
        let Topology { strides, kernels, patch, .. } = topology;
        Ok(Configuration {
            name,
            spacing: spacing.to_vec(),
            median_size: median.to_vec(),
            patch,
            batch,
            features,
            kernels,
            strides,
            batch_dice,
        })
    }

    /// A coarser spacing at which the patch holds a quarter of the median image; None where the full resolution does, or where the
    /// image would not even be halved.
    fn low_resolution(&self, full: &Configuration, cases: usize) -> Result<Option<Configuration>> {
        let product = |values: &[f64]| values.iter().product::<f64>();
        let mut patch: f64 = full.patch.iter().map(|&p| p as f64).product();
        let mut median = product(&full.median_size);
        let (mut spacing, mut low) = (full.spacing.clone(), None);
        while patch / median < LOW_RESOLUTION_BELOW {
            let largest = spacing.iter().copied().fold(f64::MIN, f64::max);
            let finer = |s: f64| largest / s > 2.0;
            let some_are = spacing.iter().any(|s| finer(*s));
            spacing.iter_mut().filter(|s| !some_are || finer(**s)).for_each(|s| *s *= SPACING_STEP);
            let size: Vec<f64> =
                (0..spacing.len()).map(|a| full.spacing[a] / spacing[a] * full.median_size[a]).collect();
            median = product(&size);
            let rounded: Vec<f64> = size.iter().map(|s| s.round_ties_even()).collect();
            let found = self.configuration("3d_lowres", &spacing, &rounded, median * cases as f64, false)?;
            patch = found.patch.iter().map(|&p| p as f64).product();
            low = Some(found);
        }
        Ok(low.filter(|_| product(&full.median_size) / median >= 2.0))
    }
}
