//! Gradients and training steps of ResNets against PyTorch's, and the network for inference.

use nephron::io::weights::Weights;
use nephron::models::resnet::{ResNet, ResNetConfig, seeded_weights};
use nephron::ops::cross_entropy;
use nephron::training::{Gradients, Sgd, SgdOptions, TrainableResNet, polynomial};
use nephron::{DType, Device, Tensor};
use serde_json::Value;

use crate::support::{self, devices};

/// The images and networks of tests/golden/training/resnet_steps.py.
const BATCH: usize = 6;
const SIZE: usize = 64;
const STEPS: usize = 10;

fn config(depth: usize) -> ResNetConfig {
    ResNetConfig { depth, width: 4, classes: 5, fusion: true }
}

/// The script's rule of numbers from -1 to 1.
fn hashed(place: usize, count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| {
        let mut x = (i + place * 1_000_003) as u32;
        x ^= x >> 16;
        x = x.wrapping_mul(0x7feb_352d);
        x ^= x >> 15;
        x = x.wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        f64::from(x >> 8) / f64::from(1 << 23) - 1.0
    })
}

/// The script's rule of a tensor's first values.
fn initial(name: &str, place: usize, shape: &[usize]) -> Vec<f32> {
    let fan_in: usize = shape.iter().skip(1).product();
    let value = |(i, v): (usize, f64)| {
        let value = if name.ends_with("running_var") {
            1.0 + 0.5 * v
        } else if name.ends_with("running_mean") || name.ends_with("bias") {
            0.1 * v
        } else if name.ends_with("bn3.weight") {
            0.2 + 0.1 * v
        } else if shape.len() == 1 {
            0.7 + 0.3 * v
        } else if name == "fusion.weight" {
            0.3 * v + if i % 4 == 0 { 1.0 } else { 0.0 }
        } else {
            v * (6.0 / fan_in as f64).sqrt()
        };
        value as f32
    };
    hashed(place, shape.iter().product()).enumerate().map(value).collect()
}

struct Golden(Value);

impl Golden {
    fn read(depth: usize) -> Self {
        let path = support::root().join(format!("tests/golden/training/resnet_{depth}.json"));
        Self(serde_json::from_str(&std::fs::read_to_string(path).expect("a golden file")).expect("JSON"))
    }

    fn weights(&self) -> Weights {
        let mut weights = Weights::default();
        // serde_json's maps are sorted by name, as the script's.
        for (place, (name, shape)) in self.0["shapes"].as_object().expect("shapes").iter().enumerate() {
            let shape: Vec<usize> = serde_json::from_value(shape.clone()).expect("a shape");
            let values = initial(name, place, &shape);
            weights.insert(name.clone(), shape, &values).expect("values of the shape");
        }
        weights
    }

    fn losses(&self) -> Vec<f64> {
        serde_json::from_value(self.0["losses"].clone()).expect("losses")
    }

    /// Whether the norm of a tensor has PyTorch's value, and its product with a fixed direction: to a thousandth of the norm. What differs.
    fn difference(&self, table: &str, name: &str, tensor: &Tensor) -> Option<String> {
        let values = tensor.to_ncdhw().expect("values");
        let norm = values.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let slope: f64 = values.iter().zip(1..).map(|(g, i)| f64::from(*g) * f64::from(i).sin()).sum();
        let want: [f64; 2] = serde_json::from_value(self.0[table][name].clone()).expect("two numbers");
        let bound = 1e-3 * want[0] + 1e-6;
        let is_near = |got: f64, want: f64| (got - want).abs() <= bound;
        let agrees = is_near(norm, want[0]) && is_near(slope, want[1]);
        (!agrees).then(|| format!("{name}: {norm} and {slope}, PyTorch {want:?}"))
    }
}

fn batch(number: usize, device: &Device) -> (Tensor, Tensor) {
    let pixels: Vec<f32> = hashed(1000 + number, BATCH * 3 * SIZE * SIZE).map(|v| 1.5 * v as f32).collect();
    let images = Tensor::from_ncdhw(device, [BATCH, 3, 1, SIZE, SIZE], DType::F32, &pixels).expect("images");
    let labels = (0..BATCH).map(|i| ((i + 2 * number) % 5) as u8).collect();
    (images, Tensor::from_u8(device, [BATCH, 1, 1, 1, 1], labels).expect("labels"))
}

/// The optimiser of the classifier's recipe.
fn options() -> SgdOptions {
    SgdOptions { learning_rate: 0.0, momentum: 0.9, nesterov: false, weight_decay: 2e-4, clip: None }
}

#[test]
fn ten_steps_follow_pytorch() {
    for (depth, rate) in [(18, 0.02), (50, 0.0001)] {
        let golden = Golden::read(depth);
        let losses = golden.losses();
        assert_eq!(losses.len(), STEPS);
        for device in devices().iter().filter(|device| !support::compiles_only(device)) {
            let mut network =
                TrainableResNet::from_weights(&config(depth), &golden.weights(), device).expect("a network");
            let mut sgd = Sgd::new(network.weights(), options()).expect("an optimiser");
            for (step, want) in losses.iter().enumerate() {
                let (images, labels) = batch(step % 2, device);
                let (logits, tape) = network.forward(&images).expect("forward");
                let found = cross_entropy(&logits, &labels).expect("a loss");
                let gradients = network.backward(tape, &found.dlogits).expect("backward");
                let what = format!("ResNet-{depth} on {}, step {step}", device.name());
                if step == 0 {
                    ensure_gradients(&network, &gradients, &golden, &what);
                }
                let rate = polynomial(rate, step as u64, STEPS as u64);
                let (weights, _) = sgd.step(network.weights(), &gradients, rate).expect("a step");
                network.set_weights(weights).expect("weights");
                assert!((f64::from(found.loss) - want).abs() <= 1e-4, "{what}: loss {}, PyTorch {want}", found.loss);
            }
            let what = format!("ResNet-{depth} on {}", device.name());
            let statistics = network.statistics();
            let wrong = statistics.filter_map(|(name, tensor)| golden.difference("statistics", name, tensor));
            assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new(), "{what}");
            ensure_logits(&network, &golden, device, &what);
        }
    }
}

