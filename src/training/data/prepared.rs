//! Prepared cases in files, of which a training reads the boxes that its patches need: a data set is larger than memory.
//!
//! A line of JSON, then the image as little-endian f32 in the order c, z, y, x, then a byte for the label of each voxel. No format
//! of ours reads a box of an array without the rest, and compressed ones must not: the loaders would wait for decompression.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ensure_room;
use crate::error::{Error, Result};
use crate::io::write_atomic;

/// Raised when the layout of the file or what preparing computes changes.
const VERSION: u32 = 1;
/// A longer first line is none of ours.
const MAX_HEADER: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    nephron_prepared: u32,
    /// What the case was prepared from.
    source: String,
    channels: usize,
    shape: [usize; 3],
    warnings: Vec<String>,
}

/// A prepared case in a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PreparedFile {
    path: PathBuf,
    header: Header,
    /// Offset of the image in bytes.
    start: u64,
}

impl PreparedFile {
    /// Writes a case; `source` identifies what it was prepared from.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write(
        path: &Path,
        source: &str,
        (image, labels, shape): (&[f32], &[u8], [usize; 3]),
        warnings: Vec<String>,
    ) -> Result<()> {
        let channels = image.len() / labels.len().max(1);
        let header = Header { nephron_prepared: VERSION, source: source.to_owned(), channels, shape, warnings };
        let line = serde_json::to_string(&header).map_err(|e| Error::io(path, "cannot be described", e))?;
        write_atomic(path, |file| {
            writeln!(file, "{line}")?;
            let mut bytes = Vec::with_capacity(1 << 16);
            for values in image.chunks(1 << 14) {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                file.write_all(&bytes)?;
            }
            file.write_all(labels)
        })
    }

    /// A file that was prepared from `source`, with the warnings of that time; None where there is none, where it was prepared from
    /// something else, or where it is not whole: it is to be prepared again.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn open(path: &Path, source: &str) -> Result<Option<(Self, Vec<String>)>> {
        let failed = |e| Error::io(path, "cannot be read", e);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let length = file.metadata().map_err(failed)?.len();
        let mut line = Vec::new();
        BufReader::new(file.take(MAX_HEADER)).read_until(b'\n', &mut line).map_err(failed)?;
        let Ok(header) = serde_json::from_slice::<Header>(&line) else { return Ok(None) };
        let voxel = header.channels.checked_mul(4).and_then(|bytes| bytes.checked_add(1));
        let bytes = header.shape.iter().try_fold(voxel.unwrap_or(usize::MAX), |n, size| n.checked_mul(*size));
        let is_whole = bytes.is_some_and(|bytes| length.checked_sub(line.len() as u64) == Some(bytes as u64));
        if header.nephron_prepared != VERSION || header.source != source || !is_whole {
            return Ok(None);
        }
        let warnings = header.warnings.clone();
        Ok(Some((Self { path: path.to_path_buf(), header, start: line.len() as u64 }, warnings)))
    }

    pub(super) fn shape(&self) -> [usize; 3] {
        self.header.shape
    }

    pub(super) fn channels(&self) -> usize {
        self.header.channels
    }

    /// The image in these ranges along (z, y, x), in the order c, z, y, x.
    ///
    /// # Errors
    /// A file that cannot be read; memory that does not suffice.
    pub(super) fn image(&self, ranges: [Range<usize>; 3]) -> Result<Vec<f32>> {
        let voxels = self.voxels();
        let mut values = Vec::new();
        for channel in 0..self.header.channels {
            let bytes = self.bytes(self.start + 4 * (channel * voxels) as u64, 4, &ranges)?;
            values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        Ok(values)
    }

    /// The labels in these ranges along (z, y, x).
    ///
    /// # Errors
    /// As [`PreparedFile::image`].
    pub(super) fn labels(&self, ranges: [Range<usize>; 3]) -> Result<Vec<u8>> {
        self.bytes(self.start + 4 * (self.header.channels * self.voxels()) as u64, 1, &ranges)
    }

    fn voxels(&self) -> usize {
        self.header.shape.iter().product()
    }

    /// The bytes of a box of an array at `start` whose elements have `size` bytes: one read for each slice, of whole rows.
    fn bytes(&self, start: u64, size: usize, [zs, ys, xs]: &[Range<usize>; 3]) -> Result<Vec<u8>> {
        let [_, h, w] = self.header.shape;
        let failed = |e| Error::io(&self.path, "cannot be read", e);
        let count = zs.len() * ys.len() * xs.len() * size;
        ensure_room::<u8>("a window of a prepared case", count)?;
        let mut out = Vec::with_capacity(count);
        if count == 0 {
            return Ok(out);
        }
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut slice = vec![0; ys.len() * w * size];
        for z in zs.clone() {
            let offset = ((z * h + ys.start) * w * size) as u64;
            file.seek(SeekFrom::Start(start + offset)).and_then(|_| file.read_exact(&mut slice)).map_err(failed)?;
            for row in slice.chunks_exact(w * size) {
                out.extend_from_slice(&row[xs.start * size..xs.end * size]);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [3, 4, 5];

    fn write(path: &Path) {
        let image: Vec<f32> = (0..120).map(|i| i as f32 + 0.25).collect();
        let labels: Vec<u8> = (0..60).collect();
        PreparedFile::write(path, "of this", (&image, &labels, SHAPE), vec!["a word".into()]).expect("written");
    }

    #[test]
    fn a_box_is_that_of_the_array() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("case");
        assert_eq!(PreparedFile::open(&path, "of this").expect("no file"), None);
        write(&path);
        let (file, warnings) = PreparedFile::open(&path, "of this").expect("read").expect("a file");
        assert_eq!((file.shape(), file.channels(), warnings), (SHAPE, 2, vec!["a word".to_owned()]));
        let ranges = [1..3, 0..2, 2..5];
        let voxels: Vec<usize> =
            (1..3).flat_map(|z| (0..2).flat_map(move |y| (2..5).map(move |x| (z * 4 + y) * 5 + x))).collect();
        let image: Vec<f32> = [0, 60].iter().flat_map(|c| voxels.iter().map(move |v| (c + v) as f32 + 0.25)).collect();
        assert_eq!(file.image(ranges.clone()).expect("values"), image);
        assert_eq!(file.labels(ranges).expect("labels"), voxels.iter().map(|v| *v as u8).collect::<Vec<_>>());
        assert!(file.image([1..1, 0..4, 0..5]).expect("nothing").is_empty());
    }

    #[test]
    fn what_is_not_whole_or_of_another_source_is_prepared_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("case");
        write(&path);
        assert_eq!(PreparedFile::open(&path, "of that").expect("read"), None);
        let bytes = std::fs::read(&path).expect("bytes");
        // The header of more bytes than can be counted.
        let text = String::from_utf8_lossy(&bytes[..bytes.iter().position(|b| *b == b'\n').expect("a header") + 1]);
        let endless = text.replace("\"channels\":2", &format!("\"channels\":{}", usize::MAX / 4 + 1));
        assert_ne!(text, endless);
        let longer = [b"{}\n".as_slice(), &bytes].concat();
        for damaged in [endless.as_bytes(), &bytes[..bytes.len() - 1], &bytes[..20], &[], &longer] {
            std::fs::write(&path, damaged).expect("written");
            assert_eq!(PreparedFile::open(&path, "of this").expect("read"), None);
        }
    }
}
