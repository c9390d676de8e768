//! Records of `bench`: what a run was made of, saved and compared.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ceilings::Ceilings;
use super::line::Line;
use crate::error::Result;
use nephron::device::{Device, backends};
use nephron::error::Error as LibraryError;
use nephron::io::{read_small, write_atomic};
use nephron::pipeline::utc_now;

/// Where a record was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// The device's product name.
    pub(super) adapter: String,
    pub(super) driver: String,
    /// Clocks, memory and caches of the device, as `nephron devices` lists them.
    pub(super) details: Vec<String>,
    /// The processor's name.
    pub(super) processor: String,
    /// Threads of the CPU's pool.
    pub(super) threads: usize,
    pub(super) system: String,
}

impl Machine {
    pub(super) fn of(device: &Device) -> Self {
        let all: Vec<_> = backends().into_iter().flat_map(|backend| backend.adapters).collect();
        let named = |name: &str| all.iter().find(|adapter| adapter.device == name);
        let own = named(&device.name());
        Self {
            adapter: own.map_or("unknown".into(), |adapter| adapter.name.clone()),
            driver: own.map_or("unknown".into(), |adapter| adapter.driver.clone()),
            details: own.map_or(vec![], |adapter| adapter.details.clone()),
            processor: named("cpu").map_or("unknown".into(), |adapter| adapter.name.clone()),
            threads: rayon::current_num_threads(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// A run of `bench`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: String,
    /// In UTC.
    pub(super) date: String,
    pub(super) device: String,
    pub(super) dtype: String,
    pub(super) machine: Machine,
    /// Before the cases; the per cents are relative to these.
    pub(super) ceilings: Ceilings,
    /// After the last case.
    pub(super) ceilings_after: Option<Ceilings>,
    pub(super) cases: Vec<Line>,
}

impl Record {
    pub(super) fn new(device: &Device, dtype: String, ceilings: Ceilings) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            date: utc_now(),
            device: device.name(),
            dtype,
            machine: Machine::of(device),
            ceilings,
            ceilings_after: None,
            cases: vec![],
        }
    }

    /// # Errors
    /// A file that is no record.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let failed = |e| LibraryError::io(path, "is no record of `bench --save`", e);
        Ok(serde_json::from_slice(&read_small(path)?).map_err(failed)?)
    }

    /// # Errors
    /// A file that cannot be written.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| LibraryError::io(path, "cannot be written", e))?;
        Ok(write_atomic(path, |file| writeln!(file, "{text}"))?)
    }

    /// What makes times of two records differ besides the code: device, driver and threads.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let threads = [self, other].map(|record| record.machine.threads.to_string());
        let pairs = [
            ("device", &self.machine.adapter, &other.machine.adapter),
            ("driver", &self.machine.driver, &other.machine.driver),
            ("processor", &self.machine.processor, &other.machine.processor),
            ("number of threads", &threads[0], &threads[1]),
        ];
        let differing = pairs.into_iter().filter(|(_, a, b)| a != b);
        differing.map(|(what, a, b)| format!("another {what}: {b} then, {a} now")).collect()
    }

    /// The case of this record that is `line`'s, beside it.
    pub(super) fn compare(&self, line: &Line) -> Option<Comparison> {
        let same = |own: &&Line| own.op == line.op && own.name == line.name && own.dtype == line.dtype;
        self.cases.iter().find(same).map(|own| Comparison::of(own, line))
    }
}

/// Whether a case has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// The intervals of both medians overlap.
    Same,
    Faster,
    Slower,
}

/// A case beside the same one of an earlier record.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Comparison {
    pub(super) median_ms: f64,
    /// The earlier median divided by the present one: above 1 is faster.
    pub(super) speedup: f64,
    pub(super) verdict: Verdict,
}

impl Comparison {
    fn of(then: &Line, now: &Line) -> Self {
        let verdict = if now.interval_ms[1] < then.interval_ms[0] {
            Verdict::Faster
        } else if now.interval_ms[0] > then.interval_ms[1] {
            Verdict::Slower
        } else {
            Verdict::Same
        };
        Self { median_ms: then.median_ms, speedup: then.median_ms / now.median_ms, verdict }
    }

    /// The end of a line of the table.
    pub(super) fn shown(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Same => "within the noise",
            Verdict::Faster => "faster",
            Verdict::Slower => "slower",
        };
        format!("  {:.2}x, {verdict}", self.speedup)
    }
}
