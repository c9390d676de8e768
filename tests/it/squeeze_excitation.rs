//! Residual networks with squeeze-excitation: which voxels share a factor, what the network holds, and the plans that ask for it. The
//! logits of whole networks are compared with nnU-Net's in nnunet.rs.

use nephron::io::weights::TrainingNotes;
use nephron::models::{ResidualEncoder, UNet, UNetArchitecture, UNetEncoder, UNetNorm, UNetPlan};
use nephron::nn::{ConvLayer, SqueezeExcitation};
use nephron::ops::Conv3dParams;
use nephron::{DType, Device, Tensor, host_memory, reset_peak};
use serde_json::{Value, json};

use crate::support::{self, devices, rng, tensor, uniform};

fn layer(device: &Device, [co, ci]: [usize; 2], weights: &[f32], bias: &[f32]) -> ConvLayer {
    ConvLayer {
        weight: tensor(device, [co, ci, 1, 1, 1], DType::F32, weights),
        bias: Some(tensor(device, [1, co, 1, 1, 1], DType::F32, bias)),
        params: Conv3dParams::default(),
    }
}

/// Two channels of 2 x 2 x 2 voxels with means that are whole numbers, reduced to their difference and its negative.
fn gates(device: &Device, planar: bool, shape: [usize; 5]) -> Tensor {
    let squeeze = SqueezeExcitation {
        reduce: layer(device, [2, 2], &[1.0, -1.0, -1.0, 1.0], &[0.0, 0.5]),
        expand: layer(device, [2, 2], &[1.0, 0.0, 2.0, 4.0], &[0.25, 0.0]),
        planar,
    };
    let x = [1.0, 5.0, 3.0, 7.0, 1.0, 9.0, 3.0, 11.0, 4.0, 2.0, 4.0, 2.0, 8.0, 2.0, 8.0, 2.0];
    squeeze.gate(&tensor(device, shape, DType::F32, &x)).expect("a gate")
}

#[test]
fn a_3d_network_shares_factors_over_z_and_y_alone() {
    for device in devices() {
        let gate = gates(device, false, [1, 2, 2, 2, 2]);
        assert_eq!(gate.shape(), [1, 2, 1, 1, 2]);
        // Means of the two positions along x: 2 and 8 of the first channel, 6 and 2 of the second.
        let want = [0.25, 6.25, 18.0, 12.0];
        support::assert_exact("gate", &gate, &want);
    }
}

#[test]
fn a_2d_network_shares_factors_over_the_slice() {
    for device in devices() {
        let gate = gates(device, true, [1, 2, 1, 2, 4]);
        assert_eq!(gate.shape(), [1, 2, 1, 1, 1]);
        // Means 5 and 4.
        support::assert_exact("gate", &gate, &[1.25, 2.0]);
    }
}

fn squeezed(blocks: Vec<usize>, bottleneck: Option<Vec<usize>>, norm: UNetNorm) -> UNetArchitecture {
    let stages = blocks.len();
    let encoder = ResidualEncoder { blocks, stem: 32, bottleneck, squeeze_excitation: Some(1.0 / 16.0) };
    UNetArchitecture {
        encoder: UNetEncoder::Residual(encoder),
        norm,
        features: [6, 8, 20][..stages].to_vec(),
        ..UNetArchitecture::plain(1, 2, vec![1; stages], vec![1; stages - 1])
    }
}

#[test]
fn a_forward_pass_holds_what_the_plan_says() {
    let instance = UNetNorm::Instance { affine: true, eps: 1e-5 };
    let running = UNetNorm::Running { affine: true, eps: 1e-5 };
    for (bottleneck, norm) in
        [(None, instance), (Some(vec![16, 16]), instance), (None, running), (None, UNetNorm::None)]
    {
        // With instance norm a block's gate is what the encoder holds more than the decoder. Tensors of fewer than 2^14 values are
        // not counted: rows are so long that a gate has as many.
        let mut a = squeezed(vec![3, 2], bottleneck, norm);
        a.features = vec![64, 64];
        let size = [2, 4, 256];
        let net = UNet::seeded(&a, 1, &Device::Cpu, DType::F32).expect("net");
        let voxels = size.iter().product();
        let x = tensor(&Device::Cpu, [1, 1, 2, 4, 256], DType::F32, &uniform(&mut rng(), voxels));
        drop(net.forward(&x).expect("logits"));
        let before = host_memory().used;
        reset_peak();
        drop(net.forward(&x).expect("logits"));
        let (peak, image) = ((host_memory().peak - before) as u64, x.bytes() as u64);
        assert_eq!(peak + image, a.activation_bytes(size, DType::F32, &Device::Cpu), "{a:?}");
        if norm == instance {
            let gate = 64 * 256 * size_of::<f32>() as u64;
            assert_eq!(peak, 3 * 64 * image + gate, "{a:?}");
        }
    }
}

