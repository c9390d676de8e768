//! Curves, areas, confusion and tests against scikit-learn; intervals against simulation; `evaluate classification`.

use std::path::Path;

use nephron::stats;
use rand::{Rng, SeedableRng};
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

/// Against p of all swaps: 40,000 rounds estimate it with a standard deviation of 0.0025 at most.
#[test]
fn permutation_tests_estimate_the_exact_p() {
    for case in golden()["permutation"].as_array().expect("cases") {
        let (one, other, want) = (flags(&case["one"]), flags(&case["other"]), case["p"].as_f64().expect("a number"));
        let got = stats::permutation_test(&one, &other, 40_000, 3);
        assert!((got - want).abs() <= 0.0125, "{got} {want}");
        assert_eq!(got, stats::permutation_test(&other, &one, 40_000, 3), "two-sided");
    }
    assert_eq!(stats::permutation_test(&[true, false], &[true, false], 100, 1), 1.0);
    // 70 cases that all tell: more than a word of random bits, and p can be no less than 1 / (rounds + 1).
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
    let message = |r: nephron::Result<stats::Interval>| r.expect_err("refused").to_string();
    assert!(message(stats::bootstrap(5, 10, 1, 1.0, |_| Some(1.0))).contains("between 0 and 1"));
    assert!(message(stats::bootstrap(5, 0, 1, 0.95, |_| Some(1.0))).contains("1 or more"));
    assert!(message(stats::bootstrap(5, 10, 1, 0.95, |_| None)).contains("a class is missing"));
}

/// 40 cases of three classes, two readers.
fn write_cohort(folder: &Path) {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (mut scores, mut truth) = ("case,aml,ccRCC,pRCC\n".to_owned(), "case,truth\n".to_owned());
    let mut readers = "case,reader,first,second\n".to_owned();
    for case in 0..40 {
        let class = case % 3;
        let mut row: [f64; 3] =
            std::array::from_fn(|i| rng.random_range(0.05..1.0) + if i == class { 0.4 } else { 0.0 });
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
        scores += &format!("p{case},{},{},{}\n", row[0], row[1], row[2]);
        truth += &format!("p{case},{}\n", ["aml", "CCRCC", "2"][class]);
        readers += &format!("p{case},anna,{},pRCC\np{case},ben,{},\n", rng.random_range(0..3), class);
    }
    for (name, text) in [("scores.csv", scores), ("truth.csv", truth), ("readers.csv", readers)] {
        std::fs::write(folder.join(name), text).expect("written");
    }
}

