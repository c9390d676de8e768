//! Images and label maps with their geometry: grid, affine, spacing, orientation, connected components, resampling.

mod affine;
pub mod components;
mod grid;
mod labels;
mod orientation;
mod voxels;

pub use affine::Affine;
pub use components::{Component, Diameter, components};
pub use grid::Grid;
pub use labels::{BACKGROUND, KIDNEY, LabelVolume, TUMOUR, WHOLE_KIDNEY, hard_dice};
pub use orientation::{Orientation, Turn};
pub use voxels::Voxels;

use std::sync::{Arc, OnceLock};

use nephron_compute::device::Device;
use nephron_compute::ensure_room;
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::{self, Interpolation, Outside, ResampleParams};
use nephron_compute::tensor::{DType, Tensor};

/// How far a label may be from a whole number.
const ROUNDING: f32 = 1e-3;

/// A 3D image on a grid in the patient's space.
///
/// [`Volume::new`] checks its parts and nothing changes them afterwards, so that every volume has these properties: no axis has
/// length 0, there is one value for each voxel, the affine is finite and invertible. A clone shares the voxels.
#[derive(Debug, Clone)]
pub struct Volume {
    grid: Grid,
    voxels: Voxels,
    /// Number of voxels that are NaN or infinite, counted at the first call of [`Volume::not_finite`] and shared by clones.
    not_finite: Arc<OnceLock<usize>>,
}

impl Volume {
    /// A volume of shape [d, h, w], which are NIfTI's (k, j, i), where `affine` maps an index (i, j, k) to RAS+ millimetres.
    ///
    /// # Errors
    /// [`Error::Shape`] for an axis of length 0 or a number of values that the shape does not have, [`Error::Argument`] for an
    /// affine that is singular or not finite.
    pub fn new(shape: [usize; 3], voxels: Voxels, affine: Affine) -> Result<Self> {
        let grid = Grid { shape, affine };
        grid.ensure_valid(voxels.len())?;
        Ok(Self::of(grid, voxels))
    }

    /// A volume of parts that were checked before.
    fn of(grid: Grid, voxels: Voxels) -> Self {
        Self { grid, voxels, not_finite: Arc::default() }
    }

    /// A volume with other values on the same grid.
    ///
    /// # Errors
    /// [`Error::Shape`] for a number of values that the shape does not have.
    pub fn with_voxels(&self, voxels: Voxels) -> Result<Self> {
        Self::new(self.grid.shape, voxels, self.grid.affine)
    }

    /// The same voxels with another map to the patient's space.
    ///
    /// # Errors
    /// [`Error::Argument`] for an affine that is singular or not finite.
    pub fn with_affine(&self, affine: Affine) -> Result<Self> {
        let moved = Self::new(self.grid.shape, self.voxels.clone(), affine)?;
        Ok(Self { not_finite: self.not_finite.clone(), ..moved })
    }

    /// Number of voxels along (d, h, w), which are NIfTI's (k, j, i).
    pub fn shape(&self) -> [usize; 3] {
        self.grid.shape
    }

    /// The values of the voxels.
    pub fn voxels(&self) -> &Voxels {
        &self.voxels
    }

    /// The map from an index (i, j, k) to RAS+ millimetres.
    pub fn affine(&self) -> Affine {
        self.grid.affine
    }

    /// Millimetres between voxel centres along (d, h, w).
    pub fn spacing(&self) -> [f64; 3] {
        self.grid.spacing()
    }

    /// The grid without the voxels.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The index (i, j, k) of the n-th voxel.
    fn index(&self, n: usize) -> [usize; 3] {
        let [_, h, w] = self.grid.shape;
        [n % w, n / w % h, n / w / h]
    }

    /// Number of voxels that are NaN or infinite. The first call counts them; later calls, also of clones, reuse the number.
    pub fn not_finite(&self) -> usize {
        match &self.voxels {
            Voxels::F32(values) => *self.not_finite.get_or_init(|| values.iter().filter(|v| !v.is_finite()).count()),
            _ => 0,
        }
    }

