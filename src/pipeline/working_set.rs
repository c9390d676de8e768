//! What a segmentation takes of memory, counted before it runs.

use super::export::slice_bytes;
use super::segmentation::SegmentOptions;
use super::sliding_window::SlidingWindow;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::UNetPlan;
use crate::tensor::DType;

/// Number of bytes of a slab of the export on the device, where no memory budget requires less.
const SLAB_BYTES: u64 = 64 << 20;

/// The parts of the working set, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkingSet {
    /// The resampled image, the sums of a row of tiles and the activations of a tile.
    fixed: u64,
    /// What slabs of the export may take, at least a slice.
    pub(super) slab: u64,
}

impl WorkingSet {
    /// For an image that is resampled to `size` (z, y, x) and whose labels are exported to `exported` voxels.
    ///
    /// # Errors
    /// [`Error::Argument`] for a memory budget below the smallest working set; a step that is out of range.
    pub(super) fn new(
        plan: &UNetPlan,
        window: &SlidingWindow,
        size: [usize; 3],
        exported: [usize; 3],
        options: &SegmentOptions,
        (dtype, device): (DType, &Device),
    ) -> Result<Self> {
        let outputs = plan.architecture.classes;
        let values = size.iter().fold(plan.architecture.input_channels as u64, |n, &s| n.saturating_mul(s as u64));
        let image = values.saturating_mul(size_of::<f32>() as u64);
        let tiles = window
            .accumulator_bytes(outputs, options.sums.dtype())
            .saturating_add(plan.architecture.activation_bytes(plan.patch, dtype, device));
        let fixed = image.saturating_add(tiles);
        let slice = slice_bytes(exported, options.output, outputs);
        let usual = SLAB_BYTES.min(device.max_buffer_bytes()).max(slice);
        let Some(budget) = options.memory_budget else { return Ok(Self { fixed, slab: usual }) };
        let least = fixed.saturating_add(slice);
        if budget < least {
            let what =
                format!("{image} for the image at {size:?} voxels, sums, the activations of one tile, one slice");
            let expected = format!("at least {least} bytes ({what})");
            return Err(Error::argument("segment: memory budget", expected, format!("{budget} bytes")));
        }
        Ok(Self { fixed, slab: usual.min(budget - fixed) })
    }

    /// All parts together.
    pub(super) fn total(&self) -> u64 {
        self.fixed.saturating_add(self.slab)
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
