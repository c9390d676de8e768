//! Reading single files out of a zip archive that anybody may have made, into memory.
//!
//! Nothing is unpacked to disk, so that no name in an archive can reach a file outside it. Names that try to are refused
//! nonetheless, and what an archive claims of its sizes is compared with what its bytes can become before memory is taken.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use zip::{CompressionMethod, ZipArchive};

use nephron_compute::ensure_room;
use nephron_compute::error::{Error, Result};
use nephron_compute::shown;

/// Largest number of files of an archive; that of five folds with all their validation masks takes some thousands.
const MAX_FILES: usize = 100_000;
/// Largest name of a file in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Largest number of bytes that a byte of deflate can become, and some for the smallest blocks.
const MAX_GROWTH: (u64, u64) = (1032, 64);

/// A zip archive of files that are stored or compressed by deflate.
pub struct Archive {
    path: PathBuf,
    /// The index of each file by its name, with slashes between its folders.
    files: BTreeMap<String, usize>,
    zip: RefCell<ZipArchive<BufReader<File>>>,
}

impl Archive {
    /// Opens an archive and reads its table of contents.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read or is no whole zip archive, for too many files, and for a name that is
    /// absolute, holds `..`, a backslash or control characters, or stands there twice.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, _) = super::open(path)?;
        let damaged = |e| Error::io(path, "is not a whole zip archive", e);
        let zip = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
        if zip.len() > MAX_FILES {
            return Err(Error::file(path, format!("holds {} files, expected at most {MAX_FILES}", zip.len())));
        }
        // The reader keeps the last of them.
        if zip.has_duplicate_names() {
            return Err(Error::file(path, "holds two files of one name, expected each once"));
        }
        let mut files = BTreeMap::new();
        for (index, name) in zip.file_names().enumerate() {
            let name = name.map_err(damaged)?;
            if name.ends_with('/') {
                continue;
            }
            if !is_plain(&name) {
                let reason = format!("names the file '{}', expected a path inside the archive", shown(&name));
                return Err(Error::file(path, reason));
            }
            files.insert(name.to_string(), index);
        }
        Ok(Self { path: path.to_path_buf(), files, zip: RefCell::new(zip) })
    }

    /// The file of the archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all files, sorted, with slashes between their folders.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether there is a file of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The bytes of a file, at most `most`, after its checksum was compared.
    ///
    /// # Errors
    /// [`Error::File`], whose path is the archive's with the name behind it: no such file; one that is larger than `most`, claims
    /// more bytes than it can have, is encrypted, compressed by anything but deflate, or damaged.
    pub fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let place = self.path.join(name);
        let refused = |reason: String| Err(Error::file(&place, reason));
        let Some(index) = self.files.get(name) else { return refused("there is no such file in the archive".into()) };
        let mut zip = self.zip.borrow_mut();
        let raw = zip.by_index_raw(*index).map_err(|e| Error::io(&place, "cannot be read", e))?;
        let (size, compressed) = (raw.size(), raw.compressed_size());
        let usual = matches!(raw.compression(), CompressionMethod::Stored | CompressionMethod::Deflated);
        if raw.encrypted() || !usual {
            return refused(
                "is encrypted or compressed by another method than deflate, as zip programs use by default".into(),
            );
        }
        drop(raw);
        if size > most {
            return refused(format!("takes {size} bytes, expected at most {most}"));
        }
        if size > compressed.saturating_mul(MAX_GROWTH.0).saturating_add(MAX_GROWTH.1) {
            return refused(format!("claims {size} bytes, more than {compressed} compressed ones can become"));
        }
        let mut bytes = Vec::new();
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        if ensure_room::<u8>("a file of the archive", length).is_err() || bytes.try_reserve_exact(length).is_err() {
            return refused(format!("its {size} bytes do not fit in memory"));
        }
        let damaged = |e| Error::io(&place, "is damaged inside the archive", e);
        let file = zip.by_index(*index).map_err(|e| Error::io(&place, "cannot be read", e))?;
        // One byte more than it should have, so that a longer one is noticed and the checksum is compared at its end.
        file.take(size.saturating_add(1)).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 != size {
            return refused(format!("is damaged inside the archive: {size} bytes expected, {} found", bytes.len()));
        }
        Ok(bytes)
    }
}

