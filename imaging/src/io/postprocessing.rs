//! nnU-Net's postprocessing, read as data: which labels keep their largest component only.
//!
//! `postprocessing.pkl` names a function and its arguments. Nothing in it is executed: any other function than that one is
//! refused. `postprocessing.json`, which nnU-Net writes beside it, says the same.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::weights::pickle::{Callable, Id, KEEP_LARGEST, Pickle, Purpose, Value};
use nephron_compute::error::{Error, Result};
use nephron_compute::shown;

/// Largest file in bytes; nnU-Net's take some hundred, and its JSON holds a table of figures.
const MAX_BYTES: usize = 16 << 20;
/// Largest number of steps and of labels of a step.
const MAX_ITEMS: usize = 4096;

/// A step: of the voxels that have one of the labels, all but those of the largest component become background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepLargest {
    /// The labels, together one set.
    pub labels: Vec<u8>,
    /// What the other voxels of the set become.
    pub background: u8,
}

/// The steps of a postprocessing.pkl or postprocessing.json, in the order in which they are applied; errors name the file `path`.
///
/// # Errors
/// [`Error::File`] for a file that is neither, names any other function, or has arguments that are not understood.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Vec<KeepLargest>> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::file(path, format!("takes {} bytes, expected at most {MAX_BYTES}", bytes.len())));
    }
    let is_json = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let steps = if is_json { from_json(bytes) } else { from_pickle(bytes) };
    steps.map_err(|reason| Error::file(path, reason))
}

/// The steps as postprocessing.json holds them.
pub fn to_json(steps: &[KeepLargest]) -> String {
    let argument =
        |step: &KeepLargest| serde_json::json!({"labels_or_regions": step.labels, "background_label": step.background});
    let arguments: Vec<Json> = steps.iter().map(argument).collect();
    let root = serde_json::json!({
        "postprocessing_fns": vec![KEEP_LARGEST; steps.len()],
        "postprocessing_kwargs": arguments,
    });
    format!("{root:#}\n")
}

fn from_pickle(bytes: &[u8]) -> Result<Vec<KeepLargest>, String> {
    let pickle = Pickle::read(bytes, Purpose::Postprocessing)?;
    let sequence = |value: &Value| match value {
        Value::Sequence(items) if items.len() <= MAX_ITEMS => Ok(items.clone()),
        _ => Err("is no postprocessing of nnU-Net: expected a list of functions and one of their arguments".to_owned()),
    };
    let root = sequence(pickle.root())?;
    let [functions, arguments] = root.as_slice() else {
        return Err(format!("holds {} values, expected functions and their arguments", root.len()));
    };
    let (functions, arguments) = (sequence(pickle.get(*functions))?, sequence(pickle.get(*arguments))?);
    if functions.len() != arguments.len() {
        return Err(format!("holds {} functions and arguments of {}", functions.len(), arguments.len()));
    }
    let step = |(function, arguments): (&Id, &Id)| match (pickle.get(*function), pickle.get(*arguments)) {
        (Value::Callable(Callable::KeepLargest), Value::Dict(pairs)) => {
            let mut named = Vec::new();
            for (name, value) in pairs {
                let Value::Text(name) = pickle.get(*name) else {
                    return Err("names an argument by no text".to_owned());
                };
                named.push((shown(name), labels_of(&pickle, *value, 2)?));
            }
            keep_largest(named)
        }
        _ => Err(format!("holds something else than {KEEP_LARGEST} and its arguments")),
    };
    functions.iter().zip(&arguments).map(step).collect()
}

/// The integers of a value: one, or lists of them, at most `depth` deep.
fn labels_of(pickle: &Pickle, id: Id, depth: usize) -> Result<Vec<i64>, String> {
    match pickle.get(id) {
        Value::Integer(label) => Ok(vec![*label]),
        Value::Sequence(items) if depth > 0 && items.len() <= MAX_ITEMS => {
            let mut labels = Vec::new();
            for item in items {
                labels.extend(labels_of(pickle, *item, depth - 1)?);
                if labels.len() > MAX_ITEMS {
                    return Err(format!("has more than {MAX_ITEMS} labels"));
                }
            }
            Ok(labels)
        }
        _ => Err("has an argument that is no label, region or list of them".into()),
    }
}

fn from_json(bytes: &[u8]) -> Result<Vec<KeepLargest>, String> {
    let root: Json = serde_json::from_slice(bytes).map_err(|e| format!("is not JSON: {e}"))?;
    let list = |name: &str| root.get(name).and_then(Json::as_array).ok_or_else(|| format!("has no list {name}"));
    let (functions, arguments) = (list("postprocessing_fns")?, list("postprocessing_kwargs")?);
    if functions.len() != arguments.len() || functions.len() > MAX_ITEMS {
        return Err(format!("holds {} functions and arguments of {}", functions.len(), arguments.len()));
    }
    let step = |(function, arguments): (&Json, &Json)| {
        if function.as_str() != Some(KEEP_LARGEST) {
            let found = shown(&function.to_string());
            return Err(format!("names the function {found}, expected {KEEP_LARGEST}: refused"));
        }
        let arguments = arguments.as_object().ok_or("has arguments that are no object")?;
        let mut named = Vec::new();
        for (name, value) in arguments {
            named.push((shown(name), json_labels(value, 2)?));
        }
        keep_largest(named)
    };
    functions.iter().zip(arguments).map(step).collect()
}

