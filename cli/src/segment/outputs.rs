//! The files that a case may have: its mask, and what a run may write beside it.

use std::path::PathBuf;

use super::cases::Case;
use super::files::Format;
use nephron::models::{Target, TargetLabels, UNetPlan};

/// What is written besides the mask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The probability of each label as NIfTI.
    pub(super) probabilities: bool,
    /// All probabilities as nnU-Net writes them.
    pub(super) npz: bool,
    /// The picture.
    pub(super) preview: bool,
}

impl Wanted {
    /// Whether all files of a case are there. Each was renamed to its name when it was whole, the mask last.
    pub(super) fn are_done(self, case: &Case, labels: &TargetLabels) -> bool {
        let images = if self.probabilities { probabilities(case, labels) } else { Vec::new() };
        let preview = !self.preview || preview(case).is_file();
        let npz = !self.npz || npz(case).is_file();
        preview && npz && case.mask.is_file() && images.iter().all(|(_, file)| file.is_file())
    }
}

/// Every file that some run may write of a case.
pub(super) fn all(case: &Case, plan: &UNetPlan) -> Vec<PathBuf> {
    let images = probabilities(case, &plan.labels).into_iter().map(|(_, file)| file);
    let spacing = Format::of(plan.reader).mask_spacing_file(&case.mask);
    [case.mask.clone(), preview(case), npz(case)].into_iter().chain(spacing).chain(images).collect()
}

/// The picture.
pub(super) fn preview(case: &Case) -> PathBuf {
    case.mask.with_file_name(format!("{}_preview.png", case.prefix))
}

/// All probabilities, as nnU-Net names the file.
pub(super) fn npz(case: &Case) -> PathBuf {
    case.mask.with_file_name(format!("{}.npz", case.prefix))
}

/// Each label or region with the file of its probability. The labels' names become parts of files' names: letters, digits and
/// hyphens; with the label's value where two become the same.
pub(super) fn probabilities(case: &Case, labels: &TargetLabels) -> Vec<(String, PathBuf)> {
    let plain = |label: &str| -> String {
        label.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
    };
    let names: Vec<String> = labels.targets().iter().map(|target| plain(&target.name)).collect();
    let is_unique = |name: &String| names.iter().filter(|n| *n == name).count() == 1;
    let file = |(target, name): (&Target, &String)| {
        let part = if is_unique(name) { name.clone() } else { format!("{name}_{}", target.value) };
        let file = case.mask.with_file_name(format!("{}_{part}_probability.nii.gz", case.prefix));
        (target.name.clone(), file)
    };
    labels.targets().iter().zip(&names).map(file).collect()
}
