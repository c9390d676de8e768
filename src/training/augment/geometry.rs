//! Where patches lie, and how they are rotated and scaled.
//!
//! Source: nnU-Net v2.8.1, `nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size`, `nnUNetDataLoader.get_bbox`
//! and `compute_initial_patch_size`.

use std::f64::consts::PI;

use rand::Rng;

use crate::training::data::Sample;

/// Longest over first axis of a patch above which rotations stay inside the slices.
const ANISOTROPY: f64 = 3.0;
/// nnU-Net reserves a margin for objects scaled by this, although it scales them down to 0.7.
const LEAST_SCALE: f64 = 0.85;
/// Share of a batch's patches that are placed on a foreground voxel.
const FOREGROUND: f64 = 0.33;

/// The geometry of patches and its augmentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatchGeometry {
    /// Voxels of a patch along (z, y, x).
    pub patch: [usize; 3],
    /// Whether slices are rotated and scaled in their plane alone.
    pub in_plane: bool,
    /// Largest angle of a rotation about each axis, in radians.
    pub largest_angle: f64,
    /// The voxels that a rotated and scaled patch is cut from, as nnU-Net counts them: where a patch may lie depends on it.
    pub initial: [usize; 3],
}

/// Where the voxels of a patch come from: voxel i of it lies at `centre` + `matrix` (i - (patch - 1) / 2) of the sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// The voxel of the sample at the patch's centre, between voxels for a patch of even size.
    pub centre: [f64; 3],
    /// None for the patch as it is.
    pub matrix: Option<[[f64; 3]; 3]>,
}

impl PatchGeometry {
    /// nnU-Net's rules for a patch, which has one slice in a `planar` network: rotations of at most 30 degrees about every axis; in
    /// the plane alone where the patch is over three times as long as it has slices, and then by any angle; at most 15 degrees for
    /// slices over one and a half times as long as wide.
    pub fn new(patch: [usize; 3], planar: bool) -> Self {
        let longest = patch.iter().copied().max().unwrap_or(1) as f64;
        let [z, y, x] = patch.map(|p| p as f64);
        let in_plane = planar || longest / z > ANISOTROPY;
        let degrees = match (planar, in_plane) {
            (true, _) if y.max(x) / y.min(x) > 1.5 => 15.0,
            (_, true) => 180.0,
            _ => 30.0,
        };
        let largest_angle = degrees / 180.0 * PI;
        let (sin, cos) = largest_angle.min(PI / 2.0).sin_cos();
        let rotated = |a: f64, b: f64| [(a * cos + b * sin).abs(), (b * cos - a * sin).abs()];
        let mut size = [z, y, x];
        let mut grow = |[a, b]: [usize; 2], [p, q]: [f64; 2]| {
            size[a] = size[a].max(p);
            size[b] = size[b].max(q);
        };
        grow([1, 2], rotated(y, x));
        if !planar {
            // This one turns the other way.
            let [x_end, z_end] = rotated(x, z);
            grow([2, 0], [x_end, z_end]);
            grow([0, 1], rotated(z, y));
        }
        let mut initial = size.map(|s| (s / LEAST_SCALE) as usize);
        if in_plane {
            initial[0] = patch[0];
        }
        Self { patch, in_plane, largest_angle, initial }
    }

    /// Whether patch `index` of a batch is placed on a foreground voxel: the last third of them.
    pub fn forces_foreground(index: usize, batch: usize) -> bool {
        index as f64 >= (batch as f64 * (1.0 - FOREGROUND)).round_ties_even()
    }

    /// Draws a patch of a sample.
    pub fn place(&self, sample: &Sample, foreground: bool, rng: &mut impl Rng) -> [f64; 3] {
        let classes: Vec<&Vec<usize>> = sample.locations.iter().filter(|found| !found.is_empty()).collect();
        let chosen = (foreground && !classes.is_empty()).then(|| {
            let voxels = classes[rng.random_range(0..classes.len())];
            let offset = voxels[rng.random_range(0..voxels.len())];
            let [_, h, w] = sample.shape;
            [offset / w / h, offset / w % h, offset % w]
        });
        std::array::from_fn(|a| {
            let (size, initial, patch) = (sample.shape[a] as i64, self.initial[a] as i64, self.patch[a] as i64);
            let padding = (initial - patch).max(initial - size);
            let least = -((padding + 1) / 2);
            let most = size + (padding + 1) / 2 - initial;
            let start = match chosen {
                Some(voxel) => least.max(voxel[a] as i64 - initial / 2),
                None => rng.random_range(least..=most.max(least)),
            };
            // The middle of nnU-Net's initial patch, which the patch is cut from.
            (start + initial / 2 - patch / 2) as f64 + (patch - 1) as f64 / 2.0
        })
    }

