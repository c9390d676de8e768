//! Grid sampling in f64, point by point, on PyTorch-ordered data.

use super::{PaddingMode, SampleMode};

/// A result, and the size of the terms it was summed from: rounding errors of f32 code are a small multiple of
/// 2^-24 times the magnitude.
#[derive(Debug, Clone, Default)]
pub struct Sampled {
    /// [n, c, d, h, w].
    pub value: Vec<f64>,
    /// Sum of |weight * voxel|, plus what an error in the coordinate can change: (the size of the terms of the
    /// coordinate, in voxels) times the steepest slope, 2 max|x|, for each axis. 0 for nearest.
    pub magnitude: Vec<f64>,
}

/// `x` [n, c, D, H, W], `grid` [n, d, h, w, 3] (x, y, z), `size` [d, h, w].
pub fn grid_sample(
    x: &[f64],
    input: [usize; 5],
    grid: &[f64],
    size: [usize; 3],
    mode: SampleMode,
    padding: PaddingMode,
    align_corners: bool,
) -> Sampled {
    let points: usize = size.iter().product();
    sample(x, input, points, mode, padding, |n, point| {
        let g = &grid[(n * points + point) * 3..][..3];
        [(g[2], input[2]), (g[1], input[3]), (g[0], input[4])].map(|(g, s)| {
            let s = s as f64;
            let c = if align_corners { (g + 1.0) / 2.0 * (s - 1.0) } else { ((g + 1.0) * s - 1.0) / 2.0 };
            (c, (g.abs() + 1.0) * s)
        })
    })
}

/// `theta` [n, 3, 4] to a grid [n, d, h, w, 3], and the sum of absolute terms of each element.
pub fn affine_grid(theta: &[f64], size: [usize; 3], align_corners: bool) -> (Vec<f64>, Vec<f64>) {
    let [d, h, w] = size;
    let base = |i: usize, s: usize| match (align_corners, s) {
        (_, 1) => 0.0,
        (true, _) => -1.0 + 2.0 * i as f64 / (s as f64 - 1.0),
        (false, _) => -1.0 + (2.0 * i as f64 + 1.0) / s as f64,
    };
    let (mut value, mut magnitude) = (vec![], vec![]);
    for theta in theta.chunks_exact(12) {
        for z in 0..d {
            for y in 0..h {
                for x in 0..w {
                    let p = [base(x, w), base(y, h), base(z, d), 1.0];
                    for row in theta.chunks_exact(4) {
                        let terms = row.iter().zip(p).map(|(t, p)| t * p);
                        value.push(terms.clone().sum());
                        magnitude.push(terms.map(f64::abs).sum());
                    }
                }
            }
        }
    }
    (value, magnitude)
}

/// The image at `locate(n, point)`, which gives each axis' coordinate in voxels (z, y, x) and the size of its terms.
pub fn sample(
    x: &[f64],
    input: [usize; 5],
    points: usize,
    mode: SampleMode,
    padding: PaddingMode,
    locate: impl Fn(usize, usize) -> [(f64, f64); 3],
) -> Sampled {
    let [n, c, d, h, w] = input;
    let steepest = 2.0 * x.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let mut out = Sampled::default();
    for image in 0..n {
        for channel in 0..c {
            let voxel = |z: f64, y: f64, x_: f64| {
                let inside = |i: f64, s: usize| i >= 0.0 && i < s as f64;
                if inside(z, d) && inside(y, h) && inside(x_, w) {
                    x[(((image * c + channel) * d + z as usize) * h + y as usize) * w + x_ as usize]
                } else {
                    0.0
                }
            };
            for point in 0..points {
                let at = locate(image, point);
                let mut p = at.map(|(coordinate, _)| coordinate);
                if padding == PaddingMode::Border {
                    for (p, s) in p.iter_mut().zip([d, h, w]) {
                        *p = p.max(0.0).min(s as f64 - 1.0);
                    }
                }
                let (value, magnitude) = match mode {
                    SampleMode::Nearest => {
                        let [z, y, x] = p.map(f64::round_ties_even);
                        (voxel(z, y, x), 0.0)
                    }
                    SampleMode::Linear => {
                        let terms = corners(p).map(|([z, y, x], weight)| {
                            let term = if weight == 0.0 { 0.0 } else { weight * voxel(z, y, x) };
                            (term, term.abs())
                        });
                        let (value, sum) = terms.iter().fold((0.0, 0.0), |a, t| (a.0 + t.0, a.1 + t.1));
                        let moved: f64 = at.iter().map(|(_, size)| size * steepest).sum();
                        (value, sum + moved)
                    }
                };
                out.value.push(value);
                out.magnitude.push(magnitude);
            }
        }
    }
    out
}

/// The corners of the cell of a point, with their weights.
fn corners(p: [f64; 3]) -> [([f64; 3], f64); 8] {
    std::array::from_fn(|corner| {
        let step = [corner / 4, corner / 2 % 2, corner % 2];
        let mut at = [0.0; 3];
        let mut weight = 1.0;
        for axis in 0..3 {
            let low = p[axis].floor();
            at[axis] = low + step[axis] as f64;
            weight *= if step[axis] == 1 { p[axis] - low } else { low + 1.0 - p[axis] };
        }
        (at, weight)
    })
}
