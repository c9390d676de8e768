//! safetensors files.

use nephron_imaging::io::weights::{self, Weights};
use tempfile::tempdir;

#[test]
fn weights_round_trip_and_name_what_is_missing() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("w.safetensors");
    weights::write(&path, &[("layer1.0.conv1.weight", &[2, 1], &[1.5, -2.0]), ("fc.bias", &[0], &[])])
        .expect("written");
    let read = Weights::read(&path).expect("read back");
    assert_eq!(read.names().collect::<Vec<_>>(), ["fc.bias", "layer1.0.conv1.weight"]);
    assert_eq!(read.get("layer1.0.conv1.weight").expect("there"), (vec![2, 1], vec![1.5, -2.0]));
    assert_eq!(read.shape("fc.bias"), Some(&[0][..]));
    let message = read.get("layer1.0.conv2.weight").expect_err("missing").to_string();
    assert!(message.contains("w.safetensors") && message.contains("'layer1.0.conv1.weight'"), "{message}");
    let message = weights::write(&path, &[("a", &[3], &[0.0])]).expect_err("too few").to_string();
    assert!(message.contains("[3]") && message.contains("found 1"), "{message}");
}

#[test]
fn weights_of_other_types_become_f32() {
    use safetensors::tensor::{Dtype, TensorView};
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("w.safetensors");
    let data: [(&str, Dtype, Vec<u8>); 4] = [
        ("a", Dtype::F16, [0x00, 0x3c, 0x00, 0xc0].to_vec()),
        ("b", Dtype::BF16, [0x80, 0x3f, 0x00, 0xc0].to_vec()),
        ("c", Dtype::F64, [1f64, -2.0].map(f64::to_le_bytes).concat()),
        ("d", Dtype::I64, [1i64, -2].map(i64::to_le_bytes).concat()),
    ];
    let views = data.iter().map(|(n, t, b)| (*n, TensorView::new(*t, vec![2], b).expect("a tensor")));
    std::fs::write(&path, safetensors::serialize(views, None).expect("bytes")).expect("a test file");
    let read = Weights::read(&path).expect("read");
    for name in ["a", "b", "c", "d"] {
        assert_eq!(read.get(name).expect("there").1, [1.0, -2.0], "{name}");
    }
}
