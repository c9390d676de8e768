//! Converts arrays of `ndarray` to tensors and volumes and back: `cargo run --release --example ndarray_interop`.

use ndarray::{Array3, ArrayD, Ix5, IxDyn};
use nephron::ops::{self, Pool3dParams};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{DType, Device, Error, Result, Tensor};

/// A tensor of an array in PyTorch's axis order [n, c, d, h, w]; an array that is not in C order is copied.
fn to_tensor(device: &Device, array: &ArrayD<f32>) -> Result<Tensor> {
    let shape: [usize; 5] = array.shape().try_into().map_err(|_| Error::shape("array", "5 axes", array.ndim()))?;
    Tensor::from_ncdhw(device, shape, DType::F32, array.as_standard_layout().as_slice().unwrap_or_default())
}

fn to_array(tensor: &Tensor) -> Result<ArrayD<f32>> {
    ArrayD::from_shape_vec(IxDyn(&tensor.shape()), tensor.to_ncdhw()?)
        .map_err(|e| Error::shape("tensor", format!("{:?}", tensor.shape()), e))
}

fn main() -> Result<()> {
    let device = Device::auto();
    let array = ArrayD::from_shape_fn(IxDyn(&[1, 2, 4, 6, 8]), |i| (i[1] * 100 + i[2] * 10 + i[4]) as f32);
    let pooled = ops::max_pool3d(
        &to_tensor(&device, &array)?,
        &Pool3dParams { kernel: [2; 3], stride: [2; 3], padding: [0; 3] },
    )?;
    let back = to_array(&pooled)?.into_dimensionality::<Ix5>().expect("five axes");
    println!(
        "max pooling on {}: {:?} to {:?}, first {}",
        device.name(),
        array.shape(),
        back.shape(),
        back[[0, 0, 0, 0, 0]]
    );

    // A volume has axes (z, y, x) and a map from a voxel index (x, y, z) to RAS millimetres.
    let ct = Array3::from_shape_fn((4, 6, 8), |(z, y, x)| (z * 100 + y * 10 + x) as i16);
    let affine = Affine([[0.8, 0.0, 0.0, -10.0], [0.0, 0.8, 0.0, -20.0], [0.0, 0.0, 3.0, 30.0]]);
    let volume = Volume::new([4, 6, 8], Voxels::I16(ct.into_raw_vec_and_offset().0.into()), affine)?;
    let values = Array3::from_shape_vec(volume.shape(), volume.voxels().to_f32()).expect("as many values as voxels");
    println!("a volume of {:?} mm: the last value is {}", volume.spacing(), values[[3, 5, 7]]);
    Ok(())
}
