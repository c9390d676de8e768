//! The two networks with seeded weights. On a GPU they are checked against the result of the CPU. On the CPU, where the tests compare
//! them with PyTorch's logits, only that their outputs are finite.

use super::{Case, tensor};
use nephron::device::Device;
use nephron::error::{Error, Result};
use nephron::models::resnet::{ResNet, ResNetConfig, TORCHVISION_WIDTH, seeded_weights};
use nephron::models::{UNet, UNetArchitecture};
use nephron::tensor::{DType, Tensor};

/// Largest difference from the result of the CPU, relative to its range. It allows for the rounding of every stored activation.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2e-2,
        DType::BF16 => 1e-1,
        _ => 1e-3,
    }
}

pub(super) fn patch_name([d, h, w]: [usize; 3]) -> String {
    format!("kidney plan, patch {d}x{h}x{w}")
}

pub(super) fn batch_name(batch: usize) -> String {
    format!("ResNet-101, batch {batch}")
}

pub(super) fn unet(patch: [usize; 3], device: &Device, dtype: DType) -> Result<Case> {
    let architecture = UNetArchitecture::kidney(1, 3);
    let [d, h, w] = patch;
    let net = UNet::seeded(&architecture, 1, device, dtype)?;
    let x = tensor(device, [1, 1, d, h, w], dtype)?;
    let (on, shape) = (device.clone(), x.shape());
    let forward = move || net.forward(&x);
    let first = forward()?;
    let check = move || {
        if on != Device::Cpu {
            let cpu = UNet::seeded(&UNetArchitecture::kidney(1, 3), 1, &Device::Cpu, DType::F32)?;
            let want = cpu.forward(&tensor(&Device::Cpu, shape, DType::F32)?)?;
            return close("unet", &first, &want, tolerance(dtype));
        }
        finite("unet", &first)
    };
    Ok(Case {
        op: "unet",
        name: patch_name(patch),
        flops: architecture.flops(patch),
        dtype: Some(dtype),
        bytes: None,
        run: Box::new(move || forward().map(drop)),
        check: Box::new(check),
    })
}

pub(super) fn resnet(batch: usize, device: &Device, dtype: DType) -> Result<Case> {
    let config = ResNetConfig { depth: 101, width: TORCHVISION_WIDTH, classes: 5, fusion: true };
    let weights = seeded_weights(&config, 1)?;
    let net = ResNet::new(&config, &weights, device, dtype)?;
    let shape = [batch, 3, 1, 224, 224];
    let x = tensor(device, shape, dtype)?;
    let on = device.clone();
    let forward = move || net.forward(&x);
    let first = forward()?;
    let check = move || {
        if on != Device::Cpu {
            let cpu = ResNet::new(&config, &weights, &Device::Cpu, DType::F32)?;
            let want = cpu.forward(&tensor(&Device::Cpu, shape, DType::F32)?)?;
            return close("resnet", &first, &want, tolerance(dtype));
        }
        finite("resnet", &first)
    };
    // torchvision's ResNet-101 has 7.80 G multiplications for a 224 x 224 image.
    let flops = 2.0 * 7.80e9 * batch as f64;
    let run = Box::new(move || forward().map(drop));
    let (dtype, bytes) = (Some(dtype), None);
    Ok(Case { op: "resnet", name: batch_name(batch), dtype, flops, bytes, run, check: Box::new(check) })
}

fn finite(what: &str, y: &Tensor) -> Result<()> {
    match y.to_ndhwc()?.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::Data(format!("{what}: output {i} is not finite: a wrong result is not timed"))),
    }
}

fn close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) -> Result<()> {
    let (got, want) = (got.to_ndhwc()?, want.to_ndhwc()?);
    let range = want.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        super::ensure_within(&format!("{what}: output {i}"), (*got).into(), (*want).into(), tolerance * range)?;
    }
    Ok(())
}
