//! Cutting a patch out of a sample: crop, rotation and scaling in one pass.
//!
//! nnU-Net crops a larger patch first and resamples that. Here the sample itself is resampled, so the corners of a rotated patch hold
//! the image instead of padding.

use super::geometry::Placement;
use crate::ensure_room;
use crate::error::Result;
use crate::training::data::{NO_LABEL, Sample, Window};

/// A patch of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// The image, in the order c, z, y, x.
    pub image: Vec<f32>,
    /// The label of each voxel, [`NO_LABEL`] where there is none.
    pub labels: Vec<u8>,
    /// Voxels along (z, y, x).
    pub shape: [usize; 3],
}

/// Cuts a patch of `shape`. The image is trilinear and 0 outside of the sample. A voxel gets the label with the largest trilinear
/// weight, [`NO_LABEL`] outside counted as one; the nearest voxel's where it shares the largest weight, else the lowest of those
/// that do.
///
/// # Errors
/// A patch that does not fit in memory; a sample's file that cannot be read.
pub fn cut(sample: &Sample, placement: &Placement, shape: [usize; 3]) -> Result<Patch> {
    let voxels: usize = shape.iter().product();
    ensure_room::<f32>("a patch for training", voxels * (sample.channels() + 1))?;
    let mut patch = Patch { image: vec![0.0; voxels * sample.channels()], labels: vec![NO_LABEL; voxels], shape };
    match placement.matrix {
        None => copy(sample, placement.centre, &mut patch)?,
        Some(matrix) => resample(sample, placement.centre, matrix, &mut patch)?,
    }
    Ok(patch)
}

fn copy(sample: &Sample, centre: [f64; 3], patch: &mut Patch) -> Result<()> {
    let [d, h, w] = patch.shape;
    let start: [i64; 3] = std::array::from_fn(|a| (centre[a] - (patch.shape[a] as f64 - 1.0) / 2.0).round() as i64);
    // The columns of the patch that lie in the sample.
    let inside = |a: usize| {
        let size = sample.shape[a] as i64;
        let first = (-start[a]).clamp(0, patch.shape[a] as i64);
        let last = (size - start[a]).clamp(first, patch.shape[a] as i64);
        first as usize..last as usize
    };
    let [slices, rows, columns] = [inside(0), inside(1), inside(2)];
    if slices.is_empty() || rows.is_empty() || columns.is_empty() {
        return Ok(());
    }
    let at = |a: usize, i: usize| (start[a] + i as i64) as usize;
    let ranges = [(0, &slices), (1, &rows), (2, &columns)].map(|(a, range)| at(a, range.start)..at(a, range.end));
    let window = sample.window(ranges)?;
    let voxels = window.labels.len();
    for z in slices {
        for y in rows.clone() {
            let from = window.offset([at(0, z), at(1, y), at(2, columns.start)]);
            let to = (z * h + y) * w + columns.start;
            let length = columns.len();
            patch.labels[to..][..length].copy_from_slice(&window.labels[from..][..length]);
            for channel in 0..sample.channels() {
                let source = &window.image[channel * voxels + from..][..length];
                patch.image[channel * d * h * w + to..][..length].copy_from_slice(source);
            }
        }
    }
    Ok(())
}

fn resample(sample: &Sample, centre: [f64; 3], matrix: [[f64; 3]; 3], patch: &mut Patch) -> Result<()> {
    let [d, h, w] = patch.shape;
    let middle = patch.shape.map(|size| (size as f64 - 1.0) / 2.0);
    // The voxels on both sides of every place. Sums in another order differ by less than the margin.
    let window = sample.window(std::array::from_fn(|a| {
        let reach = (0..3).map(|b| (matrix[a][b] * middle[b]).abs()).sum::<f64>() + 1e-3;
        let within = |place: f64| place.clamp(0.0, sample.shape[a] as f64) as usize;
        within((centre[a] - reach).floor())..within((centre[a] + reach).floor() + 2.0)
    }))?;
    for i in 0..d * h * w {
        let from = [i / w / h, i / w % h, i % w];
        let offset: [f64; 3] = std::array::from_fn(|a| from[a] as f64 - middle[a]);
        let place: [f64; 3] =
            std::array::from_fn(|a| centre[a] + (0..3).map(|b| matrix[a][b] * offset[b]).sum::<f64>());
        let corners = Corners::at(place, sample.shape, &window);
        patch.labels[i] = corners.label(&window.labels);
        for channel in 0..sample.channels() {
            let values = &window.image[channel * window.labels.len()..];
            patch.image[channel * d * h * w + i] = corners.value(values);
        }
    }
    Ok(())
}

/// The eight voxels around a place.
struct Corners {
    /// Offsets in the window; None outside the sample.
    at: [Option<usize>; 8],
    weights: [f32; 8],
    /// The corner that is nearest.
    nearest: usize,
}

impl Corners {
    fn at(place: [f64; 3], shape: [usize; 3], window: &Window<'_>) -> Self {
        let low = place.map(f64::floor);
        let share: [f32; 3] = std::array::from_fn(|a| (place[a] - low[a]) as f32);
        let corner = |c: usize, a: usize| c >> (2 - a) & 1;
        let at = std::array::from_fn(|c| {
            let voxel: [i64; 3] = std::array::from_fn(|a| low[a] as i64 + corner(c, a) as i64);
            let is_inside = (0..3).all(|a| (0..shape[a] as i64).contains(&voxel[a]));
            is_inside.then(|| window.offset(voxel.map(|i| i as usize)))
        });
        let weight = |c: usize, a: usize| if corner(c, a) == 1 { share[a] } else { 1.0 - share[a] };
        let weights = std::array::from_fn(|c| weight(c, 0) * weight(c, 1) * weight(c, 2));
        // A half rounds to the later voxel.
        let nearest = (0..3).fold(0, |nearest, a| nearest * 2 + usize::from(share[a] >= 0.5));
        Self { at, weights, nearest }
    }

