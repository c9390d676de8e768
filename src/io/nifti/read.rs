//! Reading: the header is checked before anything is allocated, and memory is claimed only for voxels that the file can
//! really hold.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::header::{Fields, Version};
use super::{Header, Image, geometry};
use crate::error::{Error, Result};
use crate::io::numbers::{ByteOrder, Number};
use crate::volume::{Volume, Voxels};

/// Bytes decoded at a time.
const STEP: usize = 1 << 20;
/// DEFLATE's best: 258 bytes for 2 bits. More than this times the file's size cannot come out of it.
const GZIP_RATIO: u64 = 1032;

/// Reads an image. `path` may be the .nii, .nii.gz, or either file of a .hdr/.img pair.
///
/// Unscaled uint8 loads as [`Voxels::U8`]; other integers whose values (scaled) are all whole numbers in i16's range as
/// [`Voxels::I16`]; everything else as f32. Non-finite voxels are kept: see [`read_ct`].
///
/// # Errors
/// [`Error::File`], naming the file and what is wrong: missing, a folder, not NIfTI, cut short, damaged, axes of length 0 or
/// less, true 4D, an element type other than integer or float, voxel size 0 or less, an affine that is singular or not
/// finite, a finite slope with an inter that is not.
pub fn read(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    let header_path = header_path(path);
    let mut source = Source::open(&header_path)?;
    let mut bytes = vec![0u8; Version::Two.header_bytes()];
    let (version, order) = source
        .fill(&mut bytes[..4])
        .ok()
        .and_then(|()| Version::detect([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .ok_or_else(|| Error::file(&header_path, "is not a NIfTI file"))?;
    bytes.truncate(version.header_bytes());
    source.fill(&mut bytes[4..]).map_err(|e| source.error(&e, "inside its header"))?;
    let fields = Fields::parse(version, order, &bytes).ok_or_else(|| {
        Error::file(&header_path, "is not a NIfTI file (no NIfTI magic; ANALYZE 7.5 files have to be converted)")
    })?;

    let wrong = |reason: String| Error::file(&header_path, reason);
    let (axes, [i, j, k]) = shape(&fields).map_err(wrong)?;
    let number = fields.number().map_err(|name| {
        wrong(format!(
            "voxels of type {name} (code {}) are not supported, expected integers or floats",
            fields.datatype
        ))
    })?;
    let scale = scale(&fields).map_err(wrong)?;
    let mut warnings = Vec::new();
    let geometry = geometry::read(&fields, version, axes, [i, j, k], &mut warnings).map_err(wrong)?;

    let claimed = || format!("its header claims {i} x {j} x {k} voxels of {number}");
    let (count, length) = [j, k, number.size()]
        .iter()
        .try_fold(i, |n, &d| n.checked_mul(d))
        .map(|length| (length / number.size(), length as u64))
        .ok_or_else(|| wrong(format!("{}, more than memory can hold", claimed())))?;
    let mut offset = offset(&fields, version).map_err(wrong)?;
    if fields.single {
        offset = offset.max(version.header_bytes() as u64);
        source.skip(offset - version.header_bytes() as u64).map_err(|e| source.error(&e, "before its voxels"))?;
    } else {
        source = Source::open(&voxel_path(&header_path, path)?)?;
        source.skip(offset).map_err(|e| source.error(&e, "before its voxels"))?;
    }
    if source.most < offset.saturating_add(length) {
        let held = source.most.saturating_sub(offset);
        let reason = format!("{} ({length} bytes), the file holds at most {held} bytes of them", claimed());
        return Err(Error::file(&source.path, reason));
    }
    let voxels = source.voxels(number, order, scale, count)?;
    source.finish()?;

    let volume = Volume { shape: [k, j, i], voxels, affine: geometry.affine };
    let header = Header { version, byte_order: order, stored: number, scale, units: fields.units, geometry };
    Ok(Image { volume, header, warnings })
}

/// Reads an image and refuses voxels that are NaN or infinite.
///
/// # Errors
/// As [`read`], and for such voxels with their count and the first one's place.
pub fn read_ct(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    let image = read(path)?;
    image.volume.check_finite().map_err(|e| Error::file(path, e))?;
    Ok(image)
}

/// Reads a label mask in any element type as [`Voxels::U8`].
///
/// # Errors
/// As [`read`], and for the first voxel that is not a whole number from 0 to 255.
pub fn read_labels(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    let mut image = read(path)?;
    image.volume = image.volume.to_labels().map_err(|e| Error::file(path, e))?;
    Ok(image)
}

/// Number of axes in the header, and the first three lengths (i, j, k).
fn shape(fields: &Fields) -> Result<(usize, [usize; 3]), String> {
    let axes = fields.dim[0];
    if !(1.0..=7.0).contains(&axes) {
        return Err(format!("its header claims {axes} axes, expected 1 to 7"));
    }
    let dim = &fields.dim[1..=axes as usize];
    let shown = || dim.iter().map(f64::to_string).collect::<Vec<_>>().join(" x ");
    if let Some((axis, length)) = dim.iter().enumerate().find(|(_, length)| **length < 1.0) {
        return Err(format!("axis {} of {} has length {length}, expected at least 1", axis + 1, shown()));
    }
    if dim.iter().skip(3).any(|&length| length > 1.0) {
        return Err(format!("is a {axes}D image ({}), expected a single 3D volume", shown()));
    }
    let length = |axis: usize| dim.get(axis).map_or(1, |&length| length as usize);
    Ok((dim.len(), [length(0), length(1), length(2)]))
}

/// Slope and inter, as nibabel decides.
fn scale(fields: &Fields) -> Result<Option<(f64, f64)>, String> {
    let (slope, inter) = (fields.scl_slope, fields.scl_inter);
    if slope == 0.0 || !slope.is_finite() {
        return Ok(None);
    }
    if !inter.is_finite() {
        return Err(format!("its scale has a slope of {slope} with an inter of {inter}"));
    }
    Ok((slope != 1.0 || inter != 0.0).then_some((slope, inter)))
}

/// Bytes before the voxels; a single file that says 0 means right behind the header.
fn offset(fields: &Fields, version: Version) -> Result<u64, String> {
    let offset = fields.vox_offset;
    if offset == 0.0 {
        return Ok(if fields.single { version.single_offset() as u64 } else { 0 });
    }
    let least = if fields.single { version.header_bytes() as f64 } else { 0.0 };
    if offset.fract() != 0.0 || !(least..9e15).contains(&offset) {
        return Err(format!("its voxels start at byte {offset} (vox_offset), expected a whole number from {least}"));
    }
    Ok(offset as u64)
}

/// The header of an .img is the .hdr beside it.
fn header_path(path: &Path) -> PathBuf {
    partner(path, "img", "hdr").into_iter().find(|p| p.exists()).unwrap_or_else(|| path.to_path_buf())
}

/// The voxels of an .hdr are in the .img beside it.
fn voxel_path(header: &Path, asked: &Path) -> Result<PathBuf> {
    if header != asked {
        return Ok(asked.to_path_buf());
    }
    let candidates = partner(header, "hdr", "img");
    let Some(first) = candidates.first() else {
        return Err(Error::file(header, "keeps its voxels in an .img file (magic ni1), but is not named .hdr"));
    };
    let missing = || Error::file(header, format!("its voxels are missing: there is no file {}", first.display()));
    candidates.iter().find(|p| p.exists()).cloned().ok_or_else(missing)
}

/// The names that `path` (ending in `from` or `from`.gz) may have with `to` instead: as it is, then with .gz on or off.
fn partner(path: &Path, from: &str, to: &str) -> Vec<PathBuf> {
    let name = path.as_os_str().to_string_lossy().into_owned();
    let (stem, gz) = match name.strip_suffix(".gz") {
        Some(stem) => (stem.to_owned(), true),
        None => (name, false),
    };
    let Some((base, extension)) = stem.rsplit_once('.') else { return Vec::new() };
    if !extension.eq_ignore_ascii_case(from) {
        return Vec::new();
    }
    let to = if extension == extension.to_uppercase() { to.to_uppercase() } else { to.to_owned() };
    let (plain, zipped) = (PathBuf::from(format!("{base}.{to}")), PathBuf::from(format!("{base}.{to}.gz")));
    if gz { vec![zipped, plain] } else { vec![plain, zipped] }
}

enum Stream {
    Plain(BufReader<File>),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

/// A file, unzipped on the fly when its content (not its name) says gzip.
struct Source {
    path: PathBuf,
    stream: Stream,
    /// The most bytes that can come out of it.
    most: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let (mut file, metadata) = crate::io::open(path)?;
        let failed = |e: std::io::Error| Error::file(path, format!("cannot be read: {e}"));
        let mut magic = [0u8; 2];
        let gzip = match file.read_exact(&mut magic) {
            Ok(()) => magic == [0x1f, 0x8b],
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => false,
            Err(e) => return Err(failed(e)),
        };
        file.rewind().map_err(failed)?;
        let reader = BufReader::with_capacity(STEP, file);
        let length = metadata.len();
        let (stream, most) = if gzip {
            (Stream::Gzip(Box::new(MultiGzDecoder::new(reader))), length.saturating_mul(GZIP_RATIO))
        } else {
            (Stream::Plain(reader), length)
        };
        Ok(Self { path: path.to_path_buf(), stream, most })
    }

    fn reader(&mut self) -> &mut dyn Read {
        match &mut self.stream {
            Stream::Plain(reader) => reader,
            Stream::Gzip(reader) => reader,
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        self.reader().read_exact(buffer)
    }

    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        let skipped = std::io::copy(&mut self.reader().take(bytes), &mut std::io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// `count` voxels, decoded a step at a time.
    fn voxels(&mut self, number: Number, order: ByteOrder, scale: Option<(f64, f64)>, count: usize) -> Result<Voxels> {
        let mut values = Values::new(number, scale, count)
            .map_err(|()| Error::file(&self.path, format!("its {count} voxels do not fit in this machine's memory")))?;
        let size = number.size();
        let mut buffer = vec![0u8; STEP.min(count * size)];
        let mut done = 0;
        while done < count {
            let now = (count - done).min(STEP / size);
            let bytes = &mut buffer[..now * size];
            self.fill(bytes).map_err(|e| self.error(&e, &format!("after {done} of {count} voxels")))?;
            match scale {
                None => number.decode(order, bytes, |v| values.push(v)),
                Some((slope, inter)) => number.decode(order, bytes, |v| values.push(slope * v + inter)),
            }
            done += now;
        }
        Ok(values.into_voxels())
    }

    /// Reads what is left of a gzip stream, so that its checksum is compared. A file with much more behind the voxels is
    /// left alone.
    fn finish(&mut self) -> Result<()> {
        if let Stream::Gzip(reader) = &mut self.stream {
            let tail = std::io::copy(&mut reader.take(STEP as u64), &mut std::io::sink());
            tail.map_err(|e| self.error(&e, "behind its voxels"))?;
        }
        Ok(())
    }

    /// What a failed read means, `place` being where it happened.
    fn error(&self, error: &std::io::Error, place: &str) -> Error {
        let gzip = matches!(self.stream, Stream::Gzip(_));
        let reason = match error.kind() {
            ErrorKind::UnexpectedEof => {
                format!("is cut short: the {} ends {place}", if gzip { "gzip stream" } else { "file" })
            }
            ErrorKind::InvalidInput | ErrorKind::InvalidData if gzip => {
                format!("is damaged: the gzip stream is not valid {place} ({error})")
            }
            _ => format!("cannot be read {place}: {error}"),
        };
        Error::file(&self.path, reason)
    }
}

/// Voxels as they come in: as narrow as the stored type allows, widened to f32 at the first value that does not fit.
enum Values {
    U8(Vec<u8>),
    I16(Vec<i16>),
    F32(Vec<f32>),
}

impl Values {
    fn new(number: Number, scale: Option<(f64, f64)>, count: usize) -> Result<Self, ()> {
        Ok(match (number, scale) {
            (Number::U8, None) => Self::U8(reserve(count)?),
            (number, _) if number.is_integer() => Self::I16(reserve(count)?),
            _ => Self::F32(reserve(count)?),
        })
    }

    fn push(&mut self, value: f64) {
        match self {
            Self::U8(values) => values.push(value as u8),
            Self::I16(values) => {
                let narrow = value as i16;
                if f64::from(narrow) == value {
                    values.push(narrow);
                } else {
                    let mut wide: Vec<f32> = Vec::with_capacity(values.capacity());
                    wide.extend(values.iter().map(|&v| f32::from(v)));
                    wide.push(value as f32);
                    *self = Self::F32(wide);
                }
            }
            Self::F32(values) => values.push(value as f32),
        }
    }

    fn into_voxels(self) -> Voxels {
        match self {
            Self::U8(values) => Voxels::U8(values.into()),
            Self::I16(values) => Voxels::I16(values.into()),
            Self::F32(values) => Voxels::F32(values.into()),
        }
    }
}

fn reserve<T>(count: usize) -> Result<Vec<T>, ()> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| ())?;
    Ok(values)
}
