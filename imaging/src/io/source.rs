//! A file as a stream of voxels, decompressed and decoded in steps.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::io::numbers::{ByteOrder, Number};
use crate::volume::Voxels;
use nephron_compute::ensure_room;
use nephron_compute::error::{Error, Result};

/// Number of bytes that are decoded at a time.
const STEP: usize = 1 << 20;
/// The largest compression ratio of DEFLATE (258 bytes from 2 bits): an upper bound of decompressed over compressed size.
const GZIP_RATIO: u64 = 1032;

enum Stream {
    Plain(BufReader<File>),
    Gzip(Members),
    Zlib(ZlibDecoder<BufReader<File>>),
}

/// How the voxels of a file are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zlib,
}

/// What a gzip member begins with.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The members of a gzip file, one after the other. What follows the last one and is no member is left alone, as zlib's own
/// reader does; each member's checksum is compared.
struct Members {
    /// None while the next member is opened.
    member: Option<Box<GzDecoder<BufReader<File>>>>,
    /// Whether something else stands behind the last member.
    trailing: bool,
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(member) = self.member.take() else { return Ok(0) };
            let mut reader = member.into_inner();
            let rest = reader.fill_buf()?;
            // At the end of a buffer the first byte alone may be seen.
            if rest.starts_with(&MAGIC) || rest == &MAGIC[..1] {
                self.member = Some(Box::new(GzDecoder::new(reader)));
            } else {
                self.trailing = !rest.is_empty();
                return Ok(0);
            }
        }
    }
}

/// A file, decompressed on the fly where its content (not its name) is gzip.
pub(super) struct Source {
    pub path: PathBuf,
    stream: Stream,
    /// An upper bound of the number of bytes that can be read from it.
    pub max_bytes: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (mut file, metadata) = crate::io::open(path)?;
        let failed = |e: std::io::Error| Error::io(path, "cannot be read", e);
        let mut magic = [0u8; 2];
        let gzip = match file.read_exact(&mut magic) {
            Ok(()) => magic == MAGIC,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => false,
            Err(e) => return Err(failed(e)),
        };
        file.rewind().map_err(failed)?;
        let compression = if gzip { Compression::Gzip } else { Compression::None };
        Self::new(path, file, metadata.len(), compression)
    }

    /// The voxels of a file, which begin at byte `offset`.
    pub(super) fn at(path: &Path, offset: u64, compression: Compression) -> Result<Self> {
        let (mut file, metadata) = crate::io::open(path)?;
        file.seek(SeekFrom::Start(offset)).map_err(|e| Error::io(path, "cannot be read", e))?;
        Self::new(path, file, metadata.len().saturating_sub(offset), compression)
    }

    /// `length` bytes of a file are left.
    fn new(path: &Path, file: File, length: u64, compression: Compression) -> Result<Self> {
        // For this buffer and that of the decoded bytes.
        ensure_room::<u8>("reading", 2 * STEP).map_err(|e| Error::in_file(path, e))?;
        let reader = BufReader::with_capacity(STEP, file);
        let stream = match compression {
            Compression::None => Stream::Plain(reader),
            Compression::Gzip => {
                Stream::Gzip(Members { member: Some(Box::new(GzDecoder::new(reader))), trailing: false })
            }
            Compression::Zlib => Stream::Zlib(ZlibDecoder::new(reader)),
        };
        let ratio = if compression == Compression::None { 1 } else { GZIP_RATIO };
        Ok(Self { path: path.to_path_buf(), stream, max_bytes: length.saturating_mul(ratio) })
    }

    fn reader(&mut self) -> &mut dyn Read {
        match &mut self.stream {
            Stream::Plain(reader) => reader,
            Stream::Gzip(reader) => reader,
            Stream::Zlib(reader) => reader,
        }
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        self.reader().read_exact(buffer)
    }

    /// Appends up to `bytes` bytes, fewer where the file ends earlier.
    pub(super) fn append(&mut self, bytes: u64, to: &mut Vec<u8>) -> std::io::Result<()> {
        self.reader().take(bytes).read_to_end(to).map(|_| ())
    }

    pub(super) fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        let skipped = std::io::copy(&mut self.reader().take(bytes), &mut std::io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads `count` voxels.
    ///
    /// # Errors
    /// A file that ends before the last voxel or is damaged; more voxels than memory can hold.
    pub(super) fn voxels(
        &mut self,
        number: Number,
        order: ByteOrder,
        scale: Option<(f64, f64)>,
        count: usize,
    ) -> Result<Voxels> {
        let path = self.path.clone();
        let too_many = |NoMemory| Error::file(&path, format!("its {count} voxels do not fit in this machine's memory"));
        let mut values = Values::new(number, scale, count).map_err(too_many)?;
        let size = number.size();
        let mut buffer = vec![0u8; STEP.min(count * size)];
        let mut done = 0;
        while done < count {
            let now = (count - done).min(STEP / size);
            let bytes = &mut buffer[..now * size];
            self.fill(bytes).map_err(|e| self.error(&e, &format!("after {done} of {count} voxels")))?;
            let mut kept = Ok(());
            let mut push = |value| {
                if kept.is_ok() {
                    kept = values.push(value);
                }
            };
            match scale {
                None => number.decode(order, bytes, push),
                Some((slope, inter)) => number.decode(order, bytes, |v| push(slope * v + inter)),
            }
            kept.map_err(too_many)?;
            done += now;
        }
        Ok(values.into_voxels())
    }

    /// Reads what is left of a gzip stream, so that its checksum is compared. A file with much more behind the voxels is
    /// left alone.
    pub(super) fn finish(&mut self, warnings: &mut Vec<String>) -> Result<()> {
        if let Stream::Zlib(reader) = &mut self.stream {
            let tail = std::io::copy(&mut reader.take(STEP as u64), &mut std::io::sink());
            tail.map_err(|e| self.error(&e, "behind its voxels"))?;
        } else if let Stream::Gzip(reader) = &mut self.stream {
            let tail = std::io::copy(&mut reader.take(STEP as u64), &mut std::io::sink());
            let trailing = reader.trailing;
            tail.map_err(|e| self.error(&e, "behind its voxels"))?;
            if trailing {
                warnings.push("bytes that are not gzip stand behind the gzip stream; they are left out".into());
            }
        }
        Ok(())
    }

    /// The error for a read that failed; `position` is where it happened.
    pub(super) fn error(&self, error: &std::io::Error, position: &str) -> Error {
        let stream = match self.stream {
            Stream::Plain(_) => "file",
            Stream::Gzip(_) => "gzip stream",
            Stream::Zlib(_) => "zlib stream",
        };
        let is_compressed = stream != "file";
        let reason = match error.kind() {
            ErrorKind::UnexpectedEof => {
                format!("is cut short: the {stream} ends {position}")
            }
            ErrorKind::InvalidInput | ErrorKind::InvalidData if is_compressed => {
                format!("is damaged: the {stream} is not valid {position} ({error})")
            }
            _ => format!("cannot be read {position}: {error}"),
        };
        Error::file(&self.path, reason)
    }
}

