//! PyTorch's checkpoints: golden files of torch.save (tests/golden/checkpoint), and files that must be refused.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use nephron_compute::Error;
use nephron_imaging::io::weights::Weights;
use rand::Rng;

use crate::support::checkpoint_file::{archive, archive_of, files, state_dict, text, write};
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
fn hostile_files_are_refused() {
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
}

#[test]
fn invalid_pickles_are_refused() {
    let unit = 1_000_000;
    let nested = [&b"\x80\x02"[..], &vec![b']'; unit], &vec![b'a'; unit - 1], b"."].concat();
    let marks = [&b"\x80\x02"[..], &vec![b'('; unit]].concat();
    let huge = [&b"\x80\x02"[..], &vec![b'N'; 8 << 20], b"."].concat();
    let cases: [(&[u8], &str); 16] = [
        (b"", "cut short"),
        (b"\x80\x02", "cut short"),
        (b"\x80\x02}", "cut short"),
        (b"\x80\x02.", "empty stack"),
        (b"\x80\x02(.", "empty stack"),
        (b"\x80\x02t.", "lacks a mark"),
        (b"\x80\x02}(Nu.", "key without a value"),
        (b"\x80\x02h\x05.", "value 5"),
        (b"\x80\x02NNR.", "not a tuple"),
        (b"\x80\x02N)R.", "calls something that holds no weights, expected a name"),
        (b"\x80\x02K\x01K\x02a.", "not a list"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "4294967295 bytes expected, 3 found"),
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
    let plain = std::fs::read(golden("plain.pth")).expect("a file");
    let plain = files(&plain).into_iter().find(|(name, ..)| name == "data.pkl").expect("a pickle").2;
    let lost = refusal(archive(&plain, &[]));
    assert!(lost.contains("has no 'archive/data/"), "{lost}");
}

/// A checkpoint that is truncated anywhere, or has a bit changed anywhere, is an error or gives the right tensors, never a panic.
#[test]
fn damaged_checkpoints_are_errors() {
    let mut rng = rng();
    for name in ["plain", "nnunet", "kinds", "protocol_4"] {
        let whole = std::fs::read(golden(&format!("{name}.pth"))).expect("a file");
        for _ in 0..60 {
            refusal(whole[..rng.random_range(4..whole.len() - 1)].to_vec());
        }
        let want = tensors(&Weights::from_bytes("whole.pth", whole.clone()).expect("whole"));
        // The files without which the checkpoint cannot be read, and the byte order; the momentum of an optimiser is not read.
        let parts = files(&whole);
        let weighty = |name: &str| {
            let others = parts.iter().filter(|(other, ..)| other != name);
            let without = archive_of(others.map(|(name, _, bytes)| (name.clone(), bytes.as_slice())));
            name == "byteorder" || Weights::from_bytes("less.pth", without).is_err()
        };
        let of = |(_, start, content): &(String, usize, Vec<u8>)| *start..start + content.len();
        let read: Vec<_> = parts.iter().filter(|(name, ..)| weighty(name)).map(of).collect();
        assert!(read.len() >= 5, "{name}: {read:?}");
        for _ in 0..400 {
            let mut bytes = whole.clone();
            let at = rng.random_range(4..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
            let Ok(weights) = Weights::from_bytes("damaged.pth", bytes) else { continue };
            // A flipped bit in padding or in fields that are not read has no effect; checksums detect all others.
            assert!(!read.iter().any(|range| range.contains(&at)), "{name}: byte {at}");
            assert!(tensors(&weights) == want, "{name}: byte {at}");
        }
    }
    // Only the pickle is changed, with a valid checksum, so that the damage reaches the stack machine.
    let whole = std::fs::read(golden("nnunet.pth")).expect("a file");
    let own = files(&whole);
    let content = |wanted: &str| own.iter().find(|(name, ..)| name == wanted).map(|(.., bytes)| bytes.as_slice());
    let pickle = content("data.pkl").expect("a pickle").to_vec();
    let storages: Vec<&[u8]> = (0..).map_while(|i| content(&format!("data/{i}"))).collect();
    let mut accepted = 0;
    for _ in 0..2000 {
        let mut pickle = pickle.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..pickle.len());
            pickle[at] = rng.random();
        }
        // A pickle that is accepted has tensors whose shapes and values agree.
        if let Ok(weights) = Weights::from_bytes("damaged.pth", archive(&pickle, &storages)) {
            accepted += 1;
            for (name, (shape, values)) in tensors(&weights) {
                assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
            }
        }
    }
    // Most bytes of a pickle are names and lengths; a few may have any value, such as those of a number that is not used.
    assert!((1..2000).contains(&accepted), "{accepted}");
}

fn tensors(weights: &Weights) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let bits = |name: &str| {
        let (shape, values) = weights.get(name).expect("it is there");
        (shape, values.into_iter().map(f32::to_bits).collect())
    };
    weights.names().map(|name| (name.to_owned(), bits(name))).collect()
}