    /// Draws rotation and scaling: each with probability 0.2, an angle for each axis up to the largest, one scale of 0.7 to 1.4 for
    /// all axes, where larger makes objects smaller.
    pub fn transform(&self, rng: &mut impl Rng) -> Option<[[f64; 3]; 3]> {
        let (rotates, scales) = (rng.random_bool(0.2), rng.random_bool(0.2));
        let mut angle = || if rotates { rng.random_range(-self.largest_angle..=self.largest_angle) } else { 0.0 };
        let angles = [angle(), angle(), angle()];
        let scale = if scales { rng.random_range(0.7..=1.4) } else { 1.0 };
        if !rotates && !scales {
            return None;
        }
        let turn = |[a, b]: [usize; 2], angle: f64| {
            let mut matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0f64]];
            let (sin, cos) = angle.sin_cos();
            (matrix[a][a], matrix[a][b], matrix[b][a], matrix[b][b]) = (cos, -sin, sin, cos);
            matrix
        };
        let mut matrix = turn([1, 2], if self.in_plane { angles[2] } else { angles[0] });
        if !self.in_plane {
            matrix = product(turn([0, 1], angles[2]), product(turn([2, 0], angles[1]), matrix));
        }
        for (row, values) in matrix.iter_mut().enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                *value *= if self.in_plane && (row == 0 || column == 0) { 1.0 } else { scale };
            }
        }
        Some(matrix)
    }
}

fn product(a: [[f64; 3]; 3], b: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Sizes that nnU-Net computes.
    #[test]
    fn initial_patches_are_nnunets() {
        let cases = [
            ([80, 160, 160], false, [175, 257, 210]),
            ([128, 128, 128], false, [205, 205, 205]),
            ([32, 64, 48], false, [70, 93, 67]),
            ([96, 40, 56], false, [121, 73, 113]),
            ([8, 64, 64], false, [8, 75, 75]),
            ([14, 256, 224], false, [14, 301, 301]),
            ([1, 256, 224], true, [1, 301, 301]),
            ([1, 320, 128], true, [1, 402, 150]),
        ];
        for (patch, planar, want) in cases {
            assert_eq!(PatchGeometry::new(patch, planar).initial, want, "{patch:?}");
        }
    }

    #[test]
    fn rotations_keep_lengths_and_scales_are_in_range() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (free, flat) = (PatchGeometry::new([32; 3], false), PatchGeometry::new([8, 64, 64], false));
        assert!(!free.in_plane && flat.in_plane);
        let mut drawn = 0;
        for _ in 0..4000 {
            let Some(m) = free.transform(&mut rng) else { continue };
            drawn += 1;
            let scale = (0..3).map(|i| m[i][0] * m[i][0]).sum::<f64>().sqrt();
            assert!((0.7 - 1e-12..=1.4 + 1e-12).contains(&scale), "{scale}");
            for (a, b) in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)] {
                let dot: f64 = (0..3).map(|i| m[i][a] * m[i][b]).sum();
                let want = if a == b { scale * scale } else { 0.0 };
                assert!((dot - want).abs() < 1e-12);
            }
            let Some(m) = flat.transform(&mut rng) else { continue };
            assert_eq!([m[0], [m[0][0], m[1][0], m[2][0]]], [[1.0, 0.0, 0.0]; 2]);
        }
        // 1 - 0.8 * 0.8 of them, to within six standard deviations.
        assert!((f64::from(drawn) - 1440.0).abs() < 6.0 * (4000.0 * 0.36 * 0.64f64).sqrt(), "{drawn}");
    }

    #[test]
    fn a_third_of_a_batch_is_placed_on_foreground() {
        let forced = |batch| (0..batch).filter(|&i| PatchGeometry::forces_foreground(i, batch)).collect::<Vec<_>>();
        assert_eq!(forced(2), [1]);
        assert_eq!(forced(3), [2]);
        assert_eq!(forced(12), [8, 9, 10, 11]);
        let mut labels = vec![0; 40 * 40 * 40];
        labels[(37 * 40 + 3) * 40 + 20] = 1;
        let sample = Sample::new("a", vec![0.0; labels.len()], labels, [40; 3], 2).expect("a sample");
        let geometry = PatchGeometry::new([16; 3], false);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut places = Vec::new();
        for _ in 0..200 {
            let start = geometry.place(&sample, true, &mut rng).map(|c| c - 7.5);
            let inside = |voxel: f64, a: usize| (start[a]..start[a] + 16.0).contains(&voxel);
            assert!(inside(37.0, 0) && inside(3.0, 1) && inside(20.0, 2), "{start:?}");
            places.push(geometry.place(&sample, false, &mut rng));
        }
        // Anywhere else, up to half of the padding beyond the sample.
        let least = places.iter().map(|c| c[0]).fold(f64::INFINITY, f64::min);
        let most = places.iter().map(|c| c[0]).fold(f64::NEG_INFINITY, f64::max);
        assert!(least < 10.0 && most > 29.0, "{least} {most}");
    }
}
