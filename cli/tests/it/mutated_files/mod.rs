//! Damaged files of every format through the program: each run ends by itself with exit code 0, 1 or 2, and says what is wrong in a
//! few short lines that name a file of the call.
//!
//! NEPHRON_MUTATIONS is the number of inputs (2,000 if not set), NEPHRON_SEED their seed. A file that made a run fail is kept below
//! the target folder.

mod mutate;
mod seeds;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{self, nephron};

const INPUTS: usize = 2000;
const LIMIT: Duration = Duration::from_secs(20);
const MAX_LINES: usize = 3;
const MAX_LINE: usize = 1500;

/// How a run ended: its exit code, or what is wrong with it.
struct Ended {
    code: Result<i32, String>,
    message: String,
}

/// Runs a call and waits for its end, with its standard error in a file: a pipe would fill.
fn end_of(command: &mut Command, log: &Path) -> Ended {
    let errors = File::create(log).expect("a log");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().expect("it runs");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if started.elapsed() > LIMIT {
            child.kill().expect("killed");
            child.wait().expect("it ends");
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let message = String::from_utf8_lossy(&fs::read(log).expect("a log")).into_owned();
    let code = match status.map(|status| status.code()) {
        None => Err("it did not end".into()),
        Some(None) => Err("a signal ended it".into()),
        Some(Some(code @ 0..=2)) => Ok(code),
        Some(Some(code)) => Err(format!("exit code {code}")),
    };
    Ended { code, message }
}

/// What is wrong with the end of a run.
fn fault(ended: &Ended, folder: &Path, call: &[PathBuf]) -> Option<String> {
    let code = match &ended.code {
        Ok(code) => *code,
        Err(fault) => return Some(fault.clone()),
    };
    let message = &ended.message;
    if message.contains("panicked") {
        return Some("a panic".into());
    }
    let lines: Vec<&str> = message.lines().collect();
    // Warnings come before the error, one for each thing that is odd about a file.
    let errors = lines.iter().filter(|line| !line.starts_with("warning: ")).count();
    if errors > MAX_LINES || lines.len() > 4 * MAX_LINES {
        return Some(format!("{} lines", lines.len()));
    }
    if let Some(line) = lines.iter().find(|line| line.chars().count() > MAX_LINE) {
        return Some(format!("a line of {} characters", line.chars().count()));
    }
    if lines.iter().any(|line| line.contains(char::is_control)) {
        return Some("control characters".into());
    }
    let folder = folder.display().to_string();
    let operation = (call[0] == Path::new("op")).then(|| call[1].display().to_string());
    let is_named = message.contains(&folder) || operation.is_some_and(|name| message.contains(&name));
    (code != 0 && !is_named).then(|| "no file of the call is named".into())
}

/// The number of runs with each exit code.
type Counts = BTreeMap<&'static str, [usize; 3]>;

/// One damaged file through one call.
fn one(number: usize, seed: u64, folder: &Path, counts: &Mutex<Counts>, faults: &Mutex<Vec<String>>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(number as u64));
    let format = seeds::FORMATS.get(number % (seeds::FORMATS.len() + 1)).copied().unwrap_or(seeds::RESULT);
    let file = seeds::seed(format);
    let mut bytes = file.bytes.clone();
    // The first of each format is whole.
    if number > seeds::FORMATS.len() {
        mutate::mutate(&mut bytes, file.text, &mut rng);
    }
    seeds::place(folder, format, &file, &bytes);
    let call = seeds::call(format, file.file, folder, &mut rng);
    let mut command = nephron();
    command.args(&call).args(support::on_cpu(&[&call[0].to_string_lossy()])).env("RUST_BACKTRACE", "0");
    let ended = end_of(&mut command, &folder.join("log"));
    if let Ok(code) = ended.code {
        counts.lock().expect("no panic").entry(format).or_default()[code as usize] += 1;
    }
    let mut fault = fault(&ended, folder, &call);
    // Weights of another network and a table without cases are refused even when they are whole.
    if number <= seeds::FORMATS.len() && format != "config.json" && ended.code != Ok(0) {
        fault = Some("the file is valid".into());
    }
    if let Some(fault) = fault {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutated").join(format!("{seed}-{number}"));
        fs::create_dir_all(&kept).expect("a folder");
        fs::write(kept.join(file.file.replace('/', "_")), &bytes).expect("kept");
        let shown: String = ended.message.chars().take(400).collect();
        let text = format!("{format} {number}: {fault}; {call:?}; kept in {}: {shown:?}", kept.display());
        faults.lock().expect("no panic").push(text);
    }
    seeds::clean(folder, &file);
}

#[test]
fn damaged_files_end_in_a_message() {
    let inputs = std::env::var("NEPHRON_MUTATIONS").map_or(INPUTS, |n| n.parse().expect("a whole number"));
    let seed = support::rng().next_u64();
    let (counts, faults, next) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
    let started = Instant::now();
    let work = || {
        let folder = tempfile::tempdir().expect("a folder");
        let model = folder.path().join("segmenter");
        fs::create_dir_all(&model).expect("made");
        for name in ["plans.json", "dataset.json", "weights.safetensors"] {
            fs::copy(support::root().join("tests/golden/unet").join(name), model.join(name)).expect("copied");
        }
        seeds::prepare(folder.path());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= inputs {
                return;
            }
            one(number, seed, folder.path(), &counts, &faults);
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(4));
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    println!("{inputs} inputs in {:.0} s; format: runs with exit code 0, 1, 2", started.elapsed().as_secs_f64());
    for (format, counts) in counts.into_inner().expect("no panic") {
        println!("{format}: {counts:?}");
    }
    let faults: Vec<String> = faults.into_inner().expect("no panic");
    assert!(faults.is_empty(), "{} of {inputs}:\n{}", faults.len(), faults[..faults.len().min(20)].join("\n"));
}
