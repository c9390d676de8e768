//! Gradients of convolutions by input, weight and bias, in f32, checked on a small one against the f64 reference.

use super::{Case, ensure_within, tensor};
use nephron::bench_shapes::Conv;
use nephron::device::Device;
use nephron::error::Result;
use nephron::ops::{self, Conv3dParams, conv3d::reference};
use nephron::tensor::{DType, Shape, Tensor};

/// Those of [`nephron::bench_shapes::CONVS`] that are timed.
pub(super) const CONVS: [&str; 3] = ["32->32 at 64^3", "32->64 stride 2 at 64^3", "128->128 at 16^3"];
const SMALL: [Shape; 2] = [[2, 5, 6, 7, 8], [3, 5, 3, 3, 3]];

pub(super) fn conv3d_backward(shape: Conv, device: &Device) -> Result<Case> {
    let (stride, padding) = shape.stride_padding();
    let params = Conv3dParams { stride, padding, ..Conv3dParams::default() };
    let (xs, ws) = (shape.input(usize::MAX), shape.weight());
    let (x, w) = (tensor(device, xs, DType::F32)?, tensor(device, ws, DType::F32)?);
    let dy = ops::conv3d(&x, &w, None, &params)?;
    let terms: usize = ws[1..].iter().product();
    // Two products of the forward pass's size.
    let flops = 4.0 * (dy.len() * terms) as f64;
    // Both gradients read dy; one reads the weights and the other the input, and both are written.
    let bytes = (2 * (x.bytes() + w.bytes() + dy.bytes())) as f64;
    let on = device.clone();
    Ok(Case {
        op: "conv3d_backward",
        name: shape.name.into(),
        dtype: Some(DType::F32),
        flops,
        bytes: Some(bytes),
        run: Box::new(move || ops::conv3d_backward(&x, &w, &dy, &params).map(drop)),
        check: Box::new(move || check(&on, &params)),
    })
}

fn check(device: &Device, params: &Conv3dParams) -> Result<()> {
    let [xs, ws] = SMALL;
    let (x, w) = (tensor(device, xs, DType::F32)?, tensor(device, ws, DType::F32)?);
    let dy = ops::scale(&ops::conv3d(&x, &w, None, params)?, 0.25)?;
    let stored = |x: &Tensor| -> Result<Vec<f64>> { Ok(x.to_ncdhw()?.into_iter().map(f64::from).collect()) };
    let want = reference::conv3d_backward(&stored(&x)?, xs, &stored(&w)?, ws, &stored(&dy)?, params);
    let found = ops::conv3d_backward(&x, &w, &dy, params)?;
    // The longest sums have a term for each voxel; minimal filtering adds roundings of up to 256 times that of a term (as in the tests).
    let unit = (dy.len() / ws[0] + 256) as f64 * f64::from(f32::EPSILON);
    let pairs = [("input", &found.dx, &want.dx), ("weight", &found.dw, &want.dw), ("bias", &found.db, &want.db)];
    for (name, found, want) in pairs {
        for (i, found) in found.to_ncdhw()?.into_iter().enumerate() {
            let what = format!("conv3d_backward: gradient by the {name}");
            ensure_within(&what, found.into(), want.value[i], unit * want.magnitude[i])?;
        }
    }
    Ok(())
}