fn evaluate(folder: &Path, options: &[&str]) -> (Option<i32>, String, String) {
    let at = |name: &str| folder.join(name).display().to_string();
    let call = ["evaluate", "classification", "--scores", &at("scores.csv"), "-o", &at("out")];
    let output = support::nephron().args(call).args(options).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_cohort_is_evaluated() {
    let folder = tempfile::tempdir().expect("a folder");
    write_cohort(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (truth, readers) = (at("truth.csv"), at("readers.csv"));
    let (code, text, errors) = evaluate(folder.path(), &["--truth", &truth, "--readers", &readers, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    let printed: Value = serde_json::from_str(text.trim()).expect("JSON");
    let written: Value =
        serde_json::from_slice(&std::fs::read(at("out/metrics.json")).expect("metrics")).expect("JSON");
    assert_eq!(printed, written);
    assert_eq!((written["cases"].as_u64(), written["schema_version"].as_u64()), (Some(40), Some(1)));
    for class in written["classes"].as_array().expect("classes") {
        let auc = class["auc"]["value"].as_f64().expect("an area");
        assert!(auc > 0.6 && class["auc"]["low"].as_f64() <= Some(auc), "{class}");
    }
    let [anna, ben] = [0, 1].map(|i| &written["readers"][i]);
    assert_eq!((ben["top_1_accuracy"].as_f64(), ben["name"].as_str()), (Some(1.0), Some("ben")));
    assert!(anna["top_2_accuracy"].as_f64() > anna["top_1_accuracy"].as_f64(), "{anna}");
    assert!(anna["p_accuracy"].as_f64() < Some(0.05), "{anna}");
    for name in ["roc.csv", "precision_recall.csv", "confusion.csv"] {
        assert!(std::fs::read_to_string(folder.path().join("out").join(name)).expect(name).lines().count() > 3);
    }
    for name in ["roc", "precision_recall"] {
        let svg = std::fs::read_to_string(at(&format!("out/{name}.svg"))).expect("a picture");
        assert!(svg.contains("ccRCC: "), "the legend");
        let png = image::open(at(&format!("out/{name}.png"))).expect("a picture").into_rgb8();
        assert!(png.pixels().filter(|p| p.0 != [255; 3]).count() > 5000, "something is drawn");
    }
    // Thresholds change decisions, not areas.
    let (code, text, _) = evaluate(folder.path(), &["--truth", &truth, "--thresholds", "0,0.99,0.99", "--json"]);
    let other: Value = serde_json::from_str(text.trim()).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(other["macro_auc"], written["macro_auc"]);
    assert_eq!(other["classes"][0]["sensitivity"], 1.0);
}

#[test]
fn cohorts_that_cannot_be_evaluated_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scores.csv");
    let truths = folder.path().join("truth.csv");
    let readers = folder.path().join("readers.csv");
    let refused = |scores: &str, truth: Option<&str>, reader: Option<&str>, parts: &[&str]| {
        std::fs::write(&path, scores).expect("written");
        let mut options: Vec<&str> = Vec::new();
        for (option, file, text) in [("--truth", &truths, truth), ("--readers", &readers, reader)] {
            if let Some(text) = text {
                std::fs::write(file, text).expect("written");
                options.extend([option, file.to_str().expect("UTF-8")]);
            }
        }
        let (code, _, errors) = evaluate(folder.path(), &options);
        assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}");
        assert!(parts.iter().all(|p| errors.contains(p)), "{errors}: expected {parts:?}");
        assert!(!folder.path().join("out").exists());
    };
    let good = "case,truth,a,b\n1,a,0.9,0.1\n2,b,0.5,0.5\n";
    refused("case,truth,a,b\n1,a,0.9,0.1\n2,a,0.5,0.5\n", None, None, &["two classes", "only a"]);
    refused("case,truth,a,b\n1,a,1.9,-0.9\n", None, None, &["row 1", "between 0 and 1", "'1.9'"]);
    refused("case,truth,a,b\n1,a,nan,0.5\n", None, None, &["between 0 and 1", "'nan'"]);
    refused("case,truth,a,b\n1,a,0.9,0.3\n", None, None, &["row 1", "add up to 1", "1.2"]);
    refused("case,truth,a,b\n1,c,0.9,0.1\n", None, None, &["one of a, b", "'c'"]);
    refused("case,truth,a,b\n1,a,0.9,0.1\n1,b,0.5,0.5\n", None, None, &["row 2", "case '1'", "row 1"]);
    refused("case,a,b\n1,0.9,0.1\n", None, None, &["column 'truth'", "--truth"]);
    refused("case,a,b\n1,0.9,0.1\n", Some("case,truth\n2,a\n"), None, &["truth.csv", "case '1'", "found none"]);
    refused("case,truth,a\n1,a,1\n", None, None, &["two classes or more"]);
    refused("case,truth,a,b\n1,a,0.9\n", None, None, &["CSV"]);
    refused(good, None, Some("case,reader,first\n7,anna,a\n"), &["readers.csv", "row 1", "'7'"]);
    refused(good, None, Some("case,reader,first\n1,anna,x\n"), &["one of a, b", "'x'"]);
    refused(good, None, Some("case,reader,first\n1,anna,a\n1,anna,b\n"), &["row 2", "anna", "already"]);
    refused(good, None, Some("case,who,first\n1,anna,a\n"), &["column 'reader'", "case, who, first"]);
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

#[test]
fn masks_are_evaluated() {
    use nephron::io::nifti;
    use nephron::volume::{Affine, Volume, Voxels};
    let folder = tempfile::tempdir().expect("a folder");
    let mut affine = Affine::IDENTITY;
    (affine.0[0][0], affine.0[1][1], affine.0[2][2]) = (2.0, 2.0, 3.0);
    let write = |name: &str, labels: &dyn Fn(usize, usize, usize) -> u8| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let voxels: Vec<u8> = (0..6 * 8 * 10).map(|i| labels(i / 80, i / 10 % 8, i % 10)).collect();
        let volume = Volume::new([6, 8, 10], Voxels::U8(voxels.into()), affine).expect("a mask");
        nifti::write(path, &nifti::Image::new(volume)).expect("written");
    };
    // A block of 4 x 4 x 4 voxels, found one voxel (2 mm) too far along x; its upper half along z tumour.
    let block = |z: usize, y: usize, x: usize| {
        u8::from((1..5).contains(&z) && (2..6).contains(&y) && (3..7).contains(&x)) * (1 + u8::from(z > 2))
    };
    write("truth/portal_1.nii.gz", &block);
    write("found/portal_1.nii.gz", &|z, y, x| if x > 0 { block(z, y, x - 1) } else { 0 });
    write("truth/arterial_1.nii.gz", &block);
    write("found/arterial_1.nii.gz", &|z, y, x| block(z, y, x).min(1));
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (found, truth, csv) = (at("found"), at("truth"), at("cases.csv"));
    let run = |options: &[&str]| {
        let call = ["evaluate", "segmentation", "--masks", &found, "--truth", &truth];
        let output = support::nephron().args(call).args(options).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, text, errors) = run(&["--by-phase", "--csv", &csv, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    let table: Value = serde_json::from_str(text.trim()).expect("JSON");
    let line = |phase: &str, label: &str| {
        let lines = table.as_array().expect("lines");
        lines.iter().find(|l| l["phase"] == phase && l["label"] == label).expect("a line").clone()
    };
    let portal = line("portal", "kidney");
    assert_eq!(portal["dice"]["mean"], 0.75, "{portal}");
    assert_eq!((&portal["hausdorff_95_mm"]["mean"], &portal["volume_error"]["mean"]), (&2.0.into(), &0.0.into()));
    let healthy = line("arterial", "tumour");
    assert_eq!((&healthy["dice"]["mean"], &healthy["volume_error"]["mean"]), (&0.0.into(), &(-1.0).into()));
    assert_eq!((&healthy["without_distance"], &healthy["hausdorff_95_mm"]), (&1.into(), &Value::Null));
    assert_eq!(std::fs::read_to_string(&csv).expect("a table").lines().count(), 5);
    std::fs::remove_file(folder.path().join("found/portal_1.nii.gz")).expect("removed");
    let (code, _, errors) = run(&[]);
    assert!(code == Some(1) && errors.contains("portal_1") && errors.contains("found none"), "{errors}");
}
