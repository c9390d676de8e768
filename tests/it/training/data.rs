//! Data sets, fingerprints and plans against nnU-Net's.

use std::ops::ControlFlow;
use std::path::Path;

use nephron::error::Result;
use nephron::io::nifti::{self, Image};
use nephron::io::weights::Weights;
use nephron::models::OrientationRule;
use nephron::training::augment::{Augmentation, PatchGeometry, PatchSource};
use nephron::training::data::{
    Case, Fingerprint, IntensityProperties, NO_LABEL, Plan, PlanFiles, PlannerOptions, Preparation, RawDataset, Sample,
};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{Device, Error};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::support;

pub(super) const SHAPE: [usize; 3] = [10, 14, 12];

fn golden() -> Value {
    let path = support::root().join("tests/golden/training/plans.json");
    serde_json::from_slice(&std::fs::read(path).expect("plans.json")).expect("JSON")
}

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    let list = value.as_array().expect("a list");
    std::array::from_fn(|i| list[i].as_f64().expect("a number"))
}

/// The image of tests/golden/training/plans.py.
fn image(case: usize) -> Vec<f32> {
    let value = |z: usize, y: usize, x: usize| {
        if z < 1 + case % 2 || x >= 11 {
            return 0.0;
        }
        ((z * 7 + y * 13 + x * 29 + z * y * x * 3 + case * 31) % 200) as f32 - 50.0
    };
    every(value)
}

/// Its labels.
fn labels(case: usize) -> Vec<u8> {
    let square = |a: usize, centre: i64| (a as i64 - centre).pow(2);
    every(|z, y, x| {
        if square(z, 5) + square(y, 8) + square(x, 6 - case as i64) < 5 {
            2
        } else {
            u8::from(square(z, 5) + square(y, 7) + square(x, 5) < 16)
        }
    })
}

fn every<T>(value: impl Fn(usize, usize, usize) -> T) -> Vec<T> {
    let [d, h, w] = SHAPE;
    (0..d * h * w).map(|i| value(i / w / h, i / w % h, i % w)).collect()
}

/// Spacing 4 x 1 x 0.75 mm along (z, y, x).
fn affine() -> Affine {
    Affine([[0.75, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]])
}

fn write(path: &Path, voxels: Voxels) {
    let volume = Volume::new(SHAPE, voxels, affine()).expect("a volume");
    nifti::write(path, &Image::new(volume)).expect("written");
}

/// A data set of so many cases.
pub(super) fn write_dataset(folder: &Path, cases: usize) {
    for part in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(folder.join(part)).expect("a folder");
    }
    for case in 0..cases {
        write(&folder.join(format!("imagesTr/case_{case}_0000.nii.gz")), Voxels::F32(image(case).into()));
        write(&folder.join(format!("labelsTr/case_{case}.nii.gz")), Voxels::U8(labels(case).into()));
    }
    let dataset = json!({
        "channel_names": { "0": "CT" },
        "labels": { "background": 0, "one": 1, "two": 2 },
        "numTraining": cases,
        "file_ending": ".nii.gz",
    });
    write_json(folder, &dataset);
}

fn write_json(folder: &Path, dataset: &Value) {
    std::fs::write(folder.join("dataset.json"), dataset.to_string()).expect("written");
}

fn fingerprint(dataset: &RawDataset) -> Result<Fingerprint> {
    Fingerprint::of(dataset, OrientationRule::Stored, &mut |_, _| ControlFlow::Continue(()))
}

