//! Pictures and stacks of TIFF pages, as nnU-Net's `NaturalImage2DIO` and `Tiff3DIO` read and write them.
//!
//! They know nothing of a patient: [`images`](super::images) reads none of them. The `image` crate decodes PNG and BMP, the `tiff`
//! crate TIFF: the former's own TIFF reader reads the first page alone. What they make of a file is compared with what nnU-Net's
//! readers (Pillow, tifffile) make of it; where the two differ, the file is refused by the name of what is in it.

mod bmp;
mod description;
mod png;
mod tif;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use write::{write_labels, write_stack};

use crate::volume::{Affine, Volume, Voxels};
use nephron_compute::error::{Error, Result};
use nephron_compute::{ensure_room, shown};

/// The endings of the names of pictures, in lower case.
pub const ENDINGS: [&str; 4] = [".png", ".bmp", ".tif", ".tiff"];
/// The endings of the names of stacks.
pub const STACK_ENDINGS: [&str; 2] = [".tif", ".tiff"];
/// Voxel sizes (d, h, w) that nnU-Net gives a picture.
pub const SPACING: [f64; 3] = [999.0, 1.0, 1.0];
/// The most bytes that a byte of a compressed file can become, by DEFLATE or LZW.
const MAX_GROWTH: u64 = 4096;

/// The name of a file without its ending, and the ending with its dot as it is written; None where it is none of `endings`.
pub fn split<'a>(path: &'a Path, endings: &[&str]) -> Option<(&'a str, &'a str)> {
    let name = path.file_name()?.to_str()?;
    let dot = name.rfind('.').filter(|dot| *dot > 0)?;
    let (stem, ending) = name.split_at(dot);
    endings.contains(&ending.to_ascii_lowercase().as_str()).then_some((stem, ending))
}

/// Reads a PNG, BMP or TIFF picture: a volume of one slice for each of its channels (grey, or red, green, blue and perhaps alpha),
/// with voxels of 999 x 1 x 1 mm.
///
/// # Errors
/// [`Error::File`] for another format and a file that is damaged or too large for its length; for grey with alpha, and colours
/// of 16 bits in PNG; for BMP of other than 8 or 24 bits; for TIFF as [`read_stack`], and of several pages.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Volume>> {
    let path = path.as_ref();
    let ending = split(path, &ENDINGS).map(|(_, ending)| ending.to_ascii_lowercase());
    let picture = match ending.as_deref() {
        Some(".png") => png::read(path)?,
        Some(".bmp") => bmp::read(path)?,
        Some(_) => tif::read_picture(path)?,
        None => return Err(Error::file(path, format!("expected a picture, {}", ENDINGS.join(", ")))),
    };
    let affine = affine(SPACING);
    let Picture { size: [h, w], channels } = picture;
    let volume = |voxels| Volume::new([1, h, w], voxels, affine).map_err(|e| Error::in_file(path, e));
    channels.into_iter().map(volume).collect()
}

/// Reads the pages of a TIFF as the slices of an image with voxels of `spacing` (d, h, w).
///
/// # Errors
/// [`Error::File`] for a file that is no TIFF, is damaged or too large for its length; a single page that is not said to be a stack;
/// pages of different sizes or types; palettes, CMYK and other colours; samples of other than 8, 16, 32 and 64 bits; white stored
/// as 0; a compression other than none, DEFLATE, LZW and PackBits; OME-TIFF, and stacks of more than one axis beside y and x.
pub fn read_stack(path: impl AsRef<Path>, spacing: [f64; 3]) -> Result<Volume> {
    let path = path.as_ref();
    let (shape, voxels) = tif::read_stack(path)?;
    Volume::new(shape, voxels, affine(spacing)).map_err(|e| Error::in_file(path, e))
}

/// The file that tells the spacing of a stack: `case.json` for `case_0000.tif` and `case.tif`.
pub fn spacing_file(stack: &Path) -> PathBuf {
    let stem = split(stack, &STACK_ENDINGS).map_or("", |(stem, _)| stem);
    let case = match stem.rsplit_once('_') {
        Some((case, number)) if number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()) => case,
        _ => stem,
    };
    stack.with_file_name(format!("{case}.json"))
}

/// The file that [`write_stack`] writes beside a mask: `case_0001.json` for `case_0001.tif`, whose number is no channel's.
pub fn mask_spacing_file(mask: &Path) -> PathBuf {
    mask.with_extension("json")
}

/// The spacing (d, h, w) in a stack's [`spacing_file`]; None where there is none, for which nnU-Net takes 1 x 1 x 1.
///
/// # Errors
/// [`Error::File`] for a file that is no JSON object with `spacing`, three numbers above 0.
pub fn stack_spacing(stack: &Path) -> Result<Option<[f64; 3]>> {
    let path = spacing_file(stack);
    if !path.exists() {
        return Ok(None);
    }
    let text = super::read_small(&path)?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| Error::io(&path, "expected the spacing of a stack as JSON", e))?;
    let numbers =
        value["spacing"].as_array().map(|list| list.iter().map(serde_json::Value::as_f64).collect::<Vec<_>>());
    match numbers.as_deref() {
        Some(&[Some(d), Some(h), Some(w)]) if [d, h, w].iter().all(|s| s.is_finite() && *s > 0.0) => {
            Ok(Some([d, h, w]))
        }
        _ => {
            let found = shown(&value["spacing"].to_string());
            Err(Error::file(path, format!("spacing: expected three numbers above 0, (z, y, x), found {found}")))
        }
    }
}

/// Axes as they are stored.
fn affine([d, h, w]: [f64; 3]) -> Affine {
    Affine([[w, 0.0, 0.0, 0.0], [0.0, h, 0.0, 0.0], [0.0, 0.0, d, 0.0]])
}

/// A decoded picture.
struct Picture {
    /// (h, w).
    size: [usize; 2],
    /// The values of each channel.
    channels: Vec<Voxels>,
}

/// The first `channels` of values that lie side by side, `stored` for each pixel.
fn apart<T: Copy + Into<f32>>(
    values: &[T],
    stored: usize,
    channels: usize,
    voxels: fn(Vec<T>) -> Voxels,
) -> Vec<Voxels> {
    let of = |channel: usize| values.iter().skip(channel).step_by(stored).copied().collect();
    (0..channels).map(|channel| voxels(of(channel))).collect()
}

fn bytes(values: Vec<u8>) -> Voxels {
    Voxels::U8(Arc::new(values))
}

fn floats<T: Into<f32>>(values: Vec<T>) -> Voxels {
    Voxels::F32(Arc::new(values.into_iter().map(Into::into).collect()))
}

/// The most bytes that a file of `length` bytes can become.
fn most_bytes(length: u64) -> usize {
    usize::try_from(length.saturating_mul(MAX_GROWTH)).unwrap_or(usize::MAX)
}

/// Refuses a claim of more bytes than a file of `length` bytes can hold, or than there is memory for.
fn ensure_possible(path: &Path, claimed: u64, length: u64) -> Result<()> {
    let most = most_bytes(length);
    if claimed > most as u64 {
        let reason = format!("claims {claimed} bytes of pixels, its {length} bytes can hold at most {most}");
        return Err(Error::file(path, reason));
    }
    ensure_room::<u8>("a picture", usize::try_from(claimed).unwrap_or(usize::MAX))
}
