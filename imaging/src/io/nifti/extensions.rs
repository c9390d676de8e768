//! Header extensions: what a program has to say beside the voxels (label tables, DICOM headers, histories), kept as bytes.
//!
//! Source: nifti1_io.h of the NIfTI data format working group. Behind the header stand four bytes, the first of which says whether
//! there are extensions; each is its size (with these eight bytes, a multiple of 16), its code, and its data.

use std::sync::Arc;

use super::source::Source;
use crate::io::numbers::ByteOrder;
use nephron_compute::error::Result;

/// The four bytes behind the header.
pub(super) const EXTENDER: usize = 4;
/// Size and code before an extension's data.
const HEAD: usize = 8;
/// Sizes are multiples of this.
const ALIGNMENT: usize = 16;
/// More bytes than this, of all extensions of a file together, are not kept.
const MAX_BYTES: u64 = 16 << 20;

/// A header extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Who wrote it: NIFTI_ECODE_*, such as 2 for DICOM, 4 for AFNI, 6 for a comment.
    pub code: i32,
    /// As it stands in the file, zeros at the end included.
    pub data: Arc<[u8]>,
}

/// Reads the extensions behind the header, and everything else up to `bytes` behind it; to the end of the file where None. What
/// is damaged or too large is left out, and a warning says so.
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
    warnings.extend(damage.map(|reason| format!("{reason}: it and what is behind it are not kept")));
    Ok(found)
}

/// The extensions in `data`, up to the first that is damaged, and what is wrong with that. Zeros may fill up the end.
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
            let place = found.len() + 1;
            return (
                found,
                Some(format!("header extension {place} claims {size} bytes of {} that are left", data.len())),
            );
        };
        found.push(Extension { code, data: own[HEAD..].into() });
        data = rest;
    }
    (found, None)
}

/// As they are written, little-endian, each filled up with zeros to a multiple of 16 bytes; the four bytes before them are the
/// header's.
pub(super) fn to_bytes(extensions: &[Extension]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Extension { code, data } in extensions {
        let size = (HEAD + data.len()).next_multiple_of(ALIGNMENT);
        // Of a file that was read it is at most 16 MiB; of more than i32 holds a reader could make nothing.
        let Ok(claimed) = i32::try_from(size) else { continue };
        let end = bytes.len() + size;
        bytes.extend(claimed.to_le_bytes());
        bytes.extend(code.to_le_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(end, 0);
    }
    bytes
}
