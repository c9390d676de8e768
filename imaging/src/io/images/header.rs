//! What the headers of MetaImage and NRRD have in common: lines of text before voxels in one block.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::io::nifti::{Image, skew_warning};
use crate::io::numbers::{ByteOrder, Number};
use crate::io::source::{Compression, Source};
use crate::volume::{Affine, Volume};
use nephron_compute::error::{Error, Result};
use nephron_compute::shown;

/// The largest header: a text beyond it is none.
const MAX_BYTES: u64 = 1 << 20;

/// A header that was read, and where the voxels are.
pub(super) struct RawImage {
    /// The file of the header, and that of the voxels, often the same.
    pub(super) header: PathBuf,
    pub(super) data: PathBuf,
    /// The byte of the data at which the voxels begin; None where they are the end of the file.
    pub(super) offset: Option<u64>,
    pub(super) compression: Compression,
    pub(super) number: Number,
    pub(super) order: ByteOrder,
    /// Voxels along (i, j, k).
    pub(super) size: [usize; 3],
    /// From (i, j, k) to RAS millimetres.
    pub(super) affine: Affine,
}

impl RawImage {
    /// Reads the voxels.
    pub(super) fn read(self) -> Result<Image> {
        let [i, j, k] = self.size;
        let claimed = format!("its header claims {i} x {j} x {k} voxels of {}", self.number);
        let (count, length) = [j, k, self.number.size()]
            .iter()
            .try_fold(i, |n, &d| n.checked_mul(d))
            .map(|length| (length / self.number.size(), length as u64))
            .ok_or_else(|| Error::file(&self.header, format!("{claimed}, more than memory can hold")))?;
        let offset = match self.offset {
            Some(offset) => offset,
            None => crate::io::open(&self.data)?.1.len().saturating_sub(length),
        };
        let mut source = Source::at(&self.data, offset, self.compression)?;
        if source.max_bytes < length {
            let reason =
                format!("{claimed} ({length} bytes), the file holds at most {} bytes of them", source.max_bytes);
            return Err(Error::file(&self.data, reason));
        }
        let voxels = source.voxels(self.number, self.order, None, count)?;
        let mut warnings: Vec<String> = skew_warning(&self.affine).into_iter().collect();
        source.finish(&mut warnings)?;
        let volume = Volume::new([k, j, i], voxels, self.affine).map_err(|e| Error::in_file(&self.header, e))?;
        let mut image = Image::new(volume);
        image.header.stored = self.number;
        image.header.byte_order = self.order;
        image.warnings = warnings;
        Ok(image)
    }
}

/// The lines of a header up to and with the first for which `is_last` is true, and the byte that follows it.
pub(super) fn lines(path: &Path, is_last: impl Fn(&str) -> bool) -> Result<(Vec<String>, u64)> {
    let (file, _) = crate::io::open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|e| Error::io(path, "cannot be read", e))?;
    let (mut lines, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let end = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n);
        let line = String::from_utf8_lossy(&bytes[at..end]).trim_end_matches('\r').to_owned();
        at = (end + 1).min(bytes.len());
        let last = is_last(&line);
        lines.push(line);
        if last {
            return Ok((lines, at as u64));
        }
    }
    // A header without voxels behind it, or no header at all.
    Ok((lines, bytes.len() as u64))
}

/// The numbers of a list that is separated by spaces.
pub(super) fn numbers<const N: usize>(name: &str, text: &str, wanted: usize) -> Result<[f64; N], String> {
    let mut out = [0.0; N];
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != wanted || wanted > N {
        return Err(format!("{name}: expected {wanted} numbers, found {}", parts.len()));
    }
    for (out, part) in out.iter_mut().zip(parts) {
        let number: f64 = part.parse().map_err(|_| format!("{name}: expected a number, found {}", shown(part)))?;
        if !number.is_finite() {
            return Err(format!("{name}: expected a finite number, found {}", shown(part)));
        }
        *out = number;
    }
    Ok(out)
}

/// Lengths of axes; those that are not there are 1.
pub(super) fn sizes(name: &str, text: &str, axes: usize) -> Result<[usize; 3], String> {
    let found: [f64; 3] = numbers(name, text, axes)?;
    let mut out = [1; 3];
    for (out, found) in out.iter_mut().zip(found).take(axes) {
        if found < 1.0 || found.fract() != 0.0 || found > 1e9 {
            return Err(format!("{name}: expected lengths of at least 1, found {found}"));
        }
        *out = found as usize;
    }
    Ok(out)
}

/// The affine in RAS of axes given in LPS: `columns` are the steps along i, j, k.
pub(super) fn from_lps(columns: [[f64; 3]; 3], origin: [f64; 3]) -> Affine {
    let sign = [-1.0, -1.0, 1.0];
    let row = |r: usize| [columns[0][r], columns[1][r], columns[2][r], origin[r]].map(|v| v * sign[r] + 0.0);
    Affine([row(0), row(1), row(2)])
}

/// The file of voxels that a header names, relative to its own folder.
pub(super) fn beside(header: &Path, name: &str) -> PathBuf {
    header.parent().unwrap_or(Path::new("")).join(name)
}
