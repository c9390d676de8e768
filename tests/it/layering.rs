//! Rules of structure that Cargo does not enforce: device code knows no runtime, and files are short. That no layer depends on one
//! above it is enforced by Cargo, because each layer is a crate.

use crate::support;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders of sources, by crate.
const CRATES: [&str; 5] = ["kernels/src", "compute/src", "imaging/src", "src", "cli/src"];

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
    sources(&support::root().join(folder), &mut paths);
    assert!(paths.len() > 5, "{folder} holds the sources");
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable source");
        (path.display().to_string(), text)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn device_code_knows_no_runtime() {
    let manifest = fs::read_to_string(support::root().join("kernels/Cargo.toml")).expect("the manifest of the kernels");
    for other in ["nephron-", "cubecl-cuda", "cubecl-wgpu", "cubecl-runtime"] {
        assert!(!manifest.lines().any(|l| l.starts_with(other)), "kernels/ must not depend on {other}");
    }
    for (path, text) in rust_files("kernels/src") {
        assert!(!text.contains("ComputeClient"), "{path} must not launch or allocate");
    }
}

#[test]
fn files_stay_short() {
    let files = CRATES.into_iter().flat_map(rust_files);
    let long: Vec<_> = files.map(|(p, t)| (p, t.lines().count())).filter(|(_, n)| *n > 400).collect();
    assert!(long.is_empty(), "files over 400 lines: {long:?}");
}

/// The global state of the library crates: every `static NAME` and every environment variable that is read, with the file.
fn globals() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in ["kernels/src", "compute/src", "imaging/src", "src"].into_iter().flat_map(rust_files) {
        let file = path.strip_prefix(&format!("{}/", support::root().display())).unwrap_or(&path).to_owned();
        for line in text.lines().map(str::trim_start).filter(|l| !l.starts_with("//")) {
            let declared = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("static ");
            if let Some(rest) = declared {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.insert(format!("{name} in {file}"));
            }
            if let Some((_, rest)) = line.split_once("env::var")
                && let Some(name) = rest.split('"').nth(1)
            {
                found.insert(format!("{name} in {file}"));
            }
        }
    }
    found
}

/// docs/architecture.md lists every static and every variable of the environment with its reason; no other exists.
#[test]
fn what_is_global_is_listed_with_its_reason() {
    let text = fs::read_to_string(support::root().join("docs/architecture.md")).expect("docs/architecture.md");
    let (_, section) = text.split_once("## What is global").expect("the section");
    let rows = section.lines().filter(|l| l.starts_with("| `"));
    let listed: BTreeSet<String> = rows
        .filter_map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let (name, file) = (cells.nth(1)?, cells.next()?);
            Some(format!("{name} in {file}"))
        })
        .collect();
    assert_eq!(listed, globals());
}
