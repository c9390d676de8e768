//! The loop of a training: what it learns, and that it goes on as if nothing had been.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use nephron::io::nifti::{self, Image};
use nephron::pipeline::{ModelOptions, Scan};
use nephron::training::augment::Augmentation;
use nephron::training::data::{Fingerprint, Plan, PlanFiles, PlannerOptions, RawDataset, Split};
use nephron::training::{SgdOptions, TrainOptions, TrainOutcome, TrainStage, Training};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{Device, Precision, Result, SegmentOptions, Segmenter};
use serde_json::json;

const SHAPE: [usize; 3] = [16, 20, 18];

/// Two balls of different brightness in noise; the second lies elsewhere in every case.
fn write_dataset(folder: &Path, cases: usize) {
    for part in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(folder.join(part)).expect("a folder");
    }
    let [d, h, w] = SHAPE;
    for case in 0..cases {
        let square = |a: usize, centre: usize| (a as i64 - centre as i64).pow(2);
        let label = |i: usize| {
            let (z, y, x) = (i / w / h, i / w % h, i % w);
            if square(z, 8) + square(y, 14) + square(x, 5 + 2 * (case % 4)) < 10 {
                return 2;
            }
            u8::from(square(z, 7) + square(y, 7) + square(x, 9) < 26)
        };
        let labels: Vec<u8> = (0..d * h * w).map(label).collect();
        let noise = |i: usize| (((i + case * 977) * 2_654_435_761) >> 7) % 41;
        let image = labels.iter().enumerate().map(|(i, l)| (10 + 60 * usize::from(*l) + noise(i)) as i16);
        for (name, voxels) in [
            (format!("imagesTr/case_{case}_0000.nii.gz"), Voxels::I16(image.collect::<Vec<_>>().into())),
            (format!("labelsTr/case_{case}.nii.gz"), Voxels::U8(labels.clone().into())),
        ] {
            let volume = Volume::new(SHAPE, voxels, Affine::IDENTITY).expect("a volume");
            nifti::write(folder.join(name), &Image::new(volume)).expect("written");
        }
    }
    let dataset = json!({
        "channel_names": { "0": "CT" },
        "labels": { "background": 0, "large": 1, "small": 2 },
        "numTraining": cases,
        "file_ending": ".nii.gz",
    });
    std::fs::write(folder.join("dataset.json"), dataset.to_string()).expect("written");
}

struct Setup {
    dataset: RawDataset,
    files: PlanFiles,
    split: Split,
}

impl Setup {
    fn new(folder: &Path) -> Self {
        write_dataset(folder, 4);
        let dataset = RawDataset::open(folder).expect("a data set");
        let rule = dataset.reader().orientation();
        let fingerprint =
            Fingerprint::of(&dataset, rule, &mut |_, _| ControlFlow::Continue(())).expect("a fingerprint");
        let options = PlannerOptions { features: 6, patch: Some([16; 3]), batch: Some(2), ..PlannerOptions::default() };
        let plan = Plan::new(&fingerprint, dataset.labels().outputs(), &options).expect("a plan");
        let files = PlanFiles::new(&dataset, &fingerprint, &plan);
        let names = |cases: &[usize]| cases.iter().map(|case| format!("case_{case}")).collect();
        Self { dataset, files, split: Split { train: names(&[0, 1, 2]), val: names(&[3]) } }
    }

    fn training<'a>(&'a self, out: &'a Path, options: TrainOptions) -> Training<'a> {
        Training {
            dataset: &self.dataset,
            files: &self.files,
            configuration: "3d_fullres",
            split: &self.split,
            fold: Some(0),
            options,
            threads: 2,
            time_limit: None,
            resume: false,
            device: &Device::Cpu,
            out,
        }
    }
}

fn short() -> TrainOptions {
    TrainOptions { epochs: 2, iterations: 3, validate_every: 1, seed: 5, ..TrainOptions::default() }
}

fn run(training: &Training<'_>) -> Result<TrainOutcome> {
    training.run(&mut |warning| panic!("{warning}"), &mut |_| ControlFlow::Continue(()))
}

