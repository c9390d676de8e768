//! `--trace FILE`: the timeline of a run in Chrome's trace format, for chrome://tracing, Perfetto or Speedscope.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use nephron::error::{Error, Result};
use nephron::io::write_atomic;
use nephron::ops;

/// Writes what was recorded: one complete event ("X") a span, microseconds.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(path: &Path) -> Result<()> {
    let events: Vec<_> = ops::take_timeline()
        .into_iter()
        .map(|span| {
            json!({
                "name": span.name, "cat": if span.detail.is_empty() { "stage" } else { "op" }, "ph": "X",
                "ts": span.start_us, "dur": span.duration_us, "pid": 0, "tid": span.thread,
                "args": {"operands": span.detail},
            })
        })
        .collect();
    let text = serde_json::to_string(&json!({"traceEvents": events, "displayTimeUnit": "ms"}))
        .map_err(|e| Error::Data(format!("trace: {e}")))?;
    write_atomic(path, |file| writeln!(file, "{text}"))
}
