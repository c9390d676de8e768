//! CubeCL runs launches on a thread per device, catches their panics there and carries on, so a kernel that failed to
//! expand or validate leaves stale data behind and no error. This panic hook notes what those threads say; reading a
//! tensor or synchronising turns the note into [`Error::Kernel`](crate::Error::Kernel).

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};

/// Panics of device threads not yet reported, by thread. A thread is watched once it has an entry.
static FAULTS: Mutex<Option<HashMap<ThreadId, Vec<String>>>> = Mutex::new(None);
static HOOK: Once = Once::new();

thread_local! {
    /// Set while this thread tries something that may panic inside CubeCL and whose failure we report ourselves.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: Cell<Option<String>> = const { Cell::new(None) };
}

fn faults() -> MutexGuard<'static, Option<HashMap<ThreadId, Vec<String>>>> {
    FAULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install() {
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let message = one_line(&info.to_string());
            if let Some(list) = faults().as_mut().and_then(|map| map.get_mut(&thread::current().id())) {
                list.push(message);
            } else if QUIET.get() {
                LAST.set(Some(message));
            } else {
                previous(info);
            }
        }));
    });
}

/// From now on panics of `thread` are noted instead of printed.
pub(super) fn watch(thread: ThreadId) {
    install();
    faults().get_or_insert_default().entry(thread).or_default();
}

/// Takes the panics of `thread` noted since the last call.
pub(super) fn take(thread: ThreadId) -> Vec<String> {
    faults().as_mut().and_then(|map| map.get_mut(&thread)).map(std::mem::take).unwrap_or_default()
}

/// Runs `f`, turning a panic into its message without printing it.
pub(super) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    install();
    let before = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    QUIET.set(before);
    result.map_err(|_| LAST.take().unwrap_or_else(|| "no reason given".into()))
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
