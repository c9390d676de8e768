//! Arrows between the rooms of `compute/src/ops` point one way: no room needs itself through others, and neither does a
//! file of the rooms of convolutions. Rust allows such cycles; a reader then has no place to begin.

use crate::support;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module by its path from the crate's root: `["ops", "conv3d", "gpu"]`.
type Module = Vec<String>;

/// The rooms whose files may not need one another in a circle.
const ROOMS_OF_LAYERED_FILES: [&str; 5] =
    ["conv3d", "conv3d_backward", "conv_plan", "conv_problem", "conv_transpose3d"];

/// The modules of the crate with their text, without comments and tests.
fn modules(folder: &Path, module: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let child = || module.iter().cloned().chain([name.clone()]).collect::<Module>();
        if path.is_dir() {
            modules(&path, &child(), found);
        } else if !name.ends_with("tests") {
            let text = fs::read_to_string(&path).expect("a readable source");
            let is_folder = name == "mod" || name == "lib";
            found.insert(if is_folder { module.to_vec() } else { child() }, code(&text));
        }
    }
}

/// The code of a file: no comments, and no unit tests, which stand at its end.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().map_or("", |l| l.trim_start());
        if line.trim() == "#[cfg(test)]" && (next.starts_with("mod ") || next.starts_with("#[path")) {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// A path of names, and the name that it gets: its last, unless it is renamed.
#[derive(Debug)]
struct Named {
    path: Vec<String>,
    name: String,
}

/// The paths that a piece of code begins with, groups in braces expanded: `a::{b, c::d}` is `a b` and `a c d`. Also what
/// follows them.
fn paths(code: &str) -> (Vec<Named>, &str) {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        let mut all = Vec::new();
        loop {
            let (some, after) = paths(rest);
            all.extend(some);
            let end = after.find([',', '}']).unwrap_or(after.len());
            rest = after[end..].trim_start_matches(',').trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return (all, after);
            }
            if rest.is_empty() {
                return (all, rest);
            }
        }
    }
    let word = |code: &str| code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len());
    let (first, rest) = code.split_at(word(code));
    let goes_on = |below: &&str| below.starts_with(|c: char| c == '{' || c == '_' || c.is_alphabetic());
    if let Some(below) = rest.strip_prefix("::").filter(goes_on) {
        let (mut all, rest) = paths(below);
        all.iter_mut().for_each(|named| named.path.insert(0, first.to_owned()));
        return (all, rest);
    }
    let renamed = rest.trim_start().strip_prefix("as ").map(|name| &name[..word(name)]);
    (vec![Named { path: vec![first.to_owned()], name: renamed.unwrap_or(first).to_owned() }], rest)
}

/// A path that begins with `crate`, `self` or `super` in `module`, from the root; `None` for one of another crate.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let mut at = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    for name in &path[1..] {
        match name.as_str() {
            "super" => drop(at.pop()?),
            "self" => {}
            name => at.push(name.to_owned()),
        }
    }
    Some(at)
}

/// What a module re-exports, by the name that it gets there: by `pub use`, from its own children or from elsewhere.
fn reexports(module: &[String], text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for statement in text.split(';') {
        let Some((_, public)) = statement.split_once("pub") else { continue };
        let Some((_, tree)) = public.split_once(" use ") else { continue };
        for Named { path, name } in paths(tree).0 {
            let own = || module.iter().chain(&path).cloned().collect();
            found.insert(name, absolute(&path, module).unwrap_or_else(own));
        }
    }
    found
}

struct Crate {
    modules: BTreeMap<Module, String>,
    reexports: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

impl Crate {
    fn compute() -> Self {
        let mut modules_of_crate = BTreeMap::new();
        modules(&support::root().join("compute/src"), &[], &mut modules_of_crate);
        let reexports = modules_of_crate.iter().map(|(m, text)| (m.clone(), reexports(m, text))).collect();
        Self { modules: modules_of_crate, reexports }
    }

    /// The module that defines what a path names, re-exports followed.
    fn definer(&self, path: &[String]) -> Module {
        let mut path = path.to_vec();
        // A re-export leads to another module; more steps than that would be a circle of names.
        for _ in 0..8 {
            let depth = (0..=path.len()).rev().find(|n| self.modules.contains_key(&path[..*n])).expect("the root");
            let (module, rest) = path.split_at(depth);
            let target = rest.first().and_then(|name| self.reexports[module].get(name));
            match target {
                Some(target) if *target != path => path = target.iter().chain(&rest[1..]).cloned().collect(),
                _ => return module.to_vec(),
            }
        }
        panic!("{path:?} leads nowhere")
    }

