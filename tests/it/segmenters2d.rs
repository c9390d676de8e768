//! 2D segmenters against torchvision's (golden/segmenters2d/make.py), their errors, and volumes slice by slice.

use nephron::io::weights::{self, Weights};
use nephron::models::segmenters2d::{Architecture, Head, Segmenter2d};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::support::{self, compiles_only, devices};

/// The golden files' name of a head.
fn file_name(head: Head) -> &'static str {
    match head {
        Head::Fcn => "fcn",
        Head::DeepLabV3 => "deeplabv3",
        Head::DeepLabV3Plus => "deeplabv3plus",
        Head::PspNet => "pspnet",
    }
}

/// The generator's random numbers in [-1, 1): a hash of the name and the index.
fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0x811C_9DC5u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let value = |j: usize| {
        let mut h = j as u32 ^ seed;
        h = (h ^ (h >> 16)).wrapping_mul(0x85EB_CA6B);
        h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
        f64::from(h ^ (h >> 16)) / 2f64.powi(31) - 1.0
    };
    (0..count).into_par_iter().map(value).collect()
}

/// The generator's rule for a tensor's values.
fn draw(name: &str, shape: &[usize]) -> Vec<f32> {
    let fan_in: usize = shape.iter().skip(1).product();
    let value = |u: f64| {
        let value = if name.ends_with("running_var") {
            1.0 + 0.5 * u
        } else if name.ends_with("running_mean") || name.ends_with("bias") {
            0.1 * u
        } else if shape.len() == 1 {
            (if name.contains("bn3") { 0.3 } else { 1.0 }) + 0.2 * u
        } else {
            u * (6.0 / fan_in as f64).sqrt()
        };
        value as f32
    };
    uniform(name, shape.iter().product()).into_iter().map(value).collect()
}

/// Names and shapes of the state dict, those of an auxiliary classifier included where the golden network has one.
fn shapes(head: Head, depth: usize) -> Vec<(String, Vec<usize>)> {
    let read = |file: String| {
        let path = support::root().join(format!("tests/golden/segmenters2d/shapes/{file}.txt"));
        std::fs::read_to_string(path).expect("a list of shapes")
    };
    let text = read(format!("resnet{depth}")) + &read(file_name(head).to_owned());
    let entry = |line: &str| {
        let (name, shape) = line.split_once(' ').expect("a name and a shape");
        (name.to_owned(), shape.split('x').map(|axis| axis.parse().expect("a size")).collect())
    };
    text.lines().map(entry).collect()
}

fn drawn_weights(head: Head, depth: usize) -> Weights {
    let mut weights = Weights::default();
    for (name, shape) in shapes(head, depth) {
        weights.insert(&name, shape.clone(), &draw(&name, &shape)).expect("values of the shape");
    }
    weights
}

fn architecture(head: Head, depth: usize) -> Architecture {
    Architecture { head, depth, classes: 3 }
}

fn image(device: &Device, dtype: DType, [h, w]: [usize; 2]) -> Tensor {
    let pixels: Vec<f32> = uniform("image", 3 * h * w).into_iter().map(|u| u as f32).collect();
    Tensor::from_ncdhw(device, [1, 3, 1, h, w], dtype, &pixels).expect("an image")
}

