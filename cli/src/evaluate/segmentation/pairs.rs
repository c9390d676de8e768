//! Masks and true masks of the same cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::segmentation::names::numbered;
use nephron::error::Error as LibraryError;
use nephron::io::images;
use nephron::phase::Phase;

/// A case with its two masks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// The name that both files share.
    pub(super) case: String,
    /// None where there is no mask of that name.
    pub(super) mask: Option<PathBuf>,
    pub(super) truth: PathBuf,
}

/// Every true mask with the mask of its name, and the masks without a true one.
///
/// A file's case is its name without ending and without `_mask`, in front of which the number of a channel is left out too. Where a folder holds a scan and its mask, `<case>.nii.gz` and
/// `<case>_mask.nii.gz`, the latter counts.
pub(super) fn pairs(masks: &Path, truth: &Path) -> Result<(Vec<Pair>, Vec<PathBuf>)> {
    let (mut found, wanted) = (by_case(masks)?, by_case(truth)?);
    if wanted.is_empty() {
        return Err(LibraryError::file(truth, "expected masks (.nii.gz, .nii, .mha, .nrrd) in it, found none").into());
    }
    let pairs = wanted.into_iter().map(|(case, truth)| Pair { mask: found.remove(&case), case, truth }).collect();
    Ok((pairs, found.into_values().collect()))
}

fn by_case(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let failed = |e: std::io::Error| LibraryError::io(folder, "cannot be read", e);
    let (mut plain, mut marked) = (BTreeMap::new(), BTreeMap::new());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // A pair is read by its header.
        let is_part = path.extension().is_some_and(|ending| ending == "img");
        let Some(stem) = images::stem(&path).filter(|_| !is_part) else { continue };
        let (names, case) = match stem.strip_suffix("_mask") {
            // The mask of the one channel of a case.
            Some(case) => (&mut marked, numbered(case).map_or(case.to_owned(), |(case, _)| case)),
            None => (&mut plain, stem),
        };
        if let Some(other) = names.insert(case, path.clone()) {
            let reason = format!("is the same case as {}, expected one file for each", other.display());
            return Err(LibraryError::file(&path, reason).into());
        }
    }
    plain.extend(marked);
    Ok(plain)
}

/// The phase that a case's name begins or ends with.
pub(super) fn phase(case: &str) -> Result<String> {
    let found = Phase::ALL.into_iter().map(|p| p.to_string()).find(|p| case.starts_with(p) || case.ends_with(p));
    let all = || Phase::ALL.map(|p| p.to_string()).join(", ");
    found.ok_or_else(|| Error::Usage(format!("--by-phase: expected {case} to begin or end with one of {}", all())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        folder
    }

    #[test]
    fn files_of_one_case_are_paired_whatever_they_are_called() {
        let masks = folder(&["a_0000_mask.nii.gz", "b.nii", "d.nii.gz", "notes.txt"]);
        let truth = folder(&["a.nii.gz", "b.nii.gz", "b_mask.nii", "c.nii.gz"]);
        let (pairs, alone) = pairs(masks.path(), truth.path()).expect("pairs");
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        let names: Vec<_> = pairs.iter().map(|p| (p.mask.as_deref().map(name), name(&p.truth))).collect();
        let pair = |mask: Option<&str>, truth: &str| (mask.map(str::to_owned), truth.to_owned());
        let want =
            [pair(Some("a_0000_mask.nii.gz"), "a.nii.gz"), pair(Some("b.nii"), "b_mask.nii"), pair(None, "c.nii.gz")];
        assert_eq!(names, want);
        assert_eq!(alone, [masks.path().join("d.nii.gz")]);
        let twice = folder(&["a.nii", "a.nii.gz"]);
        let message = super::pairs(twice.path(), truth.path()).expect_err("twice").to_string();
        assert!(message.contains("a.nii") && message.contains("same case"), "{message}");
    }
}
