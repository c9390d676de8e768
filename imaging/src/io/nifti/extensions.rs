//! Header extensions: data that programs store before the voxels (label tables, DICOM headers, histories), kept as bytes.
//!
//! Source: nifti1_io.h of the NIfTI data format working group. The header is followed by four bytes; the first is not 0 where
//! extensions follow. Each extension is its size (a multiple of 16 that includes these eight bytes), its code, and its data.

use std::sync::Arc;

use crate::io::numbers::ByteOrder;
use crate::io::source::Source;
use nephron_compute::error::Result;

/// Number of bytes between header and extensions.
pub(super) const EXTENDER: usize = 4;
/// Number of bytes of size and code before an extension's data.
const HEAD: usize = 8;
/// The size of an extension is a multiple of this.
const ALIGNMENT: usize = 16;
/// Extensions of a file that together have more bytes than this are not kept.
const MAX_BYTES: u64 = 16 << 20;

/// A header extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The kind of the data, NIFTI_ECODE_*, such as 2 for DICOM, 4 for AFNI, 6 for a comment.
    pub code: i32,
    /// The data as in the file, with zeros at its end.
    pub data: Arc<[u8]>,
}

/// Reads the `bytes` bytes after the header (up to the end of the file where None) and returns the extensions in them. Damaged or
/// too large extensions are left out, with a warning.
pub(super) fn read(
    source: &mut Source,
    order: ByteOrder,
    bytes: Option<u64>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Extension>> {
    let cut_short = |source: &Source, e: &std::io::Error| source.error(e, "before its voxels");
    let mut extender = Vec::new();
    let head = bytes.unwrap_or(EXTENDER as u64).min(EXTENDER as u64);
    source.append(head, &mut extender).map_err(|e| cut_short(source, &e))?;
    let left = bytes.map(|bytes| bytes - extender.len() as u64);
    let extended = extender.len() == EXTENDER && extender[0] != 0;
    if !extended || left.is_some_and(|left| left > MAX_BYTES) {
        if extended {
            warnings.push(format!("its header extensions have more than {MAX_BYTES} bytes and are not kept"));
        }
        source.skip(left.unwrap_or(0)).map_err(|e| cut_short(source, &e))?;
        return Ok(Vec::new());
    }
    let mut data = Vec::new();
    source.append(left.unwrap_or(MAX_BYTES), &mut data).map_err(|e| cut_short(source, &e))?;
    if left.is_some_and(|left| left > data.len() as u64) {
        return Err(cut_short(source, &std::io::ErrorKind::UnexpectedEof.into()));
    }
    let (found, damage) = parse(order, &data);
    warnings.extend(damage.map(|reason| format!("{reason}: it and everything after it are not kept")));
    Ok(found)
}

/// The extensions in `data` up to the first that is damaged, and what is wrong with that one. Zeros at the end are padding.
fn parse(order: ByteOrder, mut data: &[u8]) -> (Vec<Extension>, Option<String>) {
    let mut found = Vec::new();
    while data.iter().any(|byte| *byte != 0) {
        let number = |at: usize| {
            let bytes = data.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
            i32::from_le_bytes(order.little(bytes.unwrap_or_default()))
        };
        let (size, code) = (number(0), number(4));
        let end = usize::try_from(size).ok().filter(|end| *end >= HEAD);
        let Some((own, rest)) = end.and_then(|end| data.split_at_checked(end)) else {
            let number = found.len() + 1;
            return (
                found,
                Some(format!("header extension {number} claims {size} bytes, but {} are left", data.len())),
            );
        };
        found.push(Extension { code, data: own[HEAD..].into() });
        data = rest;
    }
    (found, None)
}

/// The bytes of extensions in a file, little-endian, each padded with zeros to a multiple of 16 bytes. The four bytes before
/// them are written with the header.
pub(super) fn to_bytes(extensions: &[Extension]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Extension { code, data } in extensions {
        let size = (HEAD + data.len()).next_multiple_of(ALIGNMENT);
        // Extensions that were read have at most 16 MiB; a size above i32 cannot be represented in the file.
        let Ok(claimed) = i32::try_from(size) else { continue };
        let end = bytes.len() + size;
        bytes.extend(claimed.to_le_bytes());
        bytes.extend(code.to_le_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(end, 0);
    }
    bytes
}
