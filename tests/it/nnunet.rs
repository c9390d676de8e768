//! Whole models that nnU-Net's own classes made: masks, preprocessed arrays and logits of its predictor (golden/nnunet, written by
//! scripts/parity-nnunet).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use nephron::io::{nifti, npy};
use nephron::pipeline::{Postprocessing, Scan};
use nephron::volume::LabelVolume;
use nephron::{Device, Ensemble, ModelOptions, Precision, SegmentOptions, Segmenter};

use crate::support::{self, compiles_only, devices};

fn golden() -> PathBuf {
    support::root().join("tests/golden/nnunet")
}

/// The folders of models, each with what nnU-Net made of an image.
fn kinds() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden()).expect("golden models");
    let mut folders: Vec<_> =
        entries.map(|e| e.expect("an entry").path()).filter(|p| p.join("case.json").is_file()).collect();
    folders.sort();
    assert!(folders.len() >= 19, "{folders:?}");
    folders
}

fn described(file: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(file).expect("a case")).expect("json")
}

/// The strings of a list.
fn texts(list: &serde_json::Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
}

/// The channels of a case's image and the voxel size in its header.
fn image(case: &serde_json::Value) -> (Vec<nephron::volume::Volume>, [f64; 3]) {
    let read = |name: &str| nifti::read_channels(golden().join("images").join(name)).expect("an image");
    let images: Vec<_> = texts(&case["image"]).into_iter().map(read).collect();
    let spacing = images[0].1.header_spacing();
    (images.into_iter().flat_map(|(volumes, _)| volumes).collect(), spacing)
}

/// The mask is nnU-Net's, but for voxels whose logits are as close as their rounding.
fn assert_nnunets(what: &str, mask: &LabelVolume, file: &Path) {
    let want = nifti::read_labels(file).expect("a mask").labels;
    assert_eq!(mask.shape(), want.shape(), "{what}");
    let apart = mask.labels().iter().zip(want.labels()).filter(|(a, b)| a != b).count();
    assert!(apart * 1000 <= mask.labels().len(), "{what}: {apart} of {} voxels differ", mask.labels().len());
    assert!(want.labels().iter().any(|l| *l != want.labels()[0]), "{what}: the network tells voxels apart");
}

/// The largest difference relative to the range of `want`; NaN counts as infinite.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let range = want.iter().fold(f32::MIN, |a, &b| a.max(b)) - want.iter().fold(f32::MAX, |a, &b| a.min(b));
    let largest = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, |a: f32, d| if d <= a { a } else { d });
    if largest.is_nan() { f32::INFINITY } else { largest / range }
}

/// Kinds that a GPU's path treats on its own: residual sums, regions, gates, depth 1.
const ON_GPUS: [&str; 5] = ["residual", "regions", "squeezed", "two_d_residual", "two_d_squeezed"];

#[test]
fn every_kind_of_model_gives_nnunets_result() {
    for kind in kinds() {
        let name = kind.file_name().expect("a name").to_string_lossy().into_owned();
        let (channels, spacing) = image(&described(&kind.join("case.json")));
        let on_gpus = ON_GPUS.contains(&name.as_str());
        for device in devices().iter().filter(|d| **d == Device::Cpu || on_gpus) {
            let what = format!("{name} on {}", device.name());
            let segmenter = Segmenter::load(&kind, &ModelOptions::default(), Precision::Single, device)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let options = SegmentOptions::default();
            let data =
                segmenter.preprocess(&channels, Some(spacing), &options).unwrap_or_else(|e| panic!("{what}: {e}"));
            let (shape, want) = npy::read_f32(kind.join("data.npy")).expect("an array");
            assert_eq!(data.shape().to_vec(), shape, "{what}");
            if !compiles_only(device) {
                let worst = difference(&data.to_ncdhw().expect("values"), &want);
                assert!(worst <= 1e-4, "{what}: preprocessed array off by {worst}");
            }
            if let Ok((shape, want)) = npy::read_f32(kind.join("logits.npy")) {
                let logits = segmenter.logits(&data, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(logits.shape().to_vec(), shape, "{what}");
                let worst = difference(&logits.to_ncdhw().expect("values"), &want);
                assert!(compiles_only(device) || worst <= 1e-3, "{what}: logits off by {worst}");
            }
            let mut go_on = |_| ControlFlow::Continue(());
            let found = segmenter.segment_channels(&channels, Some(spacing), &options, &mut go_on);
            if compiles_only(device) {
                continue; // the logits of a device that computes nothing may be anything
            }
            let mask = found.unwrap_or_else(|e| panic!("{what}: {e}")).mask;
            assert_nnunets(&what, &mask, &kind.join("mask.nii.gz"));
        }
    }
}

#[test]
fn cascades_ensembles_and_postprocessings_give_nnunets_result() {
    let folder = golden().join("combined");
    for name in ["cascade_turned", "cascade_regions", "ensemble_regions", "postprocessed_regions"] {
        let case = described(&folder.join(name).with_extension("json"));
        let (channels, spacing) = image(&case);
        let load = |model: &str| {
            Segmenter::load(&folder.join(model), &ModelOptions::default(), Precision::Single, &Device::Cpu)
                .unwrap_or_else(|e| panic!("{name}: {e}"))
        };
        let ensemble = Ensemble::new(texts(&case["models"]).into_iter().map(load).collect()).expect("an ensemble");
        let scan = Scan { channels: &channels, spacing: Some(spacing), previous: None };
        let found = ensemble.segment(scan, &SegmentOptions::default(), &mut |_| ControlFlow::Continue(()));
        let mut mask = found.unwrap_or_else(|e| panic!("{name}: {e}")).mask;
        if case["postprocessed"] == true {
            let model = &ensemble.members()[0];
            let chosen = Postprocessing::choose(model.postprocessing(), model.fold_names()).expect("a postprocessing");
            let finished = chosen.expect("one").apply(&mask).expect("a mask");
            assert_ne!(finished.labels(), mask.labels(), "{name}: something is removed");
            mask = finished;
        }
        assert_nnunets(name, &mask, &folder.join(name).with_extension("nii.gz"));
    }
}
