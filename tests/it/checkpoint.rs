//! PyTorch's checkpoints: golden ones of torch.save (tests/golden/checkpoint), and files that are to be refused.

use std::collections::HashMap;
use std::path::PathBuf;

use nephron::io::weights::Weights;
use nephron::pipeline::{Precision, SegmentOptions, Segmenter};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{Device, Error};
use rand::Rng;

use crate::support::checkpoint_file::{archive, archive_of, state_dict, write};
use crate::support::{self, rng};

fn golden(name: &str) -> PathBuf {
    support::root().join("tests/golden/checkpoint").join(name)
}

fn refusal(bytes: Vec<u8>) -> String {
    let error = Weights::from_bytes("some.pth", bytes).map(|_| ()).expect_err("refused");
    assert!(matches!(error, Error::File { .. }) && !error.to_string().contains('\n'), "{error}");
    error.to_string()
}

#[test]
fn tensors_are_those_of_pytorch() {
    /// Shape and values by name.
    type Tensors = HashMap<String, (Vec<usize>, Vec<f64>)>;
    #[derive(serde::Deserialize)]
    struct Golden {
        files: HashMap<String, Tensors>,
    }
    let text = std::fs::read_to_string(golden("golden.json")).expect("golden values");
    let golden_values: Golden = serde_json::from_str(&text).expect("JSON");
    assert_eq!(golden_values.files.len(), 6);
    for (file, tensors) in golden_values.files {
        let read = Weights::read(golden(&format!("{file}.pth"))).expect(&file);
        let mut names: Vec<&str> = tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(read.names().collect::<Vec<_>>(), names, "{file}");
        for (name, (shape, values)) in tensors {
            let want: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            assert_eq!(read.get(&name).expect(&name), (shape.clone(), want), "{file}: {name}");
            assert_eq!(read.shape(&name), Some(shape.as_slice()));
        }
    }
}

#[test]
fn hostile_files_are_refused_and_nothing_is_run() {
    for (file, needles) in [
        ("legacy", ["before PyTorch 1.6", "save it again"]),
        ("hostile_system", [".system", "nothing was run"]),
        ("hostile_protocol_4", [".system", "nothing was run"]),
        ("hostile_print", ["print", "nothing was run"]),
        ("hostile_cycle", ["no tensors", "state dict"]),
        ("hostile_beyond", ["'w' reaches beyond its storage", "offset 2, shape [3]"]),
        ("hostile_elements", ["1099511627776 values", "found 16 bytes"]),
        ("hostile_shape", ["'w' has the shape", "1099511627776, 1099511627776"]),
        ("hostile_repeats", ["'w' has the shape [1099511627776]", "4 values"]),
        ("hostile_strides", ["'w' reaches beyond its storage", "4611686018427387904"]),
        ("hostile_negative", ["a size or stride of -1", "byte"]),
        ("hostile_axes", ["2 axes", "1 strides"]),
    ] {
        let message = refusal(std::fs::read(golden(&format!("{file}.pth"))).expect(file));
        assert!(needles.iter().all(|n| message.contains(n)), "{file}: {message}");
    }
    assert!(!PathBuf::from("pwned").exists());
}

#[test]
fn pickles_that_are_none_are_refused() {
    let unit = 1_000_000;
    let nested = [&b"\x80\x02"[..], &vec![b']'; unit], &vec![b'a'; unit - 1], b"."].concat();
    let marks = [&b"\x80\x02"[..], &vec![b'('; unit]].concat();
    let huge = [&b"\x80\x02"[..], &vec![b'N'; 33 << 20], b"."].concat();
    let cases: [(&[u8], &str); 16] = [
        (b"", "cut short"),
        (b"\x80\x02", "cut short"),
        (b"\x80\x02}", "cut short"),
        (b"\x80\x02.", "empty stack"),
        (b"\x80\x02(.", "empty stack"),
        (b"\x80\x02t.", "lacks a mark"),
        (b"\x80\x02}(Nu.", "key without a value"),
        (b"\x80\x02h\x05.", "value 5"),
        (b"\x80\x02NNR.", "no tuple"),
        (b"\x80\x02N)R.", "calls something"),
        (b"\x80\x02K\x01K\x02a.", "no list"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "4294967295 bytes expected"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "cannot be called"),
        (b"\x80\x02)Q.", "persistent id"),
        (b"\x80\x02\xfe.", "opcode 0xfe"),
        (b"\x80\x02ctorch\n", "inside a name"),
    ];
    let large: [(&[u8], &str); 3] = [(&nested, "holds no dict"), (&marks, "cut short"), (&huge, "at most")];
    for (pickle, needle) in cases.into_iter().chain(large) {
        let message = refusal(archive(pickle, &[]));
        assert!(message.contains(needle), "{needle}: {message}");
    }
    let lost = refusal(archive(&pickle_of("plain"), &[]));
    assert!(lost.contains("archive/data/0"), "{lost}");
}

fn pickle_of(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(golden(&format!("{name}.pth"))).expect("a file");
    let start = bytes.windows(2).position(|w| w == b"\x80\x02").expect("a pickle");
    let end = start + bytes[start..].windows(3).position(|w| w == b".PK" || w == b".\0\0").expect("its end") + 1;
    bytes[start..end].to_vec()
}

