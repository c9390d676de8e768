//! What the ops choose, said on standard error when someone asked for it (`-v`).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

static VERBOSE: AtomicBool = AtomicBool::new(false);

/// From now on ops say which algorithm they choose, a line on standard error for each shape. Off at first.
pub fn say_choices(on: bool) {
    VERBOSE.store(on, Ordering::Relaxed);
}

/// Says a choice, if asked to.
pub(super) fn choice(line: impl FnOnce() -> String) {
    if VERBOSE.load(Ordering::Relaxed) {
        once(&line());
    }
}

/// Says a line, asked or not, unless it has been said: a network has many layers of one shape.
pub(super) fn once(line: &str) {
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get_or_insert_default().insert(line.to_owned()) {
        eprintln!("{line}");
    }
}
