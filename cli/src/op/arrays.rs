//! Converts between .npy arrays in PyTorch's layout and tensors.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use nephron::device::Device;
use nephron::error::Error as LibraryError;
use nephron::io::npy;
use nephron::tensor::{DType, Shape, Tensor};

/// The `--in` files of one call, each read when the op requests it.
pub(super) struct Inputs<'a> {
    files: Vec<(String, PathBuf)>,
    device: &'a Device,
    dtype: DType,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(files: Vec<(String, PathBuf)>, device: &'a Device, dtype: DType) -> Self {
        Self { files, device, dtype, known: RefCell::default() }
    }

    fn file(&self, name: &'static str) -> Option<&Path> {
        self.known.borrow_mut().push(name);
        self.files.iter().find(|(known, _)| known == name).map(|(_, path)| path.as_path())
    }

    fn required(&self, name: &'static str) -> Result<&Path> {
        self.file(name).ok_or_else(|| Error::Usage(format!("input '{name}' is needed: --in {name}=F.npy")))
    }

    /// Reads a tensor [n, c, d, h, w] in PyTorch's order.
    pub(super) fn tensor(&self, name: &'static str) -> Result<Tensor> {
        let path = self.required(name)?;
        let (shape, data) = npy::read_f32(path)?;
        Ok(Tensor::from_ncdhw(self.device, axes::<5>(path, &shape)?, self.dtype, &data)?)
    }

    /// Reads one value for each channel, [c].
    pub(super) fn vector(&self, name: &'static str) -> Result<Tensor> {
        self.vector_at(self.required(name)?)
    }

    /// Reads one value for each channel, [c], where the input was given.
    pub(super) fn optional_vector(&self, name: &'static str) -> Result<Option<Tensor>> {
        self.file(name).map(|path| self.vector_at(path)).transpose()
    }

    fn vector_at(&self, path: &Path) -> Result<Tensor> {
        let (shape, data) = npy::read_f32(path)?;
        axes::<1>(path, &shape)?;
        Ok(Tensor::vector(self.device, &data)?)
    }

    /// Reads sampling points [n, d, h, w, 3] in (x, y, z) order, which is already the channels-last order of tensors.
    pub(super) fn grid(&self, name: &'static str) -> Result<Tensor> {
        let path = self.required(name)?;
        let (shape, data) = npy::read_f32(path)?;
        let [n, d, h, w, three] = axes::<5>(path, &shape)?;
        if three != 3 {
            return Err(
                LibraryError::file(path, format!("expected a grid [n, d, h, w, 3], found shape {shape:?}")).into()
            );
        }
        Ok(Tensor::from_ndhwc(self.device, [n, 3, d, h, w], DType::F32, data)?)
    }

    /// Reads affine matrices [n, 3, 4].
    pub(super) fn thetas(&self, name: &'static str) -> Result<Tensor> {
        let path = self.required(name)?;
        let (shape, data) = npy::read_f32(path)?;
        match axes::<3>(path, &shape)? {
            [n, 3, 4] => Ok(Tensor::from_ndhwc(self.device, [n, 1, 1, 3, 4], DType::F32, data)?),
            _ => Err(LibraryError::file(path, format!("expected matrices [n, 3, 4], found shape {shape:?}")).into()),
        }
    }

    /// Reads one affine matrix [3, 4] to the host.
    pub(super) fn theta(&self, name: &'static str) -> Result<[[f64; 4]; 3]> {
        let path = self.required(name)?;
        let (shape, data) = npy::read_f32(path)?;
        if shape != [3, 4] {
            return Err(LibraryError::file(path, format!("expected a matrix [3, 4], found shape {shape:?}")).into());
        }
        Ok(std::array::from_fn(|r| std::array::from_fn(|c| f64::from(data[r * 4 + c]))))
    }

    /// Reads labels [n, d, h, w], or [d, h, w] with n = 1.
    pub(super) fn labels(&self, name: &'static str) -> Result<Tensor> {
        let path = self.required(name)?;
        let (shape, data) = npy::read_u8(path)?;
        let shape = match shape.as_slice() {
            &[d, h, w] => [1, 1, d, h, w],
            _ => {
                let [n, d, h, w] = axes::<4>(path, &shape)?;
                [n, 1, d, h, w]
            }
        };
        Ok(Tensor::from_u8(self.device, shape, data)?)
    }

    /// Checks that the op has requested every input that was given.
    ///
    /// # Errors
    /// [`Error::Usage`] for an input that it does not have.
    pub(super) fn ensure_all_known(&self, op: &str) -> Result<()> {
        let known = self.known.borrow();
        match self.files.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Error::Usage(format!("{op} has no input '{name}' (it takes: {})", known.join(", "))))
            }
        }
    }
}

fn axes<const N: usize>(path: &Path, shape: &[usize]) -> Result<[usize; N]> {
    let wrong = |_| LibraryError::file(path, format!("expected {N} axes, found shape {shape:?}"));
    Ok(shape.try_into().map_err(wrong)?)
}

/// A result with the shape of its array.
pub(super) enum Output {
    /// [n, c, d, h, w] in PyTorch's order.
    Tensor(Tensor),
    /// One value for each channel, [c].
    Vector(Tensor),
    /// [n, d, h, w, 3].
    Grid(Tensor),
    /// [1].
    Scalar(f64),
    /// [3, 4].
    Matrix([[f64; 4]; 3]),
}

impl Output {
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Tensor(t) => t.shape().to_vec(),
            Self::Vector(t) => vec![t.len()],
            Self::Grid(t) => grid_shape(t.shape()),
            Self::Scalar(_) => vec![1],
            Self::Matrix(_) => vec![3, 4],
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let data = match self {
            Self::Tensor(t) => t.to_ncdhw()?,
            Self::Vector(t) | Self::Grid(t) => t.to_ndhwc()?,
            Self::Scalar(value) => vec![*value as f32],
            Self::Matrix(rows) => rows.iter().flatten().map(|v| *v as f32).collect(),
        };
        Ok(npy::write_f32(path, &self.shape(), &data)?)
    }
}

fn grid_shape([n, c, d, h, w]: Shape) -> Vec<usize> {
    vec![n, d, h, w, c]
}
