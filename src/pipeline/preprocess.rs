//! Preprocessing of an image for the network: orientation, transposition, cropping, normalisation and resampling, in the order and
//! with the rules of nnU-Net v2.

use super::normalize::{fill_holes, normalize};
use super::previous_stage;
use super::resample_channel::{resample, resampled_size, separate_axis};
use super::resample_slabs::{is_resampled_in_slabs, resample_in_slabs};
use super::segmentation::Scan;
use super::strided_view::{StridedView, nonzero_box, turned_box};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{ImageReader, OrientationRule, UNetPlan};
use crate::ops::concat;
use crate::tensor::Tensor;
use crate::volume::{Grid, Orientation, Turn, Volume, Voxels};
use crate::{ensure_room, shown_list};

/// A preprocessed image, with what is needed to map results back to the original.
pub(super) struct Prepared {
    /// f32 [1, channels, d, h, w] in the network's axes and spacing.
    pub(super) image: Tensor,
    /// The view of the first channel, as it is stored, that is the turned and cropped image in the network's axes.
    pub(super) view: StridedView,
    /// The same of every channel.
    pub(super) views: Vec<StridedView>,
    /// The spacing of the view in millimetres.
    pub(super) spacing: [f64; 3],
    /// Spacing of `image`, millimetres.
    pub(super) resampled_spacing: [f64; 3],
    /// Warnings for the user.
    pub(super) warnings: Vec<String>,
}

/// Prepares a scan for a network. `admit` is called with the sizes (z, y, x) of the resampled and of the cropped image before
/// memory is taken for the former.
///
/// # Errors
/// Another number of channels than the model's, channels of different sizes, NaN or infinite voxels, nothing but zeros, values
/// that the model's normalisation refuses, a resampled size past any scan's, a previous stage's mask that does not fit, a device
/// that fails.
pub(super) fn prepare(
    scan: Scan<'_>,
    plan: &UNetPlan,
    rule: OrientationRule,
    device: &Device,
    admit: &mut dyn FnMut([usize; 3], [usize; 3]) -> Result<()>,
) -> Result<Prepared> {
    let (channels, spacing) = (scan.channels, scan.spacing);
    let first = first_channel(channels, plan)?;
    let previous = previous_stage::expected(plan, scan.previous, first)?;
    let orientation = match rule {
        OrientationRule::Fixed(orientation) => orientation,
        OrientationRule::Stored => first.orientation(),
    };
    let turned = turn(channels, rule);
    let warnings = compare_channels(&turned, plan)?;
    let grid = turned[0].grid;
    if Orientation::of(&grid.affine) != orientation {
        // Axes at exactly 45 degrees pair with either neighbour: the way back would be another one.
        let found = format!("one as close to {}", Orientation::of(&grid.affine));
        return Err(Error::argument("image: orientation", format!("axes closest to {orientation}"), found));
    }
    let views: Vec<StridedView> = cropped(&turned)?.into_iter().map(|view| view.permuted(plan.transpose)).collect();
    let view = views[0];

    let stored = match spacing {
        Some(spacing) if turned[0].turn == Turn::NONE || plan.reader != ImageReader::ReorientedByNibabel => {
            turned[0].turn.axes.map(|axis| spacing[axis])
        }
        _ => grid.spacing(),
    };
    let spacing = plan.transpose.map(|axis| stored[axis]);
    let target = plan.spacing_for(spacing);
    let size = if plan.data.enabled { resampled_size(view.shape, spacing, target) } else { view.shape };
    expect_possible(size, spacing, target)?;
    admit(size, view.shape).map_err(|e| e.context(resampling(size, spacing, target)))?;
    let separate = separate_axis(plan.data.separate, plan.data.anisotropy, spacing, target);
    let mask = plan
        .normalization
        .iter()
        .any(|channel| channel.inside_mask)
        .then(|| nonzero_mask(channels, &views))
        .transpose()?;
    let mask = mask.as_deref();
    let mut tensors = Vec::with_capacity(channels.len());
    for ((channel, view), how) in channels.iter().zip(&views).zip(&plan.normalization) {
        let in_slabs = separate.is_none() && is_resampled_in_slabs(view.shape, size, &plan.data, how.scheme, device);
        tensors.push(if in_slabs {
            match channel.voxels() {
                Voxels::U8(v) => resample_in_slabs(v, view, how, size, device),
                Voxels::I16(v) => resample_in_slabs(v, view, how, size, device),
                Voxels::F32(v) => resample_in_slabs(v, view, how, size, device),
            }?
        } else {
            let values = match channel.voxels() {
                Voxels::U8(v) => normalize(v, view, *how, mask),
                Voxels::I16(v) => normalize(v, view, *how, mask),
                Voxels::F32(v) => normalize(v, view, *how, mask),
            }?;
            resample(values, view.shape, size, &plan.data, separate, device)?
        });
    }
    if let Some(previous) = previous {
        let place = previous_stage::Target { channels, views: &views, spacings: [spacing, target], size };
        tensors.extend(previous_stage::channels(previous, &place, device)?);
    }
    let image = match tensors.as_slice() {
        [only] => only.clone(),
        several => concat(&several.iter().collect::<Vec<_>>())?,
    };
    let resampled_spacing = if plan.data.enabled { target } else { spacing };
    Ok(Prepared { image, view, views, spacing, resampled_spacing, warnings })
}

