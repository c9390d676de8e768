//! What a reader needs to orient himself on a slice: the sides of the patient and a length.

use image::{Rgb, RgbImage};

/// Pixels of a dot of a letter.
const DOT: u32 = 2;
/// Rows and columns of a letter, in dots.
const LETTER: [u32; 2] = [7, 5];
/// Pixels between a letter and the edge.
const MARGIN: u32 = 6;
/// Pixels of the shorter side of a picture that has room for marks.
const LEAST: u32 = 160;
const WHITE: Rgb<u8> = Rgb([255; 3]);
const BLACK: Rgb<u8> = Rgb([0; 3]);

/// A row of dots in five bits, the leftmost the highest. Drawn here: a font for eight letters would be a renderer for eight letters.
fn dots(letter: char) -> [u8; 7] {
    match letter {
        'R' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001],
        'L' => [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111],
        'A' => [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001],
        'P' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000],
        '0' => [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
        '1' => [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        '5' => [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
        'm' => [0b00000, 0b00000, 0b11010, 0b10101, 0b10101, 0b10101, 0b10101],
        _ => [0; 7],
    }
}

/// Marks a slice in LPS orientation whose pixels are `mm` wide: R and L at the sides of the patient, A and P at front and back, and at
/// the bottom a bar of 50 or 10 mm. Pictures with a side below 160 pixels stay as they are.
pub(super) fn mark(picture: &mut RgbImage, mm: f64) {
    let (w, h) = picture.dimensions();
    if w.min(h) < LEAST {
        return;
    }
    let [high, wide] = LETTER.map(|dots| dots * DOT);
    let (middle, centre) = ((h - high) / 2, (w - wide) / 2);
    write(picture, "R", MARGIN, middle);
    write(picture, "L", w - wide - MARGIN, middle);
    write(picture, "A", centre, MARGIN);
    write(picture, "P", centre, h - high - MARGIN);
    let fits = |length: f64| length / mm <= 0.4 * f64::from(w);
    let Some((length, name)) = [(50.0, "50 mm"), (10.0, "10 mm")].into_iter().find(|(length, _)| fits(*length)) else {
        return;
    };
    let (pixels, bottom) = (((length / mm).round() as u32).max(1), h - MARGIN);
    for c in MARGIN - 1..=MARGIN + pixels {
        for r in bottom - 4..bottom {
            let is_edge = c < MARGIN || c == MARGIN + pixels || r == bottom - 4 || r == bottom - 1;
            picture.put_pixel(c, r, if is_edge { BLACK } else { WHITE });
        }
    }
    write(picture, name, MARGIN, bottom - 4 - high - 3);
}

/// White letters with a black edge, from the upper left corner on.
fn write(picture: &mut RgbImage, text: &str, left: u32, top: u32) {
    let step = (LETTER[1] + 1) * DOT;
    let mut at = Vec::new();
    for (i, letter) in text.chars().enumerate() {
        for (row, bits) in dots(letter).into_iter().enumerate() {
            for column in (0..LETTER[1]).filter(|column| bits >> (LETTER[1] - 1 - column) & 1 == 1) {
                let (x, y) = (left + i as u32 * step + column * DOT, top + row as u32 * DOT);
                at.extend((0..DOT * DOT).map(|k| (x + k % DOT, y + k / DOT)));
            }
        }
    }
    let (w, h) = picture.dimensions();
    for &(x, y) in &at {
        for (x, y) in (x.saturating_sub(1)..=x + 1).flat_map(|x| (y.saturating_sub(1)..=y + 1).map(move |y| (x, y))) {
            if x < w && y < h {
                picture.put_pixel(x, y, BLACK);
            }
        }
    }
    at.into_iter().filter(|(x, y)| *x < w && *y < h).for_each(|(x, y)| picture.put_pixel(x, y, WHITE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_shows_the_sides_and_a_length() {
        let grey = Rgb([90; 3]);
        let mut picture = RgbImage::from_pixel(300, 200, grey);
        mark(&mut picture, 0.5);
        // The bar, left of the P, has 100 pixels of 0.5 mm for 50 mm.
        let row = 200 - MARGIN - 2;
        let bar = (0..140).filter(|c| *picture.get_pixel(*c, row) == WHITE).count();
        assert_eq!((bar, *picture.get_pixel(MARGIN - 1, row)), (100, BLACK));
        let whites = |columns: std::ops::Range<u32>| {
            columns
                .flat_map(|c| (90..110).map(move |r| (c, r)))
                .filter(|at| *picture.get_pixel(at.0, at.1) == WHITE)
                .count()
        };
        // R at the left edge of the picture, L at its right; nothing between.
        let dots_of = |letter| dots(letter).iter().map(|row| row.count_ones()).sum::<u32>() as usize;
        assert_eq!((whites(0..20), whites(280..300)), (4 * dots_of('R'), 4 * dots_of('L')));
        assert_eq!(whites(30..270), 0);
        // Of 4 mm a pixel 50 mm are shorter, of 0.05 mm only 10 mm have room; none in a small picture.
        let mut close = RgbImage::from_pixel(600, 200, grey);
        mark(&mut close, 0.05);
        assert_eq!((0..280).filter(|c| *close.get_pixel(*c, row) == WHITE).count(), 200);
        let mut small = RgbImage::from_pixel(100, 300, grey);
        mark(&mut small, 0.5);
        assert!(small.pixels().all(|p| *p == grey));
    }
}
