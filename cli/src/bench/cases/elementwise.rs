//! Operations that are bound by memory: a stage of the U-Net at full resolution, checked on a small tensor against their f64 references.

use super::{Case, ensure_within, rounding, tensor, values};
use nephron::device::Device;
use nephron::error::Result;
use nephron::ops::{self, activation, arithmetic, norm};
use nephron::tensor::{DType, Shape, Tensor};

pub(super) const NAME: &str = "32 channels at 128^3";
const SHAPE: Shape = [1, 32, 128, 128, 128];
const SMALL: Shape = [2, 5, 6, 7, 8];
const EPS: f32 = 1e-5;

/// A case of `op`: `flops` of each element, `arrays` of them read and written.
fn case(
    op: &'static str,
    (flops, arrays): (f64, usize),
    x: &Tensor,
    run: impl Fn() -> Result<()> + 'static,
    check: impl Fn() -> Result<()> + 'static,
) -> Case {
    Case {
        op,
        name: NAME.into(),
        dtype: Some(x.dtype()),
        flops: flops * x.len() as f64,
        bytes: Some((arrays * x.bytes()) as f64),
        run: Box::new(run),
        check: Box::new(check),
    }
}

/// A small tensor of irregular numbers, and the numbers that it stores, in the order n, c, z, y, x.
fn small(device: &Device, dtype: DType) -> Result<(Tensor, Vec<f64>)> {
    let x = tensor(device, SMALL, dtype)?;
    let stored = x.to_ncdhw()?.into_iter().map(f64::from).collect();
    Ok((x, stored))
}

fn ensure_all(op: &str, found: &Tensor, want: &[f64], bound: impl Fn(usize) -> f64) -> Result<()> {
    for (i, (found, want)) in found.to_ncdhw()?.iter().zip(want).enumerate() {
        ensure_within(op, (*found).into(), *want, bound(i))?;
    }
    Ok(())
}

pub(super) fn relu(device: &Device, dtype: DType) -> Result<Case> {
    let (x, on) = (tensor(device, SHAPE, dtype)?, device.clone());
    let check = move || {
        let (x, stored) = small(&on, dtype)?;
        // No rounding at all.
        ensure_all("relu", &ops::relu(&x)?, &activation::reference::relu(&stored), |_| 0.0)
    };
    let y = x.clone();
    Ok(case("relu", (1.0, 2), &x, move || ops::relu(&y).map(drop), check))
}

pub(super) fn add(device: &Device, dtype: DType) -> Result<Case> {
    let (a, on) = (tensor(device, SHAPE, dtype)?, device.clone());
    let b = ops::scale(&a, -0.5)?;
    let check = move || {
        let (a, stored) = small(&on, dtype)?;
        let b = ops::scale(&a, -0.5)?;
        let half: Vec<f64> = stored.iter().map(|v| -0.5 * v).collect();
        let (want, _) = arithmetic::reference::add(&stored, &half);
        ensure_all("add", &ops::add(&a, &b)?, &want, |i| rounding(dtype) * want[i].abs())
    };
    let (x, y) = (a.clone(), b);
    Ok(case("add", (1.0, 3), &a, move || ops::add(&x, &y).map(drop), check))
}

/// Two passes over the input, one over the output.
pub(super) fn instance_norm(device: &Device, dtype: DType) -> Result<Case> {
    let (x, on) = (tensor(device, SHAPE, dtype)?, device.clone());
    let vector = |device: &Device, channels: usize| {
        Tensor::from_ndhwc(device, [1, channels, 1, 1, 1], DType::F32, values(channels))
    };
    let [weight, bias] = [vector(device, SHAPE[1])?, vector(device, SHAPE[1])?];
    let check = move || {
        let (x, stored) = small(&on, dtype)?;
        let affine = vector(&on, SMALL[1])?;
        let factors: Vec<f64> = values(SMALL[1]).into_iter().map(f64::from).collect();
        let reference = norm::reference::instance_norm;
        let want = reference(&stored, SMALL, Some(&factors), Some(&factors), EPS.into());
        let found = ops::instance_norm(&x, Some(&affine), Some(&affine), EPS)?;
        // The sums have 336 terms in f32, and a few roundings follow.
        let unit = (SMALL[2..].iter().product::<usize>() + 16) as f64 * f64::from(f32::EPSILON);
        ensure_all("instance_norm", &found, &want.value, |i| {
            unit * want.magnitude[i] + 2.0 * rounding(dtype) * want.value[i].abs()
        })
    };
    let y = x.clone();
    let run = move || ops::instance_norm(&y, Some(&weight), Some(&bias), EPS).map(drop);
    Ok(case("instance_norm", (8.0, 3), &x, run, check))
}
