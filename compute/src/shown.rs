//! Text from files and arguments in messages.

/// Largest number of characters of a piece of a file in a message.
const MAX_SHOWN: usize = 60;
/// Largest number of characters of another library's message.
const MAX_MESSAGE: usize = 400;

/// Whether a character could move the cursor, change colours, begin a line or turn the direction of a terminal's text.
pub fn is_unprintable(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// A text from a file as it may stand in a message: its first 60 characters, without what a terminal would obey.
pub fn shown(text: &str) -> String {
    shortened(text, MAX_SHOWN)
}

/// The message of another library, which may contain text of a file, as [`shown`]: its first 400 characters.
pub fn shown_message(error: impl std::fmt::Display) -> String {
    shortened(&error.to_string(), MAX_MESSAGE)
}

fn shortened(text: &str, max: usize) -> String {
    let plain = |c| if is_unprintable(c) { '?' } else { c };
    let mut short: String = text.chars().take(max).map(plain).collect();
    if text.chars().nth(max).is_some() {
        short.push_str("...");
    }
    short
}

/// Several texts, separated by commas: the first eight, and the number of the others.
pub fn shown_list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    const MAX_TEXTS: usize = 8;
    let mut texts = texts.into_iter();
    let first: Vec<String> = texts.by_ref().take(MAX_TEXTS).map(|text| shown(text.as_ref())).collect();
    match texts.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_short_plain_text() {
        assert_eq!(shown("Tumour µ"), "Tumour µ");
        assert_eq!(shown("a\x1b[31mb\nc\u{202e}d"), "a?[31mb?c?d");
        assert_eq!(shown(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(shown(&"é".repeat(61)), "é".repeat(60) + "...");
        assert_eq!(shown_message("x\n".repeat(300)).len(), 403);
        assert_eq!(shown_list(["a", "b\t"]), "a, b?");
        assert_eq!(shown_list((0..10).map(|i| i.to_string())), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }
}
