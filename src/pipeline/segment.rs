//! Stage 1: segmentation of an image, as a mask on the same voxels.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::export::{Exporter, slice_bytes};
use super::preprocess::{Prepared, prepare, separate_axis};
use super::sliding_window::{Mirroring, SlidingWindow};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::SourceFile;
use crate::io::weights::Weights;
use crate::models::{OrientationRule, UNet, UNetPlan};
use crate::tensor::DType;
use crate::volume::{LabelVolume, Volume, Voxels};

/// Number of bytes of a slab of the export on the device, where no memory budget requires less.
const SLAB_BYTES: u64 = 64 << 20;

/// The outputs of the segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// The mask only.
    #[default]
    Labels,
    /// The mask and the softmax of each foreground class, which takes 4 bytes of host memory for each voxel and class.
    Probabilities,
}

/// The storage type of the network's weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f16 on a device that supports it (as nnU-Net's autocast), f32 elsewhere.
    #[default]
    Fastest,
    /// f32 on every device.
    Single,
}

impl Precision {
    pub(super) fn dtype(self, device: &Device) -> DType {
        match self {
            Self::Fastest if device.supports(DType::F16) => DType::F16,
            _ => DType::F32,
        }
    }
}

/// Options of [`Segmenter::segment`].
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SegmentOptions {
    /// The distance of neighbouring tiles as a fraction of the tile, 0.05 to 1.
    pub step: f64,
    /// Test-time augmentation.
    pub mirroring: Mirroring,
    /// Whether probabilities are computed besides the mask.
    pub output: Output,
    /// The largest number of bytes for sums, activations and slabs together; None for no limit.
    pub memory_budget: Option<u64>,
    /// The orientation of the network's input; None for the rule of the plan.
    pub orientation: Option<OrientationRule>,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self { step: 0.5, mirroring: Mirroring::Off, output: Output::Labels, memory_budget: None, orientation: None }
    }
}

/// The progress of a segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The image is being preprocessed.
    Preparing,
    /// The number of tiles that are done, and the number of all tiles.
    Tiles(usize, usize),
}

/// Wall-clock seconds of each part. Logits are exported between tiles; that time counts as export and not as network.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Timings {
    /// Orientation, cropping, normalisation and resampling.
    pub preprocess: f64,
    /// The network on all tiles.
    pub network: f64,
    /// Resampling of logits, labels, and mapping them back to the image.
    pub export: f64,
}

/// The result of a segmentation.
#[derive(Debug, Clone)]
pub struct Segmentation {
    /// The model's labels on the image's own grid.
    pub mask: LabelVolume,
    /// The f32 probabilities of each foreground class on that grid, where they were requested.
    pub probabilities: Vec<Volume>,
    /// The names of the labels, by their values.
    pub labels: Vec<String>,
    /// Number of tiles, without mirrored copies.
    pub tiles: usize,
    /// The planned size of the working set (sums, activations, slab) in bytes.
    pub working_set: u64,
    /// Wall-clock seconds of each part.
    pub seconds: Timings,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl Segmentation {
    /// The volume of each label in millilitres, background included.
    pub fn volumes_ml(&self) -> Vec<f64> {
        let (counts, voxel) = (self.mask.counts(), self.mask.voxel_ml());
        counts[..self.labels.len().min(counts.len())].iter().map(|n| *n as f64 * voxel).collect()
    }
}

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
    /// Reads a model folder: `folder`, or its subfolder `segmentation` where that holds a plans.json. The folder contains
    /// plans.json, dataset.json and weights: weights.safetensors, weights.pth, fold_*.safetensors, fold_*.pth or nnU-Net's own
    /// fold_*/checkpoint_final.pth; all folds are averaged. `configuration` names a configuration of plans.json; by default
    /// 3d_fullres, or the only one.
    ///
    /// # Errors
    /// As [`UNetPlan::read`] and [`UNet::load`]; a folder without weights or with several kinds of them.
    pub fn load(folder: &Path, configuration: Option<&str>, precision: Precision, device: &Device) -> Result<Self> {
        let nested = folder.join("segmentation");
        let folder = if nested.join("plans.json").is_file() { nested } else { folder.to_path_buf() };
        let plan = UNetPlan::read(&folder, configuration)?;
        let dtype = precision.dtype(device);
        let (mut networks, mut files, mut mirrors) = (Vec::new(), Vec::new(), [true; 3]);
        for path in weight_files(&folder)? {
            let weights = Weights::read(&path)?;
            networks.push(UNet::from_weights(&plan.architecture, &weights, device, dtype)?);
            files.push(weights.source());
            let allowed = weights.mirror_axes().unwrap_or([true; 3]);
            mirrors = std::array::from_fn(|a| mirrors[a] && allowed[a]);
        }
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
        Ok(Self { plan, networks, files: vec![], mirrors: [true; 3] })
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

    /// Segments an image. The mask has the grid and the orientation of the image.
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
        let mut report = |stage| continue_or_cancel(progress(stage));
        report(Stage::Preparing)?;
        let started = Instant::now();
        let (device, dtype) = (self.networks[0].device(), self.dtype());
        let rule = options.orientation.unwrap_or(self.plan.orientation);
        let prepared = prepare(image, &self.plan, rule, &device)?;
        device.synchronize()?;
        let mut seconds = Timings { preprocess: started.elapsed().as_secs_f64(), ..Timings::default() };

        let [_, _, d, h, w] = prepared.image.shape();
        let size = [d, h, w];
        let window =
            SlidingWindow::new(size, self.plan.patch, options.step, options.mirroring.copies_along(self.mirrors))?;
        let classes = self.plan.architecture.classes;
        let slice = slice_bytes(prepared.view.shape, options.output, classes);
        let fixed = window.accumulator_bytes(classes)
            + self.plan.architecture.activation_bytes(self.plan.patch, dtype, &device);
        let slab_bytes = slab_bytes(fixed, slice, options.memory_budget, &device)?;
        let separate = separate_axis(self.plan.separate_logits, self.plan.spacing, prepared.spacing);
        let mut exporter = Exporter::new(size, prepared.view.shape, separate, options.output, classes, slab_bytes)?;

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
            working_set: fixed + slab_bytes.max(slice),
            seconds,
            warnings: prepared.warnings.into_iter().chain(self.mirroring_warning(options.mirroring)).collect(),
        })
    }
}

