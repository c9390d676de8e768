//! u8 and i16 elements inside 32-bit words: WGSL has no 8- or 16-bit integers, and Vulkan adapters need not store them.
//! Little-endian, as every GPU is.

use cubecl::prelude::*;

/// Element `i` of u8 data stored as words.
#[cube]
pub fn load_u8(words: &Array<u32>, i: usize) -> u32 {
    let word = words[i / 4];
    (word >> ((i % 4) as u32 * 8)) & 255
}

/// Element `i` of i16 data stored as words, sign extended.
#[cube]
pub fn load_i16(words: &Array<u32>, i: usize) -> i32 {
    let word = words[i / 2];
    let low = (word >> ((i % 2) as u32 * 16)) & 65535;
    // 0..65535 to -32768..32767 without a signed shift, whose meaning differs between languages.
    let flipped = low ^ 32768;
    i32::cast_from(flipped) - 32768
}
