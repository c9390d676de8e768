//! The subtypes of patients: from a table, or from the truth that `nephron phantom` writes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Result;
use nephron::error::Error as LibraryError;
use nephron::io::read_small;
use nephron::phase::Subtype;
use nephron::shown;

/// The table of a data set.
const TABLE: &str = "subtypes.csv";
/// The truth of a phantom.
const TRUTH: &str = "truth.json";

/// Where subtypes are looked up.
pub(super) enum Subtypes {
    /// A table with its subtypes by patient.
    Table(PathBuf, HashMap<String, Subtype>),
    /// The patients' own truth.json.
    Truth,
}

impl Subtypes {
    /// The table that is given, or that of the data set, or none.
    ///
    /// # Errors
    /// A file that is no table with the columns patient and subtype; an unknown subtype; a patient who occurs twice.
    pub(super) fn of(dataset: &Path, given: Option<&Path>) -> Result<Self> {
        let own = dataset.join(TABLE);
        match given {
            Some(path) => Self::read(path),
            None if own.is_file() => Self::read(&own),
            None => Ok(Self::Truth),
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let failed = |e: csv::Error| LibraryError::io(path, "is not a CSV table", e);
        let bytes = read_small(path)?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice());
        let head = reader.headers().map_err(failed)?.clone();
        let column = |name: &str| {
            let found = head.iter().position(|own| own.eq_ignore_ascii_case(name));
            let names: Vec<String> = head.iter().map(shown).collect();
            found.ok_or_else(|| {
                LibraryError::file(path, format!("expected a column '{name}', found {}", names.join(", ")))
            })
        };
        let (patient, subtype) = (column("patient")?, column("subtype")?);
        let mut table = HashMap::new();
        for (number, row) in (1..).zip(reader.records()) {
            let row = row.map_err(failed)?;
            let name = row.get(patient).unwrap_or_default();
            let parsed = row.get(subtype).unwrap_or_default().parse::<Subtype>();
            let parsed = parsed.map_err(|e| LibraryError::file(path, format!("row {number}: {e}")))?;
            if table.insert(name.to_owned(), parsed).is_some() {
                let reason = format!("row {number}: expected each patient once, found {} twice", shown(name));
                return Err(LibraryError::file(path, reason).into());
            }
        }
        Ok(Self::Table(path.to_path_buf(), table))
    }

    /// The subtype of the patient of this name, whose scans are in `folder`.
    ///
    /// # Errors
    /// A patient without one.
    pub(super) fn get(&self, name: &str, folder: &Path) -> Result<Subtype> {
        match self {
            Self::Table(path, table) => Ok(*table.get(name).ok_or_else(|| {
                LibraryError::file(path, format!("expected a row with the subtype of {}, found none", shown(name)))
            })?),
            Self::Truth => {
                let path = folder.join(TRUTH);
                if !path.is_file() {
                    let reason = format!("is missing: expected the patient's subtype there or in a {TABLE}");
                    return Err(LibraryError::file(&path, reason).into());
                }
                let failed = |e: serde_json::Error| LibraryError::io(&path, "is no JSON", e);
                let truth: Value = serde_json::from_slice(&read_small(&path)?).map_err(failed)?;
                let text = truth["subtype"]
                    .as_str()
                    .ok_or_else(|| LibraryError::file(&path, "expected a text \"subtype\", found none".to_owned()))?;
                Ok(text.parse::<Subtype>().map_err(|e| LibraryError::file(&path, format!("{e}")))?)
            }
        }
    }
}
