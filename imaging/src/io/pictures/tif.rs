//! TIFF: the first page as a picture, or all pages as a stack.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::{Picture, apart, bytes, description, ensure_possible, floats};
use crate::volume::Voxels;
use nephron_compute::error::{Error, Result};

/// Largest number of pages, far beyond that of any scan's slices.
const MAX_PAGES: usize = 1 << 16;
/// A PhotometricInterpretation: the `tiff` crate inverts such values, tifffile does not.
const WHITE_IS_ZERO: u16 = 0;
/// A PlanarConfiguration.
const IN_PLANES: u16 = 2;

/// A TIFF whose pages are read one after the other.
struct Reader<'a> {
    path: &'a Path,
    decoder: Decoder<BufReader<File>>,
    /// Length of the file.
    length: u64,
    /// The bytes that the pages read so far were decoded to.
    decoded: u64,
}

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    /// (h, w).
    size: [usize; 2],
    /// Values of a pixel.
    samples: usize,
    /// Whether the values of a pixel lie in planes of their own.
    in_planes: bool,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let (file, metadata) = crate::io::open(path)?;
        let not_tiff = |e| Error::io(path, "is not a TIFF file", e);
        let mut decoder = Decoder::new(BufReader::new(file)).map_err(not_tiff)?;
        // The limit holds for the values of tags too: it is that of the crate, or as much as the first page needs.
        let (width, height) = decoder.dimensions().map_err(not_tiff)?;
        let samples = decoder.find_tag_unsigned::<u16>(Tag::SamplesPerPixel).map_err(not_tiff)?.unwrap_or(1);
        let depth = decoder.colortype().map_err(Self::damaged(path))?.bit_depth().div_ceil(8);
        let needed = (u64::from(width) * u64::from(height)).saturating_mul(u64::from(samples) * u64::from(depth));
        ensure_possible(path, needed, metadata.len())?;
        let mut limits = Limits::default();
        limits.decoding_buffer_size = limits.decoding_buffer_size.max(needed as usize);
        Ok(Self { path, decoder: decoder.with_limits(limits), length: metadata.len(), decoded: 0 })
    }

    fn refused(&self, reason: String) -> Error {
        Error::file(self.path, format!("TIFF: {reason}"))
    }

    fn damaged(path: &Path) -> impl Fn(tiff::TiffError) -> Error + '_ {
        move |e| Error::io(path, "is damaged, or a kind of TIFF that is not read", e)
    }

    /// The axes that the first page's description gives.
    fn described(&mut self, pages: usize) -> Result<Option<Vec<usize>>> {
        let text = match self.decoder.find_tag(Tag::ImageDescription).map_err(Self::damaged(self.path))? {
            Some(value) => value.into_string().map_err(Self::damaged(self.path))?,
            None => return Ok(None),
        };
        description::axes(&text, pages).map_err(|reason| self.refused(reason))
    }

    /// The current page and its values.
    fn page(&mut self) -> Result<(Page, DecodingResult)> {
        let damaged = Self::damaged(self.path);
        let (width, height) = self.decoder.dimensions().map_err(&damaged)?;
        let colour = self.decoder.colortype().map_err(&damaged)?;
        let samples = match colour {
            ColorType::Gray(8 | 16 | 32 | 64) => 1,
            ColorType::RGB(8 | 16 | 32 | 64) => 3,
            ColorType::RGBA(8 | 16 | 32 | 64) => 4,
            other => {
                let expected = "grey, RGB or RGBA of 8, 16, 32 or 64 bits";
                return Err(self.refused(format!("expected {expected}, found {other:?}")));
            }
        };
        let kind = self.decoder.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).map_err(&damaged)?;
        if kind == Some(WHITE_IS_ZERO) {
            return Err(self.refused("expected black stored as 0, found white (WhiteIsZero)".into()));
        }
        let planes = self.decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(&damaged)?;
        let page = Page {
            size: [height as usize, width as usize],
            samples,
            in_planes: samples > 1 && planes == Some(IN_PLANES),
        };
        let voxels = u64::from(width).saturating_mul(u64::from(height));
        let bytes = voxels.saturating_mul(samples as u64 * u64::from(colour.bit_depth() / 8));
        self.decoded = self.decoded.saturating_add(bytes);
        ensure_possible(self.path, self.decoded, self.length)?;
        let stored = self.decoder.image_buffer_layout().map_err(&damaged)?.complete_len as u64;
        if stored != bytes {
            return Err(self.refused(format!("expected {bytes} bytes for a page of {colour:?}, found {stored}")));
        }
        let mut values = DecodingResult::U8(Vec::new());
        self.decoder.read_image_to_buffer(&mut values).map_err(&damaged)?;
        Ok((page, values))
    }
}

