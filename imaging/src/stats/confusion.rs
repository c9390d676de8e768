//! Decisions from scores, and the confusion matrix.

use serde::Serialize;

/// The class that is decided for a case: that of the highest score among those above their class's threshold, or of the highest of
/// all scores where there are no thresholds or none is exceeded. Of several equal scores the first wins.
pub fn decide(scores: &[f64], thresholds: Option<&[f64]>) -> usize {
    let highest = |among: &dyn Fn(usize) -> bool| {
        (0..scores.len()).filter(|&i| among(i)).fold(None, |best: Option<usize>, i| match best {
            Some(b) if scores[b] >= scores[i] => best,
            _ => Some(i),
        })
    };
    let above = thresholds.and_then(|t| highest(&|i| t.get(i).is_some_and(|t| scores[i] > *t)));
    above.or_else(|| highest(&|_| true)).unwrap_or(0)
}

/// The confusion matrix: number of cases by true class (rows) and decided class (columns).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Confusion(pub Vec<Vec<usize>>);

impl Confusion {
    /// The matrix of cases with these true and decided classes. Cases with a class of `classes` or above are left out.
    pub fn new(classes: usize, truth: &[usize], answers: &[usize]) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        for (&t, &a) in truth.iter().zip(answers).filter(|(t, a)| **t < classes && **a < classes) {
            counts[t][a] += 1;
        }
        Self(counts)
    }

    /// The fraction of cases that were decided correctly; NaN without cases.
    pub fn accuracy(&self) -> f64 {
        let all: usize = self.0.iter().flatten().sum();
        (0..self.0.len()).map(|i| self.0[i][i]).sum::<usize>() as f64 / all as f64
    }

    /// The fraction of a class's cases that were decided to be of it; NaN where the class has no cases.
    pub fn sensitivity(&self, class: usize) -> f64 {
        self.0[class][class] as f64 / self.0[class].iter().sum::<usize>() as f64
    }

    /// The fraction of the other classes' cases that were not decided to be of this class; NaN where there are no such cases.
    pub fn specificity(&self, class: usize) -> f64 {
        let others = self.0.iter().enumerate().filter(|(t, _)| *t != class).map(|(_, row)| row);
        let (mut called, mut all) = (0, 0);
        for row in others {
            called += row[class];
            all += row.iter().sum::<usize>();
        }
        (all - called) as f64 / all as f64
    }
}