/// Cut anywhere, or a byte changed anywhere: an error or tensors of the right sizes, never a panic.
#[test]
fn damaged_checkpoints_are_errors() {
    let mut rng = rng();
    for name in ["plain", "nnunet", "kinds", "protocol_4"] {
        let whole = std::fs::read(golden(&format!("{name}.pth"))).expect("a file");
        for _ in 0..60 {
            refusal(whole[..rng.random_range(4..whole.len() - 1)].to_vec());
        }
        let mut accepted = 0;
        for _ in 0..400 {
            let mut bytes = whole.clone();
            let at = rng.random_range(4..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
            let Ok(weights) = Weights::from_bytes("damaged.pth", bytes) else { continue };
            accepted += 1;
            for name in weights.names() {
                let (shape, values) = weights.get(name).expect("it is there");
                assert_eq!(shape.iter().product::<usize>(), values.len());
            }
        }
        // Padding and fields that nobody reads take a flipped bit without harm; checksums see the others.
        assert!(accepted < 400, "{name}");
    }
    // The pickle alone, where no checksum stands before the machine.
    let pickle = pickle_of("nnunet");
    for _ in 0..2000 {
        let mut pickle = pickle.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..pickle.len());
            pickle[at] = rng.random();
        }
        let _ = Weights::from_bytes("damaged.pth", archive(&pickle, &[&[0; 256]]));
    }
}

#[test]
fn a_changed_weight_is_seen() {
    let mut bytes = std::fs::read(golden("plain.pth")).expect("a file");
    let read = Weights::from_bytes("plain.pth", bytes.clone()).expect("whole");
    let value = read.get("conv1.weight").expect("there").1[0].to_le_bytes();
    let at = bytes.windows(4).position(|w| w == value).expect("its bytes");
    bytes[at] ^= 1;
    let message = refusal(bytes);
    assert!(message.contains("damaged") && message.contains("data/0"), "{message}");
}

#[test]
fn a_large_checkpoint_and_its_wrapper() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("w.pth");
    let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    write(&path, &[("module.a", &[100, 1000], &values), ("module.b", &[], &[2.0])]);
    let read = Weights::read(&path).expect("read");
    assert_eq!(read.get("a").expect("there"), (vec![100, 1000], values.clone()));
    assert_eq!(read.get("b").expect("there"), (vec![], vec![2.0]));
    // Where one name lacks the prefix, it belongs to the names.
    write(&path, &[("module.a", &[100, 1000], &values), ("b", &[], &[2.0])]);
    assert_eq!(Weights::read(&path).expect("read").names().collect::<Vec<_>>(), ["b", "module.a"]);
}

#[test]
fn what_else_lies_in_the_archive_counts() {
    let (pickle, storages) = state_dict(&[("w", &[2], &[1.5, -2.0])]);
    let pack = |more: &[(&str, &[u8])], storage: &[u8]| {
        let own = [("data.pkl", pickle.as_slice()), ("data/0", storage)];
        archive_of(own.iter().chain(more).map(|(name, bytes)| ((*name).to_owned(), *bytes)))
    };
    // Big-endian machines say so.
    let big = [1.5f32, -2.0].map(f32::to_be_bytes).concat();
    for (order, storage) in [("little", &storages[0]), ("big", &big)] {
        let read = Weights::from_bytes("w.pth", pack(&[("byteorder", order.as_bytes())], storage)).expect("read");
        assert_eq!(read.get("w").expect("there").1, [1.5, -2.0], "{order}");
    }
    assert!(refusal(pack(&[("byteorder", b"middle")], &storages[0])).contains("\"middle\""));
    assert!(refusal(pack(&[("constants.pkl", b"")], &storages[0])).contains("TorchScript"));
    assert!(refusal(archive_of([("other".to_owned(), &b"file"[..])])).contains("without data.pkl"));
    assert!(
        refusal(pack(&[], &storages[0][..7])).contains("'w' needs a storage of 2 values of 4 bytes, found 7 bytes")
    );
    // Deflated, as a general packer would: method 8 in the header and in the directory.
    let mut bytes = pack(&[], &storages[0]);
    for (mark, field) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
        let at = bytes.windows(4).position(|w| w == mark).expect("a header");
        bytes[at + field] = 8;
    }
    assert!(refusal(bytes).contains("compressed or encrypted"));
    // The reader can be asked for nothing but what is there.
    let empty = Weights::from_bytes("w.pth", pack(&[], &storages[0])).expect("read").get("v").expect_err("missing");
    assert!(empty.to_string().contains("'w'"), "{empty}");
}

/// nnU-Net's own folder: plans.json, dataset.json, fold_k/checkpoint_final.pth.
#[test]
fn nnunets_folder_gives_the_masks_of_its_safetensors() {
    let unet = support::root().join("tests/golden/unet");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["plans.json", "dataset.json"] {
        std::fs::copy(unet.join(name), folder.path().join(name)).expect("copied");
    }
    let empty = Segmenter::load(folder.path(), None, Precision::Single, &Device::Cpu).expect_err("no weights");
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
        let segmenter = Segmenter::load(model, None, Precision::Single, &Device::Cpu).expect("a model");
        let mask = segmenter.segment(&image, &SegmentOptions::default(), &mut |_| ()).expect("a mask").mask;
        (segmenter.folds(), mask)
    });
    assert_eq!((pth.0, safetensors.0), (2, 1));
    assert!(pth.1.voxels == safetensors.1.voxels);
}
