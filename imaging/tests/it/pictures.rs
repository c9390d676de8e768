//! Pictures and stacks: what is read of files that are made here, what is written, and what is refused.

use std::path::{Path, PathBuf};

use image::{DynamicImage, ExtendedColorType, GrayImage, ImageBuffer, Luma, RgbImage, RgbaImage};
use nephron_imaging::io::pictures;
use nephron_imaging::volume::{Affine, LabelVolume, Voxels};
use rand::Rng;
use tempfile::{TempDir, tempdir};
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::Tag;

use crate::support;

/// Red, green and blue of 2 x 3 pixels.
const COLOURS: [u8; 18] = [1, 2, 3, 10, 20, 30, 100, 110, 120, 4, 5, 6, 40, 50, 60, 130, 140, 255];

fn folder() -> TempDir {
    tempdir().expect("a folder")
}

/// The values of each channel, which lie on 1 x h x w voxels of 999 x 1 x 1 mm.
fn channels(path: &Path, size: [usize; 2]) -> Vec<Vec<f32>> {
    let volumes = pictures::read(path).unwrap_or_else(|e| panic!("{e}"));
    for volume in &volumes {
        assert_eq!(
            (volume.shape(), volume.spacing()),
            ([1, size[0], size[1]], [999.0, 1.0, 1.0]),
            "{}",
            path.display()
        );
    }
    volumes.iter().map(|volume| volume.voxels().to_f32()).collect()
}

fn of(channel: usize, stored: usize, values: &[u8]) -> Vec<f32> {
    values.iter().skip(channel).step_by(stored).map(|v| f32::from(*v)).collect()
}

#[test]
fn colours_become_channels() {
    let folder = folder();
    let want: Vec<_> = (0..3).map(|channel| of(channel, 3, &COLOURS)).collect();
    let rgb = RgbImage::from_raw(3, 2, COLOURS.to_vec()).expect("a picture");
    for name in ["a.png", "a.PNG", "a.bmp"] {
        let path = folder.path().join(name);
        rgb.save_with_format(&path, image::ImageFormat::from_path(name.to_ascii_lowercase()).expect("a format"))
            .expect("written");
        assert_eq!(channels(&path, [2, 3]), want, "{name}");
    }
    let path = folder.path().join("a.tif");
    tif::<colortype::RGB8>(&path, [3, 2], &[&COLOURS], Some("{\"shape\": [2, 3, 3]}"));
    assert_eq!(channels(&path, [2, 3]), want);
    let rgba: Vec<u8> = (0..24).collect();
    let path = folder.path().join("b.png");
    RgbaImage::from_raw(3, 2, rgba.clone()).expect("a picture").save(&path).expect("written");
    assert_eq!(channels(&path, [2, 3]), (0..4).map(|channel| of(channel, 4, &rgba)).collect::<Vec<_>>());
}

#[test]
fn greys_are_one_channel() {
    let folder = folder();
    let values = [0u8, 1, 2, 128, 254, 255];
    let grey = GrayImage::from_raw(3, 2, values.to_vec()).expect("a picture");
    for name in ["a.png", "a.bmp"] {
        let path = folder.path().join(name);
        grey.save(&path).expect("written");
        assert_eq!(channels(&path, [2, 3]), [of(0, 1, &values)], "{name}");
    }
    let wide = [0u16, 1, 255, 256, 40_000, 65_535];
    let path = folder.path().join("wide.png");
    ImageBuffer::<Luma<u16>, _>::from_raw(3, 2, wide.to_vec()).expect("a picture").save(&path).expect("written");
    assert_eq!(channels(&path, [2, 3]), [wide.map(f32::from).to_vec()]);
    let path = folder.path().join("wide.tif");
    tif::<colortype::Gray16>(&path, [3, 2], &[&wide], None);
    assert_eq!(channels(&path, [2, 3]), [wide.map(f32::from).to_vec()]);
}

