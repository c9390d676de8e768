//! The phases of one patient, and which stages they allow.

use super::Phase;
use crate::error::{Error, Result};

/// The phases of one patient, each once, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseSet(Vec<Phase>);

impl PhaseSet {
    /// Smallest number of phases that can be classified: the channels of the classifier's image.
    pub const MIN_CLASSIFIED: usize = 3;

    /// The set of these phases.
    ///
    /// # Errors
    /// [`Error::Inputs`] for a phase that is given twice.
    pub fn new(phases: impl IntoIterator<Item = Phase>) -> Result<Self> {
        let mut set = Vec::new();
        for phase in phases {
            if set.contains(&phase) {
                return Err(Error::Inputs(format!("expected each phase once, found the {phase} phase twice")));
            }
            set.push(phase);
        }
        Ok(Self(set))
    }

    /// Number of phases.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The phases in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = Phase> + '_ {
        self.0.iter().copied()
    }

    /// Whether the set contains a phase.
    pub fn contains(&self, phase: Phase) -> bool {
        self.0.contains(&phase)
    }

    /// Whether there are enough phases to be classified.
    pub fn is_classifiable(&self) -> bool {
        self.count() >= Self::MIN_CLASSIFIED
    }

    /// Checks that there are enough phases to be classified.
    ///
    /// # Errors
    /// [`Error::Inputs`] for fewer than [`Self::MIN_CLASSIFIED`].
    pub fn ensure_classifiable(&self) -> Result<()> {
        self.images().map(|_| ())
    }

    /// The reference phase, to which the others are aligned: the portal phase, else the arterial, else the delayed phase; a phase
    /// that is alone is its own.
    ///
    /// # Errors
    /// [`Error::Inputs`] for a set without a phase.
    pub fn reference(&self) -> Result<Phase> {
        [Phase::Portal, Phase::Arterial, Phase::Delayed, Phase::NonContrast]
            .into_iter()
            .find(|p| self.contains(*p))
            .ok_or_else(|| Error::Inputs("expected one to four phases, none given".into()))
    }

    /// The classifier's images, each as the phases of its three channels in order of acquisition. Three phases give one image. Four
    /// phases give (N, A, P), (N, A, D) and (N, P, D), each of which omits one contrast phase (Uhm et al. 2021).
    ///
    /// # Errors
    /// As [`Self::ensure_classifiable`].
    pub fn images(&self) -> Result<Vec<[Phase; 3]>> {
        let mut sorted = self.0.clone();
        sorted.sort();
        match *sorted {
            [a, b, c] => Ok(vec![[a, b, c]]),
            [n, a, p, d] => Ok(vec![[n, a, p], [n, a, d], [n, p, d]]),
            _ => Err(Error::Inputs(format!("classification needs three or four phases, {} given", self.count()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::{Arterial as A, Delayed as D, NonContrast as N, Portal as P};

    #[test]
    fn four_phases_leave_out_one_contrast_phase_each() {
        let images = |phases: &[Phase]| PhaseSet::new(phases.iter().copied()).and_then(|set| set.images());
        assert_eq!(images(&[P, D, N, A]).expect("four"), [[N, A, P], [N, A, D], [N, P, D]]);
        assert_eq!(images(&[D, A, P]).expect("three"), [[A, P, D]]);
        assert!(images(&[A, P]).is_err());
        assert!(images(&[A, P, P]).is_err());
    }

    #[test]
    fn what_a_set_is_good_for() {
        let set = |phases: &[Phase]| PhaseSet::new(phases.iter().copied());
        let message = set(&[D, P, D]).expect_err("twice").to_string();
        assert_eq!(message, "expected each phase once, found the delayed phase twice");
        let one = set(&[N]).expect("one");
        assert!(one.reference().expect("itself") == N && !one.is_classifiable());
        let message = set(&[]).expect("none").reference().expect_err("none").to_string();
        assert_eq!(message, "expected one to four phases, none given");
        let two = set(&[D, N]).expect("two");
        assert!(two.reference().expect("delayed") == D);
        let message = two.ensure_classifiable().expect_err("two").to_string();
        assert_eq!(message, "classification needs three or four phases, 2 given");
        let three = set(&[D, A, N]).expect("three");
        assert!(three.ensure_classifiable().is_ok() && three.reference().expect("arterial") == A);
    }
}
