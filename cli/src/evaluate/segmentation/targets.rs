//! What is compared: labels, and regions made of several.

use std::path::Path;

use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::io::read_small;
use nephron::volume::{TUMOUR, WHOLE_KIDNEY};
use nephron::{shown, shown_message};

/// A name and the values of the masks that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) labels: Vec<u8>,
}

impl Target {
    fn new(name: &str, labels: &[u8]) -> Self {
        Self { name: name.to_owned(), labels: labels.to_vec() }
    }
}

/// The kidney with its tumour, and the tumour, of masks with 1 for kidney and 2 for tumour.
pub(super) fn kidneys() -> Vec<Target> {
    vec![Target::new("kidney_with_tumour", &WHOLE_KIDNEY), Target::new("tumour", &[TUMOUR])]
}

/// The classes that the KiTS challenges rank by, of masks with 1 for kidney, 2 for tumour and 3 for cyst.
pub(super) fn kits() -> Vec<Target> {
    let classes: [(&str, &[u8]); 3] = [("kidney_and_masses", &[1, 2, 3]), ("masses", &[2, 3]), ("tumour", &[2])];
    classes.map(|(name, labels)| Target::new(name, labels)).to_vec()
}

/// The labels and regions of nnU-Net's dataset.json but the background and the ignore label.
pub(super) fn of_dataset(path: &Path) -> Result<Vec<Target>> {
    let root: serde_json::Value =
        serde_json::from_slice(&read_small(path)?).map_err(|e| LibraryError::io(path, "is not JSON", e))?;
    let wrong = |reason: String| Error::from(LibraryError::file(path, reason));
    let labels = root.get("labels").and_then(|l| l.as_object());
    let labels = labels.ok_or_else(|| wrong("expected an object 'labels', found none".into()))?;
    let mut targets = Vec::new();
    for (name, value) in labels.iter().filter(|(name, _)| *name != "background" && *name != "ignore") {
        let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        let label = |v: &serde_json::Value| v.as_u64().and_then(|v| u8::try_from(v).ok());
        let labels = list.iter().map(label).collect::<Option<Vec<u8>>>().filter(|labels| !labels.is_empty());
        let labels = labels.ok_or_else(|| {
            let (name, found) = (shown(name), shown_message(value));
            wrong(format!("labels.{name}: expected labels from 0 to 255, found {found}"))
        })?;
        targets.push(Target { name: name.clone(), labels });
    }
    if targets.is_empty() {
        Err(wrong("expected a label beside the background, found none".into()))
    } else {
        Ok(targets)
    }
}

/// `name=1,2`, as `--label` has it.
pub(super) fn parse(text: &str) -> Result<Target, String> {
    let expected = || format!("expected a name and its labels, such as kidney=1,2, found '{text}'");
    let (name, labels) = text.split_once('=').ok_or_else(expected)?;
    let labels = labels.split(',').map(|label| label.trim().parse()).collect::<Result<Vec<u8>, _>>();
    match labels {
        Ok(labels) if !name.is_empty() => Ok(Target { name: name.to_owned(), labels }),
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_from_the_command_or_from_dataset_json() {
        assert_eq!(parse("kidney=1, 2"), Ok(Target::new("kidney", &[1, 2])));
        for wrong in ["kidney", "=1", "a=", "a=300", "a=x"] {
            assert!(parse(wrong).expect_err("refused").contains(wrong), "{wrong}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dataset.json");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write(r#"{"labels": {"background": 0, "kidney": [1, 2, 3], "tumor": 2, "ignore": 4}}"#);
        assert_eq!(of_dataset(&path).expect("labels"), [Target::new("kidney", &[1, 2, 3]), Target::new("tumor", &[2])]);
        for (text, part) in [
            ("[]", "'labels'"),
            (r#"{"labels": {"background": 0}}"#, "beside the background"),
            (r#"{"labels": {"a": -1}}"#, "labels.a"),
        ] {
            write(text);
            let message = of_dataset(&path).expect_err("refused").to_string();
            assert!(message.contains(part) && message.contains("dataset.json"), "{message}");
        }
    }
}
