//! BMP of 8 bits (grey or a palette) and of 24 bits (colours), not compressed; decoded by the `image` crate.

use std::io::{BufReader, Read, Seek};
use std::path::Path;

use image::ImageDecoder;
use image::codecs::bmp::BmpDecoder;

use super::{Picture, apart, bytes, ensure_possible};
use nephron_compute::error::{Error, Result};

/// The bytes of the file's head and of the oldest information head that is read, BITMAPINFOHEADER.
const FILE_HEAD: usize = 14;
const INFORMATION: usize = 40;
/// The most colours of a palette, four bytes each.
const COLOURS: usize = 256;

/// Reads a picture as Pillow does: one whose palette is all greys in their order has one channel.
pub(super) fn read(path: &Path) -> Result<Picture> {
    let (mut file, metadata) = crate::io::open(path)?;
    let failed = |e: std::io::Error| Error::io(path, "cannot be read", e);
    let mut head = Vec::new();
    let most = (FILE_HEAD + INFORMATION + 4 * COLOURS + 256) as u64;
    (&mut file).take(most).read_to_end(&mut head).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if head.len() < FILE_HEAD + INFORMATION || &head[..2] != b"BM" {
        return Err(Error::file(path, "is not a BMP file"));
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (information, bits, compression) = (word(14), word(28) & 0xffff, word(30));
    if information < INFORMATION || compression != 0 || ![8, 24].contains(&bits) {
        let expected = "8 or 24 bits without compression and a head of at least 40 bytes";
        let found = format!("{bits} bits, compression {compression}, a head of {information} bytes");
        return Err(Error::file(path, format!("BMP: expected {expected}, found {found}")));
    }
    let is_grey = bits == 8 && {
        let colours = if word(46) == 0 { COLOURS } else { word(46).min(COLOURS) };
        let palette = head.get(FILE_HEAD + information..).unwrap_or_default().chunks_exact(4).take(colours);
        palette.len() == colours && palette.enumerate().all(|(i, c)| c[..3].iter().all(|v| usize::from(*v) == i))
    };
    let damaged = |e: image::ImageError| Error::io(path, "is damaged, or not a BMP file that is read", e);
    let decoder = BmpDecoder::new(BufReader::new(file)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let stored = usize::from(decoder.color_type().channel_count());
    ensure_possible(path, decoder.total_bytes(), metadata.len())?;
    let mut values = vec![0u8; decoder.total_bytes() as usize];
    decoder.read_image(&mut values).map_err(damaged)?;
    let channels = if is_grey { 1 } else { stored.min(3) };
    Ok(Picture { size: [height as usize, width as usize], channels: apart(&values, stored, channels, bytes) })
}
