//! NumPy's .npz of one array, as `np.savez_compressed` writes it: a zip archive with the file `<name>.npy`, compressed by deflate.

use std::io::{Error as IoError, ErrorKind, Write};
use std::ops::Deref;
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use nephron_compute::error::Result;

/// Number of values that are handed to the compressor at once.
const CHUNK: usize = 1 << 14;

/// Writes f32 values in C order as the array `name`. They come in parts, one after the other, so that a caller needs to hold no more
/// than one of them; an error of a part ends the writing and leaves no file.
///
/// # Errors
/// [`Error::Shape`](nephron_compute::Error::Shape) where the parts do not have as many values as the shape,
/// [`Error::File`](nephron_compute::Error::File) where the file cannot be written; those of the parts.
pub fn write_f32<P: Deref<Target = Vec<f32>>>(
    path: impl AsRef<Path>,
    name: &str,
    shape: &[usize],
    parts: impl IntoIterator<Item = Result<P>>,
) -> Result<()> {
    let header = super::npy::header("<f4", shape)?;
    let expected = super::npy::elements(shape)?;
    let mut failed = None;
    let written = super::write_atomic(path, |file| {
        // NumPy too writes sizes of 64 bits always: that of the compressed bytes is not known yet.
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(true);
        let mut zip = ZipWriter::new(file);
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&header)?;
        let (mut found, mut bytes) = (0, Vec::with_capacity(CHUNK * size_of::<f32>()));
        for part in parts {
            let part = part.map_err(|error| keep(&mut failed, error))?;
            found += part.len();
            for values in part.chunks(CHUNK) {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                zip.write_all(&bytes)?;
            }
        }
        if found != expected {
            return Err(keep(&mut failed, super::npy::wrong_count(shape, found)));
        }
        zip.finish()?;
        Ok(())
    });
    failed.map_or(written, Err)
}

/// Keeps an error that is not the file's for the caller, and ends the writing by another.
fn keep(failed: &mut Option<nephron_compute::Error>, error: nephron_compute::Error) -> IoError {
    *failed = Some(error);
    IoError::from(ErrorKind::InvalidData)
}