    /// The modules that a module needs, by every path in it that begins with `crate`, `self` or `super`.
    fn needs(&self, module: &Module) -> BTreeSet<Module> {
        let text = &self.modules[module];
        let starts = ["crate::", "super::", "self::"].into_iter().flat_map(|start| text.match_indices(start));
        let begins = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        // `pub(in crate::ops)` is a visibility.
        let is_used = |at: usize| begins(at) && !text[..at].ends_with("(in ");
        let found = starts.filter(|(at, _)| is_used(*at)).flat_map(|(at, _)| paths(&text[at..]).0);
        let found = found.map(|named| named.path);
        let mut all: BTreeSet<_> = found.filter_map(|p| absolute(&p, module)).map(|p| self.definer(&p)).collect();
        all.remove(module);
        all
    }
}

/// A circle in a graph, as the nodes along it.
fn circle<N: Ord + Clone>(graph: &BTreeMap<N, BTreeSet<N>>) -> Option<Vec<N>> {
    fn walk<N: Ord + Clone>(
        node: &N,
        graph: &BTreeMap<N, BTreeSet<N>>,
        trail: &mut Vec<N>,
        done: &mut BTreeSet<N>,
    ) -> Option<Vec<N>> {
        if let Some(first) = trail.iter().position(|n| n == node) {
            return Some(trail[first..].to_vec());
        }
        if done.contains(node) {
            return None;
        }
        trail.push(node.clone());
        let found = graph.get(node).into_iter().flatten().find_map(|next| walk(next, graph, trail, done));
        trail.pop();
        done.insert(node.clone());
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| walk(node, graph, &mut Vec::new(), &mut done))
}

/// Rooms share what `ops/mod.rs` itself defines: the checks of operands.
#[test]
fn rooms_of_operations_need_one_another_in_one_direction() {
    let compute = Crate::compute();
    let room = |module: &Module| (module.first()? == "ops").then(|| module.get(1).cloned()).flatten();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for module in compute.modules.keys() {
        if let Some(own) = room(module) {
            let others =
                compute.needs(module).iter().filter_map(room).filter(|other| *other != own).collect::<Vec<_>>();
            graph.entry(own).or_default().extend(others);
        }
    }
    let needs = |from: &str, to: &str| graph[from].contains(to);
    // What is certain, so that a mistake in reading the sources shows.
    assert!(needs("conv3d", "conv_plan") && needs("conv3d", "launch") && needs("conv3d_backward", "conv_transpose3d"));
    // By the re-export of `concat`, and of the convolution's `Epilogue` under another name.
    assert!(needs("conv_block", "arithmetic"));
    let epilogue = ["ops", "ConvEpilogue"].map(String::from);
    assert_eq!(compute.definer(&epilogue), ["ops", "conv3d"]);
    assert!(graph.len() > 20 && graph["conv_problem"].is_empty(), "{graph:?}");
    assert_eq!(circle(&graph), None, "rooms that need one another");
}

/// A folder's `mod.rs` needs its files, so none of them may need what `mod.rs` itself defines.
#[test]
fn files_of_convolutions_need_one_another_in_one_direction() {
    let compute = Crate::compute();
    for room in ROOMS_OF_LAYERED_FILES {
        let inside = |module: &Module| module.len() > 1 && module[0] == "ops" && module[1] == room;
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let name = |module: &Module| module[1..].join("/");
        for module in compute.modules.keys().filter(|m| inside(m)) {
            let needed = compute.needs(module).into_iter().filter(|m| inside(m)).map(|m| name(&m)).collect::<Vec<_>>();
            graph.entry(name(module)).or_default().extend(needed);
            let parent = &module[..module.len() - 1].to_vec();
            if inside(parent) {
                graph.entry(name(parent)).or_default().insert(name(module));
            }
        }
        assert!(graph.len() > 1, "{room}: {graph:?}");
        assert_eq!(circle(&graph), None, "files of {room} that need one another");
    }
    let needs = |from: &[&str]| compute.needs(&from.iter().map(|&s| s.to_owned()).collect());
    let cost = needs(&["ops", "conv_plan", "cost"]);
    assert!(cost.contains(&["ops", "conv_plan", "plan"].map(str::to_owned)[..]), "{cost:?}");
}

#[test]
fn a_circle_is_found() {
    let graph = |edges: &[(u8, u8)]| {
        let mut graph: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        edges.iter().for_each(|&(from, to)| graph.entry(from).or_default().extend([to]));
        graph
    };
    assert_eq!(circle(&graph(&[(1, 2), (1, 3), (2, 4), (3, 4)])), None);
    assert_eq!(circle(&graph(&[(1, 2), (2, 3), (3, 4), (4, 2)])), Some(vec![2, 3, 4]));
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let (tree, rest) = paths("a::{b as x, c::{self, d}}; rest");
    let names: Vec<_> = tree.iter().map(|Named { path, name }| format!("{} as {name}", path.join(" "))).collect();
    assert_eq!((&names[..], rest), (&["a b as x", "a c self as self", "a c d as d"].map(String::from)[..], "; rest"));
    assert_eq!(paths("super::launch::fits(x)").0[0].path, ["super", "launch", "fits"]);
    let module = ["ops", "conv3d"].map(String::from);
    let found =
        reexports(&module, "mod gpu;\npub use gpu::{A, B as C};\npub(crate) use super::norm::D as E;\nuse super::F;");
    let found: Vec<_> = found.iter().map(|(name, path)| format!("{name}: {}", path.join(" "))).collect();
    assert_eq!(found, ["A: ops conv3d gpu A", "C: ops conv3d gpu B", "E: ops norm D"]);
}
