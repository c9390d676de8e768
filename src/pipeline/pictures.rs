//! What a diagnosis shows: overlays of every aligned phase, and the report page.

use std::path::{Path, PathBuf};

use super::align::{Alignment, Scan};
use super::crop::{TUMOUR, labels};
use super::diagnose::Diagnosis;
use crate::error::{Error, Result};
use crate::io::write_atomic;
use crate::report::{Page, Section, largest_slice, overlay};

const KIDNEY: u8 = 1;

/// Overlays of one phase on the slices where the reference has most tumour and most kidney. Paths relative to `folder`.
pub(super) fn write(scan: &Scan, alignment: &Alignment, folder: &Path) -> Result<Vec<PathBuf>> {
    let reference = alignment.scans.iter().find(|s| s.phase == alignment.reference).unwrap_or(scan);
    let mut written = Vec::new();
    for (label, name) in [(TUMOUR, "tumour"), (KIDNEY, "kidney")] {
        let Some((k, _)) = largest_slice(labels(&reference.mask)?, reference.mask.shape, label) else { continue };
        let path = PathBuf::from(format!("pictures/{}_{name}.png", scan.phase));
        let picture = overlay(&scan.image, &scan.mask, k)?;
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).map_err(|e| Error::file(folder.join(&path), e))?;
        write_atomic(folder.join(&path), |file| std::io::Write::write_all(file, png.get_ref()))?;
        written.push(path);
    }
    Ok(written)
}

/// The report of a diagnosis.
pub(super) fn page(d: &Diagnosis) -> Page {
    let mut sections = Vec::new();
    if let Some(c) = &d.classification {
        let bars = d.classes.iter().zip(&c.probabilities).map(|(class, p)| (class.to_string(), *p)).collect();
        let title = format!("Subtype: {} (mean of {} images, {} models)", c.decision, c.images.len(), c.models);
        sections.push(Section::Bars { title, bars, chosen: c.decision as usize });
    }
    sections.push(Section::Table {
        title: "Volumes".into(),
        head: ["Phase", "Kidney (ml)", "Tumour (ml)"].map(Into::into).to_vec(),
        rows: d
            .phases
            .iter()
            .map(|p| vec![p.phase.to_string(), format!("{:.1}", p.kidney_ml), format!("{:.1}", p.tumour_ml)])
            .collect(),
    });
    sections.push(alignment_table(d));
    let (mut tumour, mut kidney) = (Vec::new(), Vec::new());
    for phase in &d.phases {
        for path in &phase.pictures {
            let path = path.display().to_string();
            let list = if path.ends_with("_tumour.png") { &mut tumour } else { &mut kidney };
            list.push((path, format!("{} phase, kidney green, tumour red", phase.phase)));
        }
    }
    for (title, pictures) in [("Slice with most tumour", tumour), ("Slice with most kidney", kidney)] {
        if !pictures.is_empty() {
            sections.push(Section::Pictures { title: format!("{title}, phases aligned"), pictures });
        }
    }
    let notes = std::iter::once("Research software: not a medical device, not for diagnosis.".to_owned())
        .chain(d.notes.iter().cloned())
        .chain(d.warnings.iter().cloned())
        .collect();
    Page { title: "Kidney tumour report".into(), notes, sections }
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
        "kidney, as scanned",
        "tumour",
        "kidney, centres of mass",
        "tumour",
        "kidney, aligned",
        "tumour",
        "Iterations",
    ];
    Section::Table {
        title: format!("Dice against the {} phase", d.reference),
        head: head.map(Into::into).to_vec(),
        rows,
    }
}
