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
    let ceilings = &report["ceilings"];
    for key in ["read_gbs", "copy_gbs", "triad_gbs", "matrix_gflops", "launch_us", "launch_and_wait_us"] {
        assert!(ceilings[key].as_f64() > Some(0.0) && report["ceilings_after"][key].as_f64() > Some(0.0), "{report}");
    }
    // Its arithmetic lasts longer than its bytes: 49 FLOP/B at least.
    assert_eq!(case["bound"], "compute", "{case}");
    let roof = 100.0 * gflops / ceilings["matrix_gflops"].as_f64().expect("a rate");
    assert!((case["percent_of_roof"].as_f64().expect("a share") / roof - 1.0).abs() < 1e-9, "{case}");
    let [low, median, high] =
        [&case["interval_ms"][0], &case["median_ms"], &case["interval_ms"][1]].map(|v| v.as_f64());
    assert!(low <= median && median <= high, "{case}");
    assert!(report["machine"]["threads"].as_u64() >= Some(1) && report["date"].as_str() > Some("2026"), "{report}");
}

#[test]
fn short_runs_are_timed_in_batches_and_compared_with_a_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("before.json");
    let file = file.to_str().expect("UTF-8");
    let own = ["conv3d", "--shape", "1,8,2,4,4", "--weight", "8,8,1,1,1", "--seconds", "0", "--device", "cpu"];
    let run = |more: &[&str]| {
        let (code, out, err) = bench(&[&own[..], more].concat());
        assert_eq!(code, Some(0), "{err}");
        out
    };
    let out = run(&["--save", file]);
    assert!(out.contains("1x8x2x4x4 * 8x8x1x1x1 s1x1x1 p0x0x0") && out.contains("a launch: "), "{out}");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(file).expect("a record")).expect("JSON");
    // A run takes microseconds, a batch ten milliseconds.
    let case = &record["cases"][0];
    assert!(case["runs_per_wait"].as_u64() > Some(10), "{case}");
    assert_eq!(case["flops_per_byte"], 2.0 * 32.0 * 64.0 / (4.0 * (256.0 + 64.0 + 256.0)), "{case}");
    // A record of a run that took a thousand times as long.
    for key in ["median_ms", "interval_ms"] {
        let slower = match record["cases"][0][key].clone() {
            serde_json::Value::Array(both) => {
                both.iter().map(|v| 1e3 * v.as_f64().expect("a time")).collect::<Vec<_>>().into()
            }
            one => (1e3 * one.as_f64().expect("a time")).into(),
        };
        record["cases"][0][key] = slower;
    }
    record["machine"]["driver"] = "another".into();
    std::fs::write(file, record.to_string()).expect("written");
    let report: serde_json::Value =
        serde_json::from_str(run(&["--baseline", file, "--json"]).trim()).expect("one JSON object");
    let baseline = &report["cases"][0]["baseline"];
    assert_eq!(baseline["verdict"], "faster", "{baseline}");
    assert!(baseline["speedup"].as_f64() > Some(10.0), "{baseline}");
    let (_, _, err) = bench(&[&own[..], &["--baseline", file]].concat());
    assert!(err.contains("another driver: another then, rayon now"), "{err}");
}

#[test]
fn every_case_is_checked() {
    // The small ones of the operations without a test above; each compares results before it is timed.
    for (op, filter) in [("conv3d_backward", "128->128"), ("grid_sample", ""), ("conv_transpose3d", "320->256")] {
        let (code, out, err) = bench(&[op, "--filter", filter, "--seconds", "0", "--device", "cpu"]);
        assert!(code == Some(0) && out.lines().count() == 5, "{op}: {out} {err}");
    }
}

#[test]
fn what_is_not_there_is_refused() {
    for (args, words) in [
        (&["fft"][..], &["fft", "conv3d"][..]),
        (&["conv3d", "--filter", "9->9"], &["9->9"]),
        (&["conv3d", "--seconds", "NaN"], &["seconds", "NaN"]),
        (&["unet", "--shape", "1,8,2,4,4", "--weight", "8,8,1,1,1"], &["--shape", "conv3d"]),
        (&["conv3d", "--shape", "1,8,2,4,4"], &["--weight"]),
        (&["conv3d", "--seconds", "0", "--shape", "1,8,2,4", "--weight", "8,8,1,1,1"], &["5 whole numbers", "1,8,2,4"]),
    ] {
        let (code, _, err) = bench(args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(words.iter().all(|word| err.contains(word)), "{args:?}: {err}");
    }
}

#[test]
fn what_is_no_record_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "{}").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let (code, _, err) = bench(&["conv3d", "--filter", "512->512", "--baseline", path]);
    assert!(code == Some(1) && err.contains(path) && err.contains("no record"), "{err}");
}

#[test]
fn a_convolution_that_does_not_fit_is_refused() {
    for (shape, weight, words) in [
        // Their products exceed 32 and 64 bits.
        ("1,1000000,1000000,1000000,1", "8,1000000,1,1,1", "fewer than 2^32"),
        ("1,1,9000000000,9000000000,9000000000", "1,1,1,1,1", "fewer than 2^32"),
        ("0,8,2,4,4", "8,8,1,1,1", "at least 1 along every axis"),
        ("1,8,2,4,4", "8,4,1,1,1", "found 4 in"),
    ] {
        let (code, _, err) =
            bench(&["conv3d", "--shape", shape, "--weight", weight, "--seconds", "0", "--device", "cpu"]);
        assert!(code == Some(1) && err.lines().count() == 1 && err.contains(words), "{shape}: {code:?} {err}");
    }
}
