//! Launching the kernel for 1x1x1 weights to few output channels.

use cubecl::prelude::*;
use nephron_kernels::conv3d::pointwise;

use super::launch::{Conv3dHandles, Launch, bias_or_nothing};
use crate::error::Result;
use crate::ops::launch::{array, with_float};

impl<R: Runtime> Launch<'_, R> {
    /// Launches the kernel whose threads read `width` input channels at once, a divisor of their number.
    pub(super) fn pointwise(&self, width: usize) -> Result<()> {
        let Conv3dHandles { x, w, b, y, .. } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let [co, ci, ..] = self.problem.weight_shape();
        let (count, dim) = self.plan.grid.dimensions()?;
        let bias = bias_or_nothing(self.client, b);
        let voxels = y_len / co;
        // SAFETY: a thread reads and writes the channels of the voxel at its position, below `voxels`; `width` divides ci.
        with_float!(self.dtype, F => unsafe {
            pointwise::conv3d_pointwise::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                width,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                voxels,
                b.is_some().into(),
                ci,
                co,
            )
        });
        Ok(())
    }
}
