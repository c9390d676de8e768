//! The ResNet against torchvision's, and its errors.

use nephron::io::weights::Weights;
use nephron::models::resnet::{ResNet, ResNetConfig, seeded_weights};
use nephron::{DType, Device, Tensor};
use serde_json::Value;

use crate::support::{self, compiles_only, devices};

/// golden/resnet/make.py's rule for a tensor's values.
fn values(name: &str, place: usize, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let fan_in: usize = shape.iter().skip(1).product();
    (0..count)
        .map(|j| {
            let wave = (0.001 * ((37 * j + 101 * place) % 6283) as f64).sin();
            let value = if name.ends_with("running_var") {
                1.0 + 0.5 * wave * wave
            } else if name.ends_with("running_mean") || name.ends_with("bias") {
                0.1 * wave
            } else if shape.len() == 1 {
                0.6 + 0.2 * wave
            } else {
                wave * (2.0 / fan_in as f64).sqrt()
            };
            value as f32
        })
        .collect()
}

fn golden(depth: usize) -> Value {
    let path = support::root().join(format!("tests/golden/resnet/golden_{depth}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("golden.json")).expect("json")
}

fn weights(golden: &Value) -> Weights {
    let mut weights = Weights::default();
    // serde_json's maps are sorted by name, as the generator's.
    for (place, (name, shape)) in golden["shapes"].as_object().expect("shapes").iter().enumerate() {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).expect("a shape");
        let data = values(name, place, &shape);
        weights.insert(name.clone(), shape, &data).expect("values of the shape");
    }
    weights
}

const CONFIG: ResNetConfig = ResNetConfig { depth: 50, width: 64, classes: 5, fusion: true };

#[test]
fn agrees_with_torchvision() {
    for depth in [18, 50, 101] {
        // A software adapter needs minutes for a ResNet; its ops have tests of their own.
        agrees_at(depth, DType::F32, 1e-4, |d| !d.name().starts_with("vulkan"));
    }
}

/// f16 rounds to 2^-11 of a value at each of some twenty layers.
#[test]
fn agrees_with_torchvision_in_halves() {
    agrees_at(18, DType::F16, 2e-2, |d| d.supports(DType::F16));
}

fn agrees_at(depth: usize, dtype: DType, share: f64, on: impl Fn(&Device) -> bool) {
    let golden = golden(depth);
    let config = ResNetConfig { depth, ..CONFIG };
    let weights = weights(&golden);
    let want: Vec<Vec<f64>> = serde_json::from_value(golden["logits"].clone()).expect("logits");
    let (low, high) = want.iter().flatten().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let count = want.len();
    let pixels: Vec<f32> = (0..count * 3 * 64 * 64).map(|j| (0.001 * (53 * j % 6283) as f64).sin() as f32).collect();
    let mut compared = 0;
    for device in devices().iter().filter(|d| on(d)) {
        let network = ResNet::new(&config, &weights, device, dtype).expect("a network");
        let images = Tensor::from_ncdhw(device, [count, 3, 1, 64, 64], dtype, &pixels).expect("images");
        let logits = network.forward(&images).expect("logits").to_ndhwc().expect("values");
        if compiles_only(device) {
            continue;
        }
        for (got, want) in logits.iter().zip(want.iter().flatten()) {
            let difference = (f64::from(*got) - want).abs();
            assert!(difference <= share * (high - low), "{got} on {}, torchvision {want}", device.name());
        }
        compared += 1;
    }
    if compared == 0 {
        eprintln!("SKIPPED ResNet-{depth} in {dtype} beside torchvision: no device at hand computes in it");
    }
}

#[test]
fn probabilities_of_seeded_weights_sum_to_one() {
    let network = ResNet::new(&CONFIG, &seeded_weights(&CONFIG, 7).expect("weights"), &Device::Cpu, DType::F32);
    let images: Vec<f32> = (0..3 * 32 * 32).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let rows = network.expect("a network").probabilities(&images, [1, 32, 32]).expect("probabilities");
    let sum: f32 = rows[0].iter().sum();
    approx::assert_relative_eq!(sum, 1.0, max_relative = 1e-5);
    assert!(rows[0].iter().all(|p| *p > 0.0), "{rows:?}");
}

#[test]
fn wrong_weights_are_refused_by_name() {
    let error = |weights: &Weights, config: &ResNetConfig| match ResNet::new(config, weights, &Device::Cpu, DType::F32)
    {
        Ok(_) => panic!("it must be refused"),
        Err(e) => e.to_string(),
    };
    let golden = golden(50);
    let mut weights = weights(&golden);
    weights.insert("resnet.layer2.0.conv2.weight", vec![128, 128, 1, 1], &[0.0; 128 * 128]).expect("a tensor");
    let message = error(&weights, &CONFIG);
    assert!(message.contains("layer2.0.conv2") && message.contains("[128, 128, 3, 3]"), "{message}");
    let message = error(&Weights::default(), &CONFIG);
    assert!(message.contains("fusion.weight"), "{message}");
    let message = error(&weights, &ResNetConfig { depth: 77, ..CONFIG });
    assert!(message.contains("77"), "{message}");
}

/// The same weights as a checkpoint, with and without the authors' prefix, and wrapped.
#[test]
fn checkpoints_give_the_same_network() {
    let config = ResNetConfig { depth: 18, ..CONFIG };
    let drawn = seeded_weights(&config, 3).expect("weights");
    let folder = tempfile::tempdir().expect("a folder");
    let images: Vec<f32> = (0..3 * 32 * 32).map(|i| (i % 23) as f32 / 9.0 - 1.0).collect();
    let answer = |weights: &Weights| {
        let network = ResNet::new(&config, weights, &Device::Cpu, DType::F32).expect("a network");
        network.probabilities(&images, [1, 32, 32]).expect("probabilities")
    };
    let want = answer(&drawn);
    for rename in
        [|name: &str| name.to_owned(), |name: &str| name.replace("resnet.", ""), |name: &str| format!("module.{name}")]
    {
        let named: Vec<_> = drawn.names().map(|n| (rename(n), drawn.get(n).expect("a tensor"))).collect();
        let tensors: Vec<(&str, &[usize], &[f32])> =
            named.iter().map(|(name, (shape, values))| (name.as_str(), shape.as_slice(), values.as_slice())).collect();
        let path = folder.path().join("model.pth");
        support::checkpoint_file::write(&path, &tensors);
        assert_eq!(answer(&Weights::read(&path).expect("read")), want);
    }
}

#[test]
fn a_deeper_networks_weights_are_not_taken_for_a_shallower_ones() {
    let deeper = seeded_weights(&ResNetConfig { depth: 34, ..CONFIG }, 3).expect("weights");
    let refused = |config: ResNetConfig| match ResNet::new(&config, &deeper, &Device::Cpu, DType::F32) {
        Ok(_) => panic!("it must be refused"),
        Err(e) => e.to_string(),
    };
    let message = refused(ResNetConfig { depth: 18, ..CONFIG });
    assert!(message.contains("ResNet-18") && message.contains("layer1.2."), "{message}");
    let message = refused(ResNetConfig { depth: 34, fusion: false, ..CONFIG });
    assert!(message.contains("fusion.weight"), "{message}");
    // A name from a file cannot break the line of the message.
    let mut odd = seeded_weights(&ResNetConfig { depth: 18, ..CONFIG }, 3).expect("weights");
    odd.insert(format!("a\n{}", "b".repeat(500)), vec![1], &[0.0]).expect("a tensor");
    let Err(error) = ResNet::new(&ResNetConfig { depth: 18, ..CONFIG }, &odd, &Device::Cpu, DType::F32) else {
        panic!("it must be refused")
    };
    assert!(error.to_string().contains("found 'a?bb") && error.to_string().len() < 200, "{error}");
}

#[test]
fn images_of_another_shape_are_refused() {
    let weights = seeded_weights(&CONFIG, 7).expect("weights");
    let network = ResNet::new(&CONFIG, &weights, &Device::Cpu, DType::F32).expect("a network");
    let images = Tensor::zeros(&Device::Cpu, [1, 4, 1, 32, 32], DType::F32).expect("images");
    let message = network.forward(&images).expect_err("four channels").to_string();
    assert!(message.contains("[1, 4, 1, 32, 32]"), "{message}");
}

#[test]
fn narrow_networks_are_of_the_same_family() {
    let narrow = ResNetConfig { depth: 18, width: 16, ..CONFIG };
    let weights = seeded_weights(&narrow, 5).expect("weights");
    let shape = |name: &str| weights.shape(name).map(<[usize]>::to_vec);
    assert_eq!(shape("resnet.conv1.weight"), Some(vec![16, 3, 7, 7]));
    assert_eq!(shape("resnet.layer4.0.downsample.0.weight"), Some(vec![128, 64, 1, 1]));
    assert_eq!(shape("resnet.fc.weight"), Some(vec![5, 128]));
    let network = ResNet::new(&narrow, &weights, &Device::Cpu, DType::F32).expect("a network");
    let images: Vec<f32> = (0..3 * 32 * 32).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let rows = network.probabilities(&images, [1, 32, 32]).expect("probabilities");
    approx::assert_relative_eq!(rows[0].iter().sum::<f32>(), 1.0, max_relative = 1e-5);
    for (config, part) in [
        (ResNetConfig { width: 64, ..narrow }, "[64, 3, 7, 7]"),
        (ResNetConfig { width: 0, ..narrow }, "1 to 1024"),
        (ResNetConfig { width: 1025, ..narrow }, "1025"),
    ] {
        let Err(error) = ResNet::new(&config, &weights, &Device::Cpu, DType::F32) else { panic!("{config:?}") };
        assert!(error.to_string().contains(part), "{error}");
    }
}
