//! Values between voxels. Images are channels-last; `first` is the index of the wanted channel at voxel (0, 0, 0).

use std::marker::PhantomData;

use cubecl::prelude::*;

use super::coordinates::{Cell, Extent, Padding, cell, limit, nearest_even};
use super::packed::{load_i16, load_u8};

/// How a value between voxels is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// From the eight corners.
    Linear,
    /// The nearest voxel, halves to even.
    Nearest,
}

/// How the elements of an image lie in its buffer.
#[cube]
pub trait Elements: 'static + Send + Sync {
    /// What the buffer is an array of.
    type Stored: CubePrimitive;
    /// Element `i`.
    fn load(x: &Array<Self::Stored>, i: usize) -> f32;
}

/// One float each.
pub struct Floats<F>(PhantomData<F>);
/// Two i16 in a 32-bit word.
pub struct PackedI16;
/// Four u8 in a 32-bit word.
pub struct PackedU8;

#[cube]
impl<F: Float> Elements for Floats<F> {
    type Stored = F;
    fn load(x: &Array<F>, i: usize) -> f32 {
        f32::cast_from(x[i])
    }
}

#[cube]
impl Elements for PackedI16 {
    type Stored = u32;
    fn load(x: &Array<u32>, i: usize) -> f32 {
        f32::cast_from(load_i16(x, i))
    }
}

#[cube]
impl Elements for PackedU8 {
    type Stored = u32;
    fn load(x: &Array<u32>, i: usize) -> f32 {
        f32::cast_from(load_u8(x, i))
    }
}

/// The voxel (z, y, x), or 0 where it lies outside.
#[cube]
pub fn voxel<S: Elements>(
    image: &Array<S::Stored>,
    first: usize,
    channels: usize,
    size: Extent,
    z: i32,
    y: i32,
    x: i32,
) -> f32 {
    let mut value = f32::cast_from(0);
    // A negative number is past every size once it is unsigned.
    let (z, y, x) = (u32::cast_from(z), u32::cast_from(y), u32::cast_from(x));
    if z < size.d && y < size.h && x < size.w {
        let row = (z as usize * size.h as usize + y as usize) * size.w as usize;
        value = S::load(image, first + (row + x as usize) * channels);
    }
    value
}

/// The weight of one of a cell's eight corners, numbered (z, y, x) from the lowest bit of x.
#[cube]
pub fn corner_weight(z: Cell, y: Cell, x: Cell, #[comptime] corner: u32) -> f32 {
    let mut weight = 1.0 - z.fraction;
    if comptime![corner & 4 != 0] {
        weight = z.fraction;
    }
    if comptime![corner & 2 != 0] {
        weight *= y.fraction;
    } else {
        weight *= 1.0 - y.fraction;
    }
    if comptime![corner & 1 != 0] {
        weight *= x.fraction;
    } else {
        weight *= 1.0 - x.fraction;
    }
    weight
}

/// One of a cell's eight corners, or 0 where it lies outside.
#[cube]
pub fn corner<S: Elements>(
    image: &Array<S::Stored>,
    first: usize,
    channels: usize,
    size: Extent,
    z: Cell,
    y: Cell,
    x: Cell,
    #[comptime] corner: u32,
) -> f32 {
    let (dz, dy, dx) = comptime!(((corner >> 2) as i32, (corner >> 1 & 1) as i32, (corner & 1) as i32));
    voxel::<S>(image, first, channels, size, z.low + dz, y.low + dy, x.low + dx)
}

/// The eight corners of a cell by their weights; corners outside weigh 0, whatever is stored at the edge.
#[cube]
pub fn trilinear<S: Elements>(
    image: &Array<S::Stored>,
    first: usize,
    channels: usize,
    size: Extent,
    z: Cell,
    y: Cell,
    x: Cell,
) -> f32 {
    let mut sum = f32::cast_from(0);
    #[unroll]
    for i in 0..8u32 {
        sum += corner_weight(z, y, x, i) * corner::<S>(image, first, channels, size, z, y, x, i);
    }
    sum
}

/// The image at a point in voxels, wherever it lies.
#[cube]
pub fn sample<S: Elements>(
    image: &Array<S::Stored>,
    first: usize,
    channels: usize,
    size: Extent,
    z: f32,
    y: f32,
    x: f32,
    #[comptime] mode: Mode,
    #[comptime] padding: Padding,
) -> f32 {
    let (z, y, x) = (limit(z, size.d, padding), limit(y, size.h, padding), limit(x, size.w, padding));
    if comptime![mode == Mode::Linear] {
        trilinear::<S>(image, first, channels, size, cell(z), cell(y), cell(x))
    } else {
        voxel::<S>(image, first, channels, size, nearest_even(z), nearest_even(y), nearest_even(x))
    }
}
