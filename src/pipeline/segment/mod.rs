//! Stage 1: segmentation of an image, as a mask on the same voxels.

mod arrays;
mod load;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::export::Exporter;
use super::intended;
use super::model_card::ModelCard;
#[cfg(doc)]
use super::postprocess::Postprocessing;
use super::postprocess::PostprocessingFile;
use super::preprocess::{Prepared, prepare};
use super::resample_channel::separate_axis;
use super::segmentation::{Output, Scan, SegmentOptions, Segmentation, Stage, Timings, continue_or_cancel};
use super::sliding_window::{Mirroring, SlidingWindow};
use super::strided_view::StridedView;
use super::working_set::WorkingSet;
use crate::ensure_room;
use crate::error::{Error, Result};
use crate::io::SourceFile;
use crate::io::weights::TrainingNotes;
use crate::models::{UNet, UNetPlan};
use crate::tensor::DType;
use crate::volume::{Volume, Voxels};

/// A trained model: a plan and one network for each fold; for a cascade also its first stage.
#[derive(Debug, Clone)]
pub struct Segmenter {
    plan: UNetPlan,
    networks: Vec<UNet>,
    files: Vec<SourceFile>,
    /// The axes (z, y, x) along which all weights allow mirroring.
    mirrors: [bool; 3],
    previous: Previous,
    /// The folds of the networks, where their files say so.
    fold_names: Vec<String>,
    /// What the file of each network says of its training.
    training: Vec<TrainingNotes>,
    card: Option<ModelCard>,
    postprocessing: Vec<PostprocessingFile>,
}

/// Where the mask of a cascade's first stage comes from.
#[derive(Debug, Clone)]
enum Previous {
    /// The caller, if the model needs one.
    Caller,
    /// The model of the first stage.
    Model(Box<Segmenter>),
    /// A folder of masks, which the caller reads.
    Masks(PathBuf),
}

impl Segmenter {
    /// The files of the weights, then plans.json and dataset.json; those of a first stage in front. Empty for networks that were
    /// passed to [`Segmenter::new`].
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The folder of the first stage's masks, of which [`Scan::previous`] is to be read for each scan; None for a model that
    /// needs none or runs its first stage itself.
    pub fn previous_masks(&self) -> Option<&Path> {
        match &self.previous {
            Previous::Masks(folder) => Some(folder),
            _ => None,
        }
    }

    /// The postprocessings in the model folder. None is applied by itself, as with nnU-Net: [`Postprocessing::choose`] with
    /// [`Segmenter::fold_names`] gives the one of the folds in use.
    pub fn postprocessing(&self) -> &[PostprocessingFile] {
        &self.postprocessing
    }

    /// What the model's maker says of it, if there is a model.json.
    pub fn card(&self) -> Option<&ModelCard> {
        self.card.as_ref()
    }

    /// The folds of the networks, `0`, `1`, ... or `all`; empty where the files of the weights name none.
    pub fn fold_names(&self) -> &[String] {
        &self.fold_names
    }

    /// A segmenter from a plan and networks of its architecture, all on one device and with one float type.
    ///
    /// # Errors
    /// [`Error::Argument`] without a network, and for a network that differs from the plan or from the first network.
    pub fn new(plan: UNetPlan, networks: Vec<UNet>) -> Result<Self> {
        let Some(first) = networks.first() else {
            return Err(Error::argument("segment: networks", "at least one", 0));
        };
        plan.architecture.ensure_size("segment: tile", plan.patch)?;
        for network in &networks {
            if network.architecture() != &plan.architecture {
                let [expected, found] = [&plan.architecture, network.architecture()].map(|a| format!("{a:?}"));
                return Err(Error::argument("segment: network", expected, found));
            }
            if network.device() != first.device() || network.dtype() != first.dtype() {
                let place = |n: &UNet| format!("{} on {}", n.dtype(), n.device().name());
                return Err(Error::argument("segment: network", place(first), place(network)));
            }
        }
        let mirrors = [!plan.architecture.planar, true, true];
        Ok(Self {
            plan,
            networks,
            files: vec![],
            mirrors,
            previous: Previous::Caller,
            fold_names: vec![],
            training: vec![],
            card: None,
            postprocessing: vec![],
        })
    }

    /// The axes (z, y, x) of the network's images that all weights allow to be mirrored.
    pub fn mirrors(&self) -> [bool; 3] {
        self.mirrors
    }

    /// Whether nnU-Net's own predictor mirrors this model unless it is told not to: its checkpoints name axes for it.
    pub fn mirrors_by_default(&self) -> bool {
        let says_so = |notes: &TrainingNotes| notes.mirror_axes.is_some();
        self.mirrors.contains(&true) && !self.training.is_empty() && self.training.iter().all(says_so)
    }

