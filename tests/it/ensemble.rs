//! Ensembles of models.

use std::ops::ControlFlow;

use nephron::pipeline::{Output, Scan};
use nephron::volume::Volume;
use nephron::{Device, Ensemble, ModelOptions, Precision, SegmentOptions, Segmenter};
use serde_json::{Value, json};

use crate::support::rng;
use crate::tiny_models::{Tiny, scan, write};

fn model(tiny: &Tiny) -> Segmenter {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), tiny);
    Segmenter::load(folder.path(), &ModelOptions::default(), Precision::Single, &Device::Cpu).expect("a model")
}

fn values(probabilities: &[Volume]) -> Vec<Vec<f32>> {
    probabilities.iter().map(|v| v.voxels().to_f32()).collect()
}

/// Labels: the background's probability is what the others leave.
#[test]
fn probabilities_are_averaged_on_the_scan() {
    let image = scan(&mut rng());
    let input = Scan { channels: std::slice::from_ref(&image), spacing: None, previous: None };
    let options = SegmentOptions { output: Output::Probabilities, ..SegmentOptions::default() };
    let regions = (json!({"background": 0, "kidney": [1, 2], "tumor": 2}), json!([1, 2]));
    for (labels, order) in [(Tiny::default().labels, Value::Null), regions] {
        let tiny = |configuration, seed| Tiny { configuration, labels: labels.clone(), order: order.clone(), seed };
        let members = [model(&tiny("3d_fullres", 1)), model(&tiny("3d_lowres", 2)), model(&tiny("3d_fullres", 3))];
        let alone: Vec<_> = members
            .iter()
            .map(|m| m.segment_scan(input, &options, &mut |_| ControlFlow::Continue(())).expect("a mask"))
            .collect();
        let ensemble = Ensemble::new(members.to_vec()).expect("an ensemble");
        let found = ensemble.segment(input, &options, &mut |_| ControlFlow::Continue(())).expect("a mask");
        let plain = ensemble.segment(input, &SegmentOptions::default(), &mut |_| ControlFlow::Continue(()));
        let plain = plain.expect("a mask");
        assert!(plain.mask.labels() == found.mask.labels() && plain.probabilities.is_empty());
        assert_eq!(found.tiles, alone.iter().map(|a| a.tiles).sum::<usize>());
        let parts: Vec<_> = alone.iter().map(|a| values(&a.probabilities)).collect();
        let mean = |label: usize, i: usize| (parts[0][label][i] + parts[1][label][i] + parts[2][label][i]) / 3.0;
        let got = values(&found.probabilities);
        assert_eq!(got.len(), 2);
        let mut told = std::collections::BTreeSet::new();
        for (i, label) in found.mask.labels().iter().enumerate() {
            let (kidney, tumour) = (mean(0, i), mean(1, i));
            assert_eq!((got[0][i].to_bits(), got[1][i].to_bits()), (kidney.to_bits(), tumour.to_bits()));
            let background = 1.0 - kidney - tumour;
            let want = match order {
                Value::Null if background.max(kidney) > tumour => u8::from(kidney > background),
                Value::Null => 2,
                _ if tumour > 0.5 => 2,
                _ => u8::from(kidney > 0.5),
            };
            let close =
                order.is_null() && (background - kidney.max(tumour)).abs() < 1e-5 || (kidney - tumour).abs() < 1e-5;
            assert!(*label == want || close, "voxel {i}: {label}, expected {want} of {background} {kidney} {tumour}");
            told.insert(*label);
        }
        assert!(told.len() > 1, "{told:?}");
        let one = Ensemble::new(vec![members[0].clone()]).expect("one");
        let one = one.segment(input, &options, &mut |_| ControlFlow::Continue(())).expect("a mask");
        assert!(one.mask.labels() == alone[0].mask.labels());
    }
}

#[test]
fn models_of_other_labels_are_refused() {
    let plain = model(&Tiny::default());
    let other = model(&Tiny { labels: json!({"background": 0, "kidney": 1, "cyst": 2}), ..Tiny::default() });
    let message = Ensemble::new(vec![plain, other]).expect_err("refused").to_string();
    assert!(message.contains("labels of model 2") && message.contains("found kidney 1, cyst 2"), "{message}");
    assert!(Ensemble::new(vec![]).is_err());
}
