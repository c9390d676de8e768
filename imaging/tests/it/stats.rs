//! Curves, areas, confusion and tests against scikit-learn; intervals against simulation; `evaluate classification`.

use nephron_imaging::stats;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde_json::Value;

use crate::support;
fn golden() -> Value {
    let text = std::fs::read(support::root().join("tests/golden/stats/golden.json")).expect("golden values");
    serde_json::from_slice(&text).expect("JSON")
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn flags(value: &Value) -> Vec<bool> {
    value.as_array().expect("a list").iter().map(|v| v.as_bool().expect("true or false")).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    value.as_array().expect("a list").iter().map(|v| v.as_u64().expect("an index") as usize).collect()
}

fn same(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}: {got:?} {want:?}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 1e-12, "{what}: {got} {want}");
    }
}

#[test]
fn curves_and_areas_are_scikit_learns() {
    for case in golden()["binary"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let (scores, positive) = (floats(&case["scores"]), flags(&case["positive"]));
        let roc = stats::roc_curve(&scores, &positive);
        same(name, &roc.x, &floats(&case["fpr"]));
        same(name, &roc.y, &floats(&case["tpr"]));
        same(name, &roc.thresholds[1..], &floats(&case["thresholds"]));
        assert!(roc.thresholds[0].is_infinite());
        let curve = stats::precision_recall_curve(&scores, &positive);
        same(name, &curve.x, &floats(&case["recall"]));
        same(name, &curve.y, &floats(&case["precision"]));
        same(name, &[stats::auc(&scores, &positive).expect("an area")], &[case["auc"].as_f64().expect("a number")]);
        let average = case["average_precision"].as_f64().expect("a number");
        same(name, &[stats::average_precision(&scores, &positive)], &[average]);
        let (threshold, tpr, fpr) = stats::optimal_threshold(&scores, &positive).expect("a threshold");
        let best = roc.x.iter().zip(&roc.y).skip(1).map(|(x, y)| y - x).fold(f64::NEG_INFINITY, f64::max);
        assert!((tpr - fpr - best).abs() <= 1e-12 && roc.thresholds.contains(&threshold), "{name}");
    }
    assert_eq!(stats::auc(&[0.1, 0.2], &[true, true]), None);
    assert_eq!(stats::auc(&[], &[]), None);
}

#[test]
fn confusion_is_scikit_learns() {
    for case in golden()["confusion"].as_array().expect("cases") {
        let (truth, answers) = (indices(&case["truth"]), indices(&case["answers"]));
        let want = case["matrix"].as_array().expect("rows");
        let found = stats::Confusion::new(want.len(), &truth, &answers);
        for (row, want) in found.0.iter().zip(want) {
            assert_eq!(*row, indices(want));
        }
        same("accuracy", &[found.accuracy()], &[case["accuracy"].as_f64().expect("a number")]);
        let each = |f: &dyn Fn(usize) -> f64| (0..want.len()).map(f).collect::<Vec<_>>();
        same("sensitivity", &each(&|c| found.sensitivity(c)), &floats(&case["sensitivity"]));
        same("specificity", &each(&|c| found.specificity(c)), &floats(&case["specificity"]));
    }
}

/// The p value against that of all possible swaps, which 40,000 rounds estimate with a standard deviation of at most 0.0025.
#[test]
fn permutation_tests_estimate_the_exact_p() {
    for case in golden()["permutation"].as_array().expect("cases") {
        let (one, other, want) = (flags(&case["one"]), flags(&case["other"]), case["p"].as_f64().expect("a number"));
        let got = stats::permutation_test(&one, &other, 40_000, 3);
        assert!((got - want).abs() <= 0.0125, "{got} {want}");
        assert_eq!(got, stats::permutation_test(&other, &one, 40_000, 3), "two-sided");
    }
    assert_eq!(stats::permutation_test(&[true, false], &[true, false], 100, 1), 1.0);
    // 70 cases on which the two differ need more than one word of random bits, and p is at least 1 / (rounds + 1).
    assert_eq!(stats::permutation_test(&[true; 70], &[false; 70], 999, 1), 1e-3);
}

