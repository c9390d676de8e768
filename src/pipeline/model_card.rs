//! The card of a model: what its maker says of it, in `model.json` beside its plans.

use serde::{Deserialize, Serialize};

use super::model_folder::ModelDir;
use crate::error::{Error, Result};
use crate::is_unprintable;

/// The file of a card.
pub(super) const FILE: &str = "model.json";
/// Largest number of characters of a field that are shown.
const MAX_SHOWN: usize = 500;

/// What the maker of a model says of it. Every field is bounded and free of control characters when it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The images and labels that it was trained on.
    #[serde(default)]
    pub trained_on: Option<String>,
    /// The images that it is meant for.
    #[serde(default)]
    pub intended_input: Option<String>,
    /// The licence of its weights.
    #[serde(default)]
    pub licence: Option<String>,
    /// What everybody who looks at a result must know; it is a warning of every scan.
    #[serde(default)]
    pub notes: Option<String>,
}

impl ModelCard {
    /// The card in the first of these folders that has one.
    ///
    /// # Errors
    /// A file that is no JSON object of texts.
    pub(super) fn find(folders: &[&ModelDir]) -> Result<Option<Self>> {
        let Some(folder) = folders.iter().find(|folder| folder.is_file(FILE)) else { return Ok(None) };
        let path = folder.path().join(FILE);
        let bytes = folder.read(FILE)?;
        // An object first: serde takes a list of values for a struct, too.
        let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes);
        let card: Self = object.and_then(|object| serde_json::from_value(object.into())).map_err(|e| {
            let expected =
                "is no model card: expected an object with the texts trained_on, intended_input, licence, notes";
            Error::file(&path, format!("{expected} ({})", plain(&e.to_string())))
        })?;
        let text = |text: Option<String>| text.map(|text| plain(&text)).filter(|text| !text.is_empty());
        Ok(Some(Self {
            trained_on: text(card.trained_on),
            intended_input: text(card.intended_input),
            licence: text(card.licence),
            notes: text(card.notes),
        }))
    }

    /// The fields that have a text, each with its name.
    pub fn lines(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("trained on", &self.trained_on),
            ("intended input", &self.intended_input),
            ("licence", &self.licence),
            ("notes", &self.notes),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?))).collect()
    }

    /// The warning of every scan.
    pub(super) fn warning(&self) -> Option<String> {
        self.notes.as_ref().map(|notes| format!("the model says: {notes}"))
    }
}

/// A text of a file on one line: bounded, without control characters and those that change the direction of text.
fn plain(text: &str) -> String {
    // A joiner or a mark of zero width hides or joins what is read.
    let is_hidden = |c: char| is_unprintable(c) || matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}');
    let mut shown: String = text.trim().chars().take(MAX_SHOWN).map(|c| if is_hidden(c) { ' ' } else { c }).collect();
    if text.trim().chars().nth(MAX_SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(text: &str) -> Result<Option<ModelCard>> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), text).expect("written");
        ModelCard::find(&[&ModelDir::open(folder.path()).expect("a folder")])
    }

    #[test]
    fn texts_are_bounded_and_without_control_characters() {
        let found = card(r#"{"trained_on": " KiTS\u001b[31m\n\u202e21 ", "licence": "", "notes": null, "version": 3}"#);
        let found = found.expect("read").expect("a card");
        assert_eq!(found.lines(), [("trained on", "KiTS [31m  21")]);
        let long = card(&format!(r#"{{"notes": "{}"}}"#, "é".repeat(9000))).expect("read").expect("a card");
        assert_eq!(long.notes.as_ref().map(|n| n.chars().count()), Some(MAX_SHOWN + 3));
        assert!(long.warning().expect("notes").starts_with("the model says: é"));
    }

    #[test]
    fn what_is_no_card_is_refused() {
        for text in ["", "[]", "{\"notes\": 3}", "null"] {
            let message = card(text).expect_err(text).to_string();
            assert!(message.contains("model.json") && !message.contains('\n'), "{message}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(ModelCard::find(&[&ModelDir::open(folder.path()).expect("a folder")]).expect("none"), None);
    }
}
