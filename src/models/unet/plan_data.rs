//! How a plan's images are read, normalised and resampled.

use std::path::Path;

use crate::error::{Error, Result};
use crate::models::json::Node;
use crate::shown;
use crate::volume::Orientation;

/// How a channel's values are normalised, before they are resampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Normalization {
    /// Clip, subtract the mean, divide by the standard deviation: Hounsfield units of the training set's foreground.
    Ct {
        /// The 0.5 and 99.5 percentile.
        clip: [f32; 2],
        /// Mean.
        mean: f32,
        /// Standard deviation.
        sd: f32,
    },
    /// Subtract the image's own mean and divide by its own standard deviation.
    ZScore,
    /// Subtract the image's minimum, then divide by the maximum that is left.
    RescaleTo01,
    /// Divide by 255 values that lie between 0 and 255.
    RgbTo01,
    /// Values as they are.
    None,
}

/// A channel's normalisation and where its statistics are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelNormalization {
    /// What happens to the values.
    pub scheme: Normalization,
    /// Whether [`Normalization::ZScore`] takes its statistics inside the image's non-zero part, its holes filled, and leaves
    /// the values outside as they are. Other schemes ignore it.
    pub inside_mask: bool,
}

/// How the model's images were read. The voxels' order and size follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageReader {
    /// As stored: nnU-Net's SimpleITKIO and NibabelIO.
    Stored,
    /// Turned to RAS first: SimpleITKIOWithReorient.
    Reoriented,
    /// Turned to RAS first, which takes the voxel size of what is turned from the affine: NibabelIOWithReorient.
    ReorientedByNibabel,
    /// Pictures (PNG, BMP, TIFF) whose colours are channels: NaturalImage2DIO.
    Pictures,
    /// The pages of a TIFF as slices: Tiff3DIO.
    TiffStacks,
}

impl ImageReader {
    /// Which way an image's axes run when the network sees it.
    pub fn orientation(self) -> OrientationRule {
        match self {
            Self::Stored | Self::Pictures | Self::TiffStacks => OrientationRule::Stored,
            Self::Reoriented | Self::ReorientedByNibabel => OrientationRule::Fixed(Orientation::RAS),
        }
    }
}

/// Which way an image's axes run when the network sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrientationRule {
    /// As they are stored in the file, so that the result depends on it.
    Stored,
    /// Turned to one orientation first, so that the result does not depend on how the file is stored.
    Fixed(Orientation),
}

impl std::fmt::Display for OrientationRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stored => write!(f, "stored"),
            Self::Fixed(orientation) => write!(f, "{orientation}"),
        }
    }
}

/// The interpolation of a resampling. Output i of an axis lies at (i + 0.5) * input / output - 0.5, clamped to the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The nearest voxel.
    Nearest,
    /// Linear.
    Linear,
    /// Cubic B-spline with its prefilter, clipped to the range of what is resampled (scikit-image's order 3).
    Cubic,
}

/// When slices are resampled in their plane first and then across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeparateAxis {
    /// When the largest voxel size is over [`Resampling::anisotropy`] times the smallest.
    WhenAnisotropic,
    /// Along the axis of the largest voxel size, whatever it is.
    Always,
    /// Never.
    Never,
}

/// A resampling of nnU-Net's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resampling {
    /// Whether anything is resampled; without it the size stays as it is.
    pub enabled: bool,
    /// Of the volume, or of its slices.
    pub order: Order,
    /// Across slices that are resampled on their own.
    pub order_across: Order,
    /// Whether slices are.
    pub separate: SeparateAxis,
    /// Largest over smallest voxel size above which they are.
    pub anisotropy: f64,
}

/// nnU-Net's ANISO_THRESHOLD.
const ANISOTROPY: f64 = 3.0;

impl Resampling {
    /// nnU-Net's default with interpolation of this order: slices on their own where voxels are over three times as large along
    /// one axis, the nearest slice across.
    pub fn of_order(order: Order) -> Self {
        let separate = SeparateAxis::WhenAnisotropic;
        Self { enabled: true, order, order_across: Order::Nearest, separate, anisotropy: ANISOTROPY }
    }
}

