//! Tiles in f64 on arrays in PyTorch's order, voxel by voxel.

/// A tile of `size` out of x [channels, `image`], zero outside, reversed along the mirrored axes.
pub fn crop(
    x: &[f64],
    channels: usize,
    image: [usize; 3],
    start: [isize; 3],
    mirrored: [bool; 3],
    size: [usize; 3],
) -> Vec<f64> {
    let mut y = Vec::new();
    for c in 0..channels {
        for z in 0..size[0] {
            for r in 0..size[1] {
                for q in 0..size[2] {
                    let p = [z, r, q];
                    let at: [isize; 3] = std::array::from_fn(|a| {
                        start[a] + if mirrored[a] { size[a] - 1 - p[a] } else { p[a] } as isize
                    });
                    let inside = (0..3).all(|a| at[a] >= 0 && at[a] < image[a] as isize);
                    let index = ((c as isize * image[0] as isize + at[0]) * image[1] as isize + at[1])
                        * image[2] as isize
                        + at[2];
                    y.push(if inside { x[index as usize] } else { 0.0 });
                }
            }
        }
    }
    y
}

/// Adds weight * tile to `sum` [channels, `image`] and weight to `total` [`image`]; the tile [channels, `size`] is reversed
/// along the mirrored axes, the weight [`size`] is not.
pub fn accumulate(
    (sum, total): (&mut [f64], &mut [f64]),
    image: [usize; 3],
    (tile, weight): (&[f64], &[f64]),
    size: [usize; 3],
    start: [isize; 3],
    mirrored: [bool; 3],
) {
    let voxels = size[0] * size[1] * size[2];
    let channels = tile.len() / voxels;
    let image_voxels = image[0] * image[1] * image[2];
    for v in 0..voxels {
        let p = [v / (size[1] * size[2]), v / size[2] % size[1], v % size[2]];
        let to: [isize; 3] = std::array::from_fn(|a| start[a] + p[a] as isize);
        if (0..3).any(|a| to[a] < 0 || to[a] >= image[a] as isize) {
            continue;
        }
        let to = ((to[0] as usize * image[1]) + to[1] as usize) * image[2] + to[2] as usize;
        let from: [usize; 3] = std::array::from_fn(|a| if mirrored[a] { size[a] - 1 - p[a] } else { p[a] });
        let from = (from[0] * size[1] + from[1]) * size[2] + from[2];
        total[to] += weight[v];
        for c in 0..channels {
            sum[c * image_voxels + to] += weight[v] * tile[c * voxels + from];
        }
    }
}

/// x [channels, `input`] on `output` voxels, output i at (i + 0.5) in/out - 0.5 clamped to the input, linear, or along an
/// axis with `nearest` the nearer voxel (the upper one half way).
pub fn resample(x: &[f64], channels: usize, input: [usize; 3], output: [usize; 3], nearest: [bool; 3]) -> Vec<f64> {
    let place = |a: usize, i: usize| {
        let at = (i as f64 + 0.5) * input[a] as f64 / output[a] as f64 - 0.5;
        let at = at.max(0.0).min(input[a] as f64 - 1.0);
        if nearest[a] { (at + 0.5).floor() } else { at }
    };
    let mut y = Vec::new();
    for c in 0..channels {
        for z in 0..output[0] {
            for r in 0..output[1] {
                for q in 0..output[2] {
                    let at = [place(0, z), place(1, r), place(2, q)];
                    let mut value = 0.0;
                    for corner in 0..8usize {
                        let mut weight = 1.0;
                        let mut index = c;
                        for a in 0..3 {
                            let up = (corner >> a) & 1;
                            let low = at[a].floor();
                            let t = at[a] - low;
                            weight *= if up == 1 { t } else { 1.0 - t };
                            index = index * input[a] + (low as usize + up).min(input[a] - 1);
                        }
                        value += weight * x[index];
                    }
                    y.push(value);
                }
            }
        }
    }
    y
}

/// The value of the last of the regions whose logit is above 0, for logits [regions, voxels].
pub fn regions(logits: &[f64], values: &[u8]) -> Vec<u8> {
    let voxels = logits.len() / values.len();
    let label = |v: usize| (0..values.len()).rfind(|r| logits[r * voxels + v] > 0.0).map_or(0, |r| values[r]);
    (0..voxels).map(label).collect()
}
