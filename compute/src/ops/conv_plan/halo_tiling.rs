//! The tiles that the halo kernel may run with on a device, and what the kernel cannot do.

use std::fmt;

use nephron_kernels::conv3d::halo::Bricks;
use nephron_kernels::conv3d::implicit_gemm::{PLANE, Planes, Step};

use super::algorithm::Conv3dAlgorithm;
use super::capabilities::DeviceCaps;
use super::gemm_tiling::stored_pair;
use crate::error::Error;
use crate::ops::conv_problem::Conv3dProblem;
use crate::tensor::Tensor;

/// A tile of output voxels and channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HaloTile {
    /// The tile and its halo in shared memory.
    pub(crate) bricks: Bricks,
    /// How the planes of a cube share the tile.
    pub(crate) planes: Planes,
    /// What multiplies.
    pub(crate) step: Step,
    /// Input channels that a thread loads at once.
    pub(crate) width: usize,
    /// Output channels that a thread stores at once.
    pub(crate) store: usize,
}

impl HaloTile {
    /// Whether the kernel can read these tensors as one input. It takes whole chunks of channels from either of two.
    pub(crate) fn reads_two(&self, xs: &[Tensor]) -> bool {
        matches!(xs, [first, _] if first.shape()[1].is_multiple_of(self.bricks.chunk))
    }

    /// Tiles of one image of `problem`.
    pub(crate) fn per_image(&self, problem: &Conv3dProblem) -> usize {
        let [_, _, spatial @ ..] = problem.output_shape();
        (0..3).map(|a| spatial[a].div_ceil(self.bricks.voxels[a])).product()
    }
}

impl fmt::Display for HaloTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bricks { voxels: [z, y, x], n, chunk, units, .. } = self.bricks;
        write!(f, "{z} x {y} x {x} voxels, {n} channels, {chunk} at a time, {units} units")
    }
}

/// What the kernel cannot do with this problem of one group. Its weights are staged one tap along x at a time, two ahead.
pub(super) fn obstacle(problem: &Conv3dProblem) -> Option<Error> {
    let p = problem.params();
    let [.., kz, ky, kx] = problem.weight_shape();
    let halo = Conv3dAlgorithm::Halo;
    if p.stride != [1; 3] {
        return halo.refuse("stride", "[1, 1, 1]", format!("{:?}", p.stride));
    }
    if p.dilation != [1; 3] {
        return halo.refuse("dilation", "[1, 1, 1]", format!("{:?}", p.dilation));
    }
    if ![kz, ky].iter().all(|k| [1, 3].contains(k)) || kx != 3 {
        return halo.refuse("kernel", "1 or 3 along z and y, 3 along x", format!("{:?}", [kz, ky, kx]));
    }
    None
}

/// Voxels, channels, and the planes along each. The operands of a matrix instruction fill registers, so a plane computes
/// 64 x 32 outputs. Tiles for ordinary arithmetic are small, since they have to fit the least of shared memories. Sides are
/// powers of two ([`Bricks::halo_step`]).
fn shape(matrix: bool, flat: bool) -> ([usize; 3], usize, [usize; 2]) {
    match (matrix, flat) {
        (true, false) => ([4, 8, 8], 32, [4, 1]),
        (true, true) => ([1, 16, 16], 32, [4, 1]),
        (false, false) => ([2, 4, 8], 32, [2, 1]),
        (false, true) => ([1, 8, 8], 32, [2, 1]),
    }
}

/// The tile for a problem that [`obstacle`] lets through, if it fits the device.
pub(super) fn tile(problem: &Conv3dProblem, caps: &DeviceCaps) -> Option<HaloTile> {
    let [co, ci, kz, ky, kx] = problem.weight_shape();
    let width = caps.vector_width(ci);
    let (voxels, n, [m_planes, n_planes]) = shape(caps.multiplies(width), problem.output_shape()[2] == 1);
    let tile = HaloTile {
        bricks: Bricks {
            voxels,
            kernel: [kz, ky, kx],
            n,
            chunk: if ci <= 16 || caps.dtype.size() == 4 { 16 } else { 32 },
            units: m_planes * n_planes * PLANE,
            bytes: caps.dtype.size(),
            transfer: caps.transfer(width),
        },
        planes: Planes { m: m_planes, n: n_planes },
        step: caps.step(width),
        width,
        store: stored_pair(co),
    };
    fits(&tile, caps).then_some(tile)
}

fn fits(tile: &HaloTile, caps: &DeviceCaps) -> bool {
    let t = tile.bricks;
    t.units.is_multiple_of(t.chunk / tile.width)
        && t.shared_bytes(tile.planes.m) <= caps.shared_bytes
        && t.units <= caps.max_units
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The halo row under output voxel `m`, by its coordinates.
    fn row(t: &Bricks, m: usize) -> usize {
        let ([_, along_y, along_x], [_, halo_y, halo_x]) = (t.voxels, t.halo());
        let (z, y, x) = (m / along_x / along_y, m / along_x % along_y, m % along_x);
        (z * halo_y + y) * halo_x + x
    }

    /// The kernel reaches a lane's rows from its first one by constants; here each is computed on its own.
    #[test]
    fn the_rows_of_a_lane_are_constant_steps_apart() {
        for (voxels, n, [planes, _]) in
            [(true, true), (true, false), (false, true), (false, false)].map(|(m, f)| shape(m, f))
        {
            for kernel in [[3, 3, 3], [1, 3, 3], [3, 1, 3], [1, 1, 3]] {
                let transfer = nephron_kernels::conv3d::staging::Transfer::Direct;
                let t = Bricks { voxels, kernel, n, chunk: 16, units: planes * PLANE, bytes: 2, transfer };
                assert!(voxels.iter().all(|v| v.is_power_of_two()) && t.m().is_multiple_of(16 * planes));
                let each = t.m() / planes;
                for plane in 0..planes {
                    // Lanes start on one of 16 rows and step by 16, or on one of 8 and step by 8.
                    for rows in [8, 16] {
                        for (first, step) in (0..rows).flat_map(|r| (0..each).step_by(rows).map(move |s| (r, s))) {
                            let start = plane * each + first;
                            assert_eq!(
                                row(&t, start) + t.halo_step(step),
                                row(&t, start + step),
                                "{t:?} {start} {step}"
                            );
                        }
                    }
                }
            }
        }
    }
}
