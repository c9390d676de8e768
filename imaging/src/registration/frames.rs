//! Conversions between the parameters in normalised coordinates, maps from index to index, and maps of the patient's space.

use crate::volume::{Affine, Grid};
use nephron_compute::error::Result;
use nephron_compute::ops::affine_dice::{Frame, Matrix};

/// The number of voxels along (x, y, z).
pub(super) fn size(grid: &Grid) -> [usize; 3] {
    let [d, h, w] = grid.shape;
    [w, h, d]
}

/// PyTorch's normalised coordinates of both grids. Along an axis of size 1, `align_corners` would map every coordinate to one
/// point and could not be inverted; there -1 and 1 are the outer edges of the grid. The samples are the same.
pub(super) fn frame(fixed: &Grid, moving: &Grid, align_corners: bool) -> Frame {
    let (fixed, moving) = (size(fixed), size(moving));
    let mut frame = Frame::normalised(fixed, moving, align_corners);
    let edges = Frame::normalised(fixed, moving, false);
    for k in 0..3 {
        if fixed[k] == 1 {
            (frame.input.scale[k], frame.input.offset[k]) = (edges.input.scale[k], edges.input.offset[k]);
        }
        if moving[k] == 1 {
            (frame.output.scale[k], frame.output.offset[k]) = (edges.output.scale[k], edges.output.offset[k]);
        }
    }
    frame
}

/// The matrix in normalised coordinates (`frame`) of a map from index to index.
pub(super) fn parameters(frame: &Frame, matrix: &Matrix) -> Result<Matrix> {
    let (input, output) = (Affine(frame.input.matrix()).inverse()?, Affine(frame.output.matrix()).inverse()?);
    Ok(output.after(&Affine(*matrix).after(&input)).0)
}

/// The map from index to index that belongs to a map of the patient's space: index of `fixed` -> millimetres -> `world` -> index
/// of `moving`.
pub(super) fn index_map(fixed: &Grid, moving: &Grid, world: &Affine) -> Result<Matrix> {
    Ok(moving.affine.inverse()?.after(&world.after(&fixed.affine)).0)
}

/// The map of the patient's space that belongs to a map from index to index.
pub(super) fn world_map(fixed: &Grid, moving: &Grid, matrix: &Matrix) -> Result<Affine> {
    Ok(moving.affine.after(&Affine(*matrix).after(&fixed.affine.inverse()?)))
}
