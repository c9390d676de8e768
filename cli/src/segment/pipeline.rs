//! Reads the next case and writes the last one while the device works on the one between them.
//!
//! Three threads: one reads, the calling one computes and prints, one writes. Both channels between them hold nothing, so that at
//! most one case waits to be computed and one is being written, besides the one in work. Every result passes the writer, also one
//! that failed before, so that they come in the order of the cases whatever takes how long.

use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread;

use crate::error::Result;
use nephron::error::Error as LibraryError;

/// What is done with the files of a case, on any thread.
pub(super) trait Files: Sync {
    type Case: Sync;
    /// What a case's files hold.
    type Input: Send;
    /// What was computed of it.
    type Found: Send;
    /// What was written.
    type Written: Send;

    fn read(&self, case: &Self::Case) -> Result<Self::Input>;
    fn write(&self, case: &Self::Case, found: Self::Found) -> Result<Self::Written>;
}

/// What is done on the calling thread.
pub(super) trait Front<F: Files> {
    /// Case number `place` is next.
    fn begin(&mut self, case: &F::Case, place: usize);

    /// Computes a case; the outer error ends the run. `finished` gives a result that was written meanwhile, for [`Front::done`]; it
    /// need not be called.
    fn compute(
        &mut self,
        case: &F::Case,
        input: Result<F::Input>,
        finished: &mut dyn FnMut() -> Option<Done<F>>,
    ) -> Result<Result<F::Found>>;

    /// A case is finished, or has failed. The calls are in the order of the cases. An error ends the run.
    fn done(&mut self, result: Done<F>) -> Result<()>;

    /// All is computed, and the rest is being written.
    fn ending(&mut self) {}
}

/// The number of a case in the order of the cases, and what became of it.
pub(super) struct Done<F: Files> {
    pub(super) place: usize,
    pub(super) result: Result<F::Written>,
}

/// Runs the cases one after the other, on this thread alone.
pub(super) fn run_in_turn<F: Files>(cases: &[&F::Case], files: &F, front: &mut impl Front<F>) -> Result<()> {
    for (place, &case) in cases.iter().enumerate() {
        front.begin(case, place);
        let found = front.compute(case, files.read(case), &mut || None)?;
        front.ending();
        front.done(Done { place, result: found.and_then(|found| files.write(case, found)) })?;
    }
    Ok(())
}

/// Runs the cases in their order, reading one ahead and writing one behind.
///
/// The two threads work in pools of one thread each: what they run in parallel does not take the cores from the network.
pub(super) fn run_overlapped<F: Files>(cases: &[&F::Case], files: &F, front: &mut impl Front<F>) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| LibraryError::Data(format!("threads that read and write: {e}"));
    let pool = || rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| failed(&e));
    let (reading, writing) = (pool()?, pool()?);
    thread::scope(|scope| {
        let (input, inputs) = sync_channel(0);
        let (found, founds) = sync_channel::<Result<F::Found>>(0);
        let (result, results) = channel();
        let read = move || {
            // Where the other end is gone the run has ended.
            reading.install(|| cases.iter().all(|case| input.send(files.read(case)).is_ok()));
        };
        let write = move || {
            writing.install(|| {
                for (case, found) in cases.iter().zip(founds) {
                    if result.send(found.and_then(|found| files.write(case, found))).is_err() {
                        break;
                    }
                }
            });
        };
        thread::Builder::new().name("read".into()).spawn_scoped(scope, read).map_err(|e| failed(&e))?;
        thread::Builder::new().name("write".into()).spawn_scoped(scope, write).map_err(|e| failed(&e))?;

        let mut finished = Finished { results, next: 0 };
        for (place, &case) in cases.iter().enumerate() {
            front.begin(case, place);
            // A thread that panicked closes its channel, and its panic goes on at the end of the scope.
            let Ok(input) = inputs.recv() else { break };
            let computed = front.compute(case, input, &mut || finished.next_of::<F>(false))?;
            if found.send(computed).is_err() {
                break;
            }
            while let Some(done) = finished.next_of(false) {
                front.done(done)?;
            }
        }
        drop(found);
        front.ending();
        while let Some(done) = finished.next_of(true) {
            front.done(done)?;
        }
        Ok(())
    })
}

/// The results, which come in the order of the cases.
struct Finished<W> {
    results: Receiver<Result<W>>,
    next: usize,
}