/// The channels' normalisation schemes.
pub(super) fn normalization(
    plans: &Node<'_>,
    configuration: &Node<'_>,
    channels: usize,
) -> Result<Vec<ChannelNormalization>> {
    let schemes = configuration.key("normalization_schemes")?;
    let list = schemes.list()?;
    if list.len() != channels {
        return Err(schemes.mismatch(format!("one scheme for each of {channels} channels")));
    }
    let masks = configuration.optional("use_mask_for_norm").map(|node| node.list()).transpose()?;
    let read = |(channel, scheme): (usize, &Node<'_>)| {
        let inside_mask = match masks.as_ref().and_then(|masks| masks.get(channel)) {
            Some(node) => node.boolean()?,
            None => false,
        };
        let scheme = match scheme.text()? {
            "NoNormalization" => Normalization::None,
            "ZScoreNormalization" => Normalization::ZScore,
            "RescaleTo01Normalization" => Normalization::RescaleTo01,
            "RGBTo01Normalization" => Normalization::RgbTo01,
            "CTNormalization" => ct(plans, channel)?,
            _ => {
                let known = "CTNormalization, ZScoreNormalization, RescaleTo01Normalization, RGBTo01Normalization or NoNormalization";
                return Err(scheme.mismatch(known));
            }
        };
        Ok(ChannelNormalization { scheme, inside_mask })
    };
    list.iter().enumerate().map(read).collect()
}

fn ct(plans: &Node<'_>, channel: usize) -> Result<Normalization> {
    let [current, first] =
        ["foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"];
    let all = if plans.has(current) || !plans.has(first) { plans.key(current)? } else { plans.key(first)? };
    let intensity = all.key(&channel.to_string())?;
    let number = |key: &str| Ok::<_, Error>(intensity.key(key)?.number()? as f32);
    let clip = [number("percentile_00_5")?, number("percentile_99_5")?];
    let (mean, sd) = (number("mean")?, number("std")?);
    if clip[0] > clip[1] || sd < 0.0 {
        return Err(intensity.mismatch("percentile_00_5 up to percentile_99_5, and std of at least 0"));
    }
    Ok(Normalization::Ct { clip, mean, sd })
}