/// A PNG of one bit is black 0 and white 1, one with a palette has colours, and transparency that is no channel is ignored.
#[test]
fn pngs_are_read_as_pillow_reads_them() {
    let folder = folder();
    let path = folder.path().join("a.png");
    let write =
        |colour: png::ColorType, depth: png::BitDepth, palette: Option<&[u8]>, trns: Option<&[u8]>, data: &[u8]| {
            let mut encoder = png::Encoder::new(std::fs::File::create(&path).expect("a file"), 3, 1);
            encoder.set_color(colour);
            encoder.set_depth(depth);
            if let Some(palette) = palette {
                encoder.set_palette(palette.to_vec());
            }
            if let Some(trns) = trns {
                encoder.set_trns(trns.to_vec());
            }
            encoder.write_header().expect("a head").write_image_data(data).expect("pixels");
        };
    write(png::ColorType::Grayscale, png::BitDepth::One, None, None, &[0b1010_0000]);
    assert_eq!(channels(&path, [1, 3]), [vec![1.0, 0.0, 1.0]]);
    write(png::ColorType::Grayscale, png::BitDepth::Four, None, None, &[0x0f, 0x10]);
    assert_eq!(channels(&path, [1, 3]), [vec![0.0, 255.0, 17.0]]);
    let palette = [7, 8, 9, 17, 18, 19];
    for trns in [None, Some([0u8, 255].as_slice())] {
        write(png::ColorType::Indexed, png::BitDepth::Eight, Some(&palette), trns, &[1, 0, 1]);
        assert_eq!(channels(&path, [1, 3]), [vec![17.0, 7.0, 17.0], vec![18.0, 8.0, 18.0], vec![19.0, 9.0, 19.0]]);
    }
    write(png::ColorType::Grayscale, png::BitDepth::Eight, None, Some(&[0, 5]), &[5, 6, 7]);
    assert_eq!(channels(&path, [1, 3]), [vec![5.0, 6.0, 7.0]]);
}

fn refused(path: &Path, parts: &[&str]) {
    let message = pictures::read(path).expect_err("refused").to_string();
    let name = path.file_name().expect("a name").to_string_lossy();
    assert!(parts.iter().chain([&&*name]).all(|part| message.contains(part)), "{message}");
}

#[test]
fn pictures_that_others_read_differently_are_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let save = |picture: DynamicImage, name: &str| {
        picture.save(at(name)).expect("written");
        at(name)
    };
    let rgb = RgbImage::from_raw(3, 2, COLOURS.to_vec()).expect("a picture");
    refused(&save(DynamicImage::from(rgb.clone()).to_rgb16().into(), "wide.png"), &["RGB of 16 bits"]);
    refused(
        &save(DynamicImage::from(rgb.clone()).to_luma_alpha8().into(), "alpha.png"),
        &["grey with alpha of 8 bits"],
    );
    refused(&save(DynamicImage::from(rgb.clone()).to_rgba8().into(), "alpha.bmp"), &["8 or 24 bits", "32 bits"]);
    // Half of a file, another format's content, no picture's name, and a size that the file cannot hold.
    let whole = std::fs::read(save(rgb.into(), "a.png")).expect("a file");
    std::fs::write(at("half.png"), &whole[..whole.len() / 2]).expect("written");
    refused(&at("half.png"), &["damaged"]);
    for name in ["b.bmp", "b.tif"] {
        std::fs::write(at(name), &whole).expect("written");
        refused(&at(name), &["is not a"]);
    }
    refused(&at("a.jpg"), &[".png, .bmp, .tif, .tiff"]);
    let mut huge = whole;
    huge[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let sum = crc(&huge[12..29]);
    huge[29..33].copy_from_slice(&sum.to_be_bytes());
    std::fs::write(at("huge.png"), &huge).expect("written");
    refused(&at("huge.png"), &["12884508675 bytes"]);
}

/// The checksum of a PNG chunk.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, step)
}

/// A TIFF of pages of (w, h) pixels.
fn tif<C: colortype::ColorType>(path: &Path, [w, h]: [u32; 2], pages: &[&[C::Inner]], description: Option<&str>)
where
    [C::Inner]: tiff::encoder::TiffValue,
{
    let mut encoder = TiffEncoder::new(std::fs::File::create(path).expect("a file")).expect("a TIFF");
    for page in pages {
        let mut image = encoder.new_image::<C>(w, h).expect("a page");
        if let Some(text) = description {
            image.encoder().write_tag(Tag::ImageDescription, text).expect("a tag");
        }
        image.write_data(page).expect("pixels");
    }
}

