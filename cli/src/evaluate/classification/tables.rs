//! Reading the CSV files of scores, true classes and readers. Errors name the file, the line, and what was expected and found.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::phase::Subtype;
use nephron::pipeline::diagnose::read_result;
use nephron::pipeline::lesion_results::Findings;

/// Largest deviation from 1 of the sum of a case's scores, which allows for rounding in files.
const SUM: f64 = 1e-3;

/// Cases with their scores and true classes.
#[derive(Debug)]
pub(super) struct Cohort {
    pub classes: Vec<String>,
    pub cases: Vec<String>,
    /// The index of each case's true class.
    pub truth: Vec<usize>,
    /// The scores: one row for each case, one column for each class.
    pub scores: Vec<Vec<f64>>,
}

/// The diagnoses of one reader.
#[derive(Debug)]
pub(super) struct Reader {
    pub name: String,
    /// The index of the case, the first diagnosis and the second, where there is one.
    pub answers: Vec<(usize, usize, Option<usize>)>,
}

pub(super) struct Table {
    path: PathBuf,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(path: &Path) -> Result<Self> {
        let failed = |e: csv::Error| LibraryError::io(path, "is not a CSV table", e);
        let file = File::open(path).map_err(|e| LibraryError::io(path, "cannot be read", e))?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
        let head = reader.headers().map_err(failed)?.iter().map(str::to_owned).collect();
        let rows = reader.records().map(|r| Ok(r.map_err(failed)?.iter().map(str::to_owned).collect()));
        Ok(Self { path: path.to_path_buf(), head, rows: rows.collect::<Result<_>>()? })
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.head.iter().position(|h| h.eq_ignore_ascii_case(name))
    }

    fn need(&self, name: &str) -> Result<usize> {
        let found =
            || LibraryError::file(&self.path, format!("expected a column '{name}', found {}", self.head.join(", ")));
        Ok(self.column(name).ok_or_else(found)?)
    }

    /// An error in row `row`, counted from 0.
    fn wrong(&self, row: usize, reason: String) -> Error {
        LibraryError::file(&self.path, format!("row {}: {reason}", row + 1)).into()
    }
}

/// The part of a result of `diagnose` or `classify` that is needed here.
#[derive(Deserialize)]
struct Scores {
    classes: Vec<Subtype>,
    #[serde(flatten)]
    findings: Findings,
}

/// The scores in results of `diagnose`, and the cases without scores, with the reason.
pub(super) fn from_results(files: &[PathBuf]) -> Result<(Table, Vec<(String, String)>)> {
    let (mut head, mut rows, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let Scores { classes, findings } = read_result(file)?;
        let case = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let own: Vec<String> =
            std::iter::once("case".to_owned()).chain(classes.iter().map(Subtype::to_string)).collect();
        if head.is_empty() {
            head = own;
        } else if head != own {
            let [expected, found] = [&head, &own].map(|h| h[1..].join(", "));
            return Err(LibraryError::file(file, format!("expected the classes {expected}, found {found}")).into());
        }
        match findings.classification {
            Some(found) => {
                let scores = found.probabilities.iter().map(f32::to_string);
                rows.push(std::iter::once(case).chain(scores).collect());
            }
            None => without.push((case, findings.not_classified.unwrap_or_else(|| "no tumour was found".into()))),
        }
    }
    let path = files.first().and_then(|f| f.parent()).unwrap_or(Path::new("")).to_path_buf();
    Ok((Table { path, head, rows }, without))
}

/// The index of a class from its name, in upper or lower case, or its number from 0.
fn class(text: &str, classes: &[String]) -> Result<usize, String> {
    let by_name = classes.iter().position(|c| c.eq_ignore_ascii_case(text));
    let by_number = || text.parse::<usize>().ok().filter(|i| *i < classes.len());
    by_name.or_else(by_number).ok_or_else(|| format!("expected one of {}, found '{text}'", classes.join(", ")))
}

impl Cohort {
    /// Reads scores, with the true classes in a column of the same file or in a file of their own.
    pub(super) fn read(scores: &Path, truth: Option<&Path>) -> Result<Self> {
        Self::from_table(&Table::read(scores)?, truth)
    }

