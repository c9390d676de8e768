//! Reading values out of a JSON file with errors that name the file, the key, what was expected and what was found.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::io::read_small;
use crate::{shown, shown_message};

/// A parsed JSON file.
pub(crate) struct JsonFile {
    path: PathBuf,
    root: Value,
}

impl JsonFile {
    /// Reads and parses a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::parse(path, &read_small(path)?)
    }

    /// Parses the bytes of a file; errors name it `path`.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let root = serde_json::from_slice(bytes).map_err(|e| Error::io(path, "is not JSON", e))?;
        Ok(Self { path: path.to_path_buf(), root })
    }

    /// The parsed contents.
    pub(crate) fn value(&self) -> &Value {
        &self.root
    }

    /// The outermost value.
    pub(crate) fn root(&self) -> Node<'_> {
        Node { file: &self.path, key: String::new(), value: &self.root }
    }
}

/// A value with its file and its key.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    file: &'a Path,
    key: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// A value that stands at `key` of `file`.
    pub(crate) fn at(file: &'a Path, key: String, value: &'a Value) -> Self {
        Self { file, key, value }
    }

    /// The file it stands in.
    pub(crate) fn file(&self) -> &'a Path {
        self.file
    }

    /// An object.
    pub(crate) fn object(&self) -> Result<&'a serde_json::Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.mismatch("an object"))
    }

    /// The value under `name`, refused when there is none.
    pub(crate) fn key(&self, name: &str) -> Result<Self> {
        let value =
            self.value.get(name).ok_or_else(|| Error::file(self.file, format!("{} is missing", self.key_of(name))))?;
        Ok(Self { file: self.file, key: self.key_of(name), value })
    }

    /// The value of the key `name`; None where it is missing or null.
    pub(crate) fn optional(&self, name: &str) -> Option<Self> {
        self.key(name).ok().filter(|node| !node.value.is_null())
    }

    /// Whether there is a value under `name`, null included.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some()
    }

    fn key_of(&self, name: &str) -> String {
        if self.key.is_empty() { shown(name) } else { format!("{}.{}", self.key, shown(name)) }
    }

    /// The error that another value was expected.
    pub(crate) fn mismatch(&self, expected: impl std::fmt::Display) -> Error {
        let found = shown_message(self.value);
        let key = if self.key.is_empty() { "the file" } else { &self.key };
        Error::file(self.file, format!("{key}: expected {expected}, found {found}"))
    }

    /// The value as a whole number of at least 0.
    pub(crate) fn count(&self) -> Result<usize> {
        let number = self.value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| self.mismatch("a whole number of at least 0"))
    }

    /// The value as a finite number.
    pub(crate) fn number(&self) -> Result<f64> {
        self.value.as_f64().filter(|v| v.is_finite()).ok_or_else(|| self.mismatch("a finite number"))
    }

    /// The value as true or false.
    pub(crate) fn boolean(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.mismatch("true or false"))
    }

    /// The value as a text.
    pub(crate) fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.mismatch("a text"))
    }

    /// Whether the value is a list.
    pub(crate) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// The elements of the value, a list.
    pub(crate) fn list(&self) -> Result<Vec<Self>> {
        let values = self.value.as_array().ok_or_else(|| self.mismatch("a list"))?;
        let element = |(i, value)| Self { file: self.file, key: format!("{}[{i}]", self.key), value };
        Ok(values.iter().enumerate().map(element).collect())
    }

    /// The elements of the value, a list of three with one for each axis.
    pub(crate) fn triple<T>(&self, read: impl Fn(&Self) -> Result<T>) -> Result<[T; 3]> {
        let values = self.list()?.iter().map(read).collect::<Result<Vec<T>>>()?;
        values.try_into().map_err(|_| self.mismatch("a list of three, one for each axis"))
    }

    /// A list of two, one for each axis of a plane.
    pub(crate) fn pair<T>(&self, read: impl Fn(&Self) -> Result<T>) -> Result<[T; 2]> {
        let values = self.list()?.iter().map(read).collect::<Result<Vec<T>>>()?;
        values.try_into().map_err(|_| self.mismatch("a list of two, one for each axis"))
    }

    /// Refuses an object that has other members than `known`: a setting that is not understood must not be passed over.
    pub(crate) fn expect_keys(&self, known: &[&str]) -> Result<()> {
        match self.members()?.into_iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((_, member)) => Err(member.mismatch(format!("none of this key (known here: {})", known.join(", ")))),
        }
    }

    /// The members of an object, in the file's order.
    pub(crate) fn members(&self) -> Result<Vec<(&'a str, Self)>> {
        let object = self.object()?;
        let member = |(name, value): (&'a String, &'a Value)| {
            (name.as_str(), Self { file: self.file, key: self.key_of(name), value })
        };
        Ok(object.iter().map(member).collect())
    }
}
