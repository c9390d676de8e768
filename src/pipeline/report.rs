//! The pictures of a diagnosis and its report page.

use std::path::{Path, PathBuf};

use image::{GrayImage, Rgb, RgbImage};

use super::align::Alignment;
use super::classify::Classification;
use super::folder::PhaseFiles;
use super::result::Diagnosis;
use super::{PhaseScan, Study, report_run, report_summary};
use crate::error::{Error, Result};
use crate::phase::Subtype;
use crate::report::{Bar, Page, SOFT_TISSUE, Section, overlay, write_png};
use crate::volume::{KIDNEY, TUMOUR};

/// Number of pixels between the parts of a picture.
const GAP: u32 = 4;

/// Writes overlays of one phase on the slices with the reference's largest tumour area and largest kidney area. Returns their
/// paths, relative to `folder`, each with the middle of that area in RAS+ millimetres.
pub(super) fn write_overlays(
    scan: &PhaseScan,
    alignment: &Alignment,
    folder: &Path,
) -> Result<Vec<(PathBuf, [f64; 3])>> {
    let reference = alignment.scans.scan(alignment.reference).unwrap_or(scan);
    let mut written = Vec::new();
    for (label, path) in [TUMOUR, KIDNEY].into_iter().zip(PhaseFiles::of(scan.phase()).pictures) {
        let Some((k, _)) = reference.mask().largest_slice(label) else { continue };
        let Some([_, rows, columns]) = reference.mask().slices([k; 2])?.bounding_box(&[label]) else { continue };
        write_png(&folder.join(&path), &overlay(scan.image(), scan.mask(), k, None)?)?;
        let middle = [columns, rows].map(|[first, last]| (first + last) as f64 / 2.0);
        written.push((path, reference.mask().affine().apply([middle[0], middle[1], k as f64])));
    }
    Ok(written)
}

/// Writes pictures of the networks' inputs for a lesion and of the crop of each phase, and stores their paths, relative to
/// `folder`.
pub(super) fn write_lesion_pictures(c: &mut Classification, number: usize, study: &Study, folder: &Path) -> Result<()> {
    let pictures = folder.join("pictures");
    std::fs::create_dir_all(&pictures).map_err(|e| Error::io(&pictures, "the folder cannot be created", e))?;
    for image in &mut c.images {
        let seen = |phase| c.seen.iter().find(|(p, _)| *p == phase).map(|(_, picture)| picture);
        let [Some(a), Some(b), Some(d)] = image.phases.map(seen) else { continue };
        let letters: Vec<String> = image.phases.iter().map(|p| p.letter().to_string()).collect();
        let path = PathBuf::from(format!("pictures/lesion{number}_seen_{}.png", letters.join("-")));
        write_png(&folder.join(&path), &side_by_side([a, b, d]))?;
        image.picture = Some(path);
    }
    for crop in &mut c.crops {
        let Some(scan) = study.scan(crop.phase) else { continue };
        let path = PathBuf::from(format!("pictures/lesion{number}_{}.png", crop.phase));
        let frame = Some([crop.at.rows, crop.at.columns]);
        write_png(&folder.join(&path), &overlay(scan.image(), scan.mask(), crop.at.slice, frame)?)?;
        crop.picture = Some(path);
    }
    Ok(())
}

/// The window of the slices, for their captions.
fn window() -> String {
    let [black, white] = SOFT_TISSUE;
    format!("window {black} to {white} HU")
}

/// Three channels side by side, followed by the colour image that they are together.
fn side_by_side(channels: [&GrayImage; 3]) -> RgbImage {
    let (w, h) = channels[0].dimensions();
    RgbImage::from_fn(4 * w + 3 * GAP, h, |c, r| {
        let (part, c) = (c / (w + GAP), c % (w + GAP));
        if c >= w {
            return Rgb([255; 3]);
        }
        let at = channels.map(|channel| channel.get_pixel(c, r).0[0]);
        channels.get(part as usize).map_or(Rgb(at), |channel| Rgb([channel.get_pixel(c, r).0[0]; 3]))
    })
}