impl<W> Finished<W> {
    /// The next result that is there already or, with `waits`, that comes; None at the end.
    fn next_of<F: Files<Written = W>>(&mut self, waits: bool) -> Option<Done<F>> {
        let result = if waits { self.results.recv().ok() } else { self.results.try_recv().ok() }?;
        self.next += 1;
        Some(Done { place: self.next - 1, result })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::error::Error;

    /// Counts what is between reading and the end of writing, and fails where the case says so.
    #[derive(Default)]
    struct Fake {
        alive: AtomicI32,
        most: AtomicI32,
        log: Mutex<Vec<String>>,
    }

    /// A case: what takes long, or fails.
    #[derive(Clone, Copy, PartialEq)]
    struct Slow {
        read: u64,
        compute: u64,
        write: u64,
        fails: Option<&'static str>,
    }

    const CASE: Slow = Slow { read: 0, compute: 0, write: 0, fails: None };

    fn step(case: &Slow, name: &str, milliseconds: u64) -> Result<()> {
        thread::sleep(Duration::from_millis(milliseconds));
        if case.fails == Some(name) { Err(Error::Usage(format!("{name} failed"))) } else { Ok(()) }
    }

    impl Files for Fake {
        type Case = Slow;
        type Input = ();
        type Found = ();
        type Written = ();

        fn read(&self, case: &Slow) -> Result<()> {
            let alive = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(alive, Ordering::SeqCst);
            step(case, "read", case.read)
        }

        fn write(&self, case: &Slow, (): ()) -> Result<()> {
            step(case, "write", case.write)?;
            self.alive.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    }

    struct Log<'a> {
        fake: &'a Fake,
        ends_at: usize,
    }

    impl Front<Fake> for Log<'_> {
        fn begin(&mut self, _: &Slow, place: usize) {
            assert!(place <= self.ends_at + 2, "the run goes on");
        }

        fn compute(
            &mut self,
            case: &Slow,
            input: Result<()>,
            finished: &mut dyn FnMut() -> Option<Done<Fake>>,
        ) -> Result<Result<()>> {
            if let Some(done) = finished() {
                self.done(done)?;
            }
            let until = Instant::now() + Duration::from_secs(20);
            while case.fails == Some("no reading ahead") && self.fake.most.load(Ordering::SeqCst) < 2 {
                assert!(Instant::now() < until, "the next case is not read");
                thread::yield_now();
            }
            Ok(input.and_then(|()| step(case, "compute", case.compute)))
        }

        fn done(&mut self, done: Done<Fake>) -> Result<()> {
            let text = done.result.map_or_else(|error| error.to_string(), |()| "written".into());
            self.fake.log.lock().expect("a lock").push(format!("{}: {text}", done.place));
            if done.place == self.ends_at { Err(Error::Usage("the end".into())) } else { Ok(()) }
        }
    }

    fn log(cases: &[Slow], ends_at: usize, overlaps: bool) -> (Vec<String>, i32, Result<()>) {
        let (fake, cases) = (Fake::default(), cases.iter().collect::<Vec<_>>());
        let mut front = Log { fake: &fake, ends_at };
        let ended =
            if overlaps { run_overlapped(&cases, &fake, &mut front) } else { run_in_turn(&cases, &fake, &mut front) };
        let most = fake.most.load(Ordering::SeqCst);
        (fake.log.into_inner().expect("a lock"), most, ended)
    }

    #[test]
    fn results_come_in_order_whatever_is_slow_and_a_failure_costs_its_case() {
        let fails = |name| Slow { fails: Some(name), ..CASE };
        let slow = [
            Slow { write: 40, ..CASE },
            fails("read"),
            Slow { read: 40, ..CASE },
            fails("compute"),
            Slow { compute: 40, ..CASE },
            fails("write"),
            CASE,
        ];
        let want: Vec<String> = slow
            .iter()
            .enumerate()
            .map(|(i, case)| format!("{i}: {}", case.fails.map_or("written".into(), |name| format!("{name} failed"))))
            .collect();
        for overlaps in [false, true] {
            let (found, _, ended) = log(&slow, usize::MAX - 2, overlaps);
            assert!(ended.is_ok());
            assert_eq!(found, want);
        }
    }

    /// One ahead, one in work, one being written.
    #[test]
    fn few_cases_are_in_memory_at_a_time() {
        for case in [Slow { write: 5, ..CASE }, Slow { compute: 5, ..CASE }, Slow { read: 5, ..CASE }] {
            let cases = [case; 12];
            assert_eq!(log(&cases, usize::MAX - 2, false).1, 1);
            let most = log(&cases, usize::MAX - 2, true).1;
            assert!((1..=3).contains(&most), "{most} cases at a time");
        }
        // The first case is computed until the second has been begun to be read.
        assert!(log(&[Slow { fails: Some("no reading ahead"), ..CASE }, CASE], usize::MAX - 2, true).1 >= 2);
        assert_eq!(log(&[], usize::MAX - 2, true).0.len(), 0);
    }

    #[test]
    fn an_error_ends_the_run_and_both_threads() {
        let (found, _, ended) = log(&[Slow { compute: 2, ..CASE }; 50], 3, true);
        assert!(ended.is_err() || found.len() < 50, "{found:?}");
        assert_eq!(found[..4], ["0: written", "1: written", "2: written", "3: written"]);
    }
}