#[test]
fn plans_are_nnunets() {
    let golden = golden();
    let cases = golden["plans"].as_array().expect("a list");
    let (mut low, mut configurations) = (0, 0);
    for (number, case) in cases.iter().enumerate() {
        let list = |key: &str| case[key].as_array().expect("a list").iter().map(numbers::<3>).collect::<Vec<_>>();
        let flat = IntensityProperties {
            mean: 0.0,
            median: 0.0,
            std: 1.0,
            min: 0.0,
            max: 0.0,
            percentile_99_5: 0.0,
            percentile_00_5: 0.0,
        };
        let fingerprint = Fingerprint {
            spacings: list("spacings"),
            shapes: list("shapes").into_iter().map(|shape| shape.map(|s| s as usize)).collect(),
            relative_size: 1.0,
            intensities: vec![flat],
        };
        let memory_gb = case["memory"].as_f64().expect("a number");
        let classes = case["classes"].as_u64().expect("a number") as usize;
        let plan =
            Plan::new(&fingerprint, classes, &PlannerOptions { memory_gb, ..Default::default() }).expect("a plan");
        assert_eq!(json!(plan.transpose), case["transpose"], "plan {number}");
        let wanted = case["configurations"].as_object().expect("an object");
        assert_eq!(plan.configurations.len(), wanted.len(), "plan {number}");
        for found in &plan.configurations {
            let want = &wanted[found.name];
            let what = format!("plan {number}, {}", found.name);
            configurations += 1;
            low += usize::from(found.name == "3d_lowres");
            let exact = [
                ("patch", json!(found.patch)),
                ("batch", json!(found.batch)),
                ("features", json!(found.features)),
                ("kernels", json!(found.kernels)),
                ("strides", json!(found.strides)),
                ("batch_dice", json!(found.batch_dice)),
            ];
            for (key, got) in exact {
                assert_eq!(got, want[key], "{what}: {key}");
            }
            for (key, got) in [("spacing", &found.spacing), ("median", &found.median_size)] {
                let want = want[key].as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number"));
                // Means of two decimals, and up to 200 products of a spacing: a rounding for each.
                assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 200.0 * f64::EPSILON * w), "{what}: {key}");
            }
        }
    }
    // The drawn data sets cover what can happen.
    assert!(cases.len() >= 30 && low >= 5 && configurations - low >= 60, "{low} of {configurations}");
}

#[test]
fn the_fingerprint_is_nnunets_but_for_its_sampling() {
    let folder = tempfile::tempdir().expect("a folder");
    write_dataset(folder.path(), 5);
    let dataset = RawDataset::open(folder.path()).expect("a data set");
    let found = fingerprint(&dataset).expect("a fingerprint");
    let want = &golden()["fingerprint"];
    let number = |key: &str| want[key].as_f64().expect("a number");
    assert_eq!(json!(found.shapes), want["shapes"]);
    assert_eq!(found.spacings, vec![[4.0, 1.0, 0.75]; 5]);
    // The median of 9 of 10 slices in three cases, 8 in two; 11 of 12 columns.
    assert!((found.relative_size - 0.9 * 11.0 / 12.0).abs() < 1e-12);
    let [got] = found.intensities.as_slice() else { panic!("one channel") };
    // Six standard errors of nnU-Net's sample of 10^8.
    let standard_error = number("std") / number("samples").sqrt();
    assert!((got.mean - number("mean")).abs() <= 6.0 * standard_error, "{got:?}");
    assert!((got.std - number("std")).abs() <= 6.0 * standard_error, "{got:?}");
    // The values are whole numbers, and a sample this large has the same percentiles but at a tie.
    assert_eq!((got.min, got.max), (number("min"), number("max")));
    for (got, key) in
        [(got.median, "median"), (got.percentile_00_5, "percentile_00_5"), (got.percentile_99_5, "percentile_99_5")]
    {
        assert_eq!(got, number(key), "{key}");
    }
}

#[test]
fn files_of_a_plan_are_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    write_dataset(folder.path(), 5);
    let dataset = RawDataset::open(folder.path()).expect("a data set");
    let found = fingerprint(&dataset).expect("a fingerprint");
    let plan = Plan::new(&found, dataset.labels().outputs(), &PlannerOptions::default()).expect("a plan");
    let files = PlanFiles::new(&dataset, &found, &plan);
    files.write(folder.path()).expect("written");
    assert_eq!(PlanFiles::read(&folder.path().join("plans.json"), &dataset).expect("read"), files);
    for configuration in &plan.configurations {
        let read = files.plan(configuration.name).expect("a plan");
        let axes = configuration.patch.len();
        assert_eq!(read.architecture.features, configuration.features);
        assert_eq!(read.patch[3 - axes..], configuration.patch);
        assert_eq!(read.spacing[3 - axes..], configuration.spacing);
        let batch = files.batch(configuration.name).expect("a batch");
        assert_eq!(batch, (configuration.batch, configuration.batch_dice));
    }
    // A configuration has what it does not say from those that it inherits from, each key by itself.
    let mut files = files;
    files.plans["configurations"]["3d_fullres"]["batch_dice"] = json!(true);
    files.plans["configurations"]["larger"] = json!({"inherits_from": "3d_fullres", "batch_size": 7});
    files.plans["configurations"]["last"] = json!({"inherits_from": "larger", "batch_dice": false});
    files.plans["configurations"]["circle"] = json!({"inherits_from": "circle"});
    assert_eq!(files.batch("larger").expect("a batch"), (7, true));
    assert_eq!(files.batch("last").expect("a batch"), (7, false));
    let message = files.batch("circle").expect_err("inherits from itself").to_string();
    assert!(message.contains("circle") && message.contains("itself"), "{message}");
}

