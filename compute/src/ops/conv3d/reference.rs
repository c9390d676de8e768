//! Convolution and its gradients in f64, straight from the definition.

use super::Conv3dParams;
use crate::tensor::Shape;

/// A result in PyTorch's order and, element by element, the sum of the absolute values of its terms.
#[derive(Debug, Clone)]
pub struct Sums {
    /// Of the result.
    pub shape: Shape,
    /// The sums.
    pub value: Vec<f64>,
    /// What bounds their rounding.
    pub magnitude: Vec<f64>,
}

impl Sums {
    fn zeros(shape: Shape) -> Self {
        let len = shape.iter().product();
        Self { shape, value: vec![0.0; len], magnitude: vec![0.0; len] }
    }

    fn add(&mut self, at: usize, term: f64) {
        self.value[at] += term;
        self.magnitude[at] += term.abs();
    }
}

/// The gradients of [`conv3d`] by input, weight and bias.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// [n, ci, d, h, w].
    pub dx: Sums,
    /// [co, ci / groups, kd, kh, kw].
    pub dw: Sums,
    /// [1, co, 1, 1, 1].
    pub db: Sums,
}

/// `x` [n, ci, d, h, w], `w` [co, ci / groups, kd, kh, kw] -> [n, co, od, oh, ow].
pub fn conv3d(x: &[f64], xs: Shape, w: &[f64], ws: Shape, b: Option<&[f64]>, params: &Conv3dParams) -> Sums {
    let mut y = Sums::zeros(output_shape(xs, ws, params));
    if let Some(b) = b {
        let voxels: usize = y.shape[2..].iter().product();
        for at in 0..y.value.len() {
            y.add(at, b[at / voxels % ws[0]]);
        }
    }
    let shape = y.shape;
    for_each_term(xs, ws, shape, params, |xi, wi, yi| y.add(yi, x[xi] * w[wi]));
    y
}

/// Gradients of sum(dy * conv3d(x, w, b)).
pub fn conv3d_backward(x: &[f64], xs: Shape, w: &[f64], ws: Shape, dy: &[f64], params: &Conv3dParams) -> Gradients {
    let ys = output_shape(xs, ws, params);
    let mut g = Gradients { dx: Sums::zeros(xs), dw: Sums::zeros(ws), db: Sums::zeros([1, ws[0], 1, 1, 1]) };
    for_each_term(xs, ws, ys, params, |xi, wi, yi| {
        g.dx.add(xi, w[wi] * dy[yi]);
        g.dw.add(wi, x[xi] * dy[yi]);
    });
    let voxels: usize = ys[2..].iter().product();
    for (yi, &dy) in dy.iter().enumerate() {
        g.db.add(yi / voxels % ws[0], dy);
    }
    g
}

fn output_shape(xs: Shape, ws: Shape, p: &Conv3dParams) -> Shape {
    let size = |a: usize| (xs[2 + a] + 2 * p.padding[a] - p.dilation[a] * (ws[2 + a] - 1) - 1) / p.stride[a] + 1;
    [xs[0], ws[0], size(0), size(1), size(2)]
}

/// Calls `term` with the flat indices in x, w and y of every product in the sum.
fn for_each_term(xs: Shape, ws: Shape, ys: Shape, p: &Conv3dParams, mut term: impl FnMut(usize, usize, usize)) {
    let flat = |s: Shape, i: Shape| i.iter().zip(s).fold(0, |at, (&i, s)| at * s + i);
    let per_group = ws[0] / p.groups;
    for yi in 0..ys.iter().product() {
        let [n, co, oz, oy, ox] = unflatten(ys, yi);
        for tap in 0..ws[1..].iter().product() {
            let [_, c, kz, ky, kx] = unflatten([1, ws[1], ws[2], ws[3], ws[4]], tap);
            let at = |a: usize, o: usize, k: usize| (o * p.stride[a] + k * p.dilation[a]).checked_sub(p.padding[a]);
            let (Some(z), Some(y), Some(x)) = (at(0, oz, kz), at(1, oy, ky), at(2, ox, kx)) else { continue };
            if z < xs[2] && y < xs[3] && x < xs[4] {
                let ci = co / per_group * ws[1] + c;
                term(flat(xs, [n, ci, z, y, x]), flat(ws, [co, c, kz, ky, kx]), yi);
            }
        }
    }
}

fn unflatten(shape: Shape, mut i: usize) -> Shape {
    let mut index = [0; 5];
    for (at, size) in index.iter_mut().zip(shape).rev() {
        *at = i % size;
        i /= size;
    }
    index
}
