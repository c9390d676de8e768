//! Launching the stem kernel.

use cubecl::prelude::*;
use nephron_kernels::conv3d::stem;

use super::launch::{Conv3dHandles, Launch, bias_or_nothing, geometry};
use crate::error::Result;
use crate::ops::conv_plan::StemTile;
use crate::ops::launch::{array, with_float};

impl<R: Runtime> Launch<'_, R> {
    pub(super) fn stem(&self, tile: &StemTile) -> Result<()> {
        let Conv3dHandles { x, w, b, y, .. } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (count, dim) = self.plan.grid.dimensions()?;
        let bias = bias_or_nothing(self.client, b);
        // SAFETY: inputs are read where the checks say that they exist, weights below co. Outputs are stored below co and
        // the output's extents, `store` of them within a voxel's channels. `Brick` sizes shared memory for all that its
        // threads read.
        with_float!(self.dtype, F => unsafe {
            stem::conv3d_stem::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                tile.store,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                geometry(self.problem),
                self.problem.output_shape()[0],
                b.is_some().into(),
                tile.brick,
            )
        });
        Ok(())
    }
}