#[test]
fn options_of_the_planner_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    write_dataset(folder.path(), 2);
    let found = fingerprint(&RawDataset::open(folder.path()).expect("a data set")).expect("a fingerprint");
    for (what, value, options) in [
        ("features", "0", PlannerOptions { features: 0, ..Default::default() }),
        ("batch", "0", PlannerOptions { batch: Some(0), ..Default::default() }),
        ("patch along y", "0", PlannerOptions { patch: Some([16, 0, 16]), ..Default::default() }),
        ("patch along x", "99999", PlannerOptions { patch: Some([16, 16, 99999]), ..Default::default() }),
        ("memory", "-1", PlannerOptions { memory_gb: -1.0, ..Default::default() }),
    ] {
        let message = Plan::new(&found, 3, &options).expect_err(what).to_string();
        assert!(message.contains(what) && message.contains(value), "{message}");
    }
}

/// A case after nnU-Net's DefaultPreprocessor. Its slices are resampled in their plane, then across.
#[test]
fn prepared_cases_are_nnunets() {
    let folder = tempfile::tempdir().expect("a folder");
    write_dataset(folder.path(), 2);
    let dataset = RawDataset::open(folder.path()).expect("a data set");
    let found = fingerprint(&dataset).expect("a fingerprint");
    let plan = Plan::new(&found, dataset.labels().outputs(), &PlannerOptions::default()).expect("a plan");
    let mut files = PlanFiles::new(&dataset, &found, &plan);
    files.plans["transpose_forward"] = json!([0, 1, 2]);
    files.plans["configurations"]["3d_fullres"]["spacing"] = json!([2.5, 0.8, 0.8]);
    files.plans["foreground_intensity_properties_per_channel"]["0"] =
        json!({ "mean": 40.0, "std": 50.0, "percentile_00_5": -40.0, "percentile_99_5": 130.0 });
    let plan = files.plan("3d_fullres").expect("a plan");
    let cases: Vec<&Case> = dataset.cases().iter().collect();
    let mut warnings = Vec::new();
    let out = folder.path().join("prepared");
    let preparation =
        Preparation { dataset: &dataset, plan: &plan, identity: "a plan", folder: &out, device: &Device::Cpu };
    let mut prepare =
        || preparation.run(&cases, &mut |w| warnings.push(w), &mut |_, _| ControlFlow::Continue(())).expect("cases");
    let (prepared, identity) = prepare();
    // The second time they are there already.
    let written = |case: usize| std::fs::metadata(out.join(format!("case_{case}.prepared"))).and_then(|m| m.modified());
    let first = written(1).expect("a time");
    let (again, same) = prepare();
    assert_eq!((identity.as_str(), written(1).expect("a time"), again.len()), (same.as_str(), first, 2));
    assert!(warnings.is_empty(), "{warnings:?}");
    let sample = &prepared[1];
    let golden = Weights::read(support::root().join("tests/golden/training/case.safetensors")).expect("golden arrays");
    let (shape, image) = golden.get("image").expect("an image");
    assert_eq!((sample.name.as_str(), sample.shape.as_slice()), ("case_1", &shape[1..]));
    // The values lie between -1.6 and 1.8; nnU-Net's splines are f64, ours f32 with a few dozen roundings.
    let whole = sample.window(sample.shape.map(|size| 0..size)).expect("all voxels");
    assert_eq!(whole.image.len(), image.len());
    assert!(whole.image.iter().zip(&image).all(|(got, want)| (got - want).abs() <= 1e-5));
    let labels: Vec<u8> =
        golden.get("labels").expect("labels").1.iter().map(|l| if *l < 0.0 { NO_LABEL } else { *l as u8 }).collect();
    assert_eq!(*whole.labels, labels);
    assert!([0, 1, 2, NO_LABEL].iter().all(|label| labels.contains(label)));
    for (class, locations) in (1..).zip(&sample.locations) {
        let all: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
        assert_eq!(*locations, all);
    }
    // Patches of a case in its file are those of the case in memory, in and beyond it.
    let memory = Sample::new("case_1", whole.image.to_vec(), labels, sample.shape, 3).expect("a sample");
    for (seed, patch) in (0..40).zip([[3, 6, 5], [40, 40, 40], [1, 9, 70]].into_iter().cycle()) {
        let geometry = PatchGeometry::new(patch, false);
        let source =
            PatchSource { geometry, augmentation: Augmentation::Full, mirrored: [true; 3], masked: Vec::new() };
        let draw = |sample: &Sample| {
            source.draw(sample, seed % 2 == 0, &mut ChaCha8Rng::seed_from_u64(seed)).expect("a patch")
        };
        assert_eq!(draw(sample), draw(&memory), "{patch:?}, {seed}");
    }
    let cancelled = preparation.run(&cases, &mut |_| (), &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    let other = Preparation { identity: "another plan", ..preparation };
    let run = |of: &Preparation<'_>| of.run(&cases, &mut |_| (), &mut |_, _| ControlFlow::Continue(()));
    assert_ne!(run(&other).expect("cases").1, identity);
    // Labels that changed are prepared again.
    write(&folder.path().join("labelsTr/case_1.nii.gz"), Voxels::U8(vec![1; SHAPE.iter().product()].into()));
    let (changed, differs) = run(&preparation).expect("cases");
    assert_ne!(differs, identity);
    assert!(changed[1].locations[0].len() > prepared[1].locations[0].len());
}

#[test]
fn what_cannot_be_trained_on_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |what: &str, parts: &[&str], change: &dyn Fn(&Path)| {
        let own = folder.path().join(what);
        write_dataset(&own, 2);
        change(&own);
        let found = RawDataset::open(&own).and_then(|dataset| fingerprint(&dataset).map(|_| ()));
        let message = found.expect_err(what).to_string();
        assert!(parts.iter().all(|part| message.contains(part)) && !message.contains('\n'), "{what}: {message}");
    };
    let dataset = |labels: Value| json!({ "channel_names": { "0": "CT" }, "labels": labels, "file_ending": ".nii.gz" });
    refused("stray", &["case_0", "label 2", "0 to 1"], &|folder| {
        write_json(folder, &dataset(json!({ "background": 0, "one": 1 })));
    });
    refused("ignore", &["ignore label"], &|folder| {
        write_json(folder, &dataset(json!({ "background": 0, "one": 1, "two": 2, "ignore": 3 })));
    });
    refused("gaps", &["labels", "gaps"], &|folder| {
        write_json(folder, &dataset(json!({ "background": 0, "one": 1, "two": 3 })));
    });
    refused("regions", &["regions"], &|folder| {
        let mut json = dataset(json!({ "background": 0, "both": [1, 2], "two": 2 }));
        json["regions_class_order"] = json!([1, 2]);
        write_json(folder, &json);
    });
    refused("grid", &["case_1", "another grid", "elsewhere"], &|folder| {
        let mut moved = affine();
        moved.0[2][3] = 4.0;
        let volume = Volume::new(SHAPE, Voxels::U8(labels(1).into()), moved).expect("a volume");
        nifti::write(folder.join("labelsTr/case_1.nii.gz"), &Image::new(volume)).expect("written");
    });
    refused("missing", &["case_1_0000.nii.gz", "is missing"], &|folder| {
        std::fs::remove_file(folder.join("imagesTr/case_1_0000.nii.gz")).expect("removed");
    });
    refused("extra", &["case_0_0001.nii.gz", "one channel more"], &|folder| {
        write(&folder.join("imagesTr/case_0_0001.nii.gz"), Voxels::F32(image(0).into()));
    });
    refused("empty", &["labelsTr", "holds no file"], &|folder| {
        for case in 0..2 {
            std::fs::remove_file(folder.join(format!("labelsTr/case_{case}.nii.gz"))).expect("removed");
        }
    });
    refused("nothing", &["no case with a foreground"], &|folder| {
        for case in 0..2 {
            let none = Voxels::U8(vec![0; labels(0).len()].into());
            write(&folder.join(format!("labelsTr/case_{case}.nii.gz")), none);
        }
    });
}

#[test]
fn a_case_without_foreground_is_taken_with_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    write_dataset(folder.path(), 2);
    write(&folder.path().join("labelsTr/case_0.nii.gz"), Voxels::U8(vec![0; labels(0).len()].into()));
    let dataset = RawDataset::open(folder.path()).expect("a data set");
    let read = dataset.read(&dataset.cases()[0]).expect("a case");
    assert!(
        read.warnings.iter().any(|w| w.contains("case_0") && w.contains("no voxel of any label")),
        "{:?}",
        read.warnings
    );
    assert!(dataset.read(&dataset.cases()[1]).expect("a case").warnings.is_empty());
}
