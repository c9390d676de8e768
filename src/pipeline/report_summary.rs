//! What a report says first: which subtype and how sure, and where the largest lesion lies and how large it is.

use super::diagnose::Diagnosis;
use super::lesion_results::LesionResult;

/// Subtypes whose probabilities differ by less are not told apart.
const UNDECIDED: f32 = 0.1;

/// A line for the classification, and one for the lesions.
pub(super) fn lines(d: &Diagnosis) -> Vec<String> {
    d.findings.classification.iter().filter_map(|c| decision(d, &c.probabilities)).chain(size(d)).collect()
}

/// `ccRCC is likeliest, 0.65 (AML 0.20)`, or that the first two are not told apart.
fn decision(d: &Diagnosis, probabilities: &[f32]) -> Option<String> {
    let mut ranked: Vec<_> = d.classes.iter().zip(probabilities).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(a.1));
    let [(first, p), (second, q), ..] = ranked.as_slice() else { return None };
    Some(if *p - *q < UNDECIDED {
        format!("Undecided: {first} ({p:.2}) and {second} ({q:.2}) lie within {UNDECIDED} of each other.")
    } else {
        format!("{first} is likeliest, {p:.2} (next {second}, {q:.2}).")
    })
}

/// `2 lesions, the largest on the left: 43 mm axial, 52 mm in any direction, 30.2 ml in the portal phase.`
fn size(d: &Diagnosis) -> Option<String> {
    let LesionResult { lesion, .. } = d.findings.lesions.first()?;
    let there = lesion.phases.iter().filter(|p| p.centre.is_some());
    let shown = there.clone().find(|p| p.phase == d.reference).or_else(|| there.clone().next())?;
    let side = lesion.side.map_or(String::new(), |side| format!(" on the {side}"));
    let which = match d.findings.lesions.len() {
        1 => format!("One lesion{side}"),
        count => format!("{count} lesions, the largest{side}"),
    };
    Some(format!(
        "{which}: {:.0} mm axial, {:.0} mm in any direction, {:.1} ml in the {} phase.",
        shown.diameter.maximum_2d_diameter_mm, shown.diameter.maximum_3d_diameter_mm, shown.volume_ml, shown.phase
    ))
}
