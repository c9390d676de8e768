//! MATLAB's level 4 files as ITK and ANTs write them: for each transform a matrix named after its class, with the
//! parameters, and one named `fixed`, with the fixed parameters.
//!
//! A matrix is five 32-bit integers (type, rows, columns, imaginary part, length of the name), the name with a null and
//! the values, column by column. Source: MathWorks, MAT-File Format, level 4.

use super::Record;
use nephron_compute::shown;

/// More values than any of ITK's affine transforms has.
const MAX_VALUES: u64 = 1024;
const MAX_NAME: usize = 256;

/// The transforms of a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Record>, String> {
    let mut reader = Reader { bytes };
    let mut records: Vec<Record> = Vec::new();
    while !reader.bytes.is_empty() {
        let (name, values) = reader.matrix()?;
        match records.last_mut() {
            Some(record) if name == "fixed" => record.fixed = values,
            None if name == "fixed" => return Err("expected a transform, found its fixed parameters alone".into()),
            _ => records.push(Record { kind: name, parameters: values, fixed: Vec::new() }),
        }
    }
    if records.is_empty() { Err("is empty, expected a transform".into()) } else { Ok(records) }
}

/// The file of a transform.
pub(super) fn print(record: &Record) -> Vec<u8> {
    let matrix = |name: &str, values: &[f64]| {
        // Names and parameters of our records are short: neither count can be cut.
        let header = [0, values.len() as i32, 1, 0, name.len() as i32 + 1];
        let head = header.into_iter().flat_map(i32::to_le_bytes).chain(name.bytes()).chain([0]);
        head.chain(values.iter().flat_map(|v| v.to_le_bytes())).collect::<Vec<u8>>()
    };
    [matrix(&record.kind, &record.parameters), matrix("fixed", &record.fixed)].concat()
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err("is neither ITK text nor a whole MATLAB file of level 4: it is cut short".into());
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn matrix(&mut self) -> Result<(String, Vec<f64>), String> {
        let header: Vec<i32> =
            self.take(20)?.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let &[kind, rows, columns, imaginary, name_length] = header.as_slice() else {
            return Err("is cut short".into());
        };
        // 0: f64, little-endian, full; 10: f32.
        let size = match kind {
            0 => 8,
            10 => 4,
            _ => return Err("is neither ITK text nor a little-endian MATLAB file of level 4".into()),
        };
        let (rows, columns) = (u64::try_from(rows).unwrap_or(u64::MAX), u64::try_from(columns).unwrap_or(u64::MAX));
        let count = rows.saturating_mul(columns);
        let name_length = usize::try_from(name_length).unwrap_or(usize::MAX);
        if count > MAX_VALUES || name_length > MAX_NAME || imaginary != 0 {
            let found = format!("{rows} x {columns} values with a name of {name_length} bytes");
            return Err(format!("expected the parameters of a transform, found {found}"));
        }
        let name = self.take(name_length)?;
        let name = String::from_utf8_lossy(name.split(|b| *b == 0).next().unwrap_or_default());
        let values = self.take(count as usize * size)?;
        let value = |b: &[u8]| match b {
            [a, b, c, d] => f64::from(f32::from_le_bytes([*a, *b, *c, *d])),
            [a, b, c, d, e, f, g, h] => f64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            _ => f64::NAN,
        };
        Ok((shown(&name), values.chunks_exact(size).map(value).collect()))
    }
}
