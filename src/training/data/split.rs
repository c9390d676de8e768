//! Which cases train a network and which validate it: nnU-Net's five folds.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::models::JsonFile;
use crate::shown;

/// Number of folds.
pub const FOLDS: usize = 5;
/// nnU-Net's seed.
const SEED: u32 = 12345;

/// The cases of one fold, by name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Split {
    /// Cases that the network is trained on.
    pub train: Vec<String>,
    /// Cases that it is validated on.
    pub val: Vec<String>,
}

/// The cases of one fold of five, as nnU-Net draws them: scikit-learn's `KFold(5, shuffle=True, random_state=12345)` over the
/// sorted names. `fold` None trains on all cases and validates on the same, as nnU-Net's fold `all`.
///
/// # Errors
/// A fold over 4; fewer than five cases.
pub fn split(names: &[String], fold: Option<usize>) -> Result<Split> {
    let mut names = names.to_vec();
    names.sort_unstable();
    let Some(fold) = fold else { return Ok(Split { train: names.clone(), val: names }) };
    if fold >= FOLDS {
        return Err(Error::argument("training: fold", "0 to 4, or all", fold));
    }
    if names.len() < FOLDS {
        let expected = format!("at least {FOLDS} for a split into {FOLDS} folds (fold all trains on all cases)");
        return Err(Error::argument("training: cases", expected, names.len()));
    }
    let mut order: Vec<usize> = (0..names.len()).collect();
    MersenneTwister::new(SEED).shuffle(&mut order);
    let (size, longer) = (names.len() / FOLDS, names.len() % FOLDS);
    let start = fold * size + fold.min(longer);
    let held: BTreeSet<usize> = order[start..start + size + usize::from(fold < longer)].iter().copied().collect();
    let of = |validates: bool| {
        let chosen = names.iter().enumerate().filter(|(i, _)| held.contains(i) == validates);
        chosen.map(|(_, name)| name.clone()).collect()
    };
    Ok(Split { train: of(false), val: of(true) })
}

/// The cases of one fold of five, drawn as [`split`] draws them, but over patients: a patient trains or validates with all its cases.
/// `cases` are pairs of a patient and the name of a case.
///
/// # Errors
/// A fold over 4; fewer than five patients.
pub fn split_patients(cases: &[(&str, &str)], fold: Option<usize>) -> Result<Split> {
    let patients: BTreeSet<&str> = cases.iter().map(|(patient, _)| *patient).collect();
    if fold.is_some_and(|fold| fold < FOLDS) && patients.len() < FOLDS {
        let expected = format!("at least {FOLDS} for a split into {FOLDS} folds (fold all trains on all cases)");
        return Err(Error::argument("training: patients", expected, patients.len()));
    }
    let drawn = split(&patients.into_iter().map(str::to_owned).collect::<Vec<_>>(), fold)?;
    let of = |chosen: &[String]| {
        let is_chosen = |patient: &str| chosen.iter().any(|name| name == patient);
        let mut names: Vec<String> =
            cases.iter().filter(|(patient, _)| is_chosen(patient)).map(|(_, name)| (*name).to_owned()).collect();
        names.sort_unstable();
        names
    };
    Ok(Split { train: of(&drawn.train), val: of(&drawn.val) })
}

/// The cases of a fold out of nnU-Net's `splits_final.json`.
///
/// # Errors
/// A file that is not a list of objects with the lists `train` and `val`; a fold that it does not have; a name that is not among
/// `names`; a fold without a case to train on.
pub fn read_split(path: &Path, names: &[String], fold: usize) -> Result<Split> {
    let json = JsonFile::read(path)?;
    let folds = json.root().list()?;
    let Some(node) = folds.get(fold) else {
        return Err(Error::argument(
            format!("{}: fold", path.display()),
            format!("0 to {}", folds.len().max(1) - 1),
            fold,
        ));
    };
    let list = |key: &str| {
        let known = |node: &crate::models::Node<'_>| {
            let name = node.text()?;
            if names.iter().any(|known| known == name) {
                return Ok(name.to_owned());
            }
            Err(Error::file(path, format!("{} is no case of the data set", shown(name))))
        };
        node.key(key)?.list()?.iter().map(known).collect::<Result<Vec<_>>>()
    };
    let split = Split { train: list("train")?, val: list("val")? };
    if split.train.is_empty() { Err(node.mismatch("at least one case to train on")) } else { Ok(split) }
}

