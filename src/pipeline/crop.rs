//! From a phase and its mask to the classifier's image: the axial slice with the largest tumour area, cropped to the tight
//! rectangle around the tumour and resized to a square (bilinear, align_corners false).

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::{self, Intensity, InterpolateMode};
use crate::tensor::{DType, Tensor};
use crate::volume::{LabelVolume, TUMOUR, Volume};

/// The margin that is added on each side of the tumour's rectangle, inside its slice. In a configuration it is a whole number of
/// voxels, or a text such as `"5mm"`; millimetres are rounded up to whole voxels along each axis.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Margin {
    /// A number of voxels.
    Voxels(usize),
    /// A length in millimetres.
    Millimetres(f64),
}

/// The values of a margin that errors name.
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
            Margin::Millimetres(_) => margin.to_string().into(),
        }
    }
}

impl std::fmt::Display for Margin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Voxels(voxels) => write!(f, "{voxels}"),
            Self::Millimetres(mm) => write!(f, "{mm}mm"),
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
    /// Number of voxels along (rows, columns) of a volume with `spacing` in mm along (z, y, x).
    pub fn voxels(self, spacing: [f64; 3]) -> [usize; 2] {
        match self {
            Self::Voxels(voxels) => [voxels; 2],
            // The tolerance absorbs rounding, so that 0.5 mm are five voxels of 0.1 mm and not six.
            Self::Millimetres(mm) => [spacing[1], spacing[2]].map(|step| (mm / step - 1e-6).ceil().max(0.0) as usize),
        }
    }
}

/// The position of a crop: a slice and inclusive ranges of rows and columns of the volume in LPS orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CropBox {
    /// The axial slice.
    pub slice: usize,
    /// First and last row.
    pub rows: [usize; 2],
    /// First and last column.
    pub columns: [usize; 2],
    /// Number of tumour voxels on the slice.
    pub area: usize,
}

/// The rectangle of the tumour on the slice with the largest tumour area, extended by `margin` voxels (rows, columns) on each side
/// inside the slice. None where the mask has no tumour.
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

/// The crop of `image` as `size` x `size` normalised values, row by row: Hounsfield units are clipped, the mean is subtracted, the
/// difference divided by the standard deviation, and the result resized bilinearly (align_corners false; at the edge of the crop
/// its outermost values continue). `image` is in LPS orientation, as ITK's arrays of axial scans are.
///
/// # Errors
/// [`Error::Shape`] for a box outside the image; a device that fails.
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
    ops::interpolate3d(&patch, [1, size, size], InterpolateMode::Trilinear, false)?.to_ndhwc()
}
