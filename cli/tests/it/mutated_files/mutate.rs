//! Damage to the bytes of a file, drawn from a seed.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Numbers at the edges of the types that headers consist of.
const INTEGERS: [i64; 14] =
    [0, 1, -1, 2, 7, 127, 128, 255, 256, 32_767, 65_535, i32::MAX as i64, u32::MAX as i64, i64::MAX];
const FLOATS: [f64; 10] = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e30, 1e300, f64::NAN, f64::INFINITY];
/// What takes the place of a number in a text.
const TEXTS: [&str; 20] = [
    "-1",
    "0",
    "1",
    "2",
    "0.5",
    "-0.0",
    "1e308",
    "1e-308",
    "1e999",
    "nan",
    "inf",
    "99999999999999999999",
    "4294967296",
    "",
    "null",
    "[]",
    "\"x\"",
    "true",
    "{}",
    "\x1b[31m\u{9b}2J",
];

/// One to four mutations of a file; `text` adds those of numbers in words.
pub fn mutate(bytes: &mut Vec<u8>, text: bool, rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            return;
        }
        match rng.random_range(0..if text { 10 } else { 7 }) {
            0 | 1 => flip(bytes, rng),
            2 | 3 => overwrite(bytes, rng),
            4 => bytes.truncate(rng.random_range(0..bytes.len())),
            5 => copy(bytes, rng),
            6 => {
                let (from, until) = range(bytes, rng);
                bytes.drain(from..until);
            }
            7 => long_text(bytes, rng),
            _ => number(bytes, rng),
        }
    }
}

fn flip(bytes: &mut [u8], rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(1..=8) {
        let at = place(bytes, rng);
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
}

/// Half of all places are among the first 600 bytes, where the headers are.
fn place(bytes: &[u8], rng: &mut ChaCha8Rng) -> usize {
    let end = if rng.random() { bytes.len() } else { bytes.len().min(600) };
    rng.random_range(0..end)
}

fn range(bytes: &[u8], rng: &mut ChaCha8Rng) -> (usize, usize) {
    let from = place(bytes, rng);
    (from, (from + rng.random_range(1..=64)).min(bytes.len()))
}

/// A number of 1, 2, 4 or 8 bytes, in either byte order.
fn overwrite(bytes: &mut [u8], rng: &mut ChaCha8Rng) {
    let integer = INTEGERS[rng.random_range(0..INTEGERS.len())];
    let float = FLOATS[rng.random_range(0..FLOATS.len())];
    let mut value: Vec<u8> = match rng.random_range(0..6) {
        0 => (integer as u8).to_le_bytes().into(),
        1 => (integer as i16).to_le_bytes().into(),
        2 => (integer as i32).to_le_bytes().into(),
        3 => integer.to_le_bytes().into(),
        4 => (float as f32).to_le_bytes().into(),
        _ => float.to_le_bytes().into(),
    };
    if rng.random_range(0..4) == 0 {
        value.reverse();
    }
    // Fields of a header are aligned.
    let at = place(bytes, rng) / 2 * 2;
    for (byte, value) in bytes[at..].iter_mut().zip(value) {
        *byte = value;
    }
}

/// A block over another place, or into it.
fn copy(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let (from, until) = range(bytes, rng);
    let block = bytes[from..until].to_vec();
    let to = place(bytes, rng);
    let end = if rng.random() { to } else { (to + block.len()).min(bytes.len()) };
    bytes.splice(to..end, block);
}

/// Another text in the place of a number.
fn number(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let part = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'-');
    let start = place(bytes, rng);
    let Some(from) = (start..bytes.len()).find(|i| part(&bytes[*i])) else { return };
    let until = (from..bytes.len()).find(|i| !part(&bytes[*i])).unwrap_or(bytes.len());
    bytes.splice(from..until, TEXTS[rng.random_range(0..TEXTS.len())].bytes());
}

/// A long run of letters, of line breaks or of brackets.
fn long_text(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let letter = *[b'x', b'\n', b'[', b',', b'\t'].get(rng.random_range(0..5)).expect("one of five");
    let at = place(bytes, rng);
    bytes.splice(at..at, std::iter::repeat_n(letter, rng.random_range(1..5000)));
}
