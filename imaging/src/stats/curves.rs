//! ROC and precision-recall curves and their areas; ties are one threshold, as in scikit-learn.

/// The points of a curve, each with its threshold: a score at or above it counts as positive.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The false positive rate (ROC) or the recall (precision-recall) of each point.
    pub x: Vec<f64>,
    /// The true positive rate (ROC) or the precision (precision-recall) of each point.
    pub y: Vec<f64>,
    /// The threshold of each point. The first of a ROC curve is infinite; the last point of a precision-recall curve has none.
    pub thresholds: Vec<f64>,
}

/// For each distinct score, in descending order: the score, and the numbers of positives and negatives at or above it.
fn cumulated(scores: &[f64], positive: &[bool]) -> Vec<(f64, f64, f64)> {
    let mut order: Vec<usize> = (0..scores.len().min(positive.len())).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut out, mut counts): (Vec<(f64, f64, f64)>, [f64; 2]) = (Vec::new(), [0.0; 2]);
    for &i in &order {
        counts[usize::from(!positive[i])] += 1.0;
        let point = (scores[i], counts[0], counts[1]);
        match out.last_mut() {
            Some(last) if last.0 == scores[i] => *last = point,
            _ => out.push(point),
        }
    }
    out
}

/// The ROC curve: true positive rate over false positive rate, with a point for every distinct threshold (scikit-learn's
/// `roc_curve` with `drop_intermediate=False`). The rate of a class without cases is NaN.
pub fn roc_curve(scores: &[f64], positive: &[bool]) -> Curve {
    let points = cumulated(scores, positive);
    let (p, n) = points.last().map_or((0.0, 0.0), |last| (last.1, last.2));
    let mut curve = Curve { x: vec![0.0 / n], y: vec![0.0 / p], thresholds: vec![f64::INFINITY] };
    for (score, tp, fp) in points {
        curve.x.push(fp / n);
        curve.y.push(tp / p);
        curve.thresholds.push(score);
    }
    curve
}

/// The precision-recall curve, as scikit-learn's `precision_recall_curve`: from the lowest threshold to the highest, then the
/// point of recall 0 and precision 1, which has no threshold.
pub fn precision_recall_curve(scores: &[f64], positive: &[bool]) -> Curve {
    let points = cumulated(scores, positive);
    let p = points.last().map_or(0.0, |last| last.1);
    let mut curve = Curve { x: Vec::new(), y: Vec::new(), thresholds: Vec::new() };
    for (score, tp, fp) in points.into_iter().rev() {
        curve.x.push(tp / p);
        curve.y.push(tp / (tp + fp));
        curve.thresholds.push(score);
    }
    curve.x.push(0.0);
    curve.y.push(1.0);
    curve
}

/// Average precision: sum over thresholds of (R_n - R_(n-1)) P_n, R being the recall and P the precision.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> f64 {
    let curve = precision_recall_curve(scores, positive);
    (1..curve.x.len()).map(|i| (curve.x[i - 1] - curve.x[i]) * curve.y[i - 1]).sum()
}

/// The area under the ROC curve: the probability that a positive case scores above a negative one, ties counting half (Mann and
/// Whitney). None where there are no positive or no negative cases.
pub fn auc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    RankedScores::new(scores, positive).auc(|_| 1)
}

/// The threshold with the largest TPR - FPR (Youden's index), and the two rates there, as (threshold, TPR, FPR). Of several such
/// thresholds the highest is returned; None where the index is never finite.
pub fn optimal_threshold(scores: &[f64], positive: &[bool]) -> Option<(f64, f64, f64)> {
    let curve = roc_curve(scores, positive);
    let gain = |i: usize| curve.y[i] - curve.x[i];
    let mut best: Option<usize> = None;
    for i in (1..curve.x.len()).filter(|&i| gain(i).is_finite()) {
        if best.is_none_or(|b| gain(i) > gain(b)) {
            best = Some(i);
        }
    }
    best.map(|i| (curve.thresholds[i], curve.y[i], curve.x[i]))
}

/// Scores sorted once, so that the area under the ROC curve takes one pass for each of many weightings of the cases.
#[derive(Debug, Clone)]
pub struct RankedScores {
    /// The cases in ascending order of their scores: the index, whether the case is positive, and whether it is the last of
    /// several equal scores.
    ranked: Vec<(usize, bool, bool)>,
}

impl RankedScores {
    /// Sorts the scores; `positive` is the true class of each.
    pub fn new(scores: &[f64], positive: &[bool]) -> Self {
        let mut order: Vec<usize> = (0..scores.len().min(positive.len())).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let last = |k: usize| order.get(k + 1).is_none_or(|&next| scores[next] != scores[order[k]]);
        let ranked = order.iter().enumerate().map(|(k, &i)| (i, positive[i], last(k))).collect();
        Self { ranked }
    }

    /// The area under the ROC curve of a sample that contains case i `count(i)` times. None where it contains no positive or no
    /// negative case.
    pub fn auc(&self, count: impl Fn(usize) -> u32) -> Option<f64> {
        // Twice the number of pairs won, in whole numbers, so that the order of addition does not matter.
        let (mut won, mut below, mut positives, mut tied) = (0u64, 0u64, 0u64, [0u64; 2]);
        for &(case, positive, last) in &self.ranked {
            tied[usize::from(positive)] += u64::from(count(case));
            if last {
                won += tied[1] * (2 * below + tied[0]);
                below += tied[0];
                positives += tied[1];
                tied = [0; 2];
            }
        }
        let pairs = positives * below;
        (pairs > 0).then(|| won as f64 / (2 * pairs) as f64)
    }
}