/// The return value of a progress callback as a result.
///
/// # Errors
/// [`Error::Cancelled`] for [`ControlFlow::Break`].
pub(super) fn continue_or_cancel(answer: ControlFlow<()>) -> Result<()> {
    match answer {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}

/// Parses a number of bytes: `4000000`, `4GB` (decimal), `4GiB` (binary) or `1.5 GiB`, in upper or lower case.
///
/// # Errors
/// [`Error::Argument`] for any other text, and for less than one byte.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit) = lower.split_at(lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len()));
    let factor = match unit {
        "" | "b" => Some(1.0),
        "kb" => Some(1e3),
        "mb" => Some(1e6),
        "gb" => Some(1e9),
        "kib" => Some(2f64.powi(10)),
        "mib" => Some(2f64.powi(20)),
        "gib" => Some(2f64.powi(30)),
        _ => None,
    };
    let bytes = factor.and_then(|factor| Some(number.trim().parse::<f64>().ok()? * factor));
    match bytes {
        Some(bytes) if (1.0..1e18).contains(&bytes) => Ok(bytes as u64),
        _ => Err(Error::argument("memory budget", "bytes, or a number with KB, MB, GB, KiB, MiB or GiB", text)),
    }
}

/// Number of bytes that the budget leaves for slabs, at least one slice.
///
/// # Errors
/// [`Error::Argument`] for a budget below the smallest working set.
fn slab_bytes(fixed: u64, slice: u64, budget: Option<u64>, device: &Device) -> Result<u64> {
    let usual = SLAB_BYTES.min(device.max_buffer_bytes()).max(slice);
    let Some(budget) = budget else { return Ok(usual) };
    let least = fixed.saturating_add(slice);
    if budget < least {
        let expected = format!("at least {least} bytes (sums, the activations of one tile, one slice)");
        return Err(Error::argument("segment: memory budget", expected, format!("{budget} bytes")));
    }
    Ok(usual.min(budget - fixed))
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

/// The weight files of a model folder, which must be of one kind: weights.safetensors or weights.pth; every fold_*.safetensors or
/// fold_*.pth; nnU-Net's own fold_*/checkpoint_final.pth; each sorted by name. nnU-Net's fold_all, which was trained on all cases,
/// is used only where there is no numbered fold, because an average with those would weigh cases twice.
///
/// # Errors
/// [`Error::File`] for a folder without weights, and for weights of several kinds, which may be one model twice.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = ["weights.safetensors", "weights.pth"].map(|name| folder.join(name));
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "cannot be read", e))?;
    let is_fold = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().starts_with("fold_");
    let mut folds: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(is_fold).collect();
    folds.sort();
    let ending = |ending: &str| {
        let has = |path: &&PathBuf| path.extension().is_some_and(|e| e == ending) && path.is_file();
        folds.iter().filter(has).cloned().collect::<Vec<_>>()
    };
    let own = folds.iter().map(|fold| fold.join("checkpoint_final.pth")).filter(|path| path.is_file()).collect();
    let single = single.into_iter().filter(|path| path.is_file()).map(|path| vec![path]);
    let mut kinds: Vec<Vec<PathBuf>> = single.chain([ending("safetensors"), ending("pth"), own]).collect();
    kinds.retain(|files| !files.is_empty());
    match kinds.as_slice() {
        [] => {
            let wanted =
                "weights.safetensors, weights.pth, fold_*.safetensors, fold_*.pth or fold_*/checkpoint_final.pth";
            Err(Error::file(folder, format!("expected {wanted}, found none")))
        }
        [files] => {
            let of_all = |path: &Path| {
                let inside = path.strip_prefix(folder).unwrap_or(path).components().next();
                inside.is_some_and(|name| Path::new(&name).file_stem().is_some_and(|stem| stem == "fold_all"))
            };
            let numbered: Vec<PathBuf> = files.iter().filter(|path| !of_all(path)).cloned().collect();
            Ok(if numbered.is_empty() { files.clone() } else { numbered })
        }
        [first, second, ..] => {
            let [first, second] =
                [first, second].map(|files| files[0].strip_prefix(folder).unwrap_or(&files[0]).display());
            Err(Error::file(folder, format!("expected weights of one kind, found {first} and {second}")))
        }
    }
}
