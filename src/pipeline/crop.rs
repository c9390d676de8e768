//! From a phase and its mask to the classifier's image: the axial slice with the largest tumour area, the tight
//! rectangle round the tumour on it, resized to a square (bilinear, align_corners false).

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::{self, Intensity, Interpolate};
use crate::tensor::{DType, Tensor};
use crate::volume::{LabelVolume, TUMOUR, Volume};

/// How far the tumour's rectangle grows on each side, inside its slice. In a configuration a whole number of voxels, or a text
/// such as `"5mm"`; millimetres are rounded up to whole voxels along each axis.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Margin {
    /// Voxels.
    Voxels(usize),
    /// Millimetres.
    Millimetres(f64),
}

/// What a margin may be.
const MARGIN: &str = "a whole number of voxels, or millimetres below 10000 such as 5mm";

impl TryFrom<serde_json::Value> for Margin {
    type Error = Error;

    fn try_from(value: serde_json::Value) -> Result<Self> {
        match value {
            serde_json::Value::String(text) => text.parse(),
            other => match other.as_u64().and_then(|voxels| usize::try_from(voxels).ok()) {
                Some(voxels) => Ok(Self::Voxels(voxels)),
                None => Err(Error::argument("margin", MARGIN, other)),
            },
        }
    }
}

impl From<Margin> for serde_json::Value {
    fn from(margin: Margin) -> Self {
        match margin {
            Margin::Voxels(voxels) => voxels.into(),
            Margin::Millimetres(mm) => format!("{mm}mm").into(),
        }
    }
}

impl std::str::FromStr for Margin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let margin = match text.strip_suffix("mm") {
            Some(mm) => mm.trim().parse().ok().filter(|mm| (0.0..1e4).contains(mm)).map(Self::Millimetres),
            None => text.parse().ok().map(Self::Voxels),
        };
        margin.ok_or_else(|| Error::argument("margin", MARGIN, format!("{text:?}")))
    }
}

impl Margin {
    /// Voxels along (rows, columns) of a volume with `spacing` in mm along (z, y, x).
    pub fn voxels(self, spacing: [f64; 3]) -> [usize; 2] {
        match self {
            Self::Voxels(voxels) => [voxels; 2],
            // A hair less, so that five voxels of 0.1 mm are 0.5 mm.
            Self::Millimetres(mm) => [spacing[1], spacing[2]].map(|step| (mm / step - 1e-6).ceil().max(0.0) as usize),
        }
    }
}

/// Where a crop was taken: a slice and inclusive ranges of rows and columns, of the volume in LPS orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CropBox {
    /// The axial slice.
    pub slice: usize,
    /// First and last row.
    pub rows: [usize; 2],
    /// First and last column.
    pub columns: [usize; 2],
    /// Tumour voxels on the slice.
    pub area: usize,
}

/// The box of the tumour on the slice that shows most of it, grown by `margin` voxels (rows, columns) inside the slice. None
/// when there is no tumour.
///
/// # Errors
/// As [`LabelVolume::slices`].
pub fn tumour_box(mask: &LabelVolume, margin: [usize; 2]) -> Result<Option<CropBox>> {
    let Some((slice, area)) = mask.largest_slice(TUMOUR) else { return Ok(None) };
    let Some([_, rows, columns]) = mask.slices([slice; 2])?.bounding_box(&[TUMOUR]) else { return Ok(None) };
    let [_, h, w] = mask.shape();
    let grow = |[low, high]: [usize; 2], margin: usize, size: usize| {
        [low.saturating_sub(margin), high.saturating_add(margin).min(size - 1)]
    };
    Ok(Some(CropBox { slice, rows: grow(rows, margin[0], h), columns: grow(columns, margin[1], w), area }))
}

/// The crop as `size` x `size` normalised values (clip, subtract the mean, divide by the deviation, then resize).
/// `image` is in LPS orientation, as ITK's arrays of axial scans are.
///
/// # Errors
/// A box outside the image; a device that fails.
pub fn crop(image: &Volume, at: &CropBox, intensity: &Intensity, size: usize, device: &Device) -> Result<Vec<f32>> {
    let [d, h, w] = image.shape();
    let ([r0, r1], [c0, c1]) = (at.rows, at.columns);
    if at.slice >= d || r1 >= h || c1 >= w || r0 > r1 || c0 > c1 {
        return Err(Error::shape("crop: box", format!("inside {:?}", image.shape()), format!("{at:?}")));
    }
    let normalised = |v: f32| (v.clamp(intensity.clip[0], intensity.clip[1]) - intensity.mean) / intensity.sd.max(1e-8);
    let patch: Vec<f32> = (r0..=r1)
        .flat_map(|r| (c0..=c1).map(move |c| (at.slice * h + r) * w + c))
        .map(|i| normalised(image.voxels().value(i)))
        .collect();
    let patch = Tensor::from_ndhwc(device, [1, 1, 1, r1 - r0 + 1, c1 - c0 + 1], DType::F32, patch)?;
    ops::interpolate3d(&patch, [1, size, size], Interpolate::Trilinear, false)?.to_ndhwc()
}
