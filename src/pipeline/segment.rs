//! Stage 1: segmentation of an image, as a mask on the same voxels.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use super::export::Exporter;
use super::model_folder::{ModelDir, ModelOptions, expect_same_training, find_plans, mirrors_of, weight_files};
use super::preprocess::{Prepared, prepare};
use super::resample_channel::separate_axis;
use super::segmentation::{Precision, SegmentOptions, Segmentation, Stage, Timings, continue_or_cancel};
use super::sliding_window::{Mirroring, SlidingWindow};
use super::working_set::WorkingSet;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::SourceFile;
use crate::io::weights::TrainingNotes;
use crate::models::{JsonFile, UNet, UNetPlan};
use crate::tensor::{DType, Tensor};
use crate::volume::{Volume, Voxels};

/// A trained model: a plan and one network for each fold.
#[derive(Debug, Clone)]
pub struct Segmenter {
    plan: UNetPlan,
    networks: Vec<UNet>,
    files: Vec<SourceFile>,
    /// The axes (z, y, x) along which all weights allow mirroring.
    mirrors: [bool; 3],
}

impl Segmenter {
    /// Reads a model folder: plans.json, dataset.json and weights.safetensors, weights.pth, fold_*.safetensors, fold_*.pth or
    /// nnU-Net's own fold_*/checkpoint_final.pth (all folds), in `folder`, its folder `segmentation` or a folder of training
    /// results in it. A .zip of nnUNetv2_export_model is read without being unpacked. What the checkpoints say of their training decides: the configuration, the trainer's network,
    /// the axes that may be mirrored.
    ///
    /// # Errors
    /// As [`UNetPlan::read`] and [`UNet::load`]; a folder without weights or with several kinds of them; folds that were trained
    /// by different configurations or trainers.
    pub fn load(folder: &Path, options: &ModelOptions, precision: Precision, device: &Device) -> Result<Self> {
        let folder = find_plans(&ModelDir::open(folder)?, options.configuration.as_deref())?;
        let dtype = precision.dtype(device);
        let (mut plan, mut notes) = (None, TrainingNotes::default());
        let (mut networks, mut files, mut mirrors) = (Vec::new(), Vec::new(), [true; 3]);
        for name in weight_files(&folder, options)? {
            let weights = folder.weights(&name)?;
            let plan = match &plan {
                None => {
                    notes = weights.training().clone();
                    let json = |name: &str| JsonFile::parse(&folder.path().join(name), &folder.read(name)?);
                    let configuration = options.configuration.as_deref();
                    plan.insert(UNetPlan::parse(&json("plans.json")?, &json("dataset.json")?, configuration, &notes)?)
                }
                Some(plan) => {
                    expect_same_training(weights.path(), &notes, weights.training())?;
                    plan
                }
            };
            networks.push(UNet::from_weights(&plan.architecture, &weights, device, dtype)?);
            let allowed = mirrors_of(weights.training(), plan.architecture.planar);
            mirrors = std::array::from_fn(|a| mirrors[a] && allowed[a]);
            files.push(weights.source());
        }
        let Some(plan) = plan else { return Err(Error::argument("segment: networks", "at least one", 0)) };
        Ok(Self { files, mirrors, ..Self::new(plan, networks)? })
    }

    /// The files of the weights; empty for networks that were passed to [`Segmenter::new`].
    pub fn files(&self) -> &[SourceFile] {
        &self.files
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
        Ok(Self { plan, networks, files: vec![], mirrors })
    }

