//! The messages of panics inside CubeCL.
//!
//! CubeCL runs launches on one thread for each device, catches their panics there and drops the message. `Gpu::run` detects that a
//! launch failed without this module, but only a panic hook gets to know why. The hook of this module records the panics of the
//! devices' threads instead of printing them. Where the application installs its own hook later, that hook gets the messages.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};

/// Panics of device threads that were not reported yet, by thread. A thread with an entry is watched.
static FAULTS: Mutex<Option<HashMap<ThreadId, Vec<String>>>> = Mutex::new(None);
static HOOK: Once = Once::new();

thread_local! {
    /// Set while this thread calls code that may panic inside CubeCL and whose failure becomes an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: Cell<Option<String>> = const { Cell::new(None) };
    /// Set while a device's thread runs a closure of the application.
    static ALOUD: Cell<bool> = const { Cell::new(false) };
}

fn faults() -> MutexGuard<'static, Option<HashMap<ThreadId, Vec<String>>>> {
    FAULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install() {
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let message = one_line(&info.to_string());
            if QUIET.get() {
                // Only the first panic explains the failure; CubeCL raises others while it passes that one on.
                let first = LAST.take();
                LAST.set(first.or(Some(message)));
                return;
            }
            let mut faults = faults();
            match faults.as_mut().and_then(|map| map.get_mut(&thread::current().id())) {
                Some(list) if !ALOUD.get() => list.push(message),
                _ => {
                    drop(faults);
                    previous(info);
                }
            }
        }));
    });
}

/// From now on panics of `thread` are recorded instead of printed.
pub(super) fn watch(thread: ThreadId) {
    install();
    faults().get_or_insert_default().entry(thread).or_default();
}

/// Removes and returns the panics of `thread` that were recorded since the last call.
pub(super) fn take(thread: ThreadId) -> Vec<String> {
    faults().as_mut().and_then(|map| map.get_mut(&thread)).map(std::mem::take).unwrap_or_default()
}

/// Runs `f` and turns a panic into its message, without printing it.
pub(super) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    install();
    let before = QUIET.replace(true);
    LAST.set(None);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    QUIET.set(before);
    result.map_err(|payload| LAST.take().unwrap_or_else(|| unexplained(&*payload)))
}

/// Runs `f`, which catches its own panics. They are printed although this thread is watched.
pub(super) fn aloud<T>(f: impl FnOnce() -> T) -> T {
    let before = ALOUD.replace(true);
    let result = f();
    ALOUD.set(before);
    result
}

/// The message for a panic that this module's hook did not record, because another hook has replaced it.
fn unexplained(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let what = text.unwrap_or("a panic without a message");
    format!("a panic inside CubeCL, which was reported to the application's own panic hook ({what})")
}

/// The first lines of a message, up to a backtrace, joined into one.
pub(super) fn one_line(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if line.to_ascii_lowercase().starts_with("backtrace") {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(line);
        if out.len() > 600 {
            out.truncate(out.floor_char_boundary(600));
            out.push('…');
            break;
        }
    }
    out
}
