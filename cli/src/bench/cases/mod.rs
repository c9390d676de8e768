//! The cases that are timed: shapes of the tests and the pipeline, with the arithmetic and the bytes of each.

mod backward;
mod convolutions;
mod elementwise;
mod networks;
pub(super) mod stream;
mod training;
mod volumes;

use nephron::device::Device;
use nephron::error::{Error, Result};
use nephron::tensor::{DType, Shape, Tensor};
use nephron::{bench_shapes, ensure_room};

/// A case to time.
pub(super) struct Case {
    pub op: &'static str,
    pub name: String,
    /// The storage type; None for an operation that has types of its own.
    pub dtype: Option<DType>,
    /// Number of multiplications and additions of a run.
    pub flops: f64,
    /// Number of bytes that a run must at least read and write; None for a network, whose layers write and read what lies between them.
    pub bytes: Option<f64>,
    pub run: Box<dyn Fn() -> Result<()>>,
    /// Returns an error for a wrong result.
    pub check: Box<dyn Fn() -> Result<()>>,
}

/// Creates a case, with its arrays on the device.
pub(super) type Make = Box<dyn Fn(&Device, DType) -> Result<Case>>;

const OPS: [&str; 12] = [
    "conv3d",
    "conv_transpose3d",
    "conv3d_backward",
    "relu",
    "add",
    "instance_norm",
    "grid_sample",
    "unet",
    "resnet",
    "train",
    "affine_dice",
    "resample",
];

pub(super) use convolutions::OwnConv;

/// The cases of one op, or of all, whose name contains `filter`; or the one convolution that is asked for.
pub(super) fn named(op: Option<&str>, filter: &str, own: Option<OwnConv>) -> crate::error::Result<Vec<Make>> {
    if let Some(own) = own {
        if op.is_some_and(|op| op != "conv3d") || !filter.is_empty() {
            return Err(crate::error::Error::Usage("--shape: expected conv3d and no --filter with it".into()));
        }
        return Ok(vec![Box::new(move |device, dtype| convolutions::own(&own, device, dtype))]);
    }
    if let Some(op) = op
        && !OPS.contains(&op)
    {
        return Err(crate::error::Error::Usage(format!(
            "unknown operation '{op}': expected one of {}",
            OPS.join(", ")
        )));
    }
    let wanted: Vec<Make> = all()
        .into_iter()
        .filter(|(of, name, _)| op.is_none_or(|op| op == *of) && name.contains(filter))
        .map(|(_, _, make)| make)
        .collect();
    if wanted.is_empty() {
        return Err(crate::error::Error::Usage(format!("no case's name contains '{filter}'")));
    }
    Ok(wanted)
}

fn all() -> Vec<(&'static str, String, Make)> {
    let mut all: Vec<(&'static str, String, Make)> = Vec::new();
    for shape in bench_shapes::CONVS {
        all.push(("conv3d", shape.name.into(), Box::new(move |d, t| convolutions::conv3d(shape, d, t))));
    }
    for shape in bench_shapes::TRANSPOSED {
        let make: Make = Box::new(move |d, t| convolutions::conv_transpose3d(shape, d, t));
        all.push(("conv_transpose3d", shape.name.into(), make));
    }
    for shape in bench_shapes::CONVS.into_iter().filter(|shape| backward::CONVS.contains(&shape.name)) {
        let make: Make = Box::new(move |d, _| backward::conv3d_backward(shape, d));
        all.push(("conv3d_backward", shape.name.into(), make));
    }
    all.push(("relu", elementwise::NAME.into(), Box::new(elementwise::relu)));
    all.push(("add", elementwise::NAME.into(), Box::new(elementwise::add)));
    all.push(("instance_norm", elementwise::NAME.into(), Box::new(elementwise::instance_norm)));
    all.push(("grid_sample", volumes::GRID.into(), Box::new(volumes::grid_sample)));
    for patch in bench_shapes::PATCHES {
        all.push(("unet", networks::patch_name(patch), Box::new(move |d, t| networks::unet(patch, d, t))));
    }
    for batch in bench_shapes::BATCHES {
        all.push(("resnet", networks::batch_name(batch), Box::new(move |d, t| networks::resnet(batch, d, t))));
    }
    for step in training::STEPS {
        all.push(("train", step.name(), Box::new(move |d, _| training::step(step, d))));
    }
    for side in bench_shapes::LABEL_MAPS {
        all.push(("affine_dice", volumes::labels_name(side), Box::new(move |d, _| volumes::affine_dice(side, d))));
    }
    all.push(("resample", volumes::CT.into(), Box::new(|d, _| volumes::resample(d))));
    all
}

/// Irregular numbers in [-1, 1), by a hash of the index.
fn values(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A tensor of [`values`].
///
/// # Errors
/// A shape of the user's that does not fit in memory; a device that has no room.
fn tensor(device: &Device, shape: Shape, dtype: DType) -> Result<Tensor> {
    let len = shape.iter().fold(1, |len: usize, &size| len.saturating_mul(size));
    if u32::try_from(len).is_err() {
        return Err(Error::shape("bench: array", "fewer than 2^32 elements", format!("{shape:?}")));
    }
    ensure_room::<f32>("bench: array", len)?;
    Tensor::from_ndhwc(device, shape, dtype, values(len))
}

/// The rounding of a stored value, relative to it.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    }
}

/// A matrix product, as a 1x1x1 convolution: 4096 voxels, 1024 channels to 1024 (8.6 GFLOP), or 16384 voxels, 4096 channels to 4096
/// (550 GFLOP) where the device is too fast for that.
pub(super) fn matrix_product(device: &Device, dtype: DType, is_large: bool) -> Result<Case> {
    let (channels, size) = if is_large { ([4096; 2], 128) } else { ([1024; 2], 64) };
    let shape = bench_shapes::Conv { name: "matrix product", channels, size, kernel: 1, stride: 1, flat: true };
    convolutions::conv3d(shape, device, dtype)
}

/// Checks that a value is within a bound of the expected one; NaN is not.
///
/// # Errors
/// [`Error::Data`] for another value.
fn ensure_within(what: &str, got: f64, want: f64, bound: f64) -> Result<()> {
    if (got - want).abs() <= bound {
        Ok(())
    } else {
        Err(Error::Data(format!("{what}: expected {want} within {bound:e}, found {got}: a wrong result is not timed")))
    }
}
