//! The registration loss in f64, as PyTorch computes it: a base grid, theta, `grid_sample`, soft Dice, and its gradient
//! by the chain rule; with the magnitudes that error bounds need.

use super::{AffineDiceParams, Matrix};
use crate::ops::grid_sample::PaddingMode;

/// The loss, its gradient and how far f32 may be from them. A magnitude m says that inputs, positions and sums off by a
/// relative e move the value by at most e m, to first order and away from the faces of cells.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Minus the mean Dice.
    pub loss: f64,
    /// Its magnitude.
    pub loss_magnitude: f64,
    /// d loss / d theta.
    pub dtheta: Matrix,
    /// Its magnitudes.
    pub dtheta_magnitude: Matrix,
    /// Dice of each channel.
    pub dice: Vec<f64>,
    /// The least distance of any sampled coordinate to a whole number: gradients jump there.
    pub face_distance: f64,
}

/// Sizes are [d, h, w].
pub fn affine_dice(
    fixed: (&[u8], [usize; 3]),
    moving: (&[u8], [usize; 3]),
    theta: &Matrix,
    params: &AffineDiceParams,
) -> Reference {
    let &AffineDiceParams { align_corners, smooth, ref channels, .. } = params;
    let border = params.padding == PaddingMode::Border;
    let sets: Vec<Vec<u8>> = (0..channels.count()).map(|c| channels.labels(c)).collect();
    let (fixed, [d, h, w]) = fixed;
    let (moving, moving_shape) = moving;
    // (x, y, z), as grids are.
    let size = [moving_shape[2], moving_shape[1], moving_shape[0]];
    let mut face_distance = f64::INFINITY;
    let mut channels: Vec<Channel> = sets.iter().map(|_| Channel::default()).collect();
    for z in 0..d {
        for y in 0..h {
            for x in 0..w {
                let base = [base(x, w, align_corners), base(y, h, align_corners), base(z, d, align_corners), 1.0];
                let mut position = [0.0; 3];
                let mut scale = [0.0; 3];
                let mut spread = [0.0; 3];
                for r in 0..3 {
                    let s = size[r] as f64;
                    let g: f64 = (0..4).map(|k| theta[r][k] * base[k]).sum();
                    let g_magnitude: f64 = (0..4).map(|k| (theta[r][k] * base[k]).abs()).sum();
                    scale[r] = if align_corners { (s - 1.0) / 2.0 } else { s / 2.0 };
                    position[r] = if align_corners { (g + 1.0) / 2.0 * (s - 1.0) } else { ((g + 1.0) * s - 1.0) / 2.0 };
                    spread[r] = scale[r] * g_magnitude + s;
                    if scale[r] > 0.0 {
                        face_distance = face_distance.min((position[r] - position[r].round()).abs());
                    }
                    if border {
                        if position[r] <= 0.0 || position[r] >= s - 1.0 {
                            (scale[r], spread[r]) = (0.0, 0.0);
                        }
                        position[r] = position[r].clamp(0.0, s - 1.0);
                    }
                }
                let label = fixed[(z * h + y) * w + x];
                for (set, channel) in sets.iter().zip(&mut channels) {
                    let inside = |label: u8| set.contains(&label);
                    let sample = Sample::at(position, |corner| {
                        let ok = (0..3).all(|r| corner[r] >= 0 && (corner[r] as usize) < size[r]);
                        ok && inside(
                            moving[((corner[2] * size[1] as i64 + corner[1]) * size[0] as i64 + corner[0]) as usize],
                        )
                    });
                    channel.add(&sample, f64::from(u8::from(inside(label))), &base, &scale, &spread);
                }
            }
        }
    }
    finish(&channels, smooth, face_distance)
}

/// `affine_grid`'s base coordinate of voxel i of n.
fn base(i: usize, n: usize, align_corners: bool) -> f64 {
    match (n, align_corners) {
        (1, _) => 0.0,
        (_, true) => 2.0 * i as f64 / (n - 1) as f64 - 1.0,
        (_, false) => (2.0 * i as f64 + 1.0) / n as f64 - 1.0,
    }
}

/// A trilinear sample, its slopes along (x, y, z), and the sum of absolute mixed second derivatives of each slope.
struct Sample {
    value: f64,
    slope: [f64; 3],
    mixed: [[f64; 3]; 3],
}