/// One dict under very many names, and with one key that is set over and over: work and memory are proportional to the size of the
/// file, not to its square.
#[test]
fn repeated_names_cost_no_more_than_their_bytes() {
    let (pickle, storages) = state_dict(&[("w", &[2], &[1.5, -2.0])]);
    let storages: Vec<&[u8]> = storages.iter().map(Vec::as_slice).collect();
    let count: u16 = 30_000;
    // The tensor's dict again: it is in the memo as 1, its key as 2, its value as 3.
    let own = &pickle[3..pickle.len() - 2];
    let (key, value) = own.split_at(text("w").len());
    let mut hostile = [b"\x80\x02}}q\x01", key, b"q\x02", value, b"q\x03s"].concat();
    (0..count).for_each(|_| hostile.extend(b"h\x02h\x03s"));
    hostile.push(b'0');
    for i in 0..count {
        hostile.extend([&text(&i.to_string())[..], b"h\x01s"].concat());
    }
    hostile.push(b'.');
    let read = Weights::from_bytes("hostile.pth", archive(&hostile, &storages)).expect("one dict, many names");
    assert_eq!(read.names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(read.get("w").expect("there").1, [1.5, -2.0]);
    // Of several different dicts the message names a few.
    let mut several = b"\x80\x02}".to_vec();
    for i in 0..30 {
        several.extend([&text(&format!("net\n{i}"))[..], b"}", own, b"ss"].concat());
    }
    several.push(b'.');
    let message = refusal(archive(&several, &storages));
    assert!(message.contains("30 dicts of tensors ('net?0', ") && message.len() < 200, "{message}");
    // The last value of a repeated key wins, as in Python.
    let twice = [b"\x80\x02}", own, b"s", key, b"Ns."].concat();
    assert!(refusal(archive(&twice, &storages)).contains("no tensors by name"));
}

#[test]
fn names_from_files_are_shown_in_one_short_line() {
    let long = "n".repeat(3000);
    let (pickle, storages) = state_dict(&[("a\nb", &[2], &[1.5, -2.0]), (&long, &[1], &[0.0])]);
    let message = refusal(archive(&pickle, &[&storages[0][..7], &storages[1]]));
    assert!(message.contains("'a?b' needs a storage"), "{message}");
    let message = refusal(archive(&pickle, &[&storages[0], &storages[1][..1]]));
    assert!(message.contains("'nnn") && message.len() < 250, "{message}");
    let read = Weights::from_bytes("some.pth", archive(&pickle, &[&storages[0], &storages[1]])).expect("read");
    let message = read.get("a\nc").expect_err("missing").to_string();
    assert!(message.contains("'a?c'; the nearest name is 'a?b'"), "{message}");
    let odd =
        [b"\x80\x02}", &text("w")[..], b"(", &text("sto\nre"), b"ctorch\nFloatStorage\n", &text("0"), b"NK\x01tQ"];
    assert!(refusal(archive(&odd.concat(), &[])).contains("'sto?re', expected a storage"));
}

#[test]
fn files_of_an_archive_lie_apart() {
    let (pickle, storages) = state_dict(&[("a", &[1], &[1.5]), ("b", &[1], &[1.5])]);
    let mut bytes = archive(&pickle, &[&storages[0], &storages[1]]);
    let place = |bytes: &[u8], name: &[u8]| {
        let at = bytes.windows(name.len()).rposition(|w| w == name).expect("in the directory");
        at - 46 + 42
    };
    let (first, second) = (place(&bytes, b"archive/data/0"), place(&bytes, b"archive/data/1"));
    bytes.copy_within(first..first + 4, second);
    let message = refusal(bytes);
    assert!(message.contains("data/1' overlaps another file"), "{message}");
}

#[test]
fn counters_beside_the_weights_are_passed_over() {
    let (pickle, storages) = state_dict(&[("w", &[1], &[1.5])]);
    let counter =
        [&pickle[..pickle.len() - 1], &text("seen"), b"ccollections\nCounter\n}", &text("a"), b"K\x02s\x85Rs."];
    let read = Weights::from_bytes("some.pth", archive(&counter.concat(), &[&storages[0]])).expect("read");
    assert_eq!(read.get("w").expect("there").1, [1.5]);
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
    // Where one name lacks the prefix, the prefix is part of the names.
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
    // Big-endian machines store their byte order.
    let big = [1.5f32, -2.0].map(f32::to_be_bytes).concat();
    for (order, storage) in [("little", &storages[0]), ("big", &big)] {
        let read = Weights::from_bytes("w.pth", pack(&[("byteorder", order.as_bytes())], storage)).expect("read");
        assert_eq!(read.get("w").expect("there").1, [1.5, -2.0], "{order}");
    }
    assert!(refusal(pack(&[("byteorder", b"middle")], &storages[0])).contains("'middle', expected little or big"));
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
    // A member that the archive does not have is an error.
    let empty = Weights::from_bytes("w.pth", pack(&[], &storages[0])).expect("read").get("v").expect_err("missing");
    assert!(empty.to_string().contains("'w'"), "{empty}");
}
