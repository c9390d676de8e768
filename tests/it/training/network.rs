//! Gradients and training steps against PyTorch's, and the network for inference.

use nephron::io::weights::Weights;
use nephron::models::{ResidualEncoder, UNet, UNetArchitecture, UNetEncoder};
use nephron::ops::SegmentationLoss;
use nephron::training::{Gradients, Sgd, SgdOptions, TrainableUNet, deep_supervision, polynomial};
use nephron::{DType, Device, Tensor};

use crate::support::{self, devices, rng, tensor, uniform};

fn golden(name: &str) -> Weights {
    Weights::read(support::root().join("tests/golden/training").join(name)).expect("golden arrays")
}

/// The networks of tests/golden/training/steps.py.
fn architecture(residual: bool) -> UNetArchitecture {
    let plain = UNetArchitecture::plain(2, 3, vec![2, 1, 2, 2], vec![1, 2, 1]);
    let blocks = ResidualEncoder { blocks: vec![1, 2, 1, 2], stem: 4, bottleneck: None, squeeze_excitation: None };
    UNetArchitecture {
        features: vec![4, 6, 8, 8],
        kernels: vec![[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides: vec![[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 1]],
        encoder: if residual { UNetEncoder::Residual(blocks) } else { plain.encoder.clone() },
        ..plain
    }
}

fn five(shape: &[usize]) -> [usize; 5] {
    shape.try_into().expect("five axes")
}

/// A batch of a golden file.
fn batch(file: &Weights, number: usize, device: &Device) -> (Tensor, Vec<Tensor>) {
    let (shape, values) = file.get(&format!("image.{number}")).expect("an image");
    let image = tensor(device, five(&shape), DType::F32, &values);
    let labels = (0..3).map(|head| {
        let (shape, values) = file.get(&format!("labels.{number}.{head}")).expect("labels");
        let labels = values.iter().map(|label| *label as u8).collect();
        Tensor::from_u8(device, five(&shape), labels).expect("labels")
    });
    (image, labels.collect())
}

#[test]
fn ten_steps_follow_pytorch() {
    for (name, residual) in [("plain", false), ("residual", true)] {
        let file = golden(&format!("{name}.safetensors"));
        let [losses, norms] = ["losses", "norms"].map(|key| file.get(key).expect("values").1);
        assert_eq!(losses.len(), 10);
        for device in devices().iter().filter(|device| !support::compiles_only(device)) {
            let a = architecture(residual);
            let mut network = TrainableUNet::from_weights(&a, &file, 0, device).expect("a network");
            let options = SgdOptions { clip: Some(0.75), weight_decay: 0.03, ..Default::default() };
            let mut sgd = Sgd::new(network.weights(), options).expect("an optimiser");
            let loss = SegmentationLoss { batch: residual, ..Default::default() };
            for step in 0..10 {
                let (image, labels) = batch(&file, step % 2, device);
                let (logits, tape) = network.forward(&image).expect("forward");
                let (value, dlogits) = deep_supervision(&logits, &labels, &loss).expect("a loss");
                let gradients = network.backward(tape, &dlogits).expect("backward");
                let what = format!("{name} on {}, step {step}", device.name());
                if step == 0 {
                    ensure_gradients(&network, &gradients, &file, &what);
                }
                let rate = polynomial(0.01, step as u64, 10);
                let (weights, norm) = sgd.step(network.weights(), &gradients, rate).expect("a step");
                network.set_weights(weights).expect("weights");
                let (want, want_norm) = (f64::from(losses[step]), f64::from(norms[step]));
                assert!((value - want).abs() <= 1e-4, "{what}: loss {value}, PyTorch {want}");
                assert!((norm - want_norm).abs() <= 1e-3 * want_norm, "{what}: norm {norm}, PyTorch {want_norm}");
            }
        }
    }
}

/// The gradient of every weight has PyTorch's norm, and its product with a fixed direction. (Differences of the loss in f32 cannot
/// show this: those of a deep weight are as large as the rounding of the loss.)
fn ensure_gradients(network: &TrainableUNet, gradients: &Gradients, file: &Weights, what: &str) {
    for (name, gradient) in network.names().zip(gradients.all()) {
        let key = format!("gradient.{name}");
        let Some(gradient) = gradient else {
            assert!(file.shape(&key).is_none(), "{what}: {name} has no gradient");
            continue;
        };
        let values = gradient.to_ncdhw().expect("values");
        let norm = values.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let slope: f64 = values.iter().zip(1..).map(|(g, i)| f64::from(*g) * f64::from(i).sin()).sum();
        let (_, want) = file.get(&key).expect("PyTorch's gradient");
        // A bias before a norm has no gradient but rounding; elsewhere three digits of the norm.
        let bound = 1e-3 * f64::from(want[0]) + 1e-6;
        for (got, want) in [norm, slope].into_iter().zip(want) {
            assert!((got - f64::from(want)).abs() <= bound, "{what}: {name}: {got}, PyTorch {want}");
        }
    }
}

#[test]
fn the_network_for_inference_has_the_same_logits() {
    let mut rng = rng();
    for residual in [false, true] {
        let a = architecture(residual);
        let network = TrainableUNet::seeded(&a, 7, &Device::Cpu).expect("a network");
        let x = tensor(&Device::Cpu, [1, 2, 8, 16, 8], DType::F32, &uniform(&mut rng, 2048));
        let (logits, _) = network.forward(&x).expect("forward");
        assert_eq!(network.head_sizes([8, 16, 8]).expect("sizes"), [[8, 16, 8], [8, 8, 4], [4, 4, 2]]);
        for (logits, size) in logits.iter().zip([[8, 16, 8], [8, 8, 4], [4, 4, 2]]) {
            assert_eq!(logits.shape()[2..], size);
        }
        let unet = network.to_unet(&Device::Cpu, DType::F32).expect("a network");
        let want = unet.forward(&x).expect("forward").to_ncdhw().expect("values");
        let got = logits[0].to_ncdhw().expect("values");
        // Two orders of the same sums in f32, through a dozen norms.
        assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 1e-4), "residual {residual}");
        // And through a file.
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.safetensors");
        network.save(&path, &Default::default()).expect("written");
        let read = UNet::load(&a, &path, &Device::Cpu, DType::F32).expect("read");
        assert_eq!(read.forward(&x).expect("forward").to_ncdhw().expect("values"), want);
        let again =
            TrainableUNet::from_weights(&a, &Weights::read(&path).expect("read"), 0, &Device::Cpu).expect("a network");
        let values = |n: &TrainableUNet| n.weights().iter().map(|w| w.to_ncdhw().expect("values")).collect::<Vec<_>>();
        assert_eq!(values(&again), values(&network));
    }
}