    /// The names of these axes.
    pub fn mirrored_axes(&self) -> Vec<&'static str> {
        ["z", "y", "x"].into_iter().zip(self.mirrors).filter(|(_, allowed)| *allowed).map(|(name, _)| name).collect()
    }

    /// The plan.
    pub fn plan(&self) -> &UNetPlan {
        &self.plan
    }

    /// The storage type of the networks.
    pub fn dtype(&self) -> DType {
        self.networks[0].dtype()
    }

    /// Number of networks that are averaged.
    pub fn folds(&self) -> usize {
        self.networks.len()
    }

    /// The warning that mirroring was requested and the weights do not allow it along all axes.
    fn mirroring_warning(&self, mirroring: Mirroring) -> Option<String> {
        let names = |wanted: bool| {
            let axes = ["z", "y", "x"].iter().zip(self.mirrors).skip(usize::from(self.plan.architecture.planar));
            let list: Vec<_> = axes.filter(|(_, m)| *m == wanted).collect();
            if list.is_empty() { "none".into() } else { list.iter().map(|(n, _)| **n).collect::<Vec<_>>().join(", ") }
        };
        let is_partial = self.mirrors != [!self.plan.architecture.planar, true, true];
        (mirroring == Mirroring::AllAxes && is_partial).then(|| {
            let (allowed, left_out) = (names(true), names(false));
            format!("mirroring: the weights allow it along {allowed} of the network's axes, left out along {left_out}")
        })
    }

    /// Segments an image of one channel. The mask lies on the image's own voxels, whichever way they are stored.
    ///
    /// Besides the image it needs memory for the resampled image (f32) and the labels, and on the device for the working set: the
    /// sums of one row of tiles, the activations of one tile and a slab of the export. The result is the same bit for bit every
    /// time on one device. `progress` is called before the work and after each tile; [`ControlFlow::Break`] ends the work.
    ///
    /// # Errors
    /// Voxels that are NaN or infinite; an image of zeros only; options out of range; a memory budget below the smallest working
    /// set (the message contains both); a buffer over the device's limit; a device that fails; a network whose output is NaN;
    /// [`Error::Cancelled`] where `progress` breaks.
    pub fn segment(
        &self,
        image: &Volume,
        options: &SegmentOptions,
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Segmentation> {
        self.segment_channels(std::slice::from_ref(image), None, options, progress)
    }

    /// As [`Segmenter::segment`] for an image of several channels on one grid, in the order of the plan's channels, with the
    /// spacing of its header ([`Scan::spacing`]).
    ///
    /// # Errors
    /// As [`Segmenter::segment`]; another number of channels than the model's; channels of different sizes.
    pub fn segment_channels(
        &self,
        channels: &[Volume],
        spacing: Option<[f64; 3]>,
        options: &SegmentOptions,
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Segmentation> {
        self.segment_scan(Scan { channels, spacing, previous: None }, options, progress)
    }

    /// As [`Segmenter::segment_channels`]. The first stage of a cascade runs before, with the same options, unless its mask is
    /// given.
    ///
    /// # Errors
    /// As [`Segmenter::segment_channels`]; a previous stage's mask that is missing, not asked for, on another grid or of other
    /// labels.
    pub fn segment_scan(
        &self,
        scan: Scan<'_>,
        options: &SegmentOptions,
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Segmentation> {
        let first = match options.output {
            Output::AllProbabilities => 0,
            _ => self.plan.labels.outputs() - self.plan.labels.targets().len(),
        };
        self.segment_outputs(scan, options, first, progress)
    }

    /// The mask of the first stage and what it took; None where there is none to run.
    fn run_previous(
        &self,
        scan: Scan<'_>,
        options: &SegmentOptions,
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Option<Segmentation>> {
        let (Previous::Model(first), None) = (&self.previous, scan.previous) else { return Ok(None) };
        let options = SegmentOptions { output: Output::Labels, ..*options };
        first.segment_scan(scan, &options, progress).map(Some).map_err(|e| e.context("previous stage"))
    }

    /// As [`Segmenter::segment_scan`]; probabilities are those of the network's outputs from `first` on.
    pub(super) fn segment_outputs(
        &self,
        scan: Scan<'_>,
        options: &SegmentOptions,
        first: usize,
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Segmentation> {
        let earlier = self.run_previous(scan, options, progress)?;
        let previous = earlier.as_ref().map(|found| &found.mask).or(scan.previous);
        let mut found = self.run(Scan { previous, ..scan }, options, first, progress)?;
        if let Some(earlier) = earlier {
            found.tiles += earlier.tiles;
            found.working_set = found.working_set.max(earlier.working_set);
            found.seconds = found.seconds.plus(earlier.seconds);
            let told = earlier.warnings.into_iter().filter(|w| !found.warnings.contains(w)).collect::<Vec<_>>();
            found.warnings.extend(told.iter().map(|w| format!("previous stage: {w}")));
        }
        Ok(found)
    }

    fn run(
        &self,
        scan: Scan<'_>,
        options: &SegmentOptions,
        first: usize,
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Segmentation> {
        let mut report = |stage| continue_or_cancel(progress(stage));
        report(Stage::Preparing)?;
        let started = Instant::now();
        let (device, dtype) = (self.networks[0].device(), self.dtype());
        let rule = options.orientation.unwrap_or(self.plan.reader.orientation());
        // Counted as soon as the sizes are known, before anything large is allocated.
        let mut planned = None;
        let prepared = prepare(scan, &self.plan, rule, &device, &mut |size, exported| {
            let window = self.window(size, options)?;
            let set = WorkingSet::new(&self.plan, &window, size, exported, options, (dtype, &device))?;
            planned = Some((window, set));
            Ok(())
        })?;
        let Some((window, working_set)) = planned else { return Err(Error::Data("nothing was prepared".into())) };
        // There is at least one, or nothing was prepared.
        let image = &scan.channels[0];
        let spacings = (prepared.spacing, prepared.resampled_spacing);
        let odd = intended::warnings(scan.channels, &prepared.views, &self.plan, spacings);
        device.synchronize()?;
        let mut seconds = Timings { preprocess: started.elapsed().as_secs_f64(), ..Timings::default() };

        let [_, _, d, h, w] = prepared.image.shape();
        let size = [d, h, w];
        let (logits, labels) = (&self.plan.logits, &self.plan.labels);
        let separate = separate_axis(logits.separate, logits.anisotropy, prepared.resampled_spacing, prepared.spacing);
        let shape = prepared.view.shape;
        let mut exporter = Exporter::new(
            size,
            shape,
            logits,
            separate,
            (options.output, first),
            labels,
            (working_set.slab, options.sums),
        )?;

        let (tiles, mut done) = (window.tiles(), 0);
        report(Stage::Tiles(0, tiles))?;
        let running = Instant::now();
        window.run(
            &prepared.image,
            &self.networks,
            (dtype, options.sums.dtype()),
            || {
                done += 1;
                report(Stage::Tiles(done, tiles))
            },
            |finished| {
                let started = Instant::now();
                exporter.push(&finished)?;
                seconds.export += started.elapsed().as_secs_f64();
                Ok(())
            },
        )?;
        seconds.network = running.elapsed().as_secs_f64() - seconds.export;

        let Prepared { view, warnings, image: resampled, .. } = prepared;
        drop(resampled);
        let pasting = Instant::now();
        let mask = paste(&view, image, &exporter.labels, 0, |v| Voxels::U8(v.into()))?.to_labels()?;
        let probabilities = exporter
            .probabilities
            .iter()
            .enumerate()
            .map(|(i, values)| {
                // Outside of the crop everything is background, which has an output of its own in a model of labels.
                let outside = f32::from(first + i == 0 && !self.plan.labels.are_regions());
                paste(&view, image, values, outside, |v| Voxels::F32(v.into()))
            })
            .collect::<Result<Vec<_>>>()?;
        seconds.export += pasting.elapsed().as_secs_f64();
        Ok(Segmentation {
            mask,
            probabilities,
            labels: self.plan.labels.clone(),
            tiles,
            working_set: working_set.total(),
            seconds,
            warnings: self
                .plan
                .warnings
                .iter()
                .cloned()
                .chain(warnings)
                .chain(odd)
                .chain(self.mirroring_warning(options.mirroring))
                .chain(self.card.as_ref().and_then(ModelCard::warning))
                .collect(),
        })
    }
}

impl Segmenter {
    /// The tiles over an image of `size`.
    fn window(&self, size: [usize; 3], options: &SegmentOptions) -> Result<SlidingWindow> {
        let copies = options.mirroring.copies_along(self.mirrors);
        SlidingWindow::new(size, self.plan.patch, options.step, copies, self.plan.architecture.planar)
    }
}

/// Maps values of the cropped image in the network's axes back to the voxels of `image`; `outside` outside the crop.
fn paste<T: Copy>(
    view: &StridedView,
    image: &Volume,
    values: &[T],
    outside: T,
    voxels: impl Fn(Vec<T>) -> Voxels,
) -> Result<Volume> {
    let len = image.voxels().len();
    ensure_room::<T>("segment: a result on the image's voxels", len)?;
    let mut all = vec![outside; len];
    view.write(values, &mut all);
    image.with_voxels(voxels(all))
}
