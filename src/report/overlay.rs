//! A CT slice with the outlines of its mask.

use std::path::Path;

use image::{Rgb, RgbImage};

use super::marks::mark;
use crate::error::{Error, Result};
use crate::io::write_atomic;
use crate::volume::{BACKGROUND, KIDNEY, LabelVolume, Orientation, TUMOUR, Volume};

/// The values of an image that become black and white.
pub type Window = [f32; 2];

/// The soft-tissue window of a CT, in Hounsfield units.
pub const SOFT_TISSUE: Window = [-160.0, 240.0];
/// Number of pixels of the longer side of a picture.
const LONGER_SIDE: f64 = 640.0;
/// The largest number of pixels of a side, for voxels that are much longer than wide.
const MOST_PIXELS: f64 = 4096.0;

/// The colour of a rectangle.
const RECTANGLE: Rgb<u8> = Rgb([255, 214, 64]);

/// A rectangle of voxels on a slice: first and last row, first and last column.
pub type Rectangle = [[usize; 2]; 2];

/// Colours of the labels from 3 on, in turn, which the colour-blind tell apart. Source: Okabe and Ito, "Color Universal Design", 2008.
const FURTHER: [[u8; 3]; 5] = [[86, 180, 233], [230, 159, 0], [204, 121, 167], [0, 114, 178], [240, 228, 66]];

/// The outline colour of a label: kidney green, tumour red.
fn colour(label: u8) -> Option<Rgb<u8>> {
    match label {
        BACKGROUND => None,
        KIDNEY => Some(Rgb([64, 224, 96])),
        TUMOUR => Some(Rgb([255, 72, 56])),
        further => Some(Rgb(FURTHER[usize::from(further - TUMOUR - 1) % FURTHER.len()])),
    }
}

/// The axial slice of an image with the most labelled voxels, with their outlines, as radiologists view it; of a mask without
/// labels the slice in the middle. Without a window, as for images other than CT, black and white are the 1st and 99th percentile of
/// the slice.
///
/// # Errors
/// As [`overlay`] and [`Volume::reorient`].
pub fn preview(image: &Volume, mask: &LabelVolume, window: Option<Window>) -> Result<RgbImage> {
    let (image, mask) = (image.reorient(Orientation::LPS)?, mask.reorient(Orientation::LPS)?);
    let [d, h, w] = mask.shape();
    let labelled = |slice: &[u8]| slice.iter().filter(|label| **label != BACKGROUND).count();
    let areas = mask.labels().chunks_exact(h * w).map(labelled).enumerate();
    let largest = areas.max_by_key(|(k, area)| (*area, std::cmp::Reverse(*k)));
    let slice = largest.filter(|(_, area)| *area > 0).map_or(d / 2, |(k, _)| k);
    let range = slice * h * w..(slice + 1) * h * w;
    let window = window.unwrap_or_else(|| percentiles(range.map(|i| image.voxels().value(i)).collect()));
    draw(&image, &mask, slice, None, window)
}

/// The 1st and the 99th percentile, by rank.
fn percentiles(mut values: Vec<f32>) -> Window {
    values.sort_unstable_by(f32::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    [at(0.01), at(0.99)]
}

/// Writes a picture as PNG.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_png(path: &Path, picture: &RgbImage) -> Result<()> {
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).map_err(|e| Error::in_file(path, e))?;
    write_atomic(path, |file| std::io::Write::write_all(file, png.get_ref()))
}

/// Slice `k` of an image in LPS orientation (rows run to the back and columns to the patient's left, as radiologists view it) with the
/// outlines of the labels in `mask`, which has the same grid, and optionally a rectangle; R, L, A and P stand at the sides of the patient
/// and a bar of 50 or 10 mm at the bottom, where there is room. Pixels are square whatever the
/// spacing. The CT is enlarged bilinearly with its outermost voxels continued; outlines follow the faces of voxels.
///
/// # Errors
/// [`Error::Shape`] for a mask of another shape, [`Error::Argument`] for a slice outside the image.
pub fn overlay(image: &Volume, mask: &LabelVolume, k: usize, rectangle: Option<Rectangle>) -> Result<RgbImage> {
    draw(image, mask, k, rectangle, SOFT_TISSUE)
}