/// The views of the channels, turned and cropped together to their non-zero voxels, in the axes of the turned image, and its spacing
/// in millimetres: what [`prepare`] does before anything depends on a plan.
///
/// # Errors
/// Channels of different sizes; nothing but zeros.
pub(super) fn crop_channels(
    channels: &[Volume],
    spacing: Option<[f64; 3]>,
    rule: OrientationRule,
) -> Result<(Vec<StridedView>, [f64; 3])> {
    let turned = turn(channels, rule);
    let Some(first) = turned.first() else {
        return Err(Error::argument("channels of the image", "at least one", 0));
    };
    if let Some(other) = turned.iter().find(|channel| channel.grid.shape != first.grid.shape) {
        let [expected, found] = [first, other].map(|channel| format!("{:?} (z, y, x)", channel.grid.shape));
        return Err(Error::argument("voxels of a channel", expected, found));
    }
    let spacing = spacing.map_or(first.grid.spacing(), |spacing| first.turn.axes.map(|axis| spacing[axis]));
    Ok((cropped(&turned)?, spacing))
}

/// The channels, each as the rule says.
fn turn(channels: &[Volume], rule: OrientationRule) -> Vec<Turned<'_>> {
    let turned = |channel| match rule {
        OrientationRule::Fixed(orientation) => Turned::new(channel, channel.orientation().turn_to(orientation)),
        // Each as it is stored: nnU-Net's readers turn none.
        OrientationRule::Stored => Turned::new(channel, Turn::NONE),
    };
    channels.iter().map(turned).collect()
}

/// The channels' views of the smallest box of all voxels that are not 0 in every channel.
fn cropped(turned: &[Turned<'_>]) -> Result<Vec<StridedView>> {
    let joined = turned
        .iter()
        .filter_map(Turned::nonzero_box)
        .reduce(|a, b| std::array::from_fn(|axis| a[axis].start.min(b[axis].start)..a[axis].end.max(b[axis].end)));
    // nnU-Net fills the holes of the non-zero mask first, which leaves its box as it is.
    let ranges = joined.ok_or_else(|| Error::Data("every voxel is 0: expected an image".into()))?;
    Ok(turned.iter().map(|channel| channel.view().cropped(&ranges)).collect())
}

/// A channel and how it is turned for the network. The voxels stay where they are.
struct Turned<'a> {
    channel: &'a Volume,
    turn: Turn,
    grid: Grid,
}

impl<'a> Turned<'a> {
    fn new(channel: &'a Volume, turn: Turn) -> Self {
        // Without a turn the affine stays as it is, to the last bit.
        let grid = if turn == Turn::NONE { channel.grid() } else { channel.grid().turned(&turn) };
        Self { channel, turn, grid }
    }