/// Reads the only page.
pub(super) fn read_picture(path: &Path) -> Result<Picture> {
    let mut reader = Reader::open(path)?;
    if reader.decoder.more_images() {
        return Err(reader.refused("expected one page, found several (a stack is read by Tiff3DIO)".into()));
    }
    let (page, values) = reader.page()?;
    let [h, w] = page.size;
    if page.in_planes {
        return Err(reader.refused("expected the colours of a pixel side by side, found planes".into()));
    }
    let wanted = if page.samples == 1 { vec![h, w] } else { vec![h, w, page.samples] };
    if let Some(found) = reader.described(1)?.filter(|found| *found != wanted) {
        return Err(reader.refused(format!("expected a picture of {wanted:?}, its description says {found:?}")));
    }
    let samples = page.samples;
    let channels = match values {
        DecodingResult::U8(v) => apart(&v, samples, samples, bytes),
        other => apart(&to_floats(other), samples, samples, floats),
    };
    Ok(Picture { size: page.size, channels })
}

/// Reads all pages: their number, height and width, and the voxels.
pub(super) fn read_stack(path: &Path) -> Result<([usize; 3], Voxels)> {
    let mut reader = Reader::open(path)?;
    let (first, mut values) = reader.page()?;
    let mut pages = 1;
    if first.samples > 1 && !first.in_planes {
        return Err(reader.refused(format!("expected one value a voxel, found {}", first.samples)));
    }
    while reader.decoder.more_images() {
        if pages == MAX_PAGES {
            return Err(reader.refused(format!("expected at most {MAX_PAGES} pages")));
        }
        reader.decoder.next_image().map_err(Reader::damaged(path))?;
        let (page, more) = reader.page()?;
        pages += 1;
        if page != first || !append(&mut values, more) {
            let reason =
                format!("expected pages of one size and type, found {page:?} behind {first:?} or another type");
            return Err(reader.refused(reason));
        }
    }
    reader.decoder.seek_to_image(0).map_err(Reader::damaged(path))?;
    let [h, w] = first.size;
    let slices = pages * first.samples;
    let shape = [slices, h, w];
    match reader.described(pages)? {
        Some(found) if found != shape => {
            return Err(reader.refused(format!("expected a stack of {shape:?}, its description says {found:?}")));
        }
        None if slices == 1 => {
            return Err(
                reader.refused("expected a stack, found one page (a picture is read by NaturalImage2DIO)".into())
            );
        }
        _ => {}
    }
    let voxels = match values {
        DecodingResult::U8(v) => bytes(v),
        DecodingResult::I16(v) => Voxels::I16(Arc::new(v)),
        other => Voxels::F32(Arc::new(to_floats(other))),
    };
    Ok((shape, voxels))
}

/// Appends values of the same type; false where they have another.
fn append(to: &mut DecodingResult, from: DecodingResult) -> bool {
    use DecodingResult::{F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    match (to, from) {
        (U8(to), U8(from)) => to.extend(from),
        (U16(to), U16(from)) => to.extend(from),
        (U32(to), U32(from)) => to.extend(from),
        (U64(to), U64(from)) => to.extend(from),
        (I8(to), I8(from)) => to.extend(from),
        (I16(to), I16(from)) => to.extend(from),
        (I32(to), I32(from)) => to.extend(from),
        (I64(to), I64(from)) => to.extend(from),
        (F16(to), F16(from)) => to.extend(from),
        (F32(to), F32(from)) => to.extend(from),
        (F64(to), F64(from)) => to.extend(from),
        _ => return false,
    }
    true
}

/// As NumPy casts to float32.
fn to_floats(values: DecodingResult) -> Vec<f32> {
    match values {
        DecodingResult::U8(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::U16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::U32(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::U64(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::I8(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::I16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::I32(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::I64(v) => v.into_iter().map(|v| v as f32).collect(),
        DecodingResult::F16(v) => v.into_iter().map(f32::from).collect(),
        DecodingResult::F32(v) => v,
        DecodingResult::F64(v) => v.into_iter().map(|v| v as f32).collect(),
    }
}
