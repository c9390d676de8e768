//! Cascades: two stages in one call, and a first stage's mask from elsewhere.

use std::ops::ControlFlow;
use std::path::Path;

use nephron::pipeline::{Scan, Segmentation};
use nephron::volume::{LabelVolume, Volume};
use nephron::{Device, ModelOptions, Precision, Result, SegmentOptions, Segmenter};
use serde_json::json;

use crate::support::rng;
use crate::tiny_models::{Tiny, plans, scan, write};

const LOW: &str = "nnUNetTrainer__nnUNetPlans__3d_lowres";
const CASCADE: &str = "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres";

fn load(folder: &Path, options: &ModelOptions) -> Result<Segmenter> {
    Segmenter::load(folder, options, Precision::Single, &Device::Cpu)
}

fn segment(model: &Segmenter, image: &Volume, previous: Option<&LabelVolume>) -> Result<Segmentation> {
    let scan = Scan { channels: std::slice::from_ref(image), spacing: None, previous };
    model.segment_scan(scan, &SegmentOptions::default(), &mut |_| ControlFlow::Continue(()))
}

#[test]
fn both_stages_give_what_they_give_one_after_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let [low, cascade] = [LOW, CASCADE].map(|name| folder.path().join(name));
    write(&low, &Tiny { configuration: "3d_lowres", seed: 5, ..Tiny::default() });
    write(&cascade, &Tiny { configuration: "3d_cascade_fullres", seed: 6, ..Tiny::default() });
    let image = scan(&mut rng());
    let both = load(&cascade, &ModelOptions::default()).expect("the stage beside it");
    assert_eq!(both.files().len(), 6, "weights and settings of both");
    let found = segment(&both, &image, None).expect("a mask");
    let first = segment(&load(&low, &ModelOptions::default()).expect("a model"), &image, None).expect("a mask").mask;
    assert!(first.counts()[1] > 0 && first.counts()[2] > 0, "{:?}", &first.counts()[..3]);

    // The first stage by its own folder, and by a folder of masks.
    let given = ModelOptions { previous_stage: Some(low), ..ModelOptions::default() };
    let second = segment(&load(&cascade, &given).expect("given"), &image, None).expect("a mask");
    assert!(second.mask.labels() == found.mask.labels());
    let masks = folder.path().join("masks");
    std::fs::create_dir(&masks).expect("a folder");
    std::fs::write(masks.join("case.nii.gz"), "a mask").expect("written");
    let from_masks = load(&cascade, &ModelOptions { previous_stage: Some(masks.clone()), ..ModelOptions::default() });
    let from_masks = from_masks.expect("a folder of masks");
    assert_eq!(from_masks.previous_masks(), Some(masks.as_path()));
    let second = segment(&from_masks, &image, Some(&first)).expect("a mask");
    assert!(second.mask.labels() == found.mask.labels() && second.tiles < found.tiles);
    let empty = first.with_labels(vec![0; first.labels().len()]).expect("a mask");
    let other = segment(&from_masks, &image, Some(&empty)).expect("a mask");
    assert!(other.mask.labels() != found.mask.labels(), "the mask decides");

    let seen = both.preprocess(std::slice::from_ref(&image), None, &SegmentOptions::default()).expect("an array");
    let [_, channels, d, h, w] = seen.shape();
    let values = seen.to_ncdhw().expect("values");
    assert_eq!(channels, 3);
    let [kidney, tumour] = [1, 2].map(|c| &values[c * d * h * w..(c + 1) * d * h * w]);
    assert!(kidney.iter().zip(tumour).all(|(k, t)| [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)].contains(&(*k, *t))));
    assert!(kidney.contains(&1.0) && tumour.contains(&1.0));
}

#[test]
fn what_a_first_stage_must_be_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let [low, cascade] = [LOW, CASCADE].map(|name| folder.path().join(name));
    write(&cascade, &Tiny { configuration: "3d_cascade_fullres", seed: 6, ..Tiny::default() });
    let refused = |options: &ModelOptions| load(&cascade, options).expect_err("refused").to_string();
    assert!(refused(&ModelOptions::default()).contains("3d_lowres, are not beside it: give their folder"));
    let labels = json!({"background": 0, "kidney": 1, "cyst": 2});
    write(&low, &Tiny { configuration: "3d_lowres", labels, ..Tiny::default() });
    let message = refused(&ModelOptions::default());
    assert!(message.contains("expected the labels kidney, tumor, found kidney, cyst"), "{message}");
    let given = ModelOptions { previous_stage: Some(cascade.clone()), ..ModelOptions::default() };
    assert!(refused(&given).contains("3d_lowres"), "{}", refused(&given));
    let message = load(&low, &given).expect_err("no cascade").to_string();
    assert!(message.contains("none, since 3d_lowres has no previous stage"), "{message}");

    let masks = folder.path().join("masks");
    std::fs::create_dir(&masks).expect("a folder");
    std::fs::write(masks.join("case.nii.gz"), "a mask").expect("written");
    let given = ModelOptions { previous_stage: Some(masks), ..ModelOptions::default() };
    let model = load(&cascade, &given).expect("a model");
    let image = scan(&mut rng());
    let mask = |value: u8| LabelVolume::new(image.shape(), vec![value; image.shape().iter().product()], image.affine());
    let message = |mask: Option<&LabelVolume>| segment(&model, &image, mask).expect_err("refused").to_string();
    assert!(message(None).contains("one of 3d_lowres, found none"), "{}", message(None));
    let stray = message(Some(&mask(3).expect("a mask")));
    assert!(stray.contains("labels of [1, 2], found 3"), "{stray}");
    let elsewhere = LabelVolume::new([2, 2, 2], vec![0; 8], image.affine()).expect("a mask");
    assert!(message(Some(&elsewhere)).contains("its grid"), "{}", message(Some(&elsewhere)));
}

#[test]
fn plans_of_cascades_that_cannot_be_followed_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |labels: &serde_json::Value, edit: &dyn Fn(&mut serde_json::Value)| {
        write(folder.path(), &Tiny { configuration: "3d_cascade_fullres", ..Tiny::default() });
        let mut plans = plans();
        edit(&mut plans["configurations"]["3d_fullres"]);
        let dataset = json!({"channel_names": {"0": "CT"}, "labels": labels});
        for (name, value) in [("plans.json", &plans), ("dataset.json", &dataset)] {
            std::fs::write(folder.path().join(name), value.to_string()).expect("written");
        }
        let options = ModelOptions { configuration: Some("3d_cascade_fullres".into()), ..ModelOptions::default() };
        load(folder.path(), &options).expect_err("refused").to_string()
    };
    let plain = Tiny::default().labels;
    let gaps = refused(&json!({"background": 0, "kidney": 1, "tumor": 3}), &|_| {});
    assert!(gaps.contains("without gaps"), "{gaps}");
    let cubic = refused(&plain, &|c| c["resampling_fn_seg_kwargs"]["order"] = 3.into());
    assert!(cubic.contains("order 0 or 1, for labels of a previous stage, found 3"), "{cubic}");
    let other = refused(&plain, &|c| c["resampling_fn_seg"] = "resample_torch_fornnunet".into());
    assert!(other.contains("resample_torch_fornnunet") && other.contains("resampling_fn_seg"), "{other}");
}
