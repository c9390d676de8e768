//! Which patients train a classifier and which validate it.

use std::collections::BTreeSet;
use std::path::Path;

use super::patients::PatientFiles;
use crate::error::{Error, Result};
use crate::io::SourceFile;
use crate::phase::Subtype;
use crate::training::data::{FOLDS, Split};

/// The patients of one fold of five. The folds share each subtype as evenly as they can; within a subtype the order is that of the
/// names' SHA-256, so that it is as good as random and the same on every machine. `fold` None trains on all patients and validates on
/// the same.
///
/// # Errors
/// A fold over 4; fewer than five patients.
pub fn stratified_split(patients: &[PatientFiles], fold: Option<usize>) -> Result<Split> {
    let names = |keep: &dyn Fn(&str) -> bool| -> Vec<String> {
        patients.iter().map(|patient| patient.name.clone()).filter(|name| keep(name)).collect()
    };
    let Some(fold) = fold else { return Ok(Split { train: names(&|_| true), val: names(&|_| true) }) };
    if fold >= FOLDS {
        return Err(Error::argument("training: fold", "0 to 4, or all", fold));
    }
    if patients.len() < FOLDS {
        let expected = format!("at least {FOLDS} for a split into {FOLDS} folds (fold all trains on all patients)");
        return Err(Error::argument("training: patients", expected, patients.len()));
    }
    let mut order = Vec::new();
    for subtype in Subtype::ALL {
        let of = patients.iter().filter(|patient| patient.subtype == subtype);
        let hash = |name: &str| SourceFile::of(Path::new(""), name.as_bytes()).sha256;
        let mut of: Vec<(String, &str)> = of.map(|patient| (hash(&patient.name), patient.name.as_str())).collect();
        of.sort_unstable();
        order.extend(of.into_iter().map(|(_, name)| name));
    }
    let held: BTreeSet<&str> = order.into_iter().skip(fold).step_by(FOLDS).collect();
    Ok(Split { train: names(&|name| !held.contains(name)), val: names(&|name| held.contains(name)) })
}

/// Refuses patients of a single subtype.
///
/// # Errors
/// [`Error::Data`] with the subtype.
pub(super) fn ensure_several(patients: &[Subtype]) -> Result<()> {
    let found: BTreeSet<Subtype> = patients.iter().copied().collect();
    match found.iter().collect::<Vec<_>>().as_slice() {
        [] => Err(Error::argument("training: patients of the split", "at least one to train on", 0)),
        [only] => Err(Error::Data(format!(
            "training: expected patients of two subtypes or more, found {} and all of them {only}",
            patients.len()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patients(counts: [usize; 5]) -> Vec<PatientFiles> {
        let of = |(subtype, count): (Subtype, usize)| {
            (0..count).map(move |i| PatientFiles { name: format!("{subtype}{i}"), subtype, scans: vec![] })
        };
        Subtype::ALL.into_iter().zip(counts).flat_map(of).collect()
    }

    #[test]
    fn folds_share_every_subtype() {
        let all = patients([3, 5, 0, 11, 14]);
        let mut held = BTreeSet::new();
        for fold in 0..FOLDS {
            let split = stratified_split(&all, Some(fold)).expect("a split");
            assert_eq!(split.train.len() + split.val.len(), 33);
            assert!((6..=7).contains(&split.val.len()), "{}", split.val.len());
            assert!(split.val.iter().all(|name| !split.train.contains(name)));
            for (subtype, least) in [("oncocytoma", 0), ("AML", 1), ("pRCC", 2), ("ccRCC", 2)] {
                let count = split.val.iter().filter(|name| name.trim_end_matches(char::is_numeric) == subtype).count();
                assert!((least..=least + 1).contains(&count), "{subtype} in fold {fold}: {count}");
            }
            held.extend(split.val);
        }
        assert_eq!(held.len(), 33);
        let everybody = stratified_split(&all, None).expect("all");
        assert_eq!((everybody.train.len(), everybody.val.len()), (33, 33));
    }

    #[test]
    fn too_few_patients_and_other_folds_are_refused() {
        let message = stratified_split(&patients([1, 1, 1, 1, 0]), Some(0)).expect_err("too few").to_string();
        assert!(message.contains("at least 5") && message.contains('4'), "{message}");
        assert!(stratified_split(&patients([2; 5]), Some(5)).is_err());
        let (one, two) = ([Subtype::Angiomyolipoma; 3], [Subtype::Angiomyolipoma, Subtype::Papillary]);
        let message = ensure_several(&one).expect_err("one subtype").to_string();
        assert!(message.contains("AML") && message.contains('3'), "{message}");
        assert!(ensure_several(&two).is_ok() && ensure_several(&[]).is_err());
    }
}
