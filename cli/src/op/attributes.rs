//! `--attr k=v`: the attributes of an op. One that the op does not have is an error.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::str::FromStr;

use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::ops::Channels;

/// The attributes of one call. Each getter records that its name was requested.
pub(super) struct Attributes {
    given: BTreeMap<String, String>,
    known: RefCell<Vec<&'static str>>,
}

impl Attributes {
    pub(super) fn parse(pairs: &[String]) -> Result<Self> {
        let mut given = BTreeMap::new();
        for pair in pairs {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| Error::Usage(format!("--attr takes NAME=VALUE, found '{pair}'")))?;
            if given.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(Error::Usage(format!("attribute '{name}' is given twice")));
            }
        }
        Ok(Self { given, known: RefCell::default() })
    }

    fn text(&self, name: &'static str) -> Option<&str> {
        self.known.borrow_mut().push(name);
        self.given.get(name).map(String::as_str)
    }

    /// The value of an attribute, or `default`.
    pub(super) fn value<T: FromStr>(&self, name: &'static str, default: T) -> Result<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.trim().parse().map_err(|_| unreadable(name, std::any::type_name::<T>(), text)),
        }
    }

    /// Sets of labels such as `2/1,2`, or the default ones.
    pub(super) fn channels(&self, name: &'static str) -> Result<Channels> {
        let Some(text) = self.text(name) else { return Ok(Channels::default()) };
        text.parse().map_err(|e: LibraryError| Error::Usage(format!("attribute '{name}' is '{text}': {e}")))
    }

    /// `N` numbers `a,b,c`, or one number for all of them; or `default`.
    pub(super) fn list<const N: usize>(&self, name: &'static str, default: [usize; N]) -> Result<[usize; N]> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let wanted = format!("{N} whole numbers as a,b,c");
        let numbers: Vec<usize> = text
            .split(',')
            .map(|t| t.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|_| unreadable(name, &wanted, text))?;
        match numbers.as_slice() {
            [one] => Ok([*one; N]),
            many => many.try_into().map_err(|_| unreadable(name, &wanted, text)),
        }
    }

    /// `N` numbers that must be given.
    pub(super) fn required_list<const N: usize>(&self, name: &'static str) -> Result<[usize; N]> {
        if !self.given.contains_key(name) {
            return Err(Error::Usage(format!("attribute '{name}' is needed: --attr {name}=a,b,c")));
        }
        self.list(name, [0; N])
    }

    /// One of several words, or `default`.
    pub(super) fn choice<T: Copy>(&self, name: &'static str, words: &[(&str, T)], default: T) -> Result<T> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let list = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join("|");
        words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| unreadable(name, &list(), text))
    }

    /// Checks that the op has requested every attribute that was given.
    ///
    /// # Errors
    /// [`Error::Usage`] for an attribute that it does not have.
    pub(super) fn ensure_all_known(&self, op: &str) -> Result<()> {
        let known = self.known.borrow();
        match self.given.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let list = if known.is_empty() { "none".into() } else { known.join(", ") };
                Err(Error::Usage(format!("{op} has no attribute '{name}' (it takes: {list})")))
            }
        }
    }
}

fn unreadable(name: &str, expected: &str, found: &str) -> Error {
    Error::Usage(format!("attribute '{name}': expected {expected}, found '{found}'"))
}