/// The report page of a diagnosis; `name` is that of the patient's result folder.
pub(super) fn page(d: &Diagnosis, name: &str) -> Page {
    let mut sections = Vec::new();
    for found in &d.findings.lesions {
        let Some(c) = &found.classification else { continue };
        let bar = |(i, class): (usize, &Subtype)| {
            let of_images = || c.images.iter().filter_map(|image| image.probabilities.get(i).copied());
            let range = [of_images().fold(f32::INFINITY, f32::min), of_images().fold(f32::NEG_INFINITY, f32::max)];
            Bar { name: class.to_string(), share: c.probabilities.get(i).copied().unwrap_or_default(), range }
        };
        let bars = d.classes.iter().enumerate().map(bar).collect();
        let number = found.lesion.number;
        let name = d.findings.name(number);
        let title = format!(
            "{name}: {} (mean of {} {}, {} {})",
            c.decision,
            c.images.len(),
            if c.images.len() == 1 { "image" } else { "images" },
            c.models,
            if c.models == 1 { "model" } else { "models" }
        );
        sections.push(Section::Bars { title, bars, chosen: c.decision as usize });
        let seen = c.images.iter().filter_map(|image| {
            let caption = image.phases.map(|p| p.to_string()).join(", ");
            Some((image.picture.as_ref()?.display().to_string(), format!("{caption}, and together")))
        });
        let title = format!("{name} as the network saw it");
        sections.push(Section::Pictures { title, pictures: seen.collect(), wide: true });
        let cropped = c.crops.iter().filter_map(|crop| {
            let place = crop.scan_slice.map_or_else(|| format!("slice {}", crop.at.slice), |slice| slice.to_string());
            let caption = format!("{} phase, {place}; {}", crop.phase, window());
            Some((crop.picture.as_ref()?.display().to_string(), caption))
        });
        let title = format!("{name}: where it was cropped");
        sections.push(Section::Pictures { title, pictures: cropped.collect(), wide: false });
    }
    sections.push(lesion_table(d));
    sections.push(Section::Table {
        title: "Masks".into(),
        head: ["Phase", "Kidney (ml)", "Tumour (ml)", "Largest tumour, axial (mm)", "in any direction (mm)"]
            .map(Into::into)
            .to_vec(),
        rows: d
            .phases
            .iter()
            .map(|p| {
                let figures = [
                    p.kidney_ml,
                    p.tumour_ml,
                    p.tumour_diameter.maximum_2d_diameter_mm,
                    p.tumour_diameter.maximum_3d_diameter_mm,
                ];
                std::iter::once(p.phase.to_string()).chain(figures.map(|v| format!("{v:.1}"))).collect()
            })
            .collect(),
    });
    if d.phases.len() > 1 {
        sections.push(alignment_table(d));
    }
    let (mut tumour, mut kidney) = (Vec::new(), Vec::new());
    for phase in &d.phases {
        for (i, path) in phase.pictures.iter().enumerate() {
            let path = path.display().to_string();
            let list = if path.ends_with("_tumour.png") { &mut tumour } else { &mut kidney };
            let place = phase.picture_slices.get(i).map(|slice| format!(", {slice}")).unwrap_or_default();
            list.push((path, format!("{} phase{place}; kidney green, tumour red; {}", phase.phase, window())));
        }
    }
    for (title, pictures) in [("Slice with most tumour", tumour), ("Slice with most kidney", kidney)] {
        if !pictures.is_empty() {
            let aligned = if d.phases.len() > 1 { ", phases aligned" } else { "" };
            sections.push(Section::Pictures { title: format!("{title}{aligned}"), pictures, wide: false });
        }
    }
    if let Some(card) = &d.models.segmentation_card {
        sections.push(Section::Table {
            title: "Segmentation model, as its maker describes it".into(),
            head: vec!["".into(), "".into()],
            rows: card.lines().into_iter().map(|(name, text)| vec![name.to_owned(), text.to_owned()]).collect(),
        });
    }
    sections.extend([report_run::made_of(d), report_run::files(d)]);
    let notes = std::iter::once("Research software: not a medical device, not for diagnosis.".to_owned())
        .chain(d.notes.iter().cloned())
        .chain(d.findings.not_classified.iter().map(|reason| format!("Not classified: {reason}.")))
        .chain(d.warnings.iter().cloned())
        .collect();
    Page { title: format!("Kidney tumour report: {name}"), summary: report_summary::lines(d), notes, sections }
}

fn lesion_table(d: &Diagnosis) -> Section {
    let head = [
        "Lesion",
        "Side",
        "Mean volume (ml)",
        "Phase",
        "Volume (ml)",
        "Axial diameter (mm)",
        "in any direction (mm)",
        "Subtype, or why none",
    ];
    let mut rows = Vec::new();
    for found in &d.findings.lesions {
        for (i, p) in found.lesion.phases.iter().enumerate() {
            let answer = match (&found.classification, &found.not_classified) {
                (Some(c), _) => c.decision.to_string(),
                (None, reason) => reason.clone().unwrap_or_default(),
            };
            let side = found.lesion.side.map_or("-".into(), |side| side.to_string());
            let first = [found.lesion.number.to_string(), side, format!("{:.1}", found.lesion.volume_ml)];
            let mut row = if i == 0 { first.to_vec() } else { vec![String::new(); 3] };
            row.push(p.phase.to_string());
            if p.centre.is_some() {
                row.extend(
                    [p.volume_ml, p.diameter.maximum_2d_diameter_mm, p.diameter.maximum_3d_diameter_mm]
                        .map(|v| format!("{v:.1}")),
                );
            } else {
                row.extend(["not found".into(), String::new(), String::new()]);
            }
            row.push(if i == 0 { answer } else { String::new() });
            rows.push(row);
        }
    }
    Section::Table { title: "Lesions, on the common grid".into(), head: head.map(Into::into).to_vec(), rows }
}

fn alignment_table(d: &Diagnosis) -> Section {
    let rows = d
        .phases
        .iter()
        .filter_map(|p| p.registration.as_ref().map(|r| (p, r)))
        .map(|(p, r)| {
            let mut row = vec![p.phase.to_string()];
            for overlap in [&r.identity, &r.centre_of_mass, &r.aligned] {
                row.push(format!("{:.3}", overlap.kidney.hard));
                row.push(overlap.tumour.map_or_else(|| "-".into(), |t| format!("{:.3}", t.hard)));
            }
            row.push(format!("{}{}", r.iterations, if r.converged { "" } else { " (not converged)" }));
            row
        })
        .collect();
    let head = [
        "Phase",
        "kidney with tumour, as scanned",
        "tumour",
        "kidney with tumour, centres of mass",
        "tumour",
        "kidney with tumour, aligned",
        "tumour",
        "Iterations",
    ];
    Section::Table {
        title: format!("Dice against the {} phase", d.reference),
        head: head.map(Into::into).to_vec(),
        rows,
    }
}
