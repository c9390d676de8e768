//! ITK's text files: for each transform its class, its parameters and its fixed parameters.

use super::Record;
use nephron_compute::shown;

/// The transforms of a file.
pub(super) fn parse(text: &str) -> Result<Vec<Record>, String> {
    let mut records: Vec<Record> = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with('#')) else { continue };
        let value = value.trim();
        if key == "Transform" {
            records.push(Record { kind: value.to_owned(), ..Record::default() });
            continue;
        }
        let Some(record) = records.last_mut() else { continue };
        let numbers = || -> Result<Vec<f64>, String> {
            let wrong = |word: &str| format!("expected numbers behind '{key}:', found '{}'", shown(word));
            value.split_whitespace().map(|word| word.parse().map_err(|_| wrong(word))).collect()
        };
        match key {
            "Parameters" => record.parameters = numbers()?,
            "FixedParameters" => record.fixed = numbers()?,
            _ => {}
        }
    }
    if records.is_empty() {
        return Err("expected an ITK text file, found no line 'Transform:'".into());
    }
    Ok(records)
}

/// The file of a transform, or of a composite and its parts.
pub(super) fn print(records: &[Record]) -> String {
    let list = |numbers: &[f64]| numbers.iter().map(|v| format!(" {v}")).collect::<String>();
    let mut text = "#Insight Transform File V1.0\n".to_owned();
    for (number, record) in records.iter().enumerate() {
        text += &format!("#Transform {number}\nTransform: {}\n", record.kind);
        // A composite has no parameters of its own in a file.
        if !record.parameters.is_empty() {
            let (parameters, fixed) = (list(&record.parameters), list(&record.fixed));
            text += &format!("Parameters:{parameters}\nFixedParameters:{fixed}\n");
        }
    }
    text
}