    /// The axes (z, y, x) of the network's images that all weights allow to be mirrored.
    pub fn mirrors(&self) -> [bool; 3] {
        self.mirrors
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
            let list: Vec<_> = ["z", "y", "x"].iter().zip(self.mirrors).filter(|(_, m)| *m == wanted).collect();
            if list.is_empty() { "none".into() } else { list.iter().map(|(n, _)| **n).collect::<Vec<_>>().join(", ") }
        };
        (mirroring == Mirroring::AllAxes && self.mirrors != [true; 3]).then(|| {
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

    /// As [`Segmenter::segment`] for an image of several channels on one grid, in the order of the plan's channels. `spacing`
    /// (d, h, w) is the voxel size that the file's header gives, which nnU-Net takes even where the affine has another; the
    /// affine's if None.
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
        let mut report = |stage| continue_or_cancel(progress(stage));
        report(Stage::Preparing)?;
        let started = Instant::now();
        let (device, dtype) = (self.networks[0].device(), self.dtype());
        let rule = options.orientation.unwrap_or(self.plan.reader.orientation());
        // Counted as soon as the sizes are known, before anything large is allocated.
        let mut planned = None;
        let prepared = prepare(channels, spacing, &self.plan, rule, &device, &mut |size, exported| {
            let window = self.window(size, options)?;
            let set = WorkingSet::new(&self.plan, &window, size, exported, options, (dtype, &device))?;
            planned = Some((window, set));
            Ok(())
        })?;
        let Some((window, working_set)) = planned else { return Err(Error::Data("nothing was prepared".into())) };
        // There is at least one, or nothing was prepared.
        let image = &channels[0];
        device.synchronize()?;
        let mut seconds = Timings { preprocess: started.elapsed().as_secs_f64(), ..Timings::default() };

        let [_, _, d, h, w] = prepared.image.shape();
        let size = [d, h, w];
        let (logits, labels) = (&self.plan.logits, &self.plan.labels);
        let separate = separate_axis(logits.separate, logits.anisotropy, prepared.resampled_spacing, prepared.spacing);
        let shape = prepared.view.shape;
        let mut exporter = Exporter::new(size, shape, logits, separate, options.output, labels, working_set.slab)?;

        let (tiles, mut done) = (window.tiles(), 0);
        report(Stage::Tiles(0, tiles))?;
        let running = Instant::now();
        window.run(
            &prepared.image,
            &self.networks,
            dtype,
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

        let pasting = Instant::now();
        let mask = paste(&prepared, image, &exporter.labels, |v| Voxels::U8(v.into()))?.to_labels()?;
        let probabilities = exporter
            .probabilities
            .iter()
            .map(|values| paste(&prepared, image, values, |v| Voxels::F32(v.into())))
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
                .chain(prepared.warnings)
                .chain(self.mirroring_warning(options.mirroring))
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

    /// What the networks see of an image: f32 [1, channels, d, h, w], turned, cropped, normalised and resampled as the plan
    /// says. Arguments as [`Segmenter::segment_channels`].
    ///
    /// # Errors
    /// As [`Segmenter::segment_channels`].
    pub fn preprocess(
        &self,
        channels: &[Volume],
        spacing: Option<[f64; 3]>,
        options: &SegmentOptions,
    ) -> Result<Tensor> {
        let rule = options.orientation.unwrap_or(self.plan.reader.orientation());
        let device = self.networks[0].device();
        Ok(prepare(channels, spacing, &self.plan, rule, &device, &mut |_, _| Ok(()))?.image)
    }

    /// The averaged logits f32 [1, outputs, d, h, w] of a preprocessed image, all of them at once: four bytes a voxel and
    /// output. [`Segmenter::segment_channels`] never holds so much.
    ///
    /// # Errors
    /// As [`Segmenter::segment_channels`]; an image that is not f32 with the plan's channels.
    pub fn logits(&self, image: &Tensor, options: &SegmentOptions) -> Result<Tensor> {
        let [_, _, d, h, w] = image.shape();
        let window = self.window([d, h, w], options)?;
        let outputs = self.plan.architecture.classes;
        let mut values = vec![0.0; outputs * d * h * w];
        window.run(
            image,
            &self.networks,
            self.dtype(),
            || Ok(()),
            |finished| {
                // The first slice may have been handed on before, with the same values.
                let start = finished.first * h * w * outputs;
                let slices = finished.logits.to_ndhwc()?;
                values[start..start + slices.len()].copy_from_slice(&slices);
                Ok(())
            },
        )?;
        Tensor::from_ndhwc(&image.device(), [1, outputs, d, h, w], DType::F32, values)
    }
}

/// Maps values of the cropped image in the network's axes back to the voxels of `image`; 0 outside the crop.
fn paste<T: Copy + Default>(
    prepared: &Prepared,
    image: &Volume,
    values: &[T],
    voxels: impl Fn(Vec<T>) -> Voxels,
) -> Result<Volume> {
    let mut all = vec![T::default(); prepared.oriented.shape.iter().product()];
    prepared.view.write(values, &mut all);
    let oriented = Volume::new(prepared.oriented.shape, voxels(all), prepared.oriented.affine)?;
    let own = oriented.reorient(image.orientation())?;
    // The image's own affine, so that the geometry agrees to the last bit.
    image.with_voxels(own.voxels().clone())
}
