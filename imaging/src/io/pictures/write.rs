//! Masks as pictures and stacks, of 8 bits a pixel: labels above 254 there are none.

use std::io::Write;
use std::path::Path;

use image::codecs::bmp::BmpEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use tiff::encoder::colortype::Gray8;
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder};
use tiff::tags::Tag;

use super::{ENDINGS, mask_spacing_file, split};
use crate::io::write_atomic;
use crate::volume::LabelVolume;
use nephron_compute::error::{Error, Result};

/// Writes the mask of a picture, one slice, as grey PNG, BMP or TIFF by the name's ending.
///
/// # Errors
/// [`Error::File`] for another ending and a file that cannot be written; [`Error::Shape`] for a mask of several slices.
pub fn write_labels(path: impl AsRef<Path>, mask: &LabelVolume) -> Result<()> {
    let path = path.as_ref();
    let [d, h, w] = mask.shape();
    let (1, Ok(width), Ok(height)) = (d, u32::try_from(w), u32::try_from(h)) else {
        return Err(Error::shape("picture", "[1, h, w]", format!("{:?}", mask.shape())));
    };
    let (labels, grey) = (mask.labels(), ExtendedColorType::L8);
    match split(path, &ENDINGS).map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
        Some(".png") => write_atomic(path, |file| {
            PngEncoder::new(file).write_image(labels, width, height, grey).map_err(std::io::Error::other)
        }),
        Some(".bmp") => write_atomic(path, |mut file| {
            BmpEncoder::new(&mut file).write_image(labels, width, height, grey).map_err(std::io::Error::other)
        }),
        Some(_) => write_pages(path, [d, h, w], labels, &format!("[{h}, {w}]")),
        None => Err(Error::file(path, format!("expected a picture's name, {}", ENDINGS.join(", ")))),
    }
}

/// Writes a mask as a TIFF of a page for each slice, and beside it a JSON file with the spacing (d, h, w).
///
/// # Errors
/// [`Error::File`] for files that cannot be written.
pub fn write_stack(path: impl AsRef<Path>, mask: &LabelVolume, spacing: [f64; 3]) -> Result<()> {
    let path = path.as_ref();
    write_atomic(mask_spacing_file(path), |file| writeln!(file, "{}", serde_json::json!({ "spacing": spacing })))?;
    let [d, h, w] = mask.shape();
    write_pages(path, [d, h, w], mask.labels(), &format!("[{d}, {h}, {w}]"))
}

/// A page for each slice. tifffile tells a stack of one slice from a picture by the axes in the description.
fn write_pages(path: &Path, [_, h, w]: [usize; 3], labels: &[u8], axes: &str) -> Result<()> {
    let (Ok(width), Ok(height)) = (u32::try_from(w), u32::try_from(h)) else {
        return Err(Error::shape("TIFF", "fewer pixels along an axis", format!("{h} x {w}")));
    };
    write_atomic(path, |file| {
        let write = || -> tiff::TiffResult<()> {
            let compression = Compression::Deflate(DeflateLevel::default());
            let mut encoder = TiffEncoder::new(file)?.with_compression(compression);
            for (number, slice) in labels.chunks(h * w).enumerate() {
                let mut page = encoder.new_image::<Gray8>(width, height)?;
                if number == 0 {
                    page.encoder().write_tag(Tag::ImageDescription, format!("{{\"shape\": {axes}}}").as_str())?;
                }
                page.write_data(slice)?;
            }
            Ok(())
        };
        write().map_err(std::io::Error::other)
    })
}
