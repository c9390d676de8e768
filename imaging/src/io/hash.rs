//! Provenance: the files that a result was made from, with their SHA-256 (FIPS 180-4).

use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use nephron_compute::error::{Error, Result};

/// Serialises a path as text. JSON must be UTF-8 and a path need not be: other bytes become U+FFFD.
///
/// # Errors
/// An error of the serialiser.
pub fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// As [`lossy`], for a path that may be missing.
///
/// # Errors
/// As the serialiser.
pub fn lossy_option<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.collect_str(&path.display()),
        None => serializer.serialize_none(),
    }
}

/// Number of bytes that are read and hashed at a time: they are on the stack, so that a process whose memory is full does not abort.
const STEP: usize = 1 << 16;

/// A file and the hash of its content.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceFile {
    /// The path as it was given; bytes that are not UTF-8 are replaced when it is written as JSON.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
}

impl SourceFile {
    /// The source file `file` whose content is in memory.
    pub fn of(file: &Path, bytes: &[u8]) -> Self {
        Self { file: file.to_path_buf(), sha256: digits(&Sha256::digest(bytes)) }
    }
}

fn digits(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes files as they are on disk (a .nii.gz is not decompressed). The results are in the order of `paths`.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read.
pub fn hash_files(paths: &[PathBuf]) -> Result<Vec<SourceFile>> {
    paths.par_iter().map(|path| Ok(SourceFile { file: path.clone(), sha256: sha256(path)? })).collect()
}

fn sha256(path: &Path) -> Result<String> {
    let (mut file, _) = super::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), [0; STEP]);
    loop {
        let read = file.read(&mut buffer).map_err(|e| Error::io(path, "cannot be read", e))?;
        if read == 0 {
            return Ok(digits(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}
