//! The part of the report that tells how it was made and which files belong to it.

use super::diagnose::Diagnosis;
use crate::io::SourceFile;
use crate::report::Section;

/// Number of digits of a hash that are shown; result.json has all.
const SHOWN_DIGITS: usize = 12;

/// What was read and computed with, and when.
pub(super) fn made_of(d: &Diagnosis) -> Section {
    let mut rows = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    row("program", d.program.clone());
    row("device", d.device.clone());
    if let Some(date) = &d.date {
        row("date", date.clone());
    }
    let seconds = &d.seconds;
    row(
        "seconds",
        format!(
            "{:.1} (segmentation {:.1}, alignment {:.1}, classification {:.1}, files {:.1})",
            seconds.total, seconds.segment, seconds.align, seconds.classify, seconds.write
        ),
    );
    for (name, files) in [("segmentation", &d.models.segmentation), ("classification", &d.models.classification)] {
        files.iter().for_each(|file| row(&format!("{name} model"), hashed(file)));
    }
    if let Some(options) = &d.options {
        let masks = if options.given_masks { "given" } else { "segmented" };
        row("masks", masks.into());
        for model in options.segmentation.iter().flat_map(|how| &how.models) {
            let folds =
                if model.folds.is_empty() { String::new() } else { format!(", folds {}", model.folds.join(", ")) };
            let mirrored = if options.mirroring { "mirrored" } else { "not mirrored" };
            row("segmentation by", format!("{}{folds}, {mirrored}", model.configuration));
        }
    }
    for phase in &d.phases {
        phase.files.iter().for_each(|file| row(&format!("{} phase", phase.phase), hashed(file)));
    }
    Section::Table { title: "How this was made".into(), head: vec!["".into(), "".into()], rows }
}

/// The files beside the page.
pub(super) fn files(d: &Diagnosis) -> Section {
    let mut rows = vec![(Some("result.json".to_owned()), vec!["result.json".to_owned(), "all figures".to_owned()])];
    let mut row = |path: &std::path::Path, text: String| {
        let path = path.display().to_string();
        rows.push((Some(path.clone()), vec![path, text]));
    };
    for p in &d.phases {
        row(&p.mask, format!("mask of the {} phase, on its own grid", p.phase));
        row(&p.aligned, format!("{} phase on the grid of the {} phase", p.phase, d.reference));
        row(&p.aligned_mask, "its mask on that grid (1 kidney, 2 tumour)".into());
        if let Some(transform) = &p.transform {
            row(
                transform,
                format!("transform from the {} to the {} phase, for ITK and 3D Slicer", d.reference, p.phase),
            );
        }
    }
    Section::Links { title: "Files".into(), head: vec!["File".into(), "Content".into()], rows }
}

/// A file with the beginning of its hash.
fn hashed(file: &SourceFile) -> String {
    let digits: String = file.sha256.chars().take(SHOWN_DIGITS).collect();
    format!("{} (SHA-256 {digits}...)", file.file.display())
}
