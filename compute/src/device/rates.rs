//! What an NVIDIA GPU can do at its highest clock, from the attributes that its driver gives: the ceilings beside which measured rates
//! are read.

/// Attributes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) capability: (i32, i32),
    pub(super) multiprocessors: i32,
    pub(super) clock_khz: i32,
    pub(super) memory_clock_khz: i32,
    pub(super) memory_bus_bits: i32,
    pub(super) l2_bytes: i32,
}

/// Products and sums of a multiprocessor in a clock cycle.
struct PerClock {
    /// f16 and bf16 by matrix instructions with f32 sums, dense.
    matrix: Option<u32>,
    /// f32 without them.
    f32: u32,
}

/// By compute capability: "Arithmetic Instructions" in the CUDA C++ Programming Guide (f32), and NVIDIA's white papers of A100, H100 and
/// B200 (matrix; tf32 is half of it). Consumer cards of one capability differ in their matrix rate, which is left out.
fn per_clock(capability: (i32, i32)) -> Option<PerClock> {
    Some(match capability {
        (7, 0 | 5) => PerClock { matrix: Some(1024), f32: 128 },
        (8, 0) => PerClock { matrix: Some(2048), f32: 128 },
        (8, _) => PerClock { matrix: None, f32: 256 },
        (9, 0) => PerClock { matrix: Some(4096), f32: 256 },
        (10, 0) => PerClock { matrix: Some(8192), f32: 256 },
        (12, _) => PerClock { matrix: None, f32: 256 },
        _ => return None,
    })
}

impl Attributes {
    /// GB/s of the memory: two transfers in a clock cycle.
    fn memory_gbs(&self) -> f64 {
        2.0 * f64::from(self.memory_clock_khz) * 1e3 * f64::from(self.memory_bus_bits) / 8.0 / 1e9
    }

    fn tflops(&self, per_clock: u32) -> f64 {
        f64::from(per_clock) * f64::from(self.multiprocessors) * f64::from(self.clock_khz) * 1e3 / 1e12
    }

    /// Lines for a listing. What the driver gives as 0 is left out.
    pub(super) fn details(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.clock_khz > 0 {
            lines.push(format!("highest clock: {} MHz", self.clock_khz / 1000));
            if let Some(PerClock { matrix, f32 }) = per_clock(self.capability) {
                lines.push(format!("peak, f32: {:.1} TFLOP/s", self.tflops(f32)));
                let matrix = matrix.map(|rate| format!("peak, matrices of f16: {:.0} TFLOP/s", self.tflops(rate)));
                lines.extend(matrix);
            }
        }
        if self.memory_clock_khz > 0 && self.memory_bus_bits > 0 {
            lines.push(format!(
                "peak, memory: {:.0} GB/s ({} bits at {} MHz)",
                self.memory_gbs(),
                self.memory_bus_bits,
                self.memory_clock_khz / 1000
            ));
        }
        if self.l2_bytes > 0 {
            lines.push(format!("second-level cache: {} MiB", self.l2_bytes >> 20));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_those_of_the_data_sheets() {
        // A100 SXM 40 GB: 312 TFLOP/s (f16), 19.5 (f32), 1555 GB/s.
        let a100 = Attributes {
            capability: (8, 0),
            multiprocessors: 108,
            clock_khz: 1_410_000,
            memory_clock_khz: 1_215_000,
            memory_bus_bits: 5120,
            l2_bytes: 40 << 20,
        };
        let lines = a100.details().join("; ");
        for part in ["f32: 19.5 TFLOP/s", "f16: 312 TFLOP/s", "memory: 1555 GB/s", "1410 MHz", "cache: 40 MiB"] {
            assert!(lines.contains(part), "{part}: {lines}");
        }
        // H100 SXM: 989.4 TFLOP/s at 1830 MHz, 66.9 in f32.
        let h100 = Attributes { capability: (9, 0), multiprocessors: 132, clock_khz: 1_830_000, ..a100 };
        let lines = h100.details().join("; ");
        assert!(lines.contains("f16: 989 TFLOP/s") && lines.contains("f32: 61.8 TFLOP/s"), "{lines}");
        // Nothing is said of what is not known.
        let other = Attributes { capability: (13, 7), memory_clock_khz: 0, l2_bytes: 0, ..a100 };
        assert_eq!(other.details(), ["highest clock: 1410 MHz"]);
    }
}
