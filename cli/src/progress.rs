//! What is shown of a run on standard error: a bar on a terminal, and elsewhere a line from time to time.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where standard error is no terminal, such as in the log of a batch system, a line is written so often: short runs write none.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// The progress of one run over one or more inputs.
pub(crate) struct Progress {
    bar: ProgressBar,
    shown: Shown,
    state: RefCell<State>,
}

/// How it is shown.
enum Shown {
    Bar,
    Lines,
    Not,
}

struct State {
    /// Which input, such as `image 2 of 40, case_002`.
    input: String,
    /// What is done with it, such as `reading`.
    stage: String,
    started: Instant,
    last_line: Instant,
    /// Whether the bar is drawn from time to time, which begins with the first stage.
    is_ticking: bool,
}

impl State {
    /// `image 2 of 40, case_002: reading`; for an input without a name the stage alone.
    fn text(&self) -> String {
        if self.input.is_empty() { self.stage.clone() } else { format!("{}: {}", self.input, self.stage) }
    }
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        let shown = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Shown::Not,
            (false, true) => Shown::Bar,
            (false, false) => Shown::Lines,
        };
        let target =
            if matches!(shown, Shown::Bar) { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let now = Instant::now();
        let state =
            State { input: String::new(), stage: String::new(), started: now, last_line: now, is_ticking: false };
        Self { bar, shown, state: RefCell::new(state) }
    }

    /// The next input; `place` is its number, from 1, of how many.
    pub(crate) fn input(&self, noun: &str, place: (usize, usize), name: &str) {
        self.state.borrow_mut().input = match place {
            (_, 1) => name.to_owned(),
            (number, all) => format!("{noun} {number} of {all}, {name}"),
        };
    }

    /// What begins now and takes a time that is not known.
    pub(crate) fn stage(&self, stage: &str) {
        self.begin(stage, None);
        self.line(None);
    }

    /// `done` of `all` parts of a stage are done.
    pub(crate) fn step(&self, stage: &str, done: usize, all: usize) {
        if done == 0 || self.state.borrow().stage != stage {
            self.begin(stage, Some(all as u64));
        }
        if done > 0 && self.bar.position() == 0 {
            self.style("{msg} {bar:30} {pos}/{len} {elapsed}, {eta} left");
        }
        self.bar.set_position(done as u64);
        self.line(Some((done, all)));
    }

    /// Shows a stage of `all` parts, or one that takes a time that is not known. Any of these calls, and the clock, may draw a
    /// frame: in their order none shows the end of the stage before, or a bar without a length.
    fn begin(&self, stage: &str, all: Option<u64>) {
        let mut state = self.state.borrow_mut();
        stage.clone_into(&mut state.stage);
        state.started = Instant::now();
        let message = crate::terminal::message(&state.text()).into_owned();
        match all {
            Some(all) => {
                self.bar.reset();
                self.bar.set_length(all);
                self.bar.set_message(message);
                // Nothing is known of the time left before a first part is done.
                self.style("{msg} {bar:30} {pos}/{len} {elapsed}");
            }
            None => {
                self.style("{spinner} {msg} {elapsed}");
                self.bar.reset();
                self.bar.unset_length();
                self.bar.set_message(message);
            }
        }
        if !state.is_ticking {
            state.is_ticking = true;
            self.bar.enable_steady_tick(Duration::from_millis(200));
        }
    }

    fn style(&self, template: &str) {
        // The templates are those above; a wrong one would only leave the bar as it was.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    fn line(&self, steps: Option<(usize, usize)>) {
        let mut state = self.state.borrow_mut();
        if !matches!(self.shown, Shown::Lines) || state.last_line.elapsed() < BETWEEN_LINES {
            return;
        }
        state.last_line = Instant::now();
        let of = steps.map(|steps| format!(" {}", remaining(steps, state.started.elapsed()))).unwrap_or_default();
        note!("{}{of}", state.text());
    }

    /// Runs `print`, which writes lines, without the bar, which stands below them afterwards.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Removes the bar, so that other lines can be written.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// `12 of 36, about 40 s left`.
fn remaining((done, all): (usize, usize), elapsed: Duration) -> String {
    if done == 0 {
        return format!("0 of {all}");
    }
    let left = elapsed.as_secs_f64() / done as f64 * all.saturating_sub(done) as f64;
    format!("{done} of {all}, about {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_steps_so_far() {
        assert_eq!(remaining((0, 8), Duration::from_secs(3)), "0 of 8");
        assert_eq!(remaining((2, 8), Duration::from_secs(3)), "2 of 8, about 9 s left");
        assert_eq!(remaining((8, 8), Duration::from_secs(3)), "8 of 8, about 0 s left");
    }

    #[test]
    fn a_bar_starts_empty_and_names_what_runs() {
        let progress = Progress::new(true);
        progress.input("image", (2, 40), "case_002");
        progress.stage("reading");
        assert_eq!(
            (progress.bar.message().as_str(), progress.bar.length()),
            ("image 2 of 40, case_002: reading", None)
        );
        progress.step("network", 0, 36);
        assert_eq!((progress.bar.position(), progress.bar.length()), (0, Some(36)));
        progress.step("network", 36, 36);
        // The next stage does not show the full bar of the one before.
        progress.stage("align");
        assert_eq!((progress.bar.position(), progress.bar.length()), (0, None));
        assert_eq!(progress.state.borrow().text(), "image 2 of 40, case_002: align");
        let alone = Progress::new(true);
        alone.stage("segment phase 1 of 4");
        assert_eq!(alone.state.borrow().text(), "segment phase 1 of 4");
        assert_eq!(progress.bar.message(), "image 2 of 40, case_002: align");
        // A single input has no number, and one without a name none.
        progress.input("image", (1, 1), "");
        progress.stage("align");
        assert_eq!(progress.bar.message(), "align");
    }
}
