//! The loss of registration and the resampling of a scan, each checked on a smaller case against its f64 reference.

use super::{Case, ensure_within, rounding, tensor, values};
use nephron::device::Device;
use nephron::error::Result;
use nephron::ops::affine_dice::{AffineDice, Frame, reference as dice_reference};
use nephron::ops::grid_sample::reference as grid_reference;
use nephron::ops::resample::reference as resample_reference;
use nephron::ops::{self, AffineDiceParams, Interpolation, Outside, PaddingMode, ResampleParams, SampleMode};
use nephron::tensor::{DType, Tensor};

pub(super) const CT: &str = "CT 200x512x512 i16 to 1.5x1.5x3 mm";

/// A deformation field over a volume: what resampling, augmentation and warping cost.
pub(super) const GRID: &str = "160^3, a grid of 160^3, trilinear";
const GRID_SIDE: usize = 160;

pub(super) fn labels_name([d, h, w]: [usize; 3]) -> String {
    format!("label maps {d}x{h}x{w}, a step")
}

const THETA: [[f64; 4]; 3] = [[1.02, 0.01, 0.0, 0.03], [-0.01, 0.98, 0.02, 0.0], [0.0, 0.01, 1.01, -0.05]];

/// Irregular labels 0 to 2, so that no region can be skipped.
fn labels(len: usize, offset: usize) -> Vec<u8> {
    values(len + offset)[offset..].iter().map(|v| (v.abs() * 3.0) as u8).collect()
}

pub(super) fn affine_dice(size: [usize; 3], device: &Device) -> Result<Case> {
    let params = AffineDiceParams::default();
    let maps = move |device: &Device, [d, h, w]: [usize; 3]| -> Result<[Tensor; 2]> {
        let map = |offset| Tensor::from_u8(device, [1, 1, d, h, w], labels(d * h * w, offset));
        Ok([map(0)?, map(7)?])
    };
    let [fixed, moving] = maps(device, size)?;
    let voxels = fixed.len() as f64;
    // One iteration is timed; the masks are prepared once for all iterations.
    let masks = AffineDice::new(&fixed, &moving, params.padding, &params.channels)?;
    let [d, h, w] = size;
    let frame = Frame::normalised([w, h, d], [w, h, d], params.align_corners);
    let step = move || -> Result<()> {
        let value = masks.sums(&frame.matrix(&THETA))?.value(params.smooth, &[0.5; 2]);
        std::hint::black_box(frame.gradient(&value.by_matrix));
        Ok(())
    };
    let on = device.clone();
    let check = move || {
        let small = [12, 14, 16];
        let [fixed, moving] = maps(&on, small)?;
        let got = ops::affine_dice(&fixed, &moving, &THETA, &params)?;
        let len = small.iter().product();
        let (fixed, moving) = (labels(len, 0), labels(len, 7));
        let want = dice_reference::affine_dice((&fixed, small), (&moving, small), &THETA, &params);
        let unit = 16.0 * f64::from(f32::EPSILON);
        ensure_within("affine_dice: loss", got.loss, want.loss, unit * want.loss_magnitude)?;
        for r in 0..3 {
            for c in 0..4 {
                let bound = unit * want.dtheta_magnitude[r][c];
                ensure_within("affine_dice: dtheta", got.dtheta[r][c], want.dtheta[r][c], bound)?;
            }
        }
        Ok(())
    };
    Ok(Case {
        op: "affine_dice",
        name: labels_name(size),
        // About 30 operations for the coordinates and weights of a voxel, about 60 for each channel's value, gradient and sums.
        flops: (30.0 + 60.0 * params.channels.count() as f64) * voxels,
        dtype: None,
        bytes: Some(2.0 * voxels),
        run: Box::new(step),
        check: Box::new(check),
    })
}