fn stack(path: &Path) -> Result<nephron_imaging::volume::Volume, String> {
    pictures::read_stack(path, [2.5, 0.5, 0.25]).map_err(|e| e.to_string())
}

#[test]
fn pages_become_slices() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let values: Vec<u8> = (0..24).collect();
    let pages: Vec<&[u8]> = values.chunks(6).collect();
    tif::<colortype::Gray8>(&at("a_0000.tif"), [3, 2], &pages, Some("{\"shape\": [4, 2, 3]}"));
    let found = stack(&at("a_0000.tif")).expect("a stack");
    assert_eq!((found.shape(), found.spacing()), ([4, 2, 3], [2.5, 0.5, 0.25]));
    assert_eq!(found.voxels(), &Voxels::U8(values.clone().into()));
    let signed: Vec<i16> = (-6..6).collect();
    tif::<colortype::GrayI16>(&at("b.tiff"), [3, 2], &signed.chunks(6).collect::<Vec<_>>(), None);
    assert_eq!(stack(&at("b.tiff")).expect("a stack").voxels(), &Voxels::I16(signed.into()));
    let floats: Vec<f32> = (0..12).map(|v| v as f32 / 7.0).collect();
    tif::<colortype::Gray32Float>(&at("c.tif"), [3, 2], &floats.chunks(6).collect::<Vec<_>>(), None);
    assert_eq!(stack(&at("c.tif")).expect("a stack").voxels(), &Voxels::F32(floats.into()));
    // A stack of one slice, if it says so.
    tif::<colortype::Gray8>(&at("d.tif"), [3, 2], &pages[..1], Some("{\"shape\": [1, 2, 3]}"));
    assert_eq!(stack(&at("d.tif")).expect("a stack").shape(), [1, 2, 3]);

    let refuse = |name: &str, parts: &[&str]| {
        let message = stack(&at(name)).expect_err("refused");
        assert!(parts.iter().chain([&name]).all(|part| message.contains(part)), "{message}");
    };
    tif::<colortype::Gray8>(&at("one.tif"), [3, 2], &pages[..1], None);
    refuse("one.tif", &["expected a stack", "NaturalImage2DIO"]);
    tif::<colortype::Gray8>(&at("axes.tif"), [3, 2], &pages, Some("{\"shape\": [2, 2, 2, 3]}"));
    refuse("axes.tif", &["[4, 2, 3]", "[2, 2, 2, 3]"]);
    tif::<colortype::RGB8>(&at("rgb.tif"), [3, 2], &[&COLOURS, &COLOURS], None);
    refuse("rgb.tif", &["expected one value a voxel, found 3"]);
    tif::<colortype::CMYK8>(&at("cmyk.tif"), [3, 1], &[&values[..12]], None);
    refuse("cmyk.tif", &["expected grey, RGB or RGBA", "CMYK"]);
    tif::<colortype::Gray8>(&at("ome.tif"), [3, 2], &pages, Some("<?xml version=\"1.0\"?><OME/>"));
    refuse("ome.tif", &["OME-TIFF"]);
    let message = pictures::read(at("a_0000.tif")).expect_err("several pages").to_string();
    assert!(message.contains("expected one page") && message.contains("Tiff3DIO"), "{message}");
    let message = pictures::read(at("d.tif")).expect_err("a stack of one").to_string();
    assert!(message.contains("[2, 3]") && message.contains("[1, 2, 3]"), "{message}");
}

#[test]
fn the_spacing_of_a_stack_lies_beside_it() {
    let folder = folder();
    let write = |text: &str| std::fs::write(folder.path().join("a.json"), text).expect("written");
    let files: [PathBuf; 2] = ["a_0000.tif", "a.tiff"].map(|name| folder.path().join(name));
    for file in &files {
        let _ = std::fs::remove_file(folder.path().join("a.json"));
        assert_eq!(pictures::stack_spacing(file).expect("none"), None);
        write("{\"spacing\": [5, 0.5, 0.25], \"more\": true}");
        assert_eq!(pictures::stack_spacing(file).expect("three"), Some([5.0, 0.5, 0.25]));
    }
    for (text, part) in [
        ("[1]", "found null"),
        ("{\"spacing\": [1, 2]}", "[1,2]"),
        ("{\"spacing\": [1, 0, 1]}", "[1,0,1]"),
        ("{", "JSON"),
    ] {
        write(text);
        let message = pictures::stack_spacing(&files[0]).expect_err("refused").to_string();
        assert!(message.contains("a.json") && message.contains(part), "{message}");
    }
}