#[test]
fn what_training_does_not_know_is_refused_by_name() {
    use nephron::models::UNetNorm;
    let plain = architecture(false);
    let UNetEncoder::Residual(residual) = architecture(true).encoder else { panic!("residual") };
    let squeezed = ResidualEncoder { squeeze_excitation: Some(0.25), ..residual };
    let refused = [
        ("norm", UNetArchitecture { norm: UNetNorm::Running { affine: true, eps: 1e-5 }, ..plain.clone() }),
        ("norm", UNetArchitecture { norm: UNetNorm::None, ..plain.clone() }),
        ("activation", UNetArchitecture { nonlin_first: true, ..plain.clone() }),
        ("squeeze-excitation", UNetArchitecture { encoder: UNetEncoder::Residual(squeezed), ..plain.clone() }),
    ];
    for (what, a) in refused {
        let message = TrainableUNet::seeded(&a, 1, &Device::Cpu).expect_err(what).to_string();
        assert!(message.contains(what), "{message}");
    }
    let network = TrainableUNet::seeded(&plain, 1, &Device::Cpu).expect("a network");
    let x = |shape| Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
    assert!(network.forward(&x([1, 1, 8, 16, 8])).is_err());
    assert!(network.forward(&x([1, 2, 8, 15, 8])).is_err());
    let (_, tape) = network.forward(&x([1, 2, 8, 16, 8])).expect("forward");
    assert!(network.backward(tape, &[None]).is_err());
}