pub(super) fn grid_sample(device: &Device, dtype: DType) -> Result<Case> {
    let (mode, padding) = (SampleMode::Linear, PaddingMode::Border);
    let theta = |device: &Device| {
        let rows = THETA.iter().flatten().map(|v| *v as f32).collect();
        Tensor::from_ndhwc(device, [1, 1, 1, 3, 4], DType::F32, rows)
    };
    let side = GRID_SIDE;
    let x = tensor(device, [1, 1, side, side, side], dtype)?;
    let grid = ops::affine_grid3d(&theta(device)?, [1, 1, side, side, side], false)?;
    let on = device.clone();
    let check = move || {
        let size = [6, 7, 8];
        let shape = [1, 2, 6, 7, 8];
        let x = tensor(&on, shape, dtype)?;
        let grid = ops::affine_grid3d(&theta(&on)?, [1, 1, 6, 7, 8], false)?;
        let numbers = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
        let (data, points) = (numbers(x.to_ncdhw()?), numbers(grid.to_ndhwc()?));
        let want = grid_reference::grid_sample(&data, shape, &points, size, mode, padding, false);
        let found = ops::grid_sample3d(&x, &grid, mode, padding, false)?.to_ncdhw()?;
        for (i, found) in found.into_iter().enumerate() {
            let bound = 16.0 * f64::from(f32::EPSILON) * want.magnitude[i] + rounding(dtype) * want.value[i].abs();
            ensure_within("grid_sample", found.into(), want.value[i], bound)?;
        }
        Ok(())
    };
    let points = (side * side * side) as f64;
    Ok(Case {
        op: "grid_sample",
        name: GRID.into(),
        dtype: Some(dtype),
        // Three coordinates, six weights, eight products.
        flops: 40.0 * points,
        // Each voxel read once, three coordinates of each point, the result.
        bytes: Some(x.bytes() as f64 * 2.0 + grid.bytes() as f64),
        run: Box::new(move || ops::grid_sample3d(&x, &grid, mode, padding, false).map(drop)),
        check: Box::new(check),
    })
}

pub(super) fn resample(device: &Device) -> Result<Case> {
    // From 0.75 x 0.75 x 1.5 mm to 1.5 x 1.5 x 3 mm; the outer faces of the first voxels coincide.
    let params = |size: [usize; 3]| ResampleParams {
        size,
        matrix: [[2.0, 0.0, 0.0, 0.5], [0.0, 2.0, 0.0, 0.5], [0.0, 0.0, 2.0, 0.5]],
        interpolation: Interpolation::Linear,
        outside: Outside::Border,
        intensity: None,
    };
    let ct = |len: usize| values(len).iter().map(|v| (v * 1000.0) as i16).collect::<Vec<_>>();
    let x = Tensor::from_i16(device, [1, 1, 200, 512, 512], ct(200 * 512 * 512))?;
    let outputs: usize = 100 * 256 * 256;
    let bytes = (x.bytes() + 4 * outputs) as f64;
    let on = device.clone();
    let check = move || {
        let (data, small) = (ct(10 * 12 * 14), params([5, 6, 7]));
        let x = Tensor::from_i16(&on, [1, 1, 10, 12, 14], data.clone())?;
        let got = ops::resample(&x, &small)?.to_ndhwc()?;
        let data: Vec<f64> = data.iter().map(|&v| v.into()).collect();
        let want = resample_reference::resample(&data, [10, 12, 14], &small);
        for (got, want) in got.iter().zip(&want.value) {
            // The value is a sum of eight terms of at most 1000 HU.
            ensure_within("resample", (*got).into(), *want, 16.0 * f64::from(f32::EPSILON) * 1000.0)?;
        }
        Ok(())
    };
    let params = params([100, 256, 256]);
    let run = Box::new(move || ops::resample(&x, &params).map(drop));
    let (flops, bytes) = (14.0 * outputs as f64, Some(bytes));
    Ok(Case { op: "resample", name: CT.into(), dtype: None, flops, bytes, run, check: Box::new(check) })
}
