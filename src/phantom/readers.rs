//! Simulated readers: ranked diagnoses of synthetic patients with a radiologist's accuracy, for comparisons as those of Uhm et al. 2021.
//!
//! A reader sees the true mean HU of the main tumour in the phases that were scanned, with errors of his own, and compares it with what a
//! textbook says of each subtype. Nothing is read from images: these are not observers, and what they score is what they were calibrated
//! to. docs/phantom.md has the model and its figures.

use serde::Serialize;

use super::noise::{Purpose, normal, stream};
use super::{Patient, TumourTruth};
use crate::phase::{Phase, Subtype};

/// The number of subtypes.
const CLASSES: usize = Subtype::ALL.len();

/// What a reader knows of each subtype: the mean and the standard deviation of the whole tumour's HU in the phases N, A, P, D. Those of the
/// seeds 40000-41999 with balanced subtypes, rounded to 5 HU.
const TEXTBOOK: [([f64; 4], [f64; 4]); CLASSES] = [
    ([30.0, 110.0, 100.0, 75.0], [10.0, 20.0, 20.0, 10.0]),
    ([5.0, 55.0, 50.0, 35.0], [25.0, 35.0, 35.0, 30.0]),
    ([35.0, 75.0, 95.0, 70.0], [5.0, 15.0, 15.0, 10.0]),
    ([30.0, 50.0, 65.0, 55.0], [5.0, 10.0, 15.0, 10.0]),
    ([30.0, 140.0, 115.0, 85.0], [10.0, 30.0, 25.0, 15.0]),
];
/// The standard deviation of the error of one value, HU, of the median reader.
const ERROR: f64 = 34.0;
/// The standard deviation of the logarithm of that among readers.
const SKILL: f64 = 0.25;
/// The standard deviation of a reader's bias in a phase, HU.
const BIAS: f64 = 10.0;
/// The factor by which readers expect a ccRCC more often than each other subtype.
const EXPECTED: f64 = 2.3;
/// The standard deviation of the logarithm of a reader's own preference for a subtype.
const HABIT: f64 = 0.3;
/// A second diagnosis is given where it is at least this likely, relative to the first.
const SECOND: f64 = 0.5;

/// A simulated reader.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reader {
    number: u64,
    /// The standard deviation of the error of one value, HU.
    error: f64,
    /// What is added to every value of a phase, HU.
    bias: [f64; 4],
    /// The logarithm of how likely each subtype is before anything is seen, up to a constant.
    prior: [f64; CLASSES],
}

/// The ranked diagnoses of one patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Diagnoses {
    /// The first diagnosis.
    pub first: Subtype,
    /// The second one, where there is one.
    pub second: Option<Subtype>,
}

impl Reader {
    /// The reader of a number: the same person in every cohort.
    pub fn new(number: u64) -> Self {
        let mut rng = stream(number, Purpose::Reader);
        let error = ERROR * (SKILL * normal(&mut rng)).exp();
        let bias = std::array::from_fn(|_| BIAS * normal(&mut rng));
        let expected = |subtype| if subtype == Subtype::ClearCell { EXPECTED.ln() } else { 0.0 };
        let prior = Subtype::ALL.map(|subtype| expected(subtype) + HABIT * normal(&mut rng));
        Self { number, error, bias, prior }
    }

    /// The diagnoses of a patient, from the phases that the patient has.
    pub fn read(&self, patient: &Patient) -> Diagnoses {
        let phases: Vec<Phase> = patient.phases.iter().map(|p| p.phase).collect();
        self.read_tumour(patient.seed, &patient.tumours[0], &phases)
    }

    /// The diagnoses of the main tumour of the patient of a seed, of whom these phases were scanned. They depend on nothing else but
    /// the reader's number, and the error in a phase not on the other phases.
    pub fn read_tumour(&self, seed: u64, tumour: &TumourTruth, phases: &[Phase]) -> Diagnoses {
        let mut rng = stream(seed, Purpose::Reading(self.number));
        let errors: [f64; 4] = std::array::from_fn(|_| self.error * normal(&mut rng));
        let mut scores = self.prior;
        for phase in phases.iter().map(|phase| *phase as usize) {
            let seen = tumour.hu[phase] + self.bias[phase] + errors[phase];
            for (score, (mean, sd)) in scores.iter_mut().zip(&TEXTBOOK) {
                // The logarithm of the density of a value whose spread is that of the subtype and of the reader's error.
                let variance = sd[phase].powi(2) + self.error.powi(2);
                *score -= 0.5 * ((seen - mean[phase]).powi(2) / variance + variance.ln());
            }
        }
        let mut order = Subtype::ALL;
        order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
        let [first, second, ..] = order;
        let is_likely = scores[second as usize] - scores[first as usize] >= SECOND.ln();
        Diagnoses { first, second: is_likely.then_some(second) }
    }
}
