//! Reading the CSV files of scores, true classes and readers. Errors name the file, the line, and what was expected and found.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::io::read_small;
use nephron::phase::Subtype;
use nephron::pipeline::diagnose::read_result;
use nephron::pipeline::lesion_results::Findings;
use nephron::{shown, shown_list};

/// Deviation from 1 of the sum of a case's scores that is always allowed.
const SUM: f64 = 1e-3;
/// The largest that rounding may explain: with more, the numbers are no probabilities.
const MAX_ROUNDING: f64 = 0.05;

/// How far the sum of these scores may be from 1: each was rounded by at most half a unit of the last digit that is written.
fn rounding<'a>(cells: impl Iterator<Item = &'a str> + Clone) -> f64 {
    let decimals = |cell: &str| cell.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    // Trailing zeros may be left out: the longest number tells.
    let digits = cells.clone().map(decimals).max().unwrap_or(0);
    let each = 0.5 * 10f64.powi(-(digits.min(16) as i32));
    (each * cells.count() as f64).clamp(SUM, MAX_ROUNDING) + 1e-9
}

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
    /// The file of each row: that of the table, or a result of its own.
    files: Vec<PathBuf>,
}

impl Table {
    fn read(path: &Path) -> Result<Self> {
        let failed = |e: csv::Error| LibraryError::io(path, "is not a CSV table", e);
        let bytes = read_small(path)?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice());
        let head: Vec<String> = reader.headers().map_err(failed)?.iter().map(str::to_owned).collect();
        ensure_different(path, "column", &head)?;
        let rows = reader.records().map(|r| Ok(r.map_err(failed)?.iter().map(str::to_owned).collect()));
        let rows: Vec<Vec<String>> = rows.collect::<Result<_>>()?;
        let files = vec![path.to_path_buf(); rows.len()];
        Ok(Self { path: path.to_path_buf(), head, rows, files })
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.head.iter().position(|h| h.eq_ignore_ascii_case(name))
    }

    fn need(&self, name: &str) -> Result<usize> {
        let found =
            || LibraryError::file(&self.path, format!("expected a column '{name}', found {}", shown_list(&self.head)));
        Ok(self.column(name).ok_or_else(found)?)
    }

    /// An error in row `row`, counted from 0.
    fn wrong(&self, row: usize, reason: String) -> Error {
        let place = if self.files[row] == self.path { format!("row {}: ", row + 1) } else { String::new() };
        LibraryError::file(&self.files[row], format!("{place}{reason}")).into()
    }
}

/// Refuses a name that occurs twice, whatever the case of its letters: it would be unclear which of the two is meant.
fn ensure_different(path: &Path, what: &str, names: &[String]) -> Result<()> {
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.to_ascii_lowercase())) {
        None => Ok(()),
        Some(name) => {
            Err(LibraryError::file(path, format!("expected each {what} once, found '{}' twice", shown(name))).into())
        }
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
    let (mut head, mut rows, mut sources, mut without) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let Scores { classes, findings } = read_result(file)?;
        let case = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let own: Vec<String> =
            std::iter::once("case".to_owned()).chain(classes.iter().map(Subtype::to_string)).collect();
        if head.is_empty() {
            ensure_different(file, "class", &own[1..])?;
            head = own;
        } else if head != own {
            let [expected, found] = [&head, &own].map(|h| shown_list(&h[1..]));
            return Err(LibraryError::file(file, format!("expected the classes {expected}, found {found}")).into());
        }
        match findings.classification {
            Some(found) if found.probabilities.len() != classes.len() => {
                let (expected, found) = (classes.len(), found.probabilities.len());
                let reason = format!("expected {expected} probabilities, one for each class, found {found}");
                return Err(LibraryError::file(file, reason).into());
            }
            Some(found) => {
                let scores = found.probabilities.iter().map(f32::to_string);
                rows.push(std::iter::once(case).chain(scores).collect());
                sources.push(file.clone());
            }
            None => without.push((case, findings.not_classified.unwrap_or_else(|| "no tumour was found".into()))),
        }
    }
    let path = files.first().and_then(|f| f.parent()).unwrap_or(Path::new("")).to_path_buf();
    Ok((Table { path, head, rows, files: sources }, without))
}

/// The index of a class from its name, in upper or lower case, or its number from 0.
fn class(text: &str, classes: &[String]) -> Result<usize, String> {
    let by_name = classes.iter().position(|c| c.eq_ignore_ascii_case(text));
    let by_number = || text.parse::<usize>().ok().filter(|i| *i < classes.len());
    by_name
        .or_else(by_number)
        .ok_or_else(|| format!("expected one of {}, found '{}'", shown_list(classes), shown(text)))
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
            let found = shown_list(&table.head);
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
                return Err(table.wrong(row, format!("case '{}' is in row {} already", shown(name), first + 1)));
            }
            let truth = match (&known, own) {
                (Some((path, truths)), _) => *truths.get(name).ok_or_else(|| {
                    LibraryError::file(
                        path,
                        format!("expected the truth of case '{}' of {}, found none", shown(name), scores.display()),
                    )
                })?,
                (None, Some(column)) => class(&cells[column], &cohort.classes).map_err(|e| table.wrong(row, e))?,
                (None, None) => 0,
            };
            let mut values = Vec::new();
            for (&column, class) in columns.iter().zip(&cohort.classes) {
                let value: f64 = cells[column].parse().unwrap_or(f64::NAN);
                if !(0.0..=1.0).contains(&value) {
                    let (class, found) = (shown(class), shown(&cells[column]));
                    let reason = format!("{class}: expected a probability between 0 and 1, found '{found}'");
                    return Err(table.wrong(row, reason));
                }
                values.push(value);
            }
            let sum: f64 = values.iter().sum();
            if (sum - 1.0).abs() > rounding(columns.iter().map(|&column| cells[column].as_str())) {
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
                format!("expected two classes or more in the truth, found only {}", shown(&cohort.classes[*first])),
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
                return Err(table.wrong(row, format!("expected a case of the scores, found '{}'", shown(&cells[case]))));
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
                let (name, case) = (shown(name), shown(&cells[case]));
                return Err(table.wrong(row, format!("reader '{name}' has answered case '{case}' already")));
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
            return Err(table.wrong(row, format!("case '{}' has another truth above", shown(&cells[case]))));
        }
    }
    Ok(found)
}
