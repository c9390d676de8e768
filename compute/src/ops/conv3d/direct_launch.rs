//! Launching the direct kernels.

use cubecl::prelude::*;
use nephron_kernels::conv3d::direct;

use super::launch::{Conv3dHandles, Launch, bias_or_nothing, geometry};
use crate::error::Result;
use crate::ops::launch::{array, with_float};

impl<R: Runtime> Launch<'_, R> {
    /// Launches the kernel whose threads compute `channels` outputs each, a divisor of a group's channels.
    pub(super) fn direct(&self, channels: usize) -> Result<()> {
        let Conv3dHandles { x, w, b, y, .. } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (count, dim) = self.plan.grid.dimensions()?;
        let bias = bias_or_nothing(self.client, b);
        // SAFETY: a thread writes the `channels` outputs at its position, below the length of y. The loops are cut to taps
        // whose input voxel exists, and the problem's shapes agree with the buffers.
        with_float!(self.dtype, F => unsafe {
            direct::conv3d_direct::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                geometry(self.problem),
                b.is_some(),
                channels,
            )
        });
        Ok(())
    }
}