#[test]
fn weights_have_the_packages_names_and_shapes() {
    let a = squeezed(vec![1, 1, 2], None, UNetNorm::None);
    let net = UNet::seeded(&a, 3, &Device::Cpu, DType::F32).expect("net");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("weights.safetensors");
    net.save(&path).expect("saved");
    let saved = nephron::io::weights::Weights::read(&path).expect("read");
    let shape =
        |name: &str| saved.get(&format!("encoder.stages.2.blocks.1.squeeze_excitation.{name}")).expect("there").0;
    // 20 / 16 rounds to 0, and a multiple of 8 is at least 8.
    assert_eq!(shape("fc1.weight"), [8, 20, 1, 1, 1]);
    assert_eq!(shape("fc1.bias"), [8]);
    assert_eq!(shape("fc2.weight"), [20, 8, 1, 1, 1]);
    assert_eq!(shape("fc2.bias"), [20]);
    let mut without = a.clone();
    if let UNetEncoder::Residual(encoder) = &mut without.encoder {
        encoder.squeeze_excitation = None;
    }
    let message = UNet::load(&without, &path, &Device::Cpu, DType::F32).expect_err("left over").to_string();
    assert!(message.contains("squeeze_excitation"), "{message}");
}

/// The plan of the golden residual model with its arch_kwargs changed.
fn plan(changes: &[(&str, Value)]) -> nephron::Result<UNetPlan> {
    let golden = support::root().join("tests/golden/nnunet/residual");
    let folder = tempfile::tempdir().expect("folder");
    let text = std::fs::read_to_string(golden.join("plans.json")).expect("plans");
    let mut plans: Value = serde_json::from_str(&text).expect("json");
    for (key, value) in changes {
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"][key] = value.clone();
    }
    std::fs::write(folder.path().join("plans.json"), plans.to_string()).expect("written");
    std::fs::copy(golden.join("dataset.json"), folder.path().join("dataset.json")).expect("copied");
    UNetPlan::read(folder.path(), None, &TrainingNotes::default())
}

#[test]
fn plans_ask_for_it() {
    let ratio = |changes: &[(&str, Value)]| {
        let UNetEncoder::Residual(encoder) = plan(changes).expect("a plan").architecture.encoder else {
            panic!("plain")
        };
        encoder.squeeze_excitation
    };
    let (asked, given) = (("squeeze_excitation", json!(true)), ("squeeze_excitation_reduction_ratio", json!(0.5)));
    assert_eq!(ratio(&[]), None);
    assert_eq!(ratio(&[("squeeze_excitation", json!(false)), given.clone()]), None);
    assert_eq!(ratio(std::slice::from_ref(&asked)), Some(1.0 / 16.0));
    assert_eq!(ratio(&[asked.clone(), given]), Some(0.5));
    // What chance leaves out in training is there in prediction.
    assert_eq!(plan(&[("stochastic_depth_p", json!(0.2))]).expect("a plan"), plan(&[]).expect("a plan"));
    let refused = |key: &str, value: Value, parts: [&str; 2]| {
        let message = plan(&[asked.clone(), (key, value)]).expect_err("refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused("stochastic_depth_p", json!(1.5), ["stochastic_depth_p", "1.5"]);
    refused("squeeze_excitation", json!("yes"), ["true or false", "yes"]);
    refused("squeeze_excitation_reduction_ratio", json!(0), ["above 0", "0"]);
    refused("squeeze_excitation_reduction_ratio", json!(1e9), ["channels", "1 to 65536"]);
}