/// Whether a name is a relative path of plain parts.
fn is_plain(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && !name.contains(|c: char| c.is_control() || c == '\\' || c == ':')
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    fn archive(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in files {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).expect("an entry");
            zip.write_all(bytes).expect("its bytes");
        }
        zip.finish().expect("an archive").into_inner()
    }

    fn opened(bytes: &[u8]) -> Result<Archive> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.zip");
        std::fs::write(&path, bytes).expect("written");
        Archive::open(path)
    }

    #[test]
    fn files_are_read_stored_or_deflated() {
        let text = "plans ".repeat(500);
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let archive = opened(&archive(&[("a/b.json", text.as_bytes()), ("a/empty", b"")], method)).expect("opened");
            assert_eq!(archive.names().collect::<Vec<_>>(), ["a/b.json", "a/empty"]);
            assert_eq!(archive.read("a/b.json", 1 << 20).expect("read"), text.as_bytes());
            assert!(archive.read("a/empty", 0).expect("read").is_empty());
            let refused = |name: &str, most: u64| archive.read(name, most).expect_err("refused").to_string();
            assert!(refused("a/b.json", 2999).contains("takes 3000 bytes, expected at most 2999"));
            assert!(refused("a", 10).contains("no such file"));
        }
    }

    #[test]
    fn names_that_leave_the_archive_are_refused() {
        for name in ["../evil", "a/../../evil", "/etc/passwd", "a\\..\\evil", "C:evil", "a//b", "line\nbreak"] {
            let message = opened(&archive(&[(name, b"x")], CompressionMethod::Stored)).err().expect(name).to_string();
            assert!(message.contains("expected a path inside the archive") && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn two_files_of_one_name_are_refused() {
        let mut bytes = archive(&[("plans.json", b"1"), ("pluns.json", b"2")], CompressionMethod::Stored);
        while let Some(at) = bytes.windows(10).position(|w| w == b"pluns.json") {
            bytes[at + 2] = b'a';
        }
        let message = opened(&bytes).err().expect("refused").to_string();
        assert!(message.contains("two files of one name"), "{message}");
    }

    #[test]
    fn claims_and_damage_are_noticed() {
        let content = [7u8; 4000];
        let good = archive(&[("w.pth", &content)], CompressionMethod::Deflated);
        // The sizes in the table of contents: 24 bytes into its entry.
        let table = good.windows(4).position(|w| w == b"PK\x01\x02").expect("a table");
        let claimed = |size: u32| {
            let mut bytes = good.clone();
            bytes[table + 24..table + 28].copy_from_slice(&size.to_le_bytes());
            opened(&bytes).and_then(|a| a.read("w.pth", u64::MAX)).err().map(|e| e.to_string())
        };
        assert_eq!(claimed(4000), None);
        assert!(claimed(u32::MAX - 1).expect("refused").contains("can become"));
        assert!(
            claimed(3999).expect("refused").contains("damaged") && claimed(4001).expect("refused").contains("damaged")
        );
        let mut stored = archive(&[("w.pth", &content)], CompressionMethod::Stored);
        let at = stored.windows(9).position(|w| w == [7u8; 9]).expect("content");
        stored[at + 5] = 8;
        let message = opened(&stored).and_then(|a| a.read("w.pth", u64::MAX)).expect_err("refused").to_string();
        assert!(message.contains("damaged"), "{message}");
        assert!(opened(b"PK").is_err() && opened(&good[..good.len() - 30]).is_err());
    }
}
