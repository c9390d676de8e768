//! What a device reaches at best: its memory and its multipliers, and what a launch costs. Every rate of a case is relative to these.

use serde::{Deserialize, Serialize};
use tracing::subscriber::{NoSubscriber, with_default};

use super::cases;
use crate::error::Result;
use crate::samples::Samples;
use nephron::device::{Device, backends};
use nephron::tensor::DType;

/// Seconds for each of them at most.
const SECONDS: f64 = 0.2;
/// Bytes of an array on a GPU: several times the largest second-level cache.
const GPU_ARRAY: u64 = 512 << 20;
/// Bytes of an array on a software GPU, which would take seconds for more, and of a CPU whose cache is not known.
const USUAL_ARRAY: u64 = 64 << 20;

/// Measured limits of a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Ceilings {
    /// Bytes of each array of the rates.
    pub(super) array_bytes: u64,
    /// GB/s of reading an array (the sum of its squares).
    pub(super) read_gbs: f64,
    /// GB/s of reading one array and writing another (y = 2 x).
    pub(super) copy_gbs: f64,
    /// GB/s of reading two arrays and writing a third (y = a + 2 b).
    pub(super) triad_gbs: f64,
    /// GFLOP/s of a large matrix product, as this library's 1x1x1 convolution.
    pub(super) matrix_gflops: f64,
    /// Microseconds of an operation on four elements among many: what a launch costs at least.
    pub(super) launch_us: f64,
    /// Microseconds of such an operation with a wait behind it.
    pub(super) launch_and_wait_us: f64,
}

impl Ceilings {
    /// Measures them, each for 0.2 s or for `seconds`, if that is less. A timeline does not show them.
    ///
    /// # Errors
    /// A device that fails or has no room.
    pub(super) fn of(device: &Device, dtype: DType, seconds: f64) -> Result<Self> {
        with_default(NoSubscriber::default(), || Self::measured(device, dtype, seconds))
    }

    fn measured(device: &Device, dtype: DType, seconds: f64) -> Result<Self> {
        let seconds = seconds.min(SECONDS);
        let array_bytes = array_bytes(device);
        // Without any time for it each is one batch.
        let median = |case: &cases::Case| -> Result<f64> {
            let samples = if seconds > 0.0 {
                Samples::for_seconds(&case.run, device, seconds)
            } else {
                Samples::in_batches(&case.run, device, 1)
            };
            Ok(samples?.median())
        };
        let gbs = |case: &cases::Case| -> Result<f64> {
            let median = median(case)?;
            Ok(rate(case.bytes.unwrap_or(0.0), median))
        };
        let [read, copy, triad] = cases::stream::rates(device, array_bytes as usize / 4)?;
        let (read_gbs, copy_gbs, triad_gbs) = (gbs(&read)?, gbs(&copy)?, gbs(&triad)?);
        drop([read, copy, triad]);
        let product = cases::matrix_product(device, dtype, !is_software(device))?;
        let matrix_gflops = rate(product.flops, median(&product)?);
        drop(product);
        let [launch, wait] = cases::stream::launches(device)?;
        let us = |case: &cases::Case| median(case).map(|ms| 1e3 * ms);
        Ok(Self {
            array_bytes,
            read_gbs,
            copy_gbs,
            triad_gbs,
            matrix_gflops,
            launch_us: us(&launch)?,
            launch_and_wait_us: us(&wait)?,
        })
    }

    /// By how much the rates of `later` differ: the largest ratio of two of them, less 1.
    pub(super) fn drift(&self, later: &Self) -> f64 {
        let pairs = [(self.copy_gbs, later.copy_gbs), (self.matrix_gflops, later.matrix_gflops)];
        pairs.iter().map(|(a, b)| (a / b).max(b / a) - 1.0).fold(0.0, f64::max)
    }
}

/// The rate of an amount in units of 10^9 per second.
pub(super) fn rate(amount: f64, ms: f64) -> f64 {
    amount / ms.max(1e-9) / 1e6
}

/// Whether the device is the processor, by itself or through a driver that runs shaders on it.
fn is_software(device: &Device) -> bool {
    let name = device.name();
    let mut adapters = backends().into_iter().flat_map(|backend| backend.adapters);
    adapters.any(|adapter| adapter.device == name && matches!(adapter.kind, "software" | "processor"))
}

/// Bytes of an array that no cache holds: four times the last-level cache on the CPU.
fn array_bytes(device: &Device) -> u64 {
    let usual = if *device == Device::Cpu {
        last_level_cache().map_or(USUAL_ARRAY, |bytes| (4 * bytes).clamp(USUAL_ARRAY, GPU_ARRAY))
    } else if is_software(device) {
        USUAL_ARRAY
    } else {
        GPU_ARRAY
    };
    usual.min(device.max_buffer_bytes())
}

/// Bytes of the CPU's last cache, as Linux gives them (`32768K`); None elsewhere.
fn last_level_cache() -> Option<u64> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size").ok()?;
    text.trim().strip_suffix('K')?.parse::<u64>().ok().map(|k| k << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_the_largest_change_of_a_ceiling() {
        let before = Ceilings {
            array_bytes: 1,
            read_gbs: 1.0,
            copy_gbs: 10.0,
            triad_gbs: 1.0,
            matrix_gflops: 100.0,
            launch_us: 1.0,
            launch_and_wait_us: 1.0,
        };
        let later = Ceilings { copy_gbs: 12.0, matrix_gflops: 50.0, ..before };
        assert_eq!((before.drift(&before), before.drift(&later), later.drift(&before)), (0.0, 1.0, 1.0));
    }
}
