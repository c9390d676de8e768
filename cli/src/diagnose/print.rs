//! The result of one patient as text.

use std::path::Path;

use crate::classify::print_findings;
use crate::error::Result;
use nephron::pipeline::diagnose::Diagnosis;

/// Prints the result as text.
pub(crate) fn print(result: &Diagnosis, folder: &Path) -> Result<()> {
    for line in result.notes.iter().chain(&result.warnings) {
        say!("note: {line}")?;
    }
    for (name, text) in result.models.segmentation_card.iter().flat_map(|card| card.lines()) {
        say!("segmentation model: {name}: {text}")?;
    }
    for p in &result.phases {
        let moved = p.registration.as_ref().map_or("reference".to_owned(), |r| {
            format!(
                "Dice of kidney with tumour {:.3} as scanned, {:.3} by centres of mass, {:.3} aligned ({} iterations)",
                r.identity.kidney.hard, r.centre_of_mass.kidney.hard, r.aligned.kidney.hard, r.iterations
            )
        });
        say!("{:13} kidney {:6.1} ml, tumour {:6.1} ml; {moved}", p.phase.to_string(), p.kidney_ml, p.tumour_ml)?;
    }
    print_findings(&result.findings, true)?;
    let s = &result.seconds;
    say!(
        "{:.1} s on {} (segment {:.1}, align {:.1}, classify {:.1}, write {:.1}); results in {}",
        s.total,
        result.device,
        s.segment,
        s.align,
        s.classify,
        s.write,
        folder.display()
    )
}