    /// Checks that no voxel is NaN or infinite.
    ///
    /// # Errors
    /// [`Error::Data`] with the number of such voxels and the first one's value and index (i, j, k).
    pub fn ensure_finite(&self) -> Result<()> {
        let (Voxels::F32(values), count @ 1..) = (&self.voxels, self.not_finite()) else { return Ok(()) };
        let first = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
        let (value, index, all) = (values[first], self.index(first), values.len());
        Err(Error::Data(format!(
            "{count} of {all} voxels are NaN or infinite, expected finite values; the first is {value} at (i, j, k) = {index:?}"
        )))
    }

    /// Whether the voxels look like labels rather than intensities: integers from 0 up, few of them different. Interpolating
    /// such an image gives fractions that are no labels.
    pub fn looks_like_labels(&self) -> bool {
        const MAX_DIFFERENT: usize = 32;
        fn few<T: Copy + Into<i32>>(values: &[T]) -> bool {
            let mut seen = std::collections::BTreeSet::new();
            values.iter().all(|v| {
                let v: i32 = (*v).into();
                v >= 0 && (seen.contains(&v) || (seen.len() < MAX_DIFFERENT && seen.insert(v)))
            })
        }
        match &self.voxels {
            Voxels::U8(values) => few(values),
            Voxels::I16(values) => few(values),
            Voxels::F32(_) => false,
        }
    }

    /// The same volume as labels; those of u8 are shared, not copied. A value within a thousandth of a whole number is that
    /// number: programs that store labels with a scale leave such remainders.
    ///
    /// # Errors
    /// [`Error::Data`] with the value and index (i, j, k) of the first voxel that is not a whole number from 0 to 255.
    pub fn to_labels(&self) -> Result<LabelVolume> {
        fn narrow<T: Copy + Into<f32>>(values: &[T]) -> Result<Vec<u8>, (usize, f32)> {
            let label = |(n, v): (usize, &T)| {
                let v: f32 = (*v).into();
                let label = v.round() as u8;
                if (f32::from(label) - v).abs() <= ROUNDING { Ok(label) } else { Err((n, v)) }
            };
            // Collecting into a result would grow the vector step by step.
            let mut labels = Vec::with_capacity(values.len());
            for value in values.iter().enumerate() {
                labels.push(label(value)?);
            }
            Ok(labels)
        }
        ensure_room::<u8>("labels", self.voxels.len())?;
        let labels = match &self.voxels {
            Voxels::U8(labels) => return LabelVolume::new(self.grid.shape, labels.clone(), self.grid.affine),
            Voxels::I16(values) => narrow(values),
            Voxels::F32(values) => narrow(values),
        };
        let labels = labels.map_err(|(n, v)| {
            let index = self.index(n);
            Error::Data(format!("labels are whole numbers from 0 to 255, found {v} at (i, j, k) = {index:?}"))
        })?;
        LabelVolume::new(self.grid.shape, labels, self.grid.affine)
    }

    /// The slices `first` to `last` (inclusive) along d, at their positions in the patient.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty range or one that exceeds the volume.
    pub fn slices(&self, [first, last]: [usize; 2]) -> Result<Self> {
        let [d, h, w] = self.grid.shape;
        if first > last || last >= d {
            return Err(Error::argument(
                "volume: slices",
                format!("within 0 to {}", d - 1),
                format!("{first} to {last}"),
            ));
        }
        let range = first * h * w..(last + 1) * h * w;
        let voxels = match &self.voxels {
            Voxels::U8(v) => Voxels::U8(v[range].to_vec().into()),
            Voxels::I16(v) => Voxels::I16(v[range].to_vec().into()),
            Voxels::F32(v) => Voxels::F32(v[range].to_vec().into()),
        };
        let mut step = Affine::IDENTITY;
        step.0[2][3] = first as f64;
        Self::new([last + 1 - first, h, w], voxels, self.grid.affine.after(&step))
    }