    /// As [`Self::read`], from a table of scores that was read before.
    pub(super) fn from_table(table: &Table, truth: Option<&Path>) -> Result<Self> {
        let scores = &table.path;
        let (case, own) = (table.need("case")?, table.column("truth"));
        let columns: Vec<usize> = (0..table.head.len()).filter(|&i| i != case && Some(i) != own).collect();
        if columns.len() < 2 {
            let found = table.head.join(", ");
            return Err(LibraryError::file(
                scores,
                format!("expected a column for each of two classes or more, found {found}"),
            )
            .into());
        }
        let classes: Vec<String> = columns.iter().map(|&i| table.head[i].clone()).collect();
        let mut cohort = Self { classes, cases: Vec::new(), truth: Vec::new(), scores: Vec::new() };
        let known = match (truth, own) {
            (Some(path), None) => Some((path, truths(path, &cohort.classes)?)),
            (None, Some(_)) => None,
            (Some(path), Some(_)) => {
                return Err(
                    LibraryError::file(path, format!("{} has a column 'truth' already", scores.display())).into()
                );
            }
            (None, None) => {
                return Err(LibraryError::file(scores, "expected a column 'truth', or a file with it (--truth)").into());
            }
        };
        let mut seen = HashMap::new();
        for (row, cells) in table.rows.iter().enumerate() {
            let name = &cells[case];
            if let Some(first) = seen.insert(name.clone(), row) {
                return Err(table.wrong(row, format!("case '{name}' is in row {} already", first + 1)));
            }
            let truth = match (&known, own) {
                (Some((path, truths)), _) => *truths.get(name).ok_or_else(|| {
                    LibraryError::file(
                        path,
                        format!("expected the truth of case '{name}' of {}, found none", scores.display()),
                    )
                })?,
                (None, Some(column)) => class(&cells[column], &cohort.classes).map_err(|e| table.wrong(row, e))?,
                (None, None) => 0,
            };
            let mut values = Vec::new();
            for (&column, class) in columns.iter().zip(&cohort.classes) {
                let value: f64 = cells[column].parse().unwrap_or(f64::NAN);
                if !(0.0..=1.0).contains(&value) {
                    let reason = format!("{class}: expected a probability between 0 and 1, found '{}'", cells[column]);
                    return Err(table.wrong(row, reason));
                }
                values.push(value);
            }
            let sum: f64 = values.iter().sum();
            if (sum - 1.0).abs() > SUM {
                return Err(table.wrong(row, format!("expected probabilities that add up to 1, found {sum}")));
            }
            cohort.cases.push(name.clone());
            cohort.truth.push(truth);
            cohort.scores.push(values);
        }
        match cohort.truth.first() {
            None => Err(LibraryError::file(scores, "expected at least one case, found none").into()),
            Some(first) if cohort.truth.iter().all(|t| t == first) => Err(LibraryError::file(
                truth.unwrap_or(scores),
                format!("expected two classes or more in the truth, found only {}", cohort.classes[*first]),
            )
            .into()),
            Some(_) => Ok(cohort),
        }
    }

    /// Reads the readers, in the order in which they first occur.
    pub(super) fn readers(&self, path: &Path) -> Result<Vec<Reader>> {
        let table = Table::read(path)?;
        let (case, reader, first) = (table.need("case")?, table.need("reader")?, table.need("first")?);
        let second = table.column("second");
        let cases: HashMap<&str, usize> = self.cases.iter().enumerate().map(|(i, c)| (c.as_str(), i)).collect();
        let mut readers: Vec<Reader> = Vec::new();
        for (row, cells) in table.rows.iter().enumerate() {
            let Some(&index) = cases.get(cells[case].as_str()) else {
                return Err(table.wrong(row, format!("expected a case of the scores, found '{}'", cells[case])));
            };
            let answer = |text: &str| class(text, &self.classes).map_err(|e| table.wrong(row, e));
            let given = second.map(|s| cells[s].as_str()).filter(|s| !s.is_empty());
            let answer = (index, answer(&cells[first])?, given.map(answer).transpose()?);
            let name = &cells[reader];
            let place = readers.iter().position(|r| r.name == *name).unwrap_or_else(|| {
                readers.push(Reader { name: name.clone(), answers: Vec::new() });
                readers.len() - 1
            });
            if readers[place].answers.iter().any(|(i, ..)| *i == index) {
                return Err(table.wrong(row, format!("reader '{name}' has answered case '{}' already", cells[case])));
            }
            readers[place].answers.push(answer);
        }
        if readers.is_empty() {
            return Err(LibraryError::file(path, "expected at least one answer, found none").into());
        }
        Ok(readers)
    }

    /// Whether each case has the true class `class`.
    pub(super) fn positive(&self, class: usize) -> Vec<bool> {
        self.truth.iter().map(|t| *t == class).collect()
    }

    /// The score of each case for class `class`.
    pub(super) fn column(&self, class: usize) -> Vec<f64> {
        self.scores.iter().map(|row| row[class]).collect()
    }
}

fn truths(path: &Path, classes: &[String]) -> Result<HashMap<String, usize>> {
    let table = Table::read(path)?;
    let (case, truth) = (table.need("case")?, table.need("truth")?);
    let mut found = HashMap::new();
    for (row, cells) in table.rows.iter().enumerate() {
        let class = class(&cells[truth], classes).map_err(|e| table.wrong(row, e))?;
        if found.insert(cells[case].clone(), class).is_some_and(|before| before != class) {
            return Err(table.wrong(row, format!("case '{}' has another truth above", cells[case])));
        }
    }
    Ok(found)
}
