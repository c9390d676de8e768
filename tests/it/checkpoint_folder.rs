//! Model folders with PyTorch's checkpoints: nnU-Net's layout, axes of mirroring, weights of several kinds.

use std::ops::ControlFlow;
use std::path::PathBuf;

use nephron::io::weights::Weights;
use nephron::pipeline::{Mirroring, ModelOptions, Output, Precision, SegmentOptions, Segmentation, Segmenter};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{Device, Error};

use crate::support;
use crate::support::checkpoint_file::{archive_of, files};

fn golden(name: &str) -> PathBuf {
    support::root().join("tests/golden/checkpoint").join(name)
}

fn refusal(bytes: Vec<u8>) -> String {
    let error = Weights::from_bytes("some.pth", bytes).map(|_| ()).expect_err("refused");
    assert!(matches!(error, Error::File { .. }) && !error.to_string().contains('\n'), "{error}");
    error.to_string()
}

/// nnU-Net's layout: plans.json, dataset.json, fold_k/checkpoint_final.pth.
#[test]
fn nnunets_folder_gives_the_masks_of_its_safetensors() {
    let unet = support::root().join("tests/golden/unet");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["plans.json", "dataset.json"] {
        std::fs::copy(unet.join(name), folder.path().join(name)).expect("copied");
    }
    let empty = Segmenter::load(folder.path(), &ModelOptions::default(), Precision::Single, &Device::Cpu)
        .expect_err("no weights");
    assert!(empty.to_string().contains("checkpoint_final.pth"), "{empty}");
    for fold in ["fold_0", "fold_1"] {
        std::fs::create_dir(folder.path().join(fold)).expect("a folder");
        let file = folder.path().join(fold).join("checkpoint_final.pth");
        std::fs::copy(unet.join("checkpoint_final.pth"), file).expect("copied");
    }
    let values: Vec<i16> = (0..4 * 9 * 14).map(|i| (i * 37 % 500) as i16 - 100).collect();
    let affine = Affine([[1.5, 0.0, 0.0, 0.0], [0.0, 1.5, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]]);
    let image = Volume::new([4, 9, 14], Voxels::I16(values.into()), affine).expect("an image");
    let [pth, safetensors] = [folder.path(), &unet].map(|model| {
        let segmenter =
            Segmenter::load(model, &ModelOptions::default(), Precision::Single, &Device::Cpu).expect("a model");
        let mask = segmenter
            .segment(&image, &SegmentOptions::default(), &mut |_| ControlFlow::Continue(()))
            .expect("a mask")
            .mask;
        (segmenter.folds(), mask)
    });
    assert_eq!((pth.0, safetensors.0), (2, 1));
    assert!(pth.1.labels() == safetensors.1.labels());
}

/// The golden nnU-Net file with another tuple of axes, or None, in place of (0, 1, 2).
fn with_mirror_axes(bytes: &[u8], axes: &[u8]) -> Vec<u8> {
    let mut files = files(bytes);
    let pickle = &mut files.iter_mut().find(|(name, ..)| name == "data.pkl").expect("a pickle").2;
    let key = b"inference_allowed_mirroring_axes";
    let at = pickle.windows(key.len()).position(|w| w == key).expect("its key");
    let tuple = b"K\x00K\x01K\x02\x87";
    let at = at + pickle[at..].windows(tuple.len()).position(|w| w == tuple).expect("its axes");
    pickle.splice(at..at + tuple.len(), axes.iter().copied());
    archive_of(files.iter().map(|(name, _, bytes)| (name.clone(), bytes.as_slice())))
}

