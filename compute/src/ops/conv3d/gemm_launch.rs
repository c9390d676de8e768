//! Launching the tiled matrix products, whose sums may be split over cubes (split-K).

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::finish::{self, EpilogueLaunch};
use nephron_kernels::conv3d::{implicit_gemm, register_blocked};

use super::launch::{Conv3dHandles, Launch, bias_or_nothing, geometry};
use crate::error::Result;
use crate::ops::conv_plan::{GemmTile, RegisterBlockedTile};
use crate::ops::launch::{array, grid, with_float};
use crate::tensor::DType;

impl<R: Runtime> Launch<'_, R> {
    pub(super) fn register_blocked(&self, tile: &RegisterBlockedTile) -> Result<()> {
        let Conv3dHandles { x, w, b, .. } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (count, dim) = self.plan.grid.dimensions()?;
        let bias = bias_or_nothing(self.client, b);
        let target = self.target(tile.splits, tile.store);
        // SAFETY: outputs are stored below the rows, co and the splits. Inputs are loaded where the tap's bits say that they
        // exist, else from element 0. The threads of a cube share its tile out evenly (a test), so shared indices stay in
        // their stage. A residual that exists is read at the element that is stored.
        with_float!(self.dtype, F => with_float!(target.dtype, O => unsafe {
            register_blocked::conv3d_register_blocked::launch_unchecked::<F, O, R>(
                self.client,
                count,
                dim,
                tile.width,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(&target.residual, target.residual_len),
                array(&target.y, target.len),
                geometry(self.problem),
                y_len / self.problem.weight_shape()[0],
                tile.splits,
                target.epilogue(self),
                tile.tiles,
                tile.block,
            )
        }));
        self.finish_parts(tile.splits, tile.store, &target)
    }

    pub(super) fn implicit_gemm(&self, tile: &GemmTile) -> Result<()> {
        let Conv3dHandles { x, w, b, .. } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (count, dim) = self.plan.grid.dimensions()?;
        let bias = bias_or_nothing(self.client, b);
        let target = self.target(tile.splits, tile.store);
        // SAFETY: as above; `store` divides co, so a store never crosses into the next voxel.
        with_float!(self.dtype, F => with_float!(target.dtype, O => unsafe {
            implicit_gemm::conv3d_implicit_gemm::launch_unchecked::<F, O, R>(
                self.client,
                count,
                dim,
                tile.width,
                tile.store,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(&target.residual, target.residual_len),
                array(&target.y, target.len),
                geometry(self.problem),
                y_len / self.problem.weight_shape()[0],
                tile.splits,
                target.epilogue(self),
                tile.tiles,
                tile.planes,
                tile.step,
            )
        }));
        self.finish_parts(tile.splits, tile.store, &target)
    }

    /// What a kernel writes that cuts its sums into `splits` parts and stores `store` channels at once.
    fn target(&self, splits: usize, store: usize) -> Target {
        let y_len = self.lengths()[3];
        let nothing = || self.client.empty(store * size_of::<f32>());
        if splits > 1 {
            let len = splits * y_len;
            let y = self.client.empty(len * size_of::<f32>());
            return Target { dtype: DType::F32, y, len, residual: nothing(), residual_len: store, parts: true };
        }
        let (residual, residual_len) = self.buffers.residual.map_or_else(|| (nothing(), store), |r| (r.clone(), y_len));
        Target { dtype: self.dtype, y: self.buffers.y.clone(), len: y_len, residual, residual_len, parts: false }
    }

    /// Adds up the parts and applies the epilogue, where sums were split.
    fn finish_parts(&self, splits: usize, store: usize, target: &Target) -> Result<()> {
        if !target.parts {
            return Ok(());
        }
        let Conv3dHandles { b, residual, y, .. } = self.buffers;
        let [_, _, b_len, y_len] = self.lengths();
        let (count, dim) = grid(y_len / store)?;
        let bias = b.cloned().unwrap_or_else(|| self.client.empty(store * size_of::<f32>()));
        let rest = residual.cloned().unwrap_or_else(|| self.client.empty(store * size_of::<f32>()));
        // SAFETY: a thread writes the vector at its position, below the length of y, and reads it in each of the splits, in
        // the residual and, by its channel, in the bias, where those exist.
        with_float!(self.dtype, F => unsafe {
            finish::finish_parts::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                store,
                array(&target.y, target.len),
                array(&bias, b_len.max(store)),
                array(&rest, if residual.is_some() { y_len } else { store }),
                array(y, y_len),
                splits,
                self.problem.weight_shape()[0] / store,
                self.epilogue(),
            )
        });
        Ok(())
    }
}

/// Where a kernel that may split its sums stores them: straight into the output, or in parts of f32.
struct Target {
    dtype: DType,
    y: Handle,
    len: usize,
    residual: Handle,
    residual_len: usize,
    parts: bool,
}

impl Target {
    /// Parts are summed up before anything is done to them.
    fn epilogue<R: Runtime>(&self, launch: &Launch<'_, R>) -> EpilogueLaunch<R> {
        if self.parts { EpilogueLaunch::new(0, 0, 1.0) } else { launch.epilogue() }
    }
}