/// The gradient of every weight; the fusion convolution's too.
fn ensure_gradients(network: &TrainableResNet, gradients: &Gradients, golden: &Golden, what: &str) {
    let names: Vec<&str> = network.names().collect();
    assert_eq!(names.len(), golden.0["gradients"].as_object().expect("gradients").len());
    let pairs = names.iter().zip(gradients.all());
    let wrong = pairs
        .filter_map(|(name, gradient)| golden.difference("gradients", name, gradient.as_ref().expect("a gradient")));
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new(), "{what}");
}

/// The trained network in evaluation mode, with its batch norms folded.
fn ensure_logits(network: &TrainableResNet, golden: &Golden, device: &Device, what: &str) {
    let (images, _) = batch(0, device);
    let trained = network.to_resnet(device, DType::F32).expect("a network");
    let got = trained.forward(&images).expect("logits").to_ncdhw().expect("values");
    let want: Vec<Vec<f64>> = serde_json::from_value(golden.0["logits"].clone()).expect("logits");
    let (low, high) = want.iter().flatten().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    for (got, want) in got.iter().zip(want.iter().flatten()) {
        assert!((f64::from(*got) - want).abs() <= 1e-3 * (high - low), "{what}: {got}, PyTorch {want}");
    }
}

fn values(network: &TrainableResNet) -> Vec<Vec<f32>> {
    let statistics = network.statistics().map(|(_, tensor)| tensor);
    network.weights().iter().chain(statistics).map(|tensor| tensor.to_ncdhw().expect("values")).collect()
}

#[test]
fn a_network_is_written_and_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    for fusion in [true, false] {
        let config = ResNetConfig { fusion, ..config(18) };
        let mut network = TrainableResNet::seeded(&config, 3, &Device::Cpu).expect("a network");
        network.forward(&batch(0, &Device::Cpu).0).expect("forward");
        network.save(&path, &Default::default()).expect("written");
        let file = Weights::read(&path).expect("read");
        assert_eq!(file.shape("conv1.weight").is_some(), !fusion);
        let again = TrainableResNet::from_weights(&config, &file, &Device::Cpu).expect("a network");
        assert_eq!(values(&again), values(&network));
        // It is what inference reads.
        let images: Vec<f32> = hashed(7, 3 * 32 * 32).map(|v| v as f32).collect();
        let read = ResNet::new(&config, &file, &Device::Cpu, DType::F32).expect("a network");
        let want = network.to_resnet(&Device::Cpu, DType::F32).expect("a network");
        let rows = |network: &ResNet| network.probabilities(&images, [1, 32, 32]).expect("probabilities");
        assert_eq!(rows(&read), rows(&want));
    }
}

#[test]
fn fine_tuning_begins_with_the_weights_of_a_file() {
    let imagenet = ResNetConfig { classes: 1000, fusion: false, ..config(18) };
    let file = seeded_weights(&imagenet, 9).expect("weights");
    let network = TrainableResNet::pretrained(&config(18), &file, 4, &Device::Cpu).expect("a network");
    let drawn = TrainableResNet::seeded(&config(18), 4, &Device::Cpu).expect("a network");
    for ((name, found), drawn) in network.names().zip(network.weights()).zip(drawn.weights()) {
        let found = found.to_ncdhw().expect("values");
        let own = ["fusion.weight", "resnet.fc.weight", "resnet.fc.bias"].contains(&name);
        let want = match name.strip_prefix("resnet.") {
            Some(plain) if !own => file.get(plain).expect("a tensor").1,
            _ => drawn.to_ncdhw().expect("values"),
        };
        assert_eq!(found, want, "{name}");
    }
    // A classifier's own file gives all.
    let own = seeded_weights(&config(18), 9).expect("weights");
    let network = TrainableResNet::pretrained(&config(18), &own, 4, &Device::Cpu).expect("a network");
    let same = TrainableResNet::from_weights(&config(18), &own, &Device::Cpu).expect("a network");
    assert_eq!(values(&network), values(&same));
    let refused = |depth, file: &Weights, part: &str| {
        let error = TrainableResNet::pretrained(&config(depth), file, 4, &Device::Cpu).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(34, &file, "layer1.2.conv1.weight");
    let mut broken = seeded_weights(&imagenet, 9).expect("weights");
    broken.insert("bn1.weight", vec![4], &[f32::NAN; 4]).expect("a tensor");
    refused(18, &broken, "finite");
}

#[test]
fn other_images_are_refused() {
    let mut network = TrainableResNet::seeded(&config(18), 1, &Device::Cpu).expect("a network");
    let x = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    for (shape, part) in [([2, 4, 1, 64, 64], "[2, 4, 1, 64, 64]"), ([1, 3, 1, 32, 32], "at least 2 values")] {
        let before = values(&network);
        let error = network.forward(&x(shape)).err().expect("refused").to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(values(&network), before);
    }
    let (_, tape) = network.forward(&x([2, 3, 1, 64, 64])).expect("forward");
    assert!(network.backward(tape, &x([2, 4, 1, 1, 1])).is_err());
}