/// Compares with the golden logits, of which the generator kept every `step` pixel along (y, x): each differs by at most `share` of their range.
fn agrees_at(
    head: Head,
    depth: usize,
    [size, step]: [[usize; 2]; 2],
    dtype: DType,
    share: f64,
    on: fn(&Device) -> bool,
) {
    let file = support::root().join("tests/golden/segmenters2d/logits.safetensors");
    let golden = Weights::read(file).expect("golden logits");
    let (_, want) = golden.get(&format!("{}_{depth}", file_name(head))).expect("logits of this network");
    let (low, high) = want.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let weights = drawn_weights(head, depth);
    let mut compared = 0;
    for device in devices().iter().filter(|d| on(d) && d.supports(dtype)) {
        let network = Segmenter2d::new(&architecture(head, depth), &weights, device, dtype).expect("a network");
        let logits = network.logits(&image(device, dtype, size)).expect("logits");
        assert_eq!(logits.shape(), [1, 3, 1, size[0], size[1]]);
        let got = logits.to_ncdhw().expect("values");
        if compiles_only(device) {
            continue;
        }
        let kept = |i: &usize| (i / size[1] % size[0]).is_multiple_of(step[0]) && (i % size[1]).is_multiple_of(step[1]);
        let got: Vec<f32> = (0..got.len()).filter(kept).map(|i| got[i]).collect();
        assert_eq!(got.len(), want.len());
        let worst = got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - f64::from(*w)).abs()).fold(0.0, |a: f64, d| {
            assert!(!d.is_nan(), "{head} on {}", device.name());
            a.max(d)
        });
        let bound = share * f64::from(high - low);
        assert!(worst <= bound, "{head} on ResNet-{depth}, {}: off by {worst}, bound {bound}", device.name());
        println!("{head} on ResNet-{depth}, {}, {dtype}: off by {worst:.2e} of {:.2e}", device.name(), high - low);
        compared += 1;
    }
    if compared == 0 {
        eprintln!("SKIPPED {head} on ResNet-{depth} in {dtype} beside torchvision: no device at hand computes in it");
    }
}

fn small(head: Head) {
    agrees_at(head, 50, [[33, 41], [1, 1]], DType::F32, 1e-4, |_| true);
}

fn large(head: Head) {
    // Minutes on a software adapter, which the smaller networks run on.
    agrees_at(head, 101, [[65, 81], [3, 5]], DType::F32, 1e-4, |d| !d.name().starts_with("vulkan"));
}

#[test]
fn fcn_agrees_with_torchvision() {
    small(Head::Fcn);
    large(Head::Fcn);
}

#[test]
fn deeplab_v3_agrees_with_torchvision() {
    small(Head::DeepLabV3);
    large(Head::DeepLabV3);
}

#[test]
fn deeplab_v3_plus_agrees_with_plain_pytorch() {
    small(Head::DeepLabV3Plus);
    large(Head::DeepLabV3Plus);
}

#[test]
fn pspnet_agrees_with_plain_pytorch() {
    small(Head::PspNet);
    large(Head::PspNet);
}

/// f16 rounds to 2^-11 of a value at each of some fifty layers.
#[test]
fn fcn_agrees_with_torchvision_in_halves() {
    agrees_at(Head::Fcn, 50, [[33, 41], [1, 1]], DType::F16, 2e-2, |_| true);
}