fn draw(
    image: &Volume,
    mask: &LabelVolume,
    k: usize,
    rectangle: Option<Rectangle>,
    window: Window,
) -> Result<RgbImage> {
    if image.shape() != mask.shape() {
        return Err(Error::shape("overlay: mask", format!("{:?}", image.shape()), format!("{:?}", mask.shape())));
    }
    let [d, h, w] = image.shape();
    if k >= d {
        return Err(Error::argument("overlay: slice", format!("0 to {}", d - 1), k));
    }
    let labels = &mask.labels()[k * h * w..(k + 1) * h * w];
    let [_, dy, dx] = image.spacing();
    let longer = (h as f64 * dy).max(w as f64 * dx);
    // A pixel for the smallest side of a voxel, as far as a picture of such voxels can be looked at.
    let scale = (LONGER_SIDE / longer).max(1.0 / dx.min(dy)).min(MOST_PIXELS / longer);
    let (rows, columns) =
        ((h as f64 * dy * scale).round().max(1.0) as u32, (w as f64 * dx * scale).round().max(1.0) as u32);

    let at = |r: u32, c: u32| {
        let y = (f64::from(r) + 0.5) * h as f64 / f64::from(rows) - 0.5;
        let x = (f64::from(c) + 0.5) * w as f64 / f64::from(columns) - 0.5;
        (y, x)
    };
    let label = |r: u32, c: u32| {
        let (y, x) = at(r, c);
        labels[(y.round().max(0.0) as usize).min(h - 1) * w + (x.round().max(0.0) as usize).min(w - 1)]
    };
    let mut picture = RgbImage::from_fn(columns, rows, |c, r| {
        let own = label(r, c);
        let edge = [(1, 0), (0, 1), (-1, 0), (0, -1)].into_iter().any(|(dr, dc): (i64, i64)| {
            let (r, c) = (i64::from(r) + dr, i64::from(c) + dc);
            let inside = r >= 0 && c >= 0 && r < i64::from(rows) && c < i64::from(columns);
            inside && label(r as u32, c as u32) != own
        });
        if edge && let Some(colour) = colour(own) {
            return colour;
        }
        let (y, x) = at(r, c);
        let grey = grey(bilinear(image, k, y, x), window);
        Rgb([grey; 3])
    });
    if let Some([[r0, r1], [c0, c1]]) = rectangle {
        // The pixels just outside the rectangle's voxels, as far as the picture extends.
        let edge = |voxel: usize, voxels: usize, pixels: u32| voxel as i64 * i64::from(pixels) / voxels as i64;
        let (top, bottom) = (edge(r0, h, rows) - 1, edge(r1 + 1, h, rows));
        let (left, right) = (edge(c0, w, columns) - 1, edge(c1 + 1, w, columns));
        let horizontal = (left..=right).flat_map(|c| [(c, top), (c, bottom)]);
        let vertical = (top..=bottom).flat_map(|r| [(left, r), (right, r)]);
        for (c, r) in horizontal.chain(vertical) {
            let c = c.clamp(0, i64::from(columns) - 1) as u32;
            let r = r.clamp(0, i64::from(rows) - 1) as u32;
            picture.put_pixel(c, r, RECTANGLE);
        }
    }
    mark(&mut picture, w as f64 * dx / f64::from(columns));
    Ok(picture)
}

fn grey(value: f32, [black, white]: Window) -> u8 {
    // An image of one value is black.
    ((value - black) / (white - black).max(f32::MIN_POSITIVE) * 255.0).clamp(0.0, 255.0) as u8
}

fn bilinear(image: &Volume, k: usize, y: f64, x: f64) -> f32 {
    let [_, h, w] = image.shape();
    let (y, x) = (y.clamp(0.0, (h - 1) as f64), x.clamp(0.0, (w - 1) as f64));
    let (y0, x0) = (y as usize, x as usize);
    let (y1, x1) = ((y0 + 1).min(h - 1), (x0 + 1).min(w - 1));
    let (fy, fx) = ((y - y0 as f64) as f32, (x - x0 as f64) as f32);
    let value = |j: usize, i: usize| image.voxels().value((k * h + j) * w + i);
    let top = value(y0, x0) * (1.0 - fx) + value(y0, x1) * fx;
    let bottom = value(y1, x0) * (1.0 - fx) + value(y1, x1) * fx;
    top * (1.0 - fy) + bottom * fy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Voxels};

    fn image(values: &[f32], shape: [usize; 3], spacing: [f64; 3]) -> Volume {
        let [x, y, z] = spacing;
        let affine = Affine([[-x, 0.0, 0.0, 0.0], [0.0, -y, 0.0, 0.0], [0.0, 0.0, z, 0.0]]);
        Volume::new(shape, Voxels::F32(values.to_vec().into()), affine).expect("a volume")
    }

    fn mask(image: &Volume, labels: &[u8]) -> LabelVolume {
        LabelVolume::new(image.shape(), labels.to_vec(), image.affine()).expect("a mask")
    }

    #[test]
    fn a_picture_of_very_long_voxels_stays_small() {
        let image = image(&[0.0; 64], [1, 8, 8], [1e-6, 1.0, 1.0]);
        let picture = preview(&image, &mask(&image, &[0; 64]), None).expect("a picture");
        assert_eq!((picture.width(), picture.height()), (1, MOST_PIXELS as u32));
    }

    #[test]
    fn without_a_window_the_values_of_the_slice_are_seen() {
        let values: Vec<f32> = (0..100).map(|v| v as f32 * 20.0).collect();
        let image = image(&values, [1, 10, 10], [1.0; 3]);
        let none = mask(&image, &[0; 100]);
        let ends = |window: Option<Window>| {
            let picture = preview(&image, &none, window).expect("a picture");
            let last = (picture.width() - 1, picture.height() - 1);
            [picture.get_pixel(0, 0).0[0], picture.get_pixel(320, 320).0[0], picture.get_pixel(last.0, last.1).0[0]]
        };
        let [low, middle, high] = ends(None);
        assert!(low == 0 && (100..156).contains(&middle) && high == 255, "{low} {middle} {high}");
        // 990 is far above the window of a CT.
        assert_eq!(ends(Some(SOFT_TISSUE)), [102, 255, 255]);
    }
}