impl Sample {
    fn at(position: [f64; 3], corner: impl Fn([i64; 3]) -> bool) -> Self {
        let floor = position.map(|p| p.floor() as i64);
        let f: [f64; 3] = std::array::from_fn(|r| position[r] - floor[r] as f64);
        let mut sample = Self { value: 0.0, slope: [0.0; 3], mixed: [[0.0; 3]; 3] };
        // Inside a mask differences of ones are 0 without rounding.
        if (0..8usize)
            .all(|k| corner([floor[0] + (k & 1) as i64, floor[1] + (k >> 1 & 1) as i64, floor[2] + (k >> 2) as i64]))
        {
            sample.value = 1.0;
            return sample;
        }
        for k in 0..8usize {
            let bit = [k & 1, k >> 1 & 1, k >> 2];
            if !corner(std::array::from_fn(|r| floor[r] + bit[r] as i64)) {
                continue;
            }
            let weight: [f64; 3] = std::array::from_fn(|r| if bit[r] == 1 { f[r] } else { 1.0 - f[r] });
            let sign: [f64; 3] = std::array::from_fn(|r| if bit[r] == 1 { 1.0 } else { -1.0 });
            sample.value += weight[0] * weight[1] * weight[2];
            for r in 0..3 {
                let (s, t) = ((r + 1) % 3, (r + 2) % 3);
                sample.slope[r] += sign[r] * weight[s] * weight[t];
                sample.mixed[r][s] += weight[t];
                sample.mixed[r][t] += weight[s];
            }
        }
        sample
    }
}

#[derive(Default)]
struct Channel {
    i: f64,
    p: f64,
    g: f64,
    i_magnitude: f64,
    p_magnitude: f64,
    all: Matrix,
    within: Matrix,
    all_magnitude: Matrix,
    within_magnitude: Matrix,
}

impl Channel {
    fn add(&mut self, sample: &Sample, g: f64, base: &[f64; 4], scale: &[f64; 3], spread: &[f64; 3]) {
        let value_magnitude = sample.value + (0..3).map(|r| sample.slope[r].abs() * spread[r]).sum::<f64>();
        self.i += sample.value * g;
        self.p += sample.value;
        self.g += g;
        self.i_magnitude += value_magnitude * g;
        self.p_magnitude += value_magnitude;
        for r in 0..3 {
            // Corners of one sign and the other: eight terms of at most their weights.
            let own: f64 = sample.mixed[r].iter().sum();
            let moved: f64 = (0..3).map(|q| sample.mixed[r][q] * spread[q]).sum();
            for k in 0..4 {
                let term = sample.slope[r] * scale[r] * base[k];
                // Positions count from the middle of the grid on the GPU, where a base coordinate may be a difference.
                let magnitude = (own + moved) * scale[r] * (base[k].abs() + 1.0);
                self.all[r][k] += term;
                self.within[r][k] += g * term;
                self.all_magnitude[r][k] += magnitude;
                self.within_magnitude[r][k] += g * magnitude;
            }
        }
    }
}

fn finish(channels: &[Channel], smooth: f64, face_distance: f64) -> Reference {
    let count = channels.len() as f64;
    let mut out = Reference {
        loss: 0.0,
        loss_magnitude: 0.0,
        dtheta: [[0.0; 4]; 3],
        dtheta_magnitude: [[0.0; 4]; 3],
        dice: vec![1.0; channels.len()],
        face_distance,
    };
    for (channel, dice) in channels.iter().zip(&mut out.dice) {
        let below = channel.p + channel.g + smooth;
        if below > 0.0 {
            *dice = (2.0 * channel.i + smooth) / below;
            let spread = (channel.p_magnitude + channel.g + smooth) / below;
            let dice_magnitude = (2.0 * channel.i_magnitude + smooth) / below + *dice * spread;
            out.loss_magnitude += (*dice + dice_magnitude) / count;
            for r in 0..3 {
                for k in 0..4 {
                    let (all, within) = (channel.all[r][k], channel.within[r][k]);
                    out.dtheta[r][k] -= (2.0 * within - *dice * all) / below / count;
                    let first = 2.0 * (channel.within_magnitude[r][k] + within.abs() * spread);
                    let second =
                        *dice * (channel.all_magnitude[r][k] + all.abs() * spread) + dice_magnitude * all.abs();
                    out.dtheta_magnitude[r][k] += (first + second) / below / count;
                }
            }
        }
        out.loss -= *dice / count;
    }
    out
}