#[test]
fn mirroring_is_along_the_axes_that_the_weights_allow() {
    let nnunet = std::fs::read(golden("nnunet.pth")).expect("a file");
    let axes = |bytes: Vec<u8>| Weights::from_bytes("some.pth", bytes).expect("read").training().mirror_axes.clone();
    assert_eq!(axes(nnunet.clone()), Some(vec![0, 1, 2]));
    assert_eq!(axes(with_mirror_axes(&nnunet, b"K\x00K\x02\x86")), Some(vec![0, 2]));
    assert_eq!(axes(with_mirror_axes(&nnunet, b"N")), Some(vec![]));
    assert_eq!(axes(std::fs::read(golden("plain.pth")).expect("a file")), None);
    assert!(refusal(with_mirror_axes(&nnunet, b"K\x03\x85")).contains("expected axes from 0 to 2"));
    assert!(refusal(with_mirror_axes(&nnunet, b"K\x01")).contains("not a list"));

    let unet = support::root().join("tests/golden/unet");
    let whole = std::fs::read(unet.join("checkpoint_final.pth")).expect("a file");
    let values: Vec<i16> = (0..4 * 9 * 14).map(|i| (i * 37 % 500) as i16 - 100).collect();
    let image = Volume::new([4, 9, 14], Voxels::I16(values.into()), Affine::IDENTITY).expect("an image");
    let ask = |folds: &[&[u8]], mirroring| -> Segmentation {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["plans.json", "dataset.json"] {
            std::fs::copy(unet.join(name), folder.path().join(name)).expect("copied");
        }
        for (i, axes) in folds.iter().enumerate() {
            let file = folder.path().join(format!("fold_{i}.pth"));
            std::fs::write(file, with_mirror_axes(&whole, axes)).expect("written");
        }
        let segmenter =
            Segmenter::load(folder.path(), &ModelOptions::default(), Precision::Single, &Device::Cpu).expect("a model");
        let options = SegmentOptions { mirroring, output: Output::Probabilities, ..SegmentOptions::default() };
        segmenter.segment(&image, &options, &mut |_| ControlFlow::Continue(())).expect("a mask")
    };
    let of = |found: &Segmentation| -> Vec<u32> {
        let values = |v: &Volume| match v.voxels() {
            Voxels::F32(values) => values.iter().map(|p| p.to_bits()).collect::<Vec<_>>(),
            _ => panic!("probabilities"),
        };
        found.probabilities.iter().flat_map(values).collect()
    };
    let warned = |found: &Segmentation| found.warnings.iter().find(|w| w.starts_with("mirroring:")).cloned();
    let all = b"K\x00K\x01K\x02\x87".as_slice();
    let (plain, full) = (ask(&[all], Mirroring::Off), ask(&[all], Mirroring::AllAxes));
    let (none, some) = (ask(&[b"N"], Mirroring::AllAxes), ask(&[b"K\x00K\x02\x86"], Mirroring::AllAxes));
    assert!(of(&none) == of(&plain) && of(&full) != of(&plain));
    assert!(of(&some) != of(&plain) && of(&some) != of(&full));
    assert_eq!((warned(&plain), warned(&full)), (None, None));
    assert!(warned(&some).expect("said").contains("along z, x of the network's axes, left out along y"));
    assert!(warned(&none).expect("said").contains("along none"));
    // Of several folds, the axes that all of them allow.
    let both = ask(&[b"K\x00K\x02\x86", b"K\x00K\x01\x86"], Mirroring::AllAxes);
    assert!(warned(&both).expect("said").contains("along z of the network's axes, left out along y, x"));
}

#[test]
fn a_model_folder_holds_weights_of_one_kind() {
    let unet = support::root().join("tests/golden/unet");
    let folder = tempfile::tempdir().expect("a folder");
    let put = |from: &str, to: &str| {
        let to = folder.path().join(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        std::fs::copy(unet.join(from), to).expect("copied");
    };
    put("plans.json", "plans.json");
    put("dataset.json", "dataset.json");
    let load = || Segmenter::load(folder.path(), &ModelOptions::default(), Precision::Single, &Device::Cpu);
    let names = || -> Vec<PathBuf> {
        let segmenter = load().expect("a model");
        let name = |f: &nephron::io::SourceFile| f.file.strip_prefix(folder.path()).expect("in it").to_path_buf();
        let (settings, weights): (Vec<_>, Vec<_>) =
            segmenter.files().iter().map(name).partition(|name| name.extension().is_some_and(|e| e == "json"));
        assert_eq!(settings, [PathBuf::from("plans.json"), PathBuf::from("dataset.json")]);
        weights
    };
    put("checkpoint_final.pth", "fold_all/checkpoint_final.pth");
    assert_eq!(names(), [PathBuf::from("fold_all/checkpoint_final.pth")]);
    put("checkpoint_final.pth", "fold_1/checkpoint_final.pth");
    assert_eq!(names(), [PathBuf::from("fold_1/checkpoint_final.pth")]);
    put("weights.safetensors", "weights.safetensors");
    let message = load().expect_err("two kinds").to_string();
    assert!(message.contains("found weights.safetensors and fold_1/checkpoint_final.pth"), "{message}");
    std::fs::remove_dir_all(folder.path().join("fold_1")).expect("removed");
    std::fs::remove_dir_all(folder.path().join("fold_all")).expect("removed");
    put("checkpoint_final.pth", "weights.pth");
    let message = load().expect_err("two kinds").to_string();
    assert!(message.contains("found weights.safetensors and weights.pth"), "{message}");
    std::fs::remove_file(folder.path().join("weights.pth")).expect("removed");
    assert_eq!(names(), [PathBuf::from("weights.safetensors")]);
}