/// The error that memory for the voxels cannot be allocated.
struct NoMemory;

/// The voxels read so far, in the narrowest type that the stored type allows; widened to f32 at the first value that does not fit.
enum Values {
    U8(Vec<u8>),
    I16(Vec<i16>),
    F32(Vec<f32>),
}

impl Values {
    fn new(number: Number, scale: Option<(f64, f64)>, count: usize) -> Result<Self, NoMemory> {
        Ok(match (number, scale) {
            (Number::U8, None) => Self::U8(reserve(count)?),
            (number, _) if number.is_integer() => Self::I16(reserve(count)?),
            _ => Self::F32(reserve(count)?),
        })
    }

    /// Appends a voxel.
    ///
    /// # Errors
    /// No memory for the wider type.
    fn push(&mut self, value: f64) -> Result<(), NoMemory> {
        match self {
            Self::U8(values) => values.push(value as u8),
            Self::I16(values) => {
                let narrow = value as i16;
                if f64::from(narrow) == value {
                    values.push(narrow);
                } else {
                    let mut wide: Vec<f32> = reserve(values.capacity())?;
                    wide.extend(values.iter().map(|&v| f32::from(v)));
                    wide.push(value as f32);
                    *self = Self::F32(wide);
                }
            }
            Self::F32(values) => values.push(value as f32),
        }
        Ok(())
    }

    fn into_voxels(self) -> Voxels {
        match self {
            Self::U8(values) => Voxels::U8(values.into()),
            Self::I16(values) => Voxels::I16(values.into()),
            Self::F32(values) => Voxels::F32(values.into()),
        }
    }
}

fn reserve<T>(count: usize) -> Result<Vec<T>, NoMemory> {
    // Leaves room for the buffers of the reader and what else is small.
    ensure_room::<T>("voxels", count).map_err(|_| NoMemory)?;
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| NoMemory)?;
    Ok(values)
}