#[test]
fn masks_are_written_and_read_again() {
    let folder = folder();
    let labels: Vec<u8> = vec![0, 1, 2, 254, 0, 2];
    let mask = LabelVolume::new(
        [1, 2, 3],
        labels.clone(),
        Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 999.0, 0.0]]),
    );
    let mask = mask.expect("a mask");
    for name in ["a.png", "a.bmp", "a.tif", "a.tiff"] {
        let path = folder.path().join(name);
        pictures::write_labels(&path, &mask).expect("written");
        assert_eq!(channels(&path, [2, 3]), [of(0, 1, &labels)], "{name}");
    }
    let head = image::ImageReader::open(folder.path().join("a.png")).expect("a file").into_decoder().expect("a PNG");
    assert_eq!(image::ImageDecoder::original_color_type(&head), ExtendedColorType::L8);
    let deep = LabelVolume::new([3, 1, 2], labels.clone(), mask.affine()).expect("a mask");
    let message = pictures::write_labels(folder.path().join("b.png"), &deep).expect_err("three slices").to_string();
    assert!(message.contains("[1, h, w]") && message.contains("[3, 1, 2]"), "{message}");
    for (mask, name) in [(&deep, "deep.tif"), (&mask, "flat.tif")] {
        let path = folder.path().join(name);
        pictures::write_stack(&path, mask, [4.0, 0.5, 0.25]).expect("written");
        assert_eq!(pictures::stack_spacing(&path).expect("beside it"), Some([4.0, 0.5, 0.25]));
        let found = pictures::read_stack(&path, [4.0, 0.5, 0.25]).expect("a stack");
        assert_eq!((found.shape(), found.voxels()), (mask.shape(), &Voxels::U8(labels.clone().into())), "{name}");
    }
}

/// Damaged files are an error or another picture, never the end of the program.
#[test]
fn damaged_files_do_not_end_the_program() {
    let folder = folder();
    let mut rng = support::rng();
    let rgb = RgbImage::from_raw(3, 2, COLOURS.to_vec()).expect("a picture");
    let palette = GrayImage::from_raw(3, 2, COLOURS[..6].to_vec()).expect("a picture");
    let at = |name: &str| folder.path().join(name);
    rgb.save(at("a.png")).expect("written");
    rgb.save(at("b.bmp")).expect("written");
    palette.save(at("c.bmp")).expect("written");
    let values: Vec<u8> = (0..24).collect();
    tif::<colortype::Gray8>(
        &at("d.tif"),
        [3, 2],
        &values.chunks(6).collect::<Vec<_>>(),
        Some("{\"shape\": [4, 2, 3]}"),
    );
    tif::<colortype::RGB8>(&at("e.tif"), [3, 2], &[&COLOURS], None);
    let mut errors = 0;
    for name in ["a.png", "b.bmp", "c.bmp", "d.tif", "e.tif"] {
        let whole = std::fs::read(at(name)).expect("a file");
        let damaged = at(&format!("damaged_{name}"));
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(1..4) {
                // Heads, where sizes are, more often than the rest.
                let most = if rng.random_bool(0.5) { bytes.len().min(64) } else { bytes.len() };
                let place = rng.random_range(0..most);
                bytes[place] = if rng.random_bool(0.3) { 0xff } else { rng.random() };
            }
            bytes.truncate(rng.random_range(bytes.len() / 2..bytes.len() * 2));
            std::fs::write(&damaged, &bytes).expect("written");
            errors += usize::from(pictures::read(&damaged).is_err());
            errors += usize::from(name.ends_with("tif") && stack(&damaged).is_err());
        }
    }
    assert!(errors > 500, "{errors} errors");
}