    /// Resamples onto another grid: out(p) = self(A^-1 B p) for an index p of `grid`, where A is the affine of this volume and B
    /// that of `grid`. The result has the shape of `grid`.
    ///
    /// Edge rule: within half a voxel of the outermost voxel centres (the extent of the voxels themselves) the outermost values
    /// continue. Beyond it, outside the field of view, labels (u8) become 0 and images become their own minimum.
    /// [`Interpolation::Nearest`] keeps the type of the voxels; every other interpolation gives f32.
    ///
    /// # Errors
    /// As [`Volume::new`] for an invalid grid, and as [`ops::resample`].
    pub fn resample_to(&self, grid: &Grid, interpolation: Interpolation, device: &Device) -> Result<Self> {
        let outside = match &self.voxels {
            Voxels::U8(_) => 0.0,
            images => images.range().map_or(0.0, |(low, _)| low),
        };
        let params = ResampleParams {
            size: grid.shape,
            matrix: self.grid.affine.inverse()?.after(&grid.affine).reversed().0,
            interpolation,
            outside: Outside::Constant(outside),
            intensity: None,
        };
        let result = Self::from_tensor(&ops::resample(&self.to_tensor(device)?, &params)?, grid.affine)?;
        match (&self.voxels, interpolation, &result.voxels) {
            (Voxels::I16(_), Interpolation::Nearest, Voxels::F32(values)) => {
                ensure_room::<i16>("a volume", values.len())?;
                result.with_voxels(Voxels::I16(values.iter().map(|&v| v as i16).collect::<Vec<_>>().into()))
            }
            _ => Ok(result),
        }
    }

    /// The volume in the integer type of `source`, of which it was interpolated: each value is rounded, halves away from zero, and
    /// values beyond the type's range become its ends (a spline overshoots). CT that was stored as integers stays integers. What
    /// was interpolated of f32, or of a label map ([`Volume::looks_like_labels`]), whose fractions mean something, stays f32.
    ///
    /// # Errors
    /// Too little memory.
    pub fn rounded_like(self, source: &Self) -> Result<Self> {
        let Voxels::F32(values) = &self.voxels else { return Ok(self) };
        let voxels = match &source.voxels {
            Voxels::F32(_) => return Ok(self),
            _ if source.looks_like_labels() => return Ok(self),
            Voxels::I16(_) => {
                ensure_room::<i16>("a volume", values.len())?;
                Voxels::I16(values.iter().map(|v| v.round() as i16).collect::<Vec<_>>().into())
            }
            Voxels::U8(_) => {
                ensure_room::<u8>("a volume", values.len())?;
                Voxels::U8(values.iter().map(|v| v.round() as u8).collect::<Vec<_>>().into())
            }
        };
        Ok(Self::of(self.grid, voxels))
    }

    /// Copies the volume to a device, as a tensor [1, 1, d, h, w] of the same type (u8, i16 or f32).
    ///
    /// # Errors
    /// A buffer over the device's limit; a device that fails.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let [d, h, w] = self.grid.shape;
        let shape = [1, 1, d, h, w];
        ensure_room::<u8>("a copy of a volume", self.voxels.len() * self.voxels.dtype().size())?;
        match &self.voxels {
            Voxels::U8(v) => Tensor::from_u8(device, shape, v.to_vec()),
            Voxels::I16(v) => Tensor::from_i16(device, shape, v.to_vec()),
            Voxels::F32(v) => Tensor::from_ndhwc(device, shape, DType::F32, v.to_vec()),
        }
    }

    /// A volume of the values of a tensor [1, 1, d, h, w]: u8 stays u8, every other type becomes f32.
    ///
    /// # Errors
    /// [`Error::Shape`] for another n or c, and as [`Volume::new`].
    pub fn from_tensor(tensor: &Tensor, affine: Affine) -> Result<Self> {
        let [n, c, d, h, w] = tensor.shape();
        if [n, c] != [1, 1] {
            return Err(Error::shape("volume", "a tensor [1, 1, d, h, w]", format!("{:?}", tensor.shape())));
        }
        let voxels = match tensor.dtype() {
            DType::U8 => Voxels::U8(tensor.to_u8()?.into()),
            _ => Voxels::F32(tensor.to_ndhwc()?.into()),
        };
        Self::new([d, h, w], voxels, affine)
    }
}