#[test]
fn a_small_network_learns_and_its_model_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new(&folder.path().join("data"));
    let out = folder.path().join("model");
    let options = TrainOptions {
        epochs: 4,
        iterations: 15,
        validate_every: 2,
        augmentation: Augmentation::Mirror,
        sgd: SgdOptions { momentum: 0.9, learning_rate: 0.02, ..SgdOptions::default() },
        ..TrainOptions::default()
    };
    let outcome = run(&setup.training(&out, options)).expect("trained");
    assert_eq!((outcome.steps, outcome.records.len()), (60, 4));
    let losses: Vec<f64> = outcome.records.iter().map(|record| record.loss).collect();
    assert!(losses[3] < losses[0] - 0.5, "{losses:?}");
    let dice = |epoch: usize| outcome.records[epoch].dice.clone();
    assert_eq!([dice(0), dice(2)], [None, None]);
    let (Some(first), Some(last)) = (dice(1), dice(3)) else { panic!("validated") };
    assert!(last.iter().all(|d| *d > 0.7) && last[0] + last[1] >= first[0] + first[1], "{first:?} to {last:?}");

    // The folder is a model, and it does to a scan what the validation did.
    let segmenter = Segmenter::load(&out, &ModelOptions::default(), Precision::Single, &Device::Cpu).expect("a model");
    assert_eq!(segmenter.fold_names(), ["0"]);
    assert_eq!(segmenter.mirrors(), [true; 3]);
    let notes = segmenter.card().and_then(|card| card.notes.clone()).expect("a card");
    assert!(notes.contains("not for clinical use") && notes.contains("1 validation cases: large 0."), "{notes}");
    let case = setup.dataset.cases().iter().find(|case| case.name == "case_3").expect("a case");
    let read = setup.dataset.read(case).expect("read");
    let scan = Scan { channels: &read.channels, spacing: Some(read.spacing), previous: None };
    let found = segmenter
        .segment_scan(scan, &SegmentOptions::default(), &mut |_| ControlFlow::Continue(()))
        .expect("segmented");
    let again: Vec<f64> = [1, 2].map(|label| found.mask.dice(&read.labels, &[label]).expect("Dice")).to_vec();
    assert_eq!(again, last);

    let log = std::fs::read_to_string(out.join("training/fold_0/log.csv")).expect("a table");
    assert_eq!(log.lines().count(), 5);
    assert!(log.starts_with("epoch,learning_rate,loss,dice_large,dice_small,seconds,idle_share\n"), "{log}");
    assert!(out.join("training/fold_0/log.svg").is_file());
    assert!(!out.join("training/fold_0/checkpoint.safetensors").exists());
    let message = run(&setup.training(&out, options)).expect_err("trained already").to_string();
    assert!(message.contains("fold_0.safetensors") && message.contains("already"), "{message}");
}

#[test]
fn a_training_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new(&folder.path().join("data"));
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let outcome = run(&setup.training(&whole, short())).expect("trained");
    let weights = outcome.weights.expect("weights");

    // Interrupted in the middle of an epoch, in a validation, and by a time limit after a single step.
    let training = setup.training(&parts, short());
    let stopped = training
        .run(&mut |_| (), &mut |stage| match stage {
            TrainStage::Step(2, ..) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .expect("stopped");
    assert_eq!((stopped.steps, stopped.weights, stopped.records.len()), (2, None, 0));
    let message = run(&training).expect_err("not resumed").to_string();
    assert!(message.contains("interrupted") && message.contains("resume"), "{message}");
    let resumed = Training { resume: true, threads: 1, ..training };
    let stopped = resumed
        .run(&mut |_| (), &mut |stage| match stage {
            TrainStage::Validating(..) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .expect("stopped");
    assert_eq!((stopped.steps, stopped.records.len()), (3, 0));
    let stopped = run(&Training { time_limit: Some(Duration::ZERO), ..resumed }).expect("stopped");
    assert_eq!((stopped.steps, stopped.records.len()), (4, 1));
    // Other options, or other data, are another training.
    let other = Training { options: TrainOptions { seed: 6, ..short() }, ..resumed };
    let message = run(&other).expect_err("another seed").to_string();
    assert!(message.contains("options") && message.contains("\"seed\":6"), "{message}");
    let split = Split { train: setup.split.train[..2].to_vec(), val: setup.split.val.clone() };
    let message = run(&Training { split: &split, ..resumed }).expect_err("other cases").to_string();
    assert!(message.contains("data"), "{message}");

    let last = run(&resumed).expect("trained");
    assert_eq!(last.steps, 6);
    let dice = |records: &[nephron::training::EpochRecord]| {
        records.iter().map(|r| (r.epoch, r.loss.to_bits(), r.dice.clone())).collect::<Vec<_>>()
    };
    assert_eq!(dice(&last.records), dice(&outcome.records));
    let bytes = |path: &Path| std::fs::read(path).expect("weights");
    assert!(bytes(&last.weights.expect("weights")) == bytes(&weights));
}

#[test]
fn a_loss_that_is_not_finite_ends_the_training_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new(&folder.path().join("data"));
    let out = folder.path().join("model");
    let sgd = SgdOptions { learning_rate: 1e30, ..SgdOptions::default() };
    let options = TrainOptions { iterations: 1, epochs: 50, validate_every: 0, sgd, ..short() };
    let message = run(&setup.training(&out, options)).expect_err("diverged").to_string();
    assert!(
        message.contains("batch ") && message.contains("case_") && message.contains("expected a finite"),
        "{message}"
    );
    assert!(message.contains("checkpoint.safetensors"), "{message}");
    assert!(out.join("training/fold_0/checkpoint.safetensors").is_file());
    let empty = Split { train: setup.split.train.clone(), val: vec!["case_9".into()] };
    let message =
        run(&Training { split: &empty, ..setup.training(&folder.path().join("b"), short()) }).expect_err("no case");
    assert!(message.to_string().contains("case_9"), "{message}");
}
