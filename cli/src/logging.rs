//! The subscriber of the library's messages and spans. Warnings are printed to standard error, with `-v` also the choices of kernels;
//! `--trace FILE` writes the spans of all ops to a file for chrome://tracing or Perfetto.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::Path;

use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::ops::span;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_chrome::{ChromeLayerBuilder, FlushGuard, TraceStyle};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// A layer that prints messages to standard error, one on each line.
struct Lines;

/// The text of a message.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a `String` cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let warning = if *event.metadata().level() <= Level::WARN { "warning: " } else { "" };
        crate::warn_line(format_args!("{warning}{}", text.0));
    }
}

/// A trace replaces an earlier one, which begins with the bracket of a list, and no other file.
fn ensure_trace(path: &Path) -> Result<()> {
    let mut first = Vec::new();
    if let Ok(file) = File::open(path) {
        file.take(1).read_to_end(&mut first).map_err(|e| LibraryError::io(path, "cannot be read", e))?;
    }
    match first.first() {
        None | Some(b'[') => Ok(()),
        Some(_) => Err(Error::Usage(format!(
            "--trace: {} is there already and is no trace, choose another file",
            path.display()
        ))),
    }
}

/// Installs the subscriber of the process. The trace is complete once the guard is dropped.
///
/// # Errors
/// A trace file that cannot be made.
pub(super) fn start(verbose: bool, trace: Option<&Path>) -> Result<Option<FlushGuard>> {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let wanted = Targets::new().with_target("nephron", level).with_target(span::TARGET, LevelFilter::WARN);
    let lines = tracing_subscriber::registry().with(Lines.with_filter(wanted));
    let Some(path) = trace else {
        // A second call in one process, as in tests, keeps the first subscriber.
        let _ = tracing::subscriber::set_global_default(lines);
        return Ok(None);
    };
    ensure_trace(path)?;
    let file = File::create(path).map_err(|e| LibraryError::io(path, "cannot be written", e))?;
    let builder = ChromeLayerBuilder::new().writer(BufWriter::new(file)).include_args(true).include_locations(false);
    let (chrome, guard) = builder.trace_style(TraceStyle::Threaded).build();
    let spans = Targets::new().with_target(span::TARGET, LevelFilter::DEBUG);
    let _ = tracing::subscriber::set_global_default(lines.with(chrome.with_filter(spans)));
    Ok(Some(guard))
}
