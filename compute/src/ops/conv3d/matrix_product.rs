//! Launching the tiled matrix products, whose sums may be split over cubes.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::finish::{self, EpilogueLaunch};
use nephron_kernels::conv3d::{implicit_gemm, register_blocked};

use super::gpu::{Conv3dHandles, Launch, bias_or_nothing};
use super::tiling::Tiling;
use crate::error::Result;
use crate::ops::launch::{array, cube_grid, grid, with_float};
use crate::tensor::DType;

impl<R: Runtime> Launch<'_, R> {
    /// Voxels of the output, and cubes that make `tiling`'s tiles and splits of it.
    fn rows_and_cubes(&self, tiling: &Tiling) -> Result<(usize, CubeCount)> {
        let [n, co, od, oh, ow] = self.problem.output_shape();
        let rows = n * od * oh * ow;
        Ok((rows, cube_grid(rows.div_ceil(tiling.tiles.m) * co.div_ceil(tiling.tiles.n) * tiling.splits)?))
    }

    pub(super) fn register_blocked(&self, tiling: &Tiling, width: usize) -> Result<()> {
        let Conv3dHandles { x, w, b, .. } = self.buffers;
        let [x_len, w_len, b_len, _] = self.lengths();
        let (rows, count) = self.rows_and_cubes(tiling)?;
        let bias = bias_or_nothing(self.client, b);
        let target = self.target(tiling);
        // SAFETY: outputs are stored below `rows`, co and the splits; inputs are loaded where the tap's bits say that they
        // exist, else from element 0; the tiling divides its tiles among its units (a test), so shared indices stay in
        // their stage; the residual is read where it is there, at the element that is stored.
        with_float!(self.dtype, F => with_float!(target.dtype, O => unsafe {
            register_blocked::conv3d_register_blocked::launch_unchecked::<F, O, R>(
                self.client,
                count,
                CubeDim::new_1d(tiling.tiles.units as u32),
                width,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(&target.residual, target.residual_len),
                array(&target.y, target.len),
                self.problem.geometry(),
                rows,
                tiling.splits,
                target.epilogue(self),
                tiling.tiles,
                tiling.block,
            )
        }));
        self.finish_parts(tiling, &target)
    }

    pub(super) fn implicit_gemm(&self, tiling: &Tiling, width: usize) -> Result<()> {
        let Conv3dHandles { x, w, b, .. } = self.buffers;
        let [x_len, w_len, b_len, _] = self.lengths();
        let (rows, count) = self.rows_and_cubes(tiling)?;
        let bias = bias_or_nothing(self.client, b);
        let target = self.target(tiling);
        // SAFETY: as above; `pair` divides co, so a store never crosses into the next voxel.
        with_float!(self.dtype, F => with_float!(target.dtype, O => unsafe {
            implicit_gemm::conv3d_implicit_gemm::launch_unchecked::<F, O, R>(
                self.client,
                count,
                CubeDim::new_1d(tiling.tiles.units as u32),
                width,
                self.pair(),
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(&target.residual, target.residual_len),
                array(&target.y, target.len),
                self.problem.geometry(),
                rows,
                tiling.splits,
                target.epilogue(self),
                tiling.tiles,
                tiling.planes,
                tiling.step,
            )
        }));
        self.finish_parts(tiling, &target)
    }

    /// Channels that a unit stores at a time.
    fn pair(&self) -> usize {
        if self.problem.weight_shape()[0].is_multiple_of(2) { 2 } else { 1 }
    }

    /// What a kernel that may split its sums writes.
    fn target(&self, tiling: &Tiling) -> Target {
        let y_len = self.lengths()[3];
        let nothing = || self.client.empty(self.pair() * size_of::<f32>());
        if tiling.splits > 1 {
            let len = tiling.splits * y_len;
            let y = self.client.empty(len * size_of::<f32>());
            return Target { dtype: DType::F32, y, len, residual: nothing(), residual_len: self.pair(), parts: true };
        }
        let (residual, residual_len) =
            self.buffers.residual.map_or_else(|| (nothing(), self.pair()), |r| (r.clone(), y_len));
        Target { dtype: self.dtype, y: self.buffers.y.clone(), len: y_len, residual, residual_len, parts: false }
    }

    /// The sum of the parts and the epilogue, where sums were split.
    fn finish_parts(&self, tiling: &Tiling, target: &Target) -> Result<()> {
        if !target.parts {
            return Ok(());
        }
        let Conv3dHandles { b, residual, y, .. } = self.buffers;
        let ([_, _, b_len, y_len], pair) = (self.lengths(), self.pair());
        let (count, dim) = grid(y_len / pair)?;
        let bias = b.cloned().unwrap_or_else(|| self.client.empty(pair * size_of::<f32>()));
        let rest = residual.cloned().unwrap_or_else(|| self.client.empty(pair * size_of::<f32>()));
        // SAFETY: a unit writes the vector of its position, below the length of y, and reads it in each of the splits, in
        // the residual and, by its channel, in the bias, where those are there.
        with_float!(self.dtype, F => unsafe {
            finish::finish_parts::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                pair,
                array(&target.y, target.len),
                array(&bias, b_len.max(pair)),
                array(&rest, if residual.is_some() { y_len } else { pair }),
                array(y, y_len),
                tiling.splits,
                self.problem.weight_shape()[0] / pair,
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
