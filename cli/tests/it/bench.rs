//! `nephron bench` with short cases.

use crate::support;

fn bench(args: &[&str]) -> (Option<i32>, String, String) {
    let out = support::nephron().arg("bench").args(args).output().expect("nephron runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (out.status.code(), text(out.stdout), text(out.stderr))
}

#[test]
fn a_case_is_checked_and_timed() {
    let args = ["conv3d", "--filter", "512->512 at 7^2", "--seconds", "0", "--device", "cpu", "--json"];
    let (code, out, err) = bench(&args);
    assert_eq!(code, Some(0), "{err}");
    let report: serde_json::Value = serde_json::from_str(out.trim()).expect("one JSON object");
    let case = &report["cases"][0];
    assert_eq!(case["op"], "conv3d");
    assert!(case["repeats"].as_u64() >= Some(5), "{case}");
    let ms = case["median_ms"].as_f64().expect("a time");
    // The number of operations is 2 * 49 outputs * 512 channels * 512 * 9 terms.
    let gflops = 2.0 * 49.0 * 512.0 * 512.0 * 9.0 / ms / 1e6;
    assert!((case["gflops"].as_f64().expect("a rate") / gflops - 1.0).abs() < 1e-9, "{case}");
    assert!(report["copy_gbs"].as_f64() > Some(0.0) && report["matrix_gflops"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn what_is_not_there_is_refused() {
    for (args, words) in [
        (&["fft"][..], &["fft", "conv3d"][..]),
        (&["conv3d", "--filter", "9->9"], &["9->9"]),
        (&["conv3d", "--seconds", "NaN"], &["seconds", "NaN"]),
    ] {
        let (code, _, err) = bench(args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(words.iter().all(|word| err.contains(word)), "{args:?}: {err}");
    }
}