fn refusal(architecture: &Architecture, weights: &Weights) -> String {
    match Segmenter2d::new(architecture, weights, &Device::Cpu, DType::F32) {
        Ok(_) => panic!("{architecture} must be refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn wrong_weights_are_refused_by_name() {
    let fcn = architecture(Head::Fcn, 50);
    let weights = drawn_weights(Head::Fcn, 50);
    let network = Segmenter2d::new(&fcn, &weights, &Device::Cpu, DType::F32).expect("a network");
    // The auxiliary classifier of torchvision's networks is for training alone.
    let unused = network.unused();
    assert_eq!(unused.len(), 7, "{unused:?}");
    assert!(unused.iter().all(|name| name.starts_with("aux_classifier.")), "{unused:?}");
    drop(network);

    let message = refusal(&Architecture { classes: 4, ..fcn }, &weights);
    assert!(message.contains("'classifier.4.weight'") && message.contains("[4, 512, 1, 1]"), "{message}");
    // A deeper network misses blocks, a shallower one has too many.
    let message = refusal(&Architecture { depth: 101, ..fcn }, &weights);
    assert!(message.contains("backbone.layer3.6.conv1.weight"), "{message}");
    for head in [Head::DeepLabV3, Head::DeepLabV3Plus, Head::PspNet] {
        let message = refusal(&architecture(head, 50), &weights);
        assert!(message.contains("'classifier."), "{head}: {message}");
    }
    let mut more = drawn_weights(Head::Fcn, 50);
    more.insert("classifier.5.weight", vec![1], &[0.0]).expect("a tensor");
    let message = refusal(&fcn, &more);
    assert!(message.contains("FCN on ResNet-50") && message.contains("'classifier.5.weight'"), "{message}");
    // PyTorch's counters of batches are no weights.
    let mut counted = drawn_weights(Head::Fcn, 50);
    counted.insert("backbone.bn1.num_batches_tracked", vec![1], &[7.0]).expect("a tensor");
    assert!(Segmenter2d::new(&fcn, &counted, &Device::Cpu, DType::F32).is_ok());
    let message = refusal(&fcn, &Weights::default());
    assert!(message.contains("backbone.conv1.weight"), "{message}");
}

#[test]
fn architectures_out_of_range_and_images_of_another_shape_are_refused() {
    let weights = Weights::default();
    let fcn = architecture(Head::Fcn, 50);
    for (wrong, parts) in [
        (Architecture { depth: 34, ..fcn }, ["depth", "50 or 101", "34"]),
        (Architecture { classes: 0, ..fcn }, ["classes", "1 to 256", "found 0"]),
        (Architecture { classes: 257, ..fcn }, ["classes", "1 to 256", "257"]),
    ] {
        let message = refusal(&wrong, &weights);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let network = Segmenter2d::new(&fcn, &drawn_weights(Head::Fcn, 50), &Device::Cpu, DType::F32).expect("a network");
    for shape in [[1, 1, 1, 8, 8], [1, 3, 3, 8, 8], [1, 3, 1, 0, 8], [0, 3, 1, 8, 8]] {
        let images = Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("images");
        let message = network.logits(&images).expect_err("it must be refused").to_string();
        assert!(message.contains("[n, 3, 1, h, w]") && message.contains(&format!("{shape:?}")), "{message}");
    }
    // The smallest image of all.
    let one = Tensor::zeros(&Device::Cpu, [2, 3, 1, 1, 1], DType::F32).expect("images");
    assert_eq!(network.logits(&one).expect("logits").shape(), [2, 3, 1, 1, 1]);
}

/// A file, and a volume whose labels are those of its slices with their neighbours as channels.
#[test]
fn volumes_are_labelled_slice_by_slice() {
    let deeplab = architecture(Head::DeepLabV3, 50);
    let drawn: Vec<_> = shapes(deeplab.head, 50).into_iter().map(|(n, s)| (draw(&n, &s), n, s)).collect();
    let tensors: Vec<(&str, &[usize], &[f32])> =
        drawn.iter().map(|(values, name, shape)| (name.as_str(), shape.as_slice(), values.as_slice())).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deeplab.safetensors");
    weights::write(&path, &tensors).expect("a file");
    let network = Segmenter2d::load(&path, &deeplab, &Device::Cpu, DType::F32).expect("a network");
    assert!(network.unused().is_empty());

    let [d, h, w] = [4, 17, 19];
    let voxels: Vec<f32> = uniform("volume", d * h * w).into_iter().map(|u| 3.0 * u as f32).collect();
    let volume = Volume::new([d, h, w], Voxels::F32(voxels.clone().into()), Affine::IDENTITY).expect("a volume");
    let labels = network.labels(&volume).expect("labels");
    assert_eq!(labels.shape(), [d, h, w]);
    let slice = |k: usize| &voxels[k * h * w..(k + 1) * h * w];
    for (k, channels) in [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]].into_iter().enumerate() {
        let pixels = channels.map(slice).concat();
        let image = Tensor::from_ncdhw(&Device::Cpu, [1, 3, 1, h, w], DType::F32, &pixels).expect("an image");
        let logits = network.logits(&image).expect("logits").to_ncdhw().expect("values");
        for (at, label) in labels.labels()[k * h * w..(k + 1) * h * w].iter().enumerate() {
            let of = |class: usize| logits[class * h * w + at];
            let largest = (1..3).fold(0, |best, class| if of(class) > of(best) { class } else { best });
            assert_eq!(usize::from(*label), largest, "pixel {at} of slice {k}");
        }
    }

    let mut damaged = voxels;
    damaged[5] = f32::NAN;
    let damaged = volume.with_voxels(Voxels::F32(damaged.into())).expect("a volume");
    assert!(network.labels(&damaged).expect_err("NaN").to_string().contains("NaN"));
}
