//! nnU-Net's names of the files of a case.

/// `case_001_0000` is channel 0 of case_001.
pub(crate) fn numbered(stem: &str) -> Option<(String, usize)> {
    let (name, number) = stem.rsplit_once('_')?;
    let four_digits = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
    Some((name.to_owned(), number.parse().ok()?)).filter(|(name, _)| four_digits && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_told_by_four_digits() {
        assert_eq!(numbered("case_001_0000"), Some(("case_001".into(), 0)));
        assert_eq!(numbered("a_0012"), Some(("a".into(), 12)));
        for plain in ["case_001", "case", "_0000", "a_00000", "a_+001"] {
            assert_eq!(numbered(plain), None, "{plain}");
        }
    }
}
