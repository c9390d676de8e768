//! Converting nnU-Net's models: the same masks, and nothing more or less refused.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use nephron::io::nifti;
use nephron::io::weights::{Storage, Weights};
use nephron::pipeline::{Mirroring, Output, Segmentation, import_nnunet};
use nephron::volume::Volume;
use nephron::{Device, ModelOptions, Precision, SegmentOptions, Segmenter};

use crate::support::{self, rng, zip_file};
use crate::tiny_models::{Tiny, scan, write};

fn golden() -> PathBuf {
    support::root().join("tests/golden/nnunet")
}

fn segment(model: &Segmenter, channels: &[Volume], mirroring: Mirroring) -> Segmentation {
    let options = SegmentOptions { mirroring, output: Output::Probabilities, ..SegmentOptions::default() };
    model.segment_channels(channels, None, &options, &mut |_| ControlFlow::Continue(())).expect("a mask")
}

fn bits(found: &Segmentation) -> (Vec<u8>, Vec<u32>) {
    let values = found.probabilities.iter().flat_map(|p| p.voxels().to_f32());
    (found.mask.labels().to_vec(), values.map(f32::to_bits).collect())
}

fn load(folder: &Path) -> Segmenter {
    Segmenter::load(folder, &ModelOptions::default(), Precision::Single, &Device::Cpu).expect("a model")
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn every_kind_of_network_gives_the_same_bits() {
    for kind in ["residual", "batch_norm_trainer", "nonlin_first", "regions", "two_channels", "low_resolution", "folds"]
    {
        let (model, folder) = (golden().join(kind), tempfile::tempdir().expect("a folder"));
        let out = folder.path().join("new/model");
        let imported = import_nnunet(&model, &ModelOptions::default(), Storage::F32, &out)
            .unwrap_or_else(|e| panic!("{kind}: {e}"));
        let original = load(&model);
        assert_eq!(imported.plan(), original.plan(), "{kind}");
        assert_eq!((imported.folds(), imported.mirrors()), (original.folds(), original.mirrors()), "{kind}");
        let names = files(&out);
        assert_eq!(names.iter().filter(|n| n.ends_with(".safetensors")).count(), original.folds(), "{names:?}");
        assert!(names.iter().all(|n| n.ends_with(".safetensors") || n.ends_with(".json")), "{names:?}");
        let text = std::fs::read_to_string(model.join("case.json")).expect("a case");
        let case: serde_json::Value = serde_json::from_str(&text).expect("json");
        let mut channels = Vec::new();
        for name in case["image"].as_array().expect("files") {
            let path = golden().join("images").join(name.as_str().expect("a name"));
            channels.extend(nifti::read_channels(path).expect("an image").0);
        }
        for mirroring in [Mirroring::Off, Mirroring::AllAxes] {
            let [want, got] = [&original, &imported].map(|model| bits(&segment(model, &channels, mirroring)));
            assert!(want == got, "{kind}");
        }
        // Twice gives the same files.
        let again = folder.path().join("again");
        import_nnunet(&model, &ModelOptions::default(), Storage::F32, &again).expect("imported");
        for name in names {
            assert!(
                std::fs::read(out.join(&name)).expect("a file") == std::fs::read(again.join(&name)).expect("a file")
            );
        }
    }
}

#[test]
fn weights_in_f16_are_the_nearest() {
    let (model, folder) = (golden().join("residual"), tempfile::tempdir().expect("a folder"));
    let [single, half] = [("single", Storage::F32), ("half", Storage::F16)].map(|(name, storage)| {
        let out = folder.path().join(name);
        import_nnunet(&model, &ModelOptions::default(), storage, &out).expect("imported");
        let files: Vec<String> = files(&out).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
        out.join(&files[0])
    });
    let size = |path: &Path| std::fs::metadata(path).expect("a file").len();
    assert!(size(&half) < size(&single) * 6 / 10);
    let [single, half] = [single, half].map(|path| Weights::read(path).expect("weights"));
    assert_eq!(single.training(), half.training());
    for name in single.names() {
        let (shape, values) = single.get(name).expect("a tensor");
        let rounded = values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect::<Vec<_>>();
        assert_eq!(half.get(name).expect("a tensor"), (shape, rounded), "{name}");
    }
}

#[test]
fn a_cascade_is_converted_with_its_first_stage_and_what_lies_beside_its_plans() {
    let folder = tempfile::tempdir().expect("a folder");
    let low = folder.path().join("x/Dataset1_X/nnUNetTrainer__nnUNetPlans__3d_lowres");
    let cascade = folder.path().join("x/Dataset1_X/nnUNetTrainer__nnUNetPlans__3d_cascade_fullres");
    write(&low, &Tiny { configuration: "3d_lowres", seed: 5, ..Tiny::default() });
    write(&cascade, &Tiny { configuration: "3d_cascade_fullres", seed: 6, ..Tiny::default() });
    std::fs::write(cascade.join("model.json"), r#"{"licence": "CC0", "notes": "for tests"}"#).expect("written");
    let place = cascade.join("crossval_results_folds_0");
    std::fs::create_dir(&place).expect("a folder");
    let pickle = support::root().join("imaging/tests/golden/postprocessing.pkl");
    std::fs::copy(pickle, place.join("postprocessing.pkl")).expect("copied");
    let zip = folder.path().join("model.zip");
    std::fs::write(&zip, zip_file::of_folder(&folder.path().join("x"))).expect("written");
    let image = [scan(&mut rng())];
    let want = segment(&load(&cascade), &image, Mirroring::Off);
    assert!(want.warnings.iter().any(|w| w == "the model says: for tests"), "{:?}", want.warnings);
    let options = ModelOptions { configuration: Some("3d_cascade_fullres".into()), ..ModelOptions::default() };
    for (number, source) in [&cascade, &zip].into_iter().enumerate() {
        let out = folder.path().join(format!("out{number}"));
        let imported = import_nnunet(source, &options, Storage::F32, &out).expect("imported");
        let found = segment(&imported, &image, Mirroring::Off);
        assert!(bits(&found) == bits(&want) && found.warnings == want.warnings);
        assert_eq!(imported.card().and_then(|card| card.licence.as_deref()), Some("CC0"));
        assert_eq!(imported.postprocessing().len(), 1);
        assert_eq!(files(&out.join("crossval_results_folds_0")), ["postprocessing.json"]);
        let chosen = |model: &Segmenter| {
            let found = nephron::pipeline::Postprocessing::choose(model.postprocessing(), model.fold_names());
            found.expect("read").expect("one").steps
        };
        assert_eq!(chosen(&imported), chosen(&load(&cascade)));
    }
}

#[test]
fn what_segment_refuses_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, out) = (folder.path().join("model"), folder.path().join("out"));
    write(&model, &Tiny { configuration: "3d_cascade_fullres", ..Tiny::default() });
    let refused = |options: &ModelOptions| {
        let message = import_nnunet(&model, options, Storage::F32, &out).expect_err("refused").to_string();
        let same = Segmenter::load(&model, options, Precision::Single, &Device::Cpu).expect_err("refused").to_string();
        assert_eq!(message, same);
        assert!(!out.exists() && files(folder.path()) == ["model"], "nothing is left behind");
    };
    refused(&ModelOptions::default());
    write(&model, &Tiny::default());
    refused(&ModelOptions { folds: Some(vec!["7".into()]), ..ModelOptions::default() });
    std::fs::write(model.join("model.json"), "[]").expect("written");
    refused(&ModelOptions::default());
    std::fs::remove_file(model.join("model.json")).expect("removed");
    std::fs::create_dir(&out).expect("a folder");
    let message = import_nnunet(&model, &ModelOptions::default(), Storage::F32, &out).expect_err("there").to_string();
    assert!(message.contains("is there already"), "{message}");
}