    fn value(&self, values: &[f32]) -> f32 {
        (0..8).map(|c| self.at[c].map_or(0.0, |offset| self.weights[c] * values[offset])).sum()
    }

    fn label(&self, labels: &[u8]) -> u8 {
        let found = self.at.map(|offset| offset.map_or(NO_LABEL, |offset| labels[offset]));
        let nearest = found[self.nearest];
        if found.iter().all(|label| *label == nearest) {
            return nearest;
        }
        let votes = |label: u8| (0..8).filter(|&c| found[c] == label).map(|c| self.weights[c]).sum::<f32>();
        let most = found.iter().map(|label| votes(*label)).fold(0.0, f32::max);
        if votes(nearest) >= most {
            return nearest;
        }
        // nnU-Net's -1 is the lowest of all.
        let order = |label: &u8| if *label == NO_LABEL { -1 } else { i32::from(*label) };
        found.into_iter().filter(|label| votes(*label) >= most).min_by_key(order).unwrap_or(nearest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let shape = [5, 6, 7];
        let image: Vec<f32> = (0..210).map(|i| (i / 42 * 100 + i / 7 % 6 * 10 + i % 7) as f32).collect();
        let labels: Vec<u8> = (0..210).map(|i| u8::from(i % 7 >= 3)).collect();
        Sample::new("a", image, labels, shape, 2).expect("a sample")
    }

    const IDENTITY: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

    #[test]
    fn a_crop_and_the_identity_are_the_same() {
        let sample = sample();
        for (shape, centre) in
            [([4, 4, 4], [2.5, 1.5, 3.5]), ([3, 5, 9], [0.0, 5.0, 3.0]), ([2, 2, 2], [30.5, 0.5, 0.5])]
        {
            let cropped = cut(&sample, &Placement { centre, matrix: None }, shape).expect("a patch");
            let resampled = cut(&sample, &Placement { centre, matrix: Some(IDENTITY) }, shape).expect("a patch");
            assert_eq!(cropped, resampled, "{shape:?}");
        }
        let patch = cut(&sample, &Placement { centre: [2.5, 1.5, 3.5], matrix: None }, [4, 4, 4]).expect("a patch");
        assert_eq!(patch.image[..5], [102.0, 103.0, 104.0, 105.0, 112.0]);
        assert_eq!(patch.labels[..4], [0, 1, 1, 1]);
        // Beside the sample along every axis, and along x alone.
        for centre in [[-9.0; 3], [2.0, 2.0, -50.0], [2.0, 2.0, 1000.0], [2.0, 50.0, 2.0]] {
            let outside = cut(&sample, &Placement { centre, matrix: None }, [3, 3, 3]).expect("a patch");
            assert!(outside.image.iter().all(|v| *v == 0.0) && outside.labels.iter().all(|l| *l == NO_LABEL));
        }
    }

    /// The image is linear, and so is every resampling of it inside the sample.
    #[test]
    fn a_rotated_and_scaled_ramp_has_its_exact_values() {
        let (sin, cos) = 0.3f64.sin_cos();
        let matrix = [[0.7, 0.0, 0.0], [0.0, 0.7 * cos, -0.7 * sin], [0.0, 0.7 * sin, 0.7 * cos]];
        let centre = [2.0, 2.5, 3.0];
        let patch = cut(&sample(), &Placement { centre, matrix: Some(matrix) }, [3, 3, 3]).expect("a patch");
        for (i, got) in patch.image.iter().enumerate() {
            let offset = [i / 9, i / 3 % 3, i % 3].map(|i| i as f64 - 1.0);
            let at: [f64; 3] =
                std::array::from_fn(|a| centre[a] + (0..3).map(|b| matrix[a][b] * offset[b]).sum::<f64>());
            let want = at[0] * 100.0 + at[1] * 10.0 + at[2];
            // Eight products and sums of values below 500.
            assert!((f64::from(*got) - want).abs() <= 20.0 * 500.0 * f64::from(f32::EPSILON), "{got} for {want}");
            assert_eq!(patch.labels[i], u8::from(at[2] >= 2.5), "{at:?}");
        }
    }

    #[test]
    fn the_padding_has_a_vote() {
        let labels = vec![1; 8];
        let sample = Sample::new("a", vec![1.0; 8], labels, [2; 3], 2).expect("a sample");
        let at = |x: f64| {
            let placement = Placement { centre: [0.0, 0.0, x], matrix: Some(IDENTITY) };
            let patch = cut(&sample, &placement, [1; 3]).expect("a patch");
            (patch.image[0], patch.labels[0])
        };
        assert_eq!(at(1.25), (0.75, 1));
        assert_eq!(at(1.75), (0.25, NO_LABEL));
        // A tie is the nearest voxel's, and a half is nearer to the later one.
        assert_eq!(at(1.5), (0.5, NO_LABEL));
        assert_eq!(at(-0.5), (0.5, 1));
    }
}
