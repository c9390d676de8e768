//! What ran when: spans of ops and of what they are part of, recorded when someone asked for it.
//!
//! A span ends after its device has finished, so on a GPU, where launches are otherwise queued, recording costs a wait an
//! op: read the lengths, not the sum.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::device::Device;
use crate::tensor::Tensor;

static RECORDING: AtomicBool = AtomicBool::new(false);
static START: OnceLock<Instant> = OnceLock::new();
static SPANS: Mutex<Vec<TimelineSpan>> = Mutex::new(Vec::new());

thread_local! {
    static THREAD: u32 = {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// A finished piece of work. Spans of one thread nest: a network's stage holds its ops.
#[derive(Debug, Clone, PartialEq)]
pub struct TimelineSpan {
    /// The op, or the stage of a network.
    pub name: String,
    /// Shapes [n, c, d, h, w] and type of what it took; empty for a stage.
    pub detail: String,
    /// Microseconds from the start of the recording.
    pub start_us: f64,
    /// Its length in microseconds.
    pub duration_us: f64,
    /// Which thread of the host, from 0.
    pub thread: u32,
}

/// From now on spans are recorded.
pub fn record_timeline() {
    START.get_or_init(Instant::now);
    RECORDING.store(true, Ordering::Relaxed);
}

/// Stops recording and hands over what was recorded, in the order in which the spans ended.
pub fn take_timeline() -> Vec<TimelineSpan> {
    RECORDING.store(false, Ordering::Relaxed);
    std::mem::take(&mut *SPANS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Recorded when it goes out of scope.
pub struct Open {
    name: String,
    detail: String,
    device: Device,
    from: Instant,
}

fn open(device: &Device, name: String, detail: String) -> Option<Open> {
    // What was launched before belongs to others. A failed device tells its user at the next read.
    let _ = device.synchronize();
    Some(Open { name, detail, device: device.clone(), from: Instant::now() })
}

/// The span of an op over its operands.
pub(super) fn op(name: &str, operands: &[&Tensor]) -> Option<Open> {
    let first = operands.first().filter(|_| RECORDING.load(Ordering::Relaxed))?;
    let shapes: Vec<String> = operands.iter().map(|t| format!("{:?}", t.shape())).collect();
    open(&first.device(), name.to_owned(), format!("{} {}", first.dtype(), shapes.join(" by ")))
}

/// The span of a stage of something larger.
pub fn stage(device: &Device, name: impl FnOnce() -> String) -> Option<Open> {
    if RECORDING.load(Ordering::Relaxed) { open(device, name(), String::new()) } else { None }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.device.synchronize();
        let Some(start) = START.get() else { return };
        let span = TimelineSpan {
            name: std::mem::take(&mut self.name),
            detail: std::mem::take(&mut self.detail),
            start_us: self.from.duration_since(*start).as_secs_f64() * 1e6,
            duration_us: self.from.elapsed().as_secs_f64() * 1e6,
            thread: THREAD.with(|t| *t),
        };
        SPANS.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }
}
