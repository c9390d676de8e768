//! PNG, whose head is looked at before the `image` crate decodes it: the crate says nothing of what it expands.

use std::io::{BufReader, Read, Seek};
use std::path::Path;

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder};

use super::{Picture, apart, bytes, ensure_possible, floats, most_bytes};
use nephron_compute::error::{Error, Result};

/// The bytes up to the colour type: signature, length and name of the first chunk, width, height, depth, colour.
const HEAD: usize = 26;
/// What the decoder may take for texts and tables besides the pixels.
const MIN_ALLOWED: u64 = 1 << 24;

/// Reads a picture as Pillow does: palettes become colours, and transparency that is not a channel is ignored.
pub(super) fn read(path: &Path) -> Result<Picture> {
    let (mut file, metadata) = crate::io::open(path)?;
    let mut head = [0; HEAD];
    let read = file.read_exact(&mut head).and_then(|()| file.rewind());
    if read.is_err() || &head[..8] != b"\x89PNG\r\n\x1a\n" || &head[12..16] != b"IHDR" {
        return Err(Error::file(path, "is not a PNG file"));
    }
    let [depth, colour] = [head[24], head[25]];
    let refused = |what: &str| {
        let expected = "grey of 1 to 16 bits, a palette, or RGB or RGBA of 8 bits";
        Err(Error::file(path, format!("PNG: expected {expected}, found {what} of {depth} bits")))
    };
    let channels = match (colour, depth) {
        (0, _) => 1,
        (2, 8) | (3, _) => 3,
        (6, 8) => 4,
        // Pillow cuts their lower byte off.
        (2, _) => return refused("RGB"),
        (6, _) => return refused("RGBA"),
        (4, _) => return refused("grey with alpha"),
        _ => return refused(&format!("colour type {colour}")),
    };
    let damaged = |e: image::ImageError| Error::io(path, "is damaged, or not a PNG file that is read", e);
    let size = |at: usize| u64::from(u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let claimed = size(16).saturating_mul(size(20)).saturating_mul(u64::from(depth.max(8) / 8) * channels as u64);
    ensure_possible(path, claimed, metadata.len())?;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some((most_bytes(metadata.len()) as u64).saturating_add(MIN_ALLOWED));
    let decoder = PngDecoder::with_limits(BufReader::new(file), limits).map_err(damaged)?;
    if decoder.is_apng().map_err(damaged)? {
        return Err(Error::file(path, "PNG: expected one picture, found an animation"));
    }
    let (width, height) = decoder.dimensions();
    let stored = usize::from(decoder.color_type().channel_count());
    ensure_possible(path, decoder.total_bytes(), metadata.len())?;
    let color_type = decoder.color_type();
    let mut values = vec![0u8; decoder.total_bytes() as usize];
    decoder.read_image(&mut values).map_err(damaged)?;
    let channels = match color_type {
        ColorType::L16 | ColorType::La16 => {
            let wide: Vec<u16> = values.chunks_exact(2).map(|b| u16::from_ne_bytes([b[0], b[1]])).collect();
            apart(&wide, stored, channels, floats)
        }
        _ => {
            if (colour, depth) == (0, 1) {
                // White is 1, not 255.
                values.iter_mut().for_each(|v| *v = u8::from(*v > 0));
            }
            apart(&values, stored, channels, bytes)
        }
    };
    Ok(Picture { size: [height as usize, width as usize], channels })
}
