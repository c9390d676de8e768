//! A file as a stream of voxels, decompressed and decoded in steps.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::io::numbers::{ByteOrder, Number};
use crate::volume::Voxels;
use nephron_compute::error::{Error, Result};

/// Number of bytes that are decoded at a time.
const STEP: usize = 1 << 20;
/// The largest compression ratio of DEFLATE (258 bytes from 2 bits): an upper bound of decompressed over compressed size.
const GZIP_RATIO: u64 = 1032;

enum Stream {
    Plain(BufReader<File>),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
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
            Ok(()) => magic == [0x1f, 0x8b],
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => false,
            Err(e) => return Err(failed(e)),
        };
        file.rewind().map_err(failed)?;
        let reader = BufReader::with_capacity(STEP, file);
        let length = metadata.len();
        let (stream, max_bytes) = if gzip {
            (Stream::Gzip(Box::new(MultiGzDecoder::new(reader))), length.saturating_mul(GZIP_RATIO))
        } else {
            (Stream::Plain(reader), length)
        };
        Ok(Self { path: path.to_path_buf(), stream, max_bytes })
    }

    fn reader(&mut self) -> &mut dyn Read {
        match &mut self.stream {
            Stream::Plain(reader) => reader,
            Stream::Gzip(reader) => reader,
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

    /// Reads the rest of a gzip stream, so that its checksum is compared. Where more than a few bytes follow the voxels, the
    /// checksum is not reached and not compared.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Stream::Gzip(reader) = &mut self.stream {
            let tail = std::io::copy(&mut reader.take(STEP as u64), &mut std::io::sink());
            tail.map_err(|e| self.error(&e, "after its voxels"))?;
        }
        Ok(())
    }

    /// The error for a read that failed; `position` is where it happened.
    pub(super) fn error(&self, error: &std::io::Error, position: &str) -> Error {
        let gzip = matches!(self.stream, Stream::Gzip(_));
        let reason = match error.kind() {
            ErrorKind::UnexpectedEof => {
                format!("is cut short: the {} ends {position}", if gzip { "gzip stream" } else { "file" })
            }
            ErrorKind::InvalidInput | ErrorKind::InvalidData if gzip => {
                format!("is damaged: the gzip stream is not valid {position} ({error})")
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
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| NoMemory)?;
    Ok(values)
}