/// One of nnU-Net's resampling functions and its arguments. Plans that name none mean the default with its default `order`.
pub(super) fn resampling(configuration: &Node<'_>, key: &str, order: usize) -> Result<Resampling> {
    let Some(function) = configuration.optional(key) else {
        let order = if order == 3 { Order::Cubic } else { Order::Linear };
        return Ok(Resampling::of_order(order));
    };
    let kwargs_key = format!("{key}_kwargs");
    let kwargs = configuration.optional(&kwargs_key);
    let known = |keys: &[&str]| kwargs.as_ref().map_or(Ok(()), |kwargs| kwargs.expect_keys(keys));
    let setting = |name: &str| kwargs.as_ref().and_then(|kwargs| kwargs.optional(name));
    let given = |name: &str| kwargs.as_ref().is_some_and(|kwargs| kwargs.has(name));
    let anisotropy = setting("separate_z_anisotropy_threshold").map_or(Ok(ANISOTROPY), |node| node.number())?;
    // Without the argument the functions have defaults of their own.
    let separate = |default: SeparateAxis| match setting("force_separate_z") {
        Some(node) => Ok::<_, Error>(if node.boolean()? { SeparateAxis::Always } else { SeparateAxis::Never }),
        None if given("force_separate_z") => Ok(SeparateAxis::WhenAnisotropic),
        None => Ok(default),
    };
    if let Some(node) = setting("is_seg")
        && node.boolean()?
    {
        return Err(node.mismatch(false));
    }
    match function.text()? {
        "resample_data_or_seg_to_shape" => {
            known(&["is_seg", "order", "order_z", "force_separate_z", "separate_z_anisotropy_threshold"])?;
            let spline = |name: &str, default: usize| {
                let Some(node) = setting(name) else { return Ok(default) };
                node.count()
            };
            let order = match spline("order", 3)? {
                0 => Order::Nearest,
                1 => Order::Linear,
                3 => Order::Cubic,
                _ => return Err(refused(setting("order"), &function, "order 0, 1 or 3")),
            };
            let order_across = match spline("order_z", 0)? {
                0 => Order::Nearest,
                1 => Order::Linear,
                _ => return Err(refused(setting("order_z"), &function, "order 0 or 1")),
            };
            Ok(Resampling { enabled: true, order, order_across, separate: separate(SeparateAxis::Never)?, anisotropy })
        }
        "resample_torch_fornnunet" => {
            known(&[
                "is_seg",
                "num_threads",
                "device",
                "memefficient_seg_resampling",
                "force_separate_z",
                "separate_z_anisotropy_threshold",
                "mode",
                "aniso_axis_mode",
            ])?;
            if let Some(node) = setting("mode")
                && node.text()? != "linear"
            {
                return Err(node.mismatch("linear"));
            }
            let order_across = match setting("aniso_axis_mode") {
                None => Order::Nearest,
                Some(node) => match node.text()? {
                    "nearest-exact" => Order::Nearest,
                    "linear" => Order::Linear,
                    _ => return Err(node.mismatch("linear or nearest-exact")),
                },
            };
            let separate = separate(SeparateAxis::WhenAnisotropic)?;
            Ok(Resampling { enabled: true, order: Order::Linear, order_across, separate, anisotropy })
        }
        "no_resampling_hack" => {
            known(&[])?;
            Ok(Resampling { enabled: false, ..Resampling::of_order(Order::Linear) })
        }
        _ => Err(function.mismatch("resample_data_or_seg_to_shape, resample_torch_fornnunet or no_resampling_hack")),
    }
}

fn refused(setting: Option<Node<'_>>, function: &Node<'_>, expected: &str) -> Error {
    setting.unwrap_or_else(|| function.clone()).mismatch(expected)
}

pub(super) fn transpose(plans: &Node<'_>) -> Result<[usize; 3]> {
    let Some(node) = plans.optional("transpose_forward") else { return Ok([0, 1, 2]) };
    let axes = node.triple(Node::count)?;
    let mut sorted = axes;
    sorted.sort_unstable();
    if sorted == [0, 1, 2] { Ok(axes) } else { Err(node.mismatch("0, 1 and 2 in some order")) }
}

/// The reader that the model was trained through. A plan without one is nephron's own: turned to RAS.
pub(super) fn reader(plans: &Node<'_>) -> Result<ImageReader> {
    let Some(reader) = plans.optional("image_reader_writer") else { return Ok(ImageReader::Reoriented) };
    named_reader(reader.text()?).ok_or_else(|| reader.mismatch(READERS))
}

/// nnU-Net's reader of this name, which stands in `file`.
///
/// # Errors
/// Another name.
pub(crate) fn reader_by_name(file: &Path, name: &str) -> Result<ImageReader> {
    named_reader(name).ok_or_else(|| Error::file(file, format!("reader: expected {READERS}, found {}", shown(name))))
}

const READERS: &str =
    "SimpleITKIO, NibabelIO, SimpleITKIOWithReorient, NibabelIOWithReorient, NaturalImage2DIO or Tiff3DIO";

fn named_reader(name: &str) -> Option<ImageReader> {
    match name {
        "SimpleITKIOWithReorient" => Some(ImageReader::Reoriented),
        "NibabelIOWithReorient" => Some(ImageReader::ReorientedByNibabel),
        "SimpleITKIO" | "NibabelIO" => Some(ImageReader::Stored),
        "NaturalImage2DIO" => Some(ImageReader::Pictures),
        "Tiff3DIO" => Some(ImageReader::TiffStacks),
        _ => None,
    }
}