fn json_labels(value: &Json, depth: usize) -> Result<Vec<i64>, String> {
    match value {
        Json::Number(label) => {
            label.as_i64().map(|label| vec![label]).ok_or_else(|| "has a label that is no integer".into())
        }
        Json::Array(items) if depth > 0 && items.len() <= MAX_ITEMS => {
            let mut labels = Vec::new();
            for item in items {
                labels.extend(json_labels(item, depth - 1)?);
                if labels.len() > MAX_ITEMS {
                    return Err(format!("has more than {MAX_ITEMS} labels"));
                }
            }
            Ok(labels)
        }
        _ => Err("has an argument that is no label, region or list of them".into()),
    }
}

fn keep_largest(arguments: Vec<(String, Vec<i64>)>) -> Result<KeepLargest, String> {
    let label = |label: i64| u8::try_from(label).map_err(|_| format!("has the label {label}, expected 0 to 255"));
    let (mut found, mut background) = (None, 0);
    for (name, values) in arguments {
        let mut values = values.into_iter().map(label).collect::<Result<Vec<u8>, String>>()?;
        match (name.as_str(), values.as_slice()) {
            ("labels_or_regions", [_, ..]) => {
                values.sort_unstable();
                values.dedup();
                found = Some(values);
            }
            ("background_label", [only]) => background = *only,
            _ => return Err(format!("has the argument '{name}', expected labels_or_regions and background_label")),
        }
    }
    let labels = found.ok_or("has no labels_or_regions")?;
    Ok(KeepLargest { labels, background })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11 and NumPy 2 write for ([keep, keep], [{'labels_or_regions': [int64(1), int64(2)]},
    /// {'labels_or_regions': (2, 3), 'background_label': 1}]).
    const PICKLE: &[u8] = include_bytes!("../../tests/golden/postprocessing.pkl");

    fn read_bytes(bytes: &[u8]) -> Result<Vec<KeepLargest>> {
        read(Path::new("postprocessing.pkl"), bytes)
    }

    fn refused(bytes: &[u8]) -> String {
        let message = read_bytes(bytes).expect_err("refused").to_string();
        assert!(!message.contains('\n') && message.contains("postprocessing.pkl"), "{message}");
        message
    }

    #[test]
    fn nnunets_pickle_and_json_say_the_same() {
        let want =
            [KeepLargest { labels: vec![1, 2], background: 0 }, KeepLargest { labels: vec![2, 3], background: 1 }];
        assert_eq!(read_bytes(PICKLE).expect("a pickle"), want);
        let json = format!(
            r#"{{"postprocessing_fns": ["{KEEP_LARGEST}", "{KEEP_LARGEST}"], "input_folder": {{}}, "postprocessing_kwargs":
            [{{"labels_or_regions": [1, 2]}}, {{"labels_or_regions": [2, 3], "background_label": 1}}]}}"#
        );
        assert_eq!(read_bytes(json.as_bytes()).expect("json"), want);
        assert_eq!(read_bytes(to_json(&want).as_bytes()).expect("json"), want);
    }

    #[test]
    fn everything_else_is_refused_and_nothing_is_run() {
        for name in ["os\nsystem", "builtins\neval", "nnunetv2.postprocessing.remove_connected_components\nother"] {
            let pickle = format!("\u{80}\u{2}c{name}\n(tR.").chars().map(|c| c as u8).collect::<Vec<u8>>();
            assert!(refused(&pickle).contains("refused, and nothing was run"), "{}", refused(&pickle));
        }
        assert!(refused(b"\x80\x02K\x01.").contains("no postprocessing of nnU-Net"));
        for end in 0..PICKLE.len() {
            refused(&PICKLE[..end]);
        }
        let json = |functions: &str, arguments: &str| {
            refused(
                format!(r#"{{"postprocessing_fns": {functions}, "postprocessing_kwargs": {arguments}}}"#).as_bytes(),
            )
        };
        let keep = format!("[\"{KEEP_LARGEST}\"]");
        assert!(json("[\"dilate\"]", "[{}]").contains("names the function"));
        assert!(json(&keep, "[{}]").contains("no labels_or_regions"));
        assert!(json(&keep, "[]").contains("1 functions and arguments of 0"));
        assert!(json(&keep, r#"[{"labels_or_regions": [256]}]"#).contains("label 256"));
        assert!(json(&keep, r#"[{"labels_or_regions": [1], "radius": 2}]"#).contains("argument 'radius'"));
    }
}
