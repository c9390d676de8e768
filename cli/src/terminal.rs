//! Text that reaches the terminal. Names, labels and messages may come from files: what a terminal would obey (colours, cursor,
//! direction of the text) is replaced, and a message is one line of bounded length.

use std::borrow::Cow;
use std::fmt::Write;

use nephron::is_unprintable;

/// Number of characters of a message that are kept at its beginning, where the file is named, and at its end, where the reason is.
const HEAD: usize = 1000;
const TAIL: usize = 400;

/// The text with `?` for every character that a terminal would obey, line breaks included.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if is_unprintable(c) { '?' } else { c }).collect())
}

/// As [`plain`], without the middle of a text of more than 1,400 characters.
pub(super) fn message(text: &str) -> Cow<'_, str> {
    let count = text.chars().count();
    if count <= HEAD + TAIL {
        return plain(text);
    }
    let head: String = text.chars().take(HEAD).collect();
    let tail: String = text.chars().skip(count - TAIL).collect();
    Cow::Owned(plain(&format!("{head} ... {tail}")).into_owned())
}

/// JSON whose texts have such characters as escapes, which a reader of JSON turns back into the same text.
pub(super) fn plain_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            // All of them lie in the first plane. Writing to a `String` cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_plain_and_short() {
        assert_eq!(plain("kidney µ 1.5 ml"), "kidney µ 1.5 ml");
        assert_eq!(message("a\x1b[31mb\r\nc\u{202e}"), "a?[31mb??c?");
        let long = format!("file.csv: {}the reason", "é".repeat(100_000));
        let short = message(&long);
        assert!(short.starts_with("file.csv: é") && short.ends_with("the reason") && short.chars().count() < 1500);
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({"a\u{7f}": "b\u{202e}\u{9b}31m\n"});
        let text = value.to_string();
        let escaped = plain_json(&text);
        assert!(!escaped.contains(is_unprintable), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).expect("JSON"), value);
    }
}