/// MT19937 (Matsumoto and Nishimura 1998), as `numpy.random.RandomState` seeds it.
struct MersenneTwister {
    state: [u32; 624],
    next: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: 624 }
    }

    fn draw(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number from 0 to `largest`, by rejection.
    fn up_to(&mut self, largest: u32) -> u32 {
        let mask = u32::MAX.checked_shr(largest.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.draw() & mask;
            if value <= largest {
                return value;
            }
        }
    }

    fn shuffle(&mut self, values: &mut [usize]) {
        for i in (1..values.len()).rev() {
            let j = self.up_to(u32::try_from(i).unwrap_or(u32::MAX)) as usize;
            values.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("case_{i:03}")).collect()
    }

    /// Folds that scikit-learn 1.7 gives.
    #[test]
    fn the_folds_are_nnunets() {
        let folds = |count: usize| {
            let number = |name: &String| name[5..].parse().expect("a number");
            let fold = |fold| split(&names(count), Some(fold)).expect("a split").val.iter().map(number).collect();
            (0..FOLDS).map(fold).collect::<Vec<Vec<usize>>>()
        };
        assert_eq!(folds(5), [vec![0], vec![4], vec![3], vec![1], vec![2]]);
        assert_eq!(folds(7), [vec![3, 6], vec![0, 4], vec![1], vec![5], vec![2]]);
        let want = [
            vec![3, 8, 10, 17, 19],
            vec![0, 7, 12, 15, 16],
            vec![6, 11, 14, 18, 20],
            vec![9, 13, 21, 22],
            vec![1, 2, 4, 5],
        ];
        assert_eq!(folds(23), want);
        let one = split(&names(23), Some(3)).expect("a split");
        assert_eq!(one.train.len() + one.val.len(), 23);
        assert!(one.train.iter().all(|name| !one.val.contains(name)));
    }

    #[test]
    fn too_few_cases_and_other_folds_are_refused() {
        let message = split(&names(4), Some(0)).expect_err("too few").to_string();
        assert!(message.contains("at least 5") && message.contains('4'), "{message}");
        assert!(split(&names(9), Some(5)).is_err());
        let all = split(&names(2), None).expect("all");
        assert_eq!(all.train, all.val);
    }

    #[test]
    fn a_patients_cases_stay_together() {
        let cases: Vec<(String, String)> = (0..7)
            .flat_map(|i| ["A", "P"].map(|phase| (format!("case_{i:03}"), format!("case_{i:03}_{phase}"))))
            .collect();
        let pairs: Vec<(&str, &str)> = cases.iter().map(|(patient, name)| (patient.as_str(), name.as_str())).collect();
        let found = split_patients(&pairs, Some(1)).expect("a split");
        assert_eq!(found.val, ["case_000_A", "case_000_P", "case_004_A", "case_004_P"]);
        assert_eq!(found.train.len(), 10);
        let message = split_patients(&pairs[..8], Some(0)).expect_err("four patients").to_string();
        assert!(message.contains("at least 5") && message.contains('4'), "{message}");
        // Where every case is a patient of its own, the folds are nnU-Net's.
        let alone: Vec<(&str, &str)> = pairs.iter().map(|(_, name)| (*name, *name)).collect();
        let names: Vec<String> = alone.iter().map(|(_, name)| (*name).to_owned()).collect();
        assert_eq!(split_patients(&alone, Some(2)).expect("a split"), split(&names, Some(2)).expect("a split"));
    }

    #[test]
    fn a_split_of_nnunets_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("splits_final.json");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write(r#"[{"train": ["case_000", "case_002"], "val": ["case_001"]}]"#);
        let found = read_split(&path, &names(3), 0).expect("a split");
        assert_eq!((found.train.len(), found.val), (2, vec!["case_001".to_owned()]));
        assert!(read_split(&path, &names(3), 1).is_err());
        let message = read_split(&path, &names(2), 0).expect_err("unknown").to_string();
        assert!(message.contains("case_002"), "{message}");
        write(r#"[{"train": [], "val": []}]"#);
        assert!(read_split(&path, &names(2), 0).is_err());
    }
}
