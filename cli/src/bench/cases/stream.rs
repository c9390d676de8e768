//! Reading, copying and adding large arrays, and operations on almost nothing.

use super::Case;
use nephron::device::Device;
use nephron::error::Result;
use nephron::ops;
use nephron::tensor::{DType, Tensor};

fn case(name: &str, bytes: usize, run: impl Fn() -> Result<()> + 'static) -> Case {
    let (op, check) = ("ceiling", Box::new(|| Ok(())));
    Case {
        op,
        name: name.into(),
        dtype: Some(DType::F32),
        flops: 0.0,
        bytes: Some(bytes as f64),
        run: Box::new(run),
        check,
    }
}

/// Reading an array of `len` floats, copying it with a factor, and adding two of them.
pub(in crate::bench) fn rates(device: &Device, len: usize) -> Result<[Case; 3]> {
    // Rows of 1024, so that no axis is too long.
    let shape = [1, 1, 1, (len / 1024).max(1), 1024];
    let array = |value: f32| Tensor::from_ndhwc(device, shape, DType::F32, vec![value; shape.iter().product()]);
    let (a, b) = (array(1.5)?, array(-0.25)?);
    let bytes = a.bytes();
    let (x, y) = (a.clone(), a.clone());
    Ok([
        case("read", bytes, move || ops::squared_norm(&x).map(drop)),
        case("copy", 2 * bytes, move || ops::scale(&y, 2.0).map(drop)),
        case("triad", 3 * bytes, move || ops::add_scaled(&a, &b, 2.0).map(drop)),
    ])
}

/// An operation on four floats, without and with a wait behind it.
pub(in crate::bench) fn launches(device: &Device) -> Result<[Case; 2]> {
    let x = Tensor::from_ndhwc(device, [1, 1, 1, 1, 4], DType::F32, vec![1.0; 4])?;
    let (y, on) = (x.clone(), device.clone());
    Ok([
        case("launch", 32, move || ops::scale(&x, 2.0).map(drop)),
        case("launch and wait", 32, move || {
            ops::scale(&y, 2.0)?;
            on.synchronize()
        }),
    ])
}
