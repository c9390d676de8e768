//! Arrows only point downward: kernels <- ops <- nn, volume <- io <- models, registration, report <- pipeline <- cli.

use crate::support;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room of `src/` with its height. A file may use rooms below its own, and its own.
const HEIGHTS: [(&str, u8); 17] = [
    ("error", 0),
    ("memory", 0),
    ("shapes", 0),
    ("stats", 1),
    ("phase", 1),
    ("device", 1),
    ("tensor", 1),
    ("ops", 2),
    ("nn", 3),
    ("volume", 3),
    ("io", 4),
    ("models", 5),
    ("phantom", 5),
    ("registration", 5),
    ("report", 5),
    ("pipeline", 6),
    ("cli", 7),
];

/// A tensor knows its device and a device which element types it stores: the one pair that knows each other.
const PAIRS: [[&str; 2]; 1] = [["device", "tensor"]];

fn root() -> PathBuf {
    support::root()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    sources(&root().join(folder), &mut paths);
    assert!(paths.len() > 5, "{folder} holds the sources");
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable source");
        (path.strip_prefix(root()).expect("below the root").display().to_string(), text)
    };
    paths.into_iter().map(read).collect()
}

fn height(room: &str) -> Option<u8> {
    HEIGHTS.iter().find(|(name, _)| *name == room).map(|(_, height)| *height)
}

/// The rooms that a source names as `crate::room`, also inside `use crate::{a::x, b}`.
fn rooms_used(text: &str) -> Vec<String> {
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = Vec::new();
    for part in text.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            None => rooms.push(word(part)),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && c.is_alphabetic() => {
                            rooms.push(word(&list[i..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    rooms
}

#[test]
fn arrows_point_downward() {
    let mut upward = Vec::new();
    for (path, text) in rust_files("src") {
        let room = path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default().to_owned();
        if room == "lib" || room == "main" {
            continue;
        }
        let own = height(&room).unwrap_or_else(|| panic!("{path}: the room '{room}' has no height in this test"));
        for used in rooms_used(&text) {
            let Some(other) = height(&used) else { continue };
            let pair = PAIRS.iter().any(|p| p.contains(&room.as_str()) && p.contains(&used.as_str()));
            if used != room && other >= own && !pair {
                upward.push(format!("{path} uses crate::{used}"));
            }
        }
    }
    assert!(upward.is_empty(), "arrows that point upward or sideways:\n{}", upward.join("\n"));
}

#[test]
fn device_code_knows_no_runtime() {
    let manifest = fs::read_to_string(root().join("kernels/Cargo.toml")).expect("the manifest of the kernels");
    for other in ["nephron ", "cubecl-cuda", "cubecl-wgpu", "cubecl-runtime"] {
        assert!(!manifest.lines().any(|l| l.starts_with(other)), "kernels/ must not depend on {other}");
    }
    for (path, text) in rust_files("kernels/src") {
        assert!(!text.contains("ComputeClient"), "{path} must not launch or allocate");
    }
}

#[test]
fn rooms_stay_small() {
    let mut files = rust_files("src");
    files.extend(rust_files("kernels/src"));
    let long: Vec<_> = files.iter().map(|(p, t)| (p, t.lines().count())).filter(|(_, n)| *n > 400).collect();
    assert!(long.is_empty(), "files over 400 lines: {long:?}");
}

#[test]
fn the_reader_of_imports_reads_them() {
    let text = "use crate::ops::conv3d;\nuse crate::{error::{Error, Result}, tensor};\nlet x = crate::cli::main();";
    assert_eq!(rooms_used(text), ["ops", "error", "tensor", "cli"]);
}