    fn view(&self) -> StridedView {
        StridedView::whole(self.channel.shape()).turned(&self.turn)
    }

    /// The smallest box of all voxels that are not 0.
    fn nonzero_box(&self) -> Option<[std::ops::Range<usize>; 3]> {
        let shape = self.channel.shape();
        let stored = match self.channel.voxels() {
            Voxels::U8(v) => nonzero_box(v, shape),
            Voxels::I16(v) => nonzero_box(v, shape),
            Voxels::F32(v) => nonzero_box(v, shape),
        };
        stored.map(|ranges| turned_box(&ranges, shape, &self.turn))
    }
}

/// The first of as many channels as the model has, all of finite values.
fn first_channel<'a>(channels: &'a [Volume], plan: &UNetPlan) -> Result<&'a Volume> {
    let (Some(first), true) = (channels.first(), channels.len() == plan.channels.len()) else {
        let expected = format!("{} ({})", plan.channels.len(), shown_list(&plan.channels));
        return Err(Error::argument("segment: channels of the image", expected, channels.len()));
    };
    channels.iter().try_for_each(Volume::ensure_finite)?;
    Ok(first)
}

/// Refuses channels of other sizes than the first. Where their places in the patient differ, a warning says so: nnU-Net goes by
/// the voxels.
fn compare_channels(channels: &[Turned<'_>], plan: &UNetPlan) -> Result<Vec<String>> {
    let first = channels[0].grid;
    let mut warnings = Vec::new();
    for (channel, name) in channels.iter().map(|channel| channel.grid).zip(&plan.channels) {
        let (found, expected) = (channel.spacing(), first.spacing());
        let as_far_apart = (0..3).all(|a| (found[a] - expected[a]).abs() <= 1e-3 * expected[a]);
        if channel.shape != first.shape || !as_far_apart {
            let size = |grid: &Grid| format!("{:?} voxels of {:?} mm (z, y, x)", grid.shape, grid.spacing());
            let what = format!("segment: voxels of channel {name}");
            return Err(Error::argument(what, format!("the first channel's {}", size(&first)), size(&channel)));
        }
        if !channel.matches(&first) {
            warnings.push(format!(
                "channel {name} lies elsewhere in the patient than the first; as nnU-Net does, its voxels are taken as they are"
            ));
        }
    }
    Ok(warnings)
}

/// Refuses a size past any scan's before memory is asked for.
fn expect_possible(size: [usize; 3], from: [f64; 3], to: [f64; 3]) -> Result<()> {
    const LARGEST: usize = 1 << 16;
    const MOST: usize = 1 << 33;
    let voxels = size.iter().fold(1usize, |n, &s| n.saturating_mul(s));
    if size.iter().all(|&s| s <= LARGEST) && voxels <= MOST {
        return Ok(());
    }
    let expected = format!("axes of at most {LARGEST} voxels, and {MOST} voxels in all");
    Err(Error::argument("segment: resampled image", expected, resampling(size, from, to)))
}

fn resampling(size: [usize; 3], from: [f64; 3], to: [f64; 3]) -> String {
    format!("{size:?} voxels from a spacing of {from:?} mm to the plan's {to:?} mm")
}

/// Where any channel is not 0, under its view, holes filled. What the views leave out is 0 and joined to the outside, so the holes
/// of the whole image are those of the views.
pub(super) fn nonzero_mask(channels: &[Volume], views: &[StridedView]) -> Result<Vec<bool>> {
    ensure_room::<bool>("the mask of an image's non-zero part", views[0].shape.iter().product())?;
    let mut mask = vec![false; views[0].shape.iter().product()];
    for (channel, view) in channels.iter().zip(views) {
        let nonzero = match channel.voxels() {
            Voxels::U8(v) => view.read(v, |v| v != 0)?,
            Voxels::I16(v) => view.read(v, |v| v != 0)?,
            Voxels::F32(v) => view.read(v, |v| v != 0.0)?,
        };
        mask.iter_mut().zip(nonzero).for_each(|(all, own)| *all |= own);
    }
    fill_holes(&mut mask, views[0].shape);
    Ok(mask)
}