#[test]
fn quantiles_are_numpys() {
    let case = &golden()["quantiles"];
    let values = floats(&case["values"]);
    let got: Vec<f64> = floats(&case["at"]).into_iter().map(|q| stats::quantile(&values, q)).collect();
    same("quantiles", &got, &floats(&case["want"]));
}

#[test]
fn decisions_follow_the_thresholds() {
    assert_eq!(stats::decide(&[0.2, 0.5, 0.3], None), 1);
    assert_eq!(stats::decide(&[0.4, 0.4, 0.2], None), 0, "the first of equal ones");
    assert_eq!(stats::decide(&[0.2, 0.5, 0.3], Some(&[0.1, 0.6, 0.1])), 2, "the highest above its threshold");
    assert_eq!(stats::decide(&[0.2, 0.5, 0.3], Some(&[0.9; 3])), 1, "none above: the highest");
    // The authors' thresholds.
    assert_eq!(stats::decide(&[0.05, 0.30, 0.10, 0.25, 0.30], Some(&[0.07, 0.34, 0.44, 0.24, 0.38])), 3);
}

/// 60 positives and 60 negatives from normal distributions 1.19 apart, whose area is 0.8.
fn binormal(rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<bool>) {
    let noise = Normal::new(0.0, 1.0).expect("a distribution");
    let positive: Vec<bool> = (0..120).map(|i| i < 60).collect();
    // Phi(d / sqrt 2) = 0.8 at d = 1.190232.
    let scores = positive.iter().map(|p| noise.sample(rng) + if *p { 1.190_232 } else { 0.0 }).collect();
    (scores, positive)
}

/// 500 cohorts: the interval holds the true area in 93 to 97 of 100.
#[test]
fn intervals_cover_the_truth() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut covered = 0;
    for draw in 0..500 {
        let (scores, positive) = binormal(&mut rng);
        let ranked = stats::RankedScores::new(&scores, &positive);
        let found = stats::bootstrap(120, 1000, draw, 0.95, |counts| ranked.auc(|i| counts[i])).expect("an interval");
        assert!(found.low <= found.value && found.value <= found.high);
        covered += usize::from((found.low..=found.high).contains(&0.8));
    }
    assert!((465..=485).contains(&covered), "{covered} of 500");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (scores, positive) = binormal(&mut ChaCha8Rng::seed_from_u64(2));
    let ranked = stats::RankedScores::new(&scores, &positive);
    let right: Vec<bool> = scores.iter().map(|s| *s > 0.5).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let interval =
                stats::bootstrap(120, 300, 7, 0.95, |counts| ranked.auc(|i| counts[i])).expect("an interval");
            (interval, stats::permutation_test(&right, &positive, 3000, 7))
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn bootstraps_that_cannot_be_are_refused() {
    let message = |r: nephron_compute::Result<stats::Interval>| r.expect_err("refused").to_string();
    assert!(message(stats::bootstrap(5, 10, 1, 1.0, |_| Some(1.0))).contains("between 0 and 1"));
    assert!(message(stats::bootstrap(5, 0, 1, 0.95, |_| Some(1.0))).contains("1 or more"));
    assert!(message(stats::bootstrap(5, 10, 1, 0.95, |_| None)).contains("a class is missing"));
}

#[test]
fn surface_distances_are_scipys() {
    for case in golden()["surfaces"].as_array().expect("cases") {
        let shape: [usize; 3] = indices(&case["shape"]).try_into().expect("three axes");
        let spacing: [f64; 3] = floats(&case["spacing"]).try_into().expect("three axes");
        let (a, b) = (flags(&case["a"]), flags(&case["b"]));
        let want = floats(&serde_json::json!([case["hausdorff_95"], case["hausdorff"], case["average"]]));
        for (a, b) in [(&a, &b), (&b, &a)] {
            let found = stats::surface_distances(a, b, shape, spacing).expect("distances");
            same("distances", &[found.hausdorff_95, found.hausdorff, found.average], &want);
        }
        let own = stats::surface_distances(&a, &a, shape, spacing).expect("distances");
        assert_eq!((own.hausdorff, own.average), (0.0, 0.0));
        assert_eq!(stats::surface_distances(&a, &vec![false; a.len()], shape, spacing), None);
        assert_eq!(stats::surface_distances(&a, &b[1..], shape, spacing), None);
    }
}
