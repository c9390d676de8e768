//! The ops of the command line: inputs, attributes with their defaults (those of PyTorch), outputs, and costs.

use super::arrays::{Inputs, Output};
use super::attributes::Attributes;
use super::gradients;
use crate::error::{Error, Result};
use nephron::ops::*;
use nephron::tensor::Tensor;

/// Named results.
pub(super) type Outputs = Vec<(&'static str, Output)>;

/// An op with its arrays on the device; it can run any number of times.
pub(super) struct Call {
    pub(super) run: Box<dyn Fn() -> nephron::error::Result<Outputs>>,
    /// Number of multiplications and additions of one run.
    pub(super) flops: f64,
    /// Number of bytes that one run must at least read and write.
    pub(super) bytes: f64,
}

impl Call {
    pub(super) fn run(&self) -> nephron::error::Result<Outputs> {
        (self.run)()
    }

    pub(super) fn flops(&self) -> f64 {
        self.flops
    }

    pub(super) fn bytes(&self) -> f64 {
        self.bytes
    }
}

/// Reads the arrays and attributes of an op.
pub(super) type Prepare = fn(&Inputs<'_>, &Attributes) -> Result<Call>;

const OPS: [(&str, Prepare); 26] = [
    ("conv3d", prepare_conv3d),
    ("conv3d_backward", prepare_conv3d_backward),
    ("conv_transpose3d", prepare_conv_transpose3d),
    ("conv_transpose3d_backward", gradients::prepare_conv_transpose3d),
    ("instance_norm", prepare_instance_norm),
    ("instance_norm_backward", |i, a| gradients::prepare_norm(i, a, instance_norm_backward)),
    ("batch_norm_train_backward", |i, a| gradients::prepare_norm(i, a, batch_norm_train_backward)),
    ("batch_norm", prepare_batch_norm),
    ("leaky_relu", prepare_leaky_relu),
    ("leaky_relu_backward", gradients::prepare_leaky_relu),
    ("softmax", prepare_softmax),
    ("max_pool3d", |i, a| prepare_pool(i, a, max_pool3d)),
    ("avg_pool3d", |i, a| prepare_pool(i, a, avg_pool3d)),
    ("adaptive_avg_pool3d", prepare_adaptive_avg_pool3d),
    ("max_pool3d_backward", gradients::prepare_max_pool),
    ("avg_pool3d_backward", gradients::prepare_avg_pool),
    ("interpolate3d", prepare_interpolate3d),
    ("bspline_resample3d", prepare_bspline_resample3d),
    ("grid_sample3d", prepare_grid_sample3d),
    ("affine_grid3d", prepare_affine_grid3d),
    ("warp3d", prepare_warp3d),
    ("dice", prepare_dice),
    ("dice_ce", prepare_dice_ce),
    ("segmentation_loss", gradients::prepare_segmentation_loss),
    ("cross_entropy", gradients::prepare_cross_entropy),
    ("affine_dice", prepare_affine_dice),
];

/// The names of all operations.
pub(super) fn names() -> String {
    OPS.map(|(known, _)| known).join(", ")
}

/// The op of that name; called before a device is opened.
///
/// # Errors
/// [`Error::Usage`] for an unknown name.
pub(super) fn find(name: &str) -> Result<Prepare> {
    OPS.iter()
        .find(|(known, _)| *known == name)
        .map(|(_, prepare)| *prepare)
        .ok_or_else(|| Error::Usage(format!("unknown operation '{name}': expected one of {}", names())))
}

/// A call with one tensor as its result. `flops_per_output` is the number of operations for an output element.
fn one(
    inputs: &[&Tensor],
    flops_per_output: f64,
    run: impl Fn() -> nephron::error::Result<Tensor> + 'static,
) -> Result<Call> {
    let bytes: usize = inputs.iter().map(|t| t.bytes()).sum();
    // The size of the output is known after a run, which also serves to warm up.
    let y = run()?;
    let (flops, bytes) = (flops_per_output * y.len() as f64, (bytes + y.bytes()) as f64);
    Ok(Call { run: Box::new(move || Ok(vec![("y", Output::Tensor(run()?))])), flops, bytes })
}

fn conv_params(a: &Attributes) -> Result<Conv3dParams> {
    Ok(Conv3dParams {
        stride: a.list("stride", [1; 3])?,
        padding: a.list("padding", [0; 3])?,
        dilation: a.list("dilation", [1; 3])?,
        groups: a.value("groups", 1)?,
    })
}

/// Number of operations for an output element: two for each weight of an output channel.
fn flops_per_output(w: &Tensor) -> f64 {
    let [_, ci, kd, kh, kw] = w.shape();
    2.0 * (ci * kd * kh * kw) as f64
}

fn prepare_conv3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, w, b, p) = (i.tensor("x")?, i.tensor("w")?, i.optional_vector("b")?, conv_params(a)?);
    one(&[&x.clone(), &w.clone()], flops_per_output(&w), move || conv3d(&x, &w, b.as_ref(), &p))
}

fn prepare_conv3d_backward(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, w, dy, p) = (i.tensor("x")?, i.tensor("w")?, i.tensor("dy")?, conv_params(a)?);
    // The data gradient and the weight gradient each cost as much as the forward pass.
    let flops = 2.0 * flops_per_output(&w) * dy.len() as f64;
    let bytes = (2 * x.bytes() + 2 * w.bytes() + dy.bytes()) as f64;
    let run = move || {
        let g = conv3d_backward(&x, &w, &dy, &p)?;
        Ok(vec![("dx", Output::Tensor(g.dx)), ("dw", Output::Tensor(g.dw)), ("db", Output::Vector(g.db))])
    };
    Ok(Call { run: Box::new(run), flops, bytes })
}

fn prepare_conv_transpose3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, w, b) = (i.tensor("x")?, i.tensor("w")?, i.optional_vector("b")?);
    let p = ConvTranspose3dParams { stride: a.list("stride", [1; 3])?, padding: a.list("padding", [0; 3])? };
    // Each input element is multiplied once with every weight of its channel.
    let [_, co, kd, kh, kw] = w.shape();
    let flops = 2.0 * (co * kd * kh * kw) as f64 * x.len() as f64;
    let mut call = one(&[&x.clone(), &w.clone()], 0.0, move || conv_transpose3d(&x, &w, b.as_ref(), &p))?;
    call.flops = flops;
    Ok(call)
}

fn prepare_instance_norm(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, weight, bias) = (i.tensor("x")?, i.optional_vector("weight")?, i.optional_vector("bias")?);
    let eps = a.value("eps", 1e-5)?;
    one(&[&x.clone()], 6.0, move || instance_norm(&x, weight.as_ref(), bias.as_ref(), eps))
}

fn prepare_batch_norm(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let x = i.tensor("x")?;
    let (weight, bias) = (i.optional_vector("weight")?, i.optional_vector("bias")?);
    let (mean, var) = (i.vector("mean")?, i.vector("var")?);
    let eps = a.value("eps", 1e-5)?;
    one(&[&x.clone()], 2.0, move || batch_norm(&x, weight.as_ref(), bias.as_ref(), &mean, &var, eps))
}

fn prepare_leaky_relu(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, slope) = (i.tensor("x")?, a.value("slope", 0.01)?);
    one(&[&x.clone()], 1.0, move || leaky_relu(&x, slope))
}

fn prepare_softmax(i: &Inputs<'_>, _: &Attributes) -> Result<Call> {
    let x = i.tensor("x")?;
    one(&[&x.clone()], 4.0, move || softmax(&x))
}

/// The parameters of a pooling; the stride is the kernel unless given.
pub(super) fn pool_params(a: &Attributes) -> Result<Pool3dParams> {
    let kernel = a.required_list("kernel")?;
    Ok(Pool3dParams { kernel, stride: a.list("stride", kernel)?, padding: a.list("padding", [0; 3])? })
}

fn prepare_pool(
    i: &Inputs<'_>,
    a: &Attributes,
    pool: fn(&Tensor, &Pool3dParams) -> nephron::error::Result<Tensor>,
) -> Result<Call> {
    let (x, p) = (i.tensor("x")?, pool_params(a)?);
    one(&[&x.clone()], p.kernel.iter().product::<usize>() as f64, move || pool(&x, &p))
}

fn prepare_adaptive_avg_pool3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, size) = (i.tensor("x")?, a.required_list("size")?);
    // Every voxel is added once, but for those that two bins share.
    let flops = x.len() as f64 / (x.shape()[..2].iter().chain(&size).product::<usize>().max(1)) as f64;
    one(&[&x.clone()], flops, move || adaptive_avg_pool3d(&x, size))
}

fn prepare_interpolate3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, size) = (i.tensor("x")?, a.required_list("size")?);
    let words = [
        ("trilinear", InterpolateMode::Trilinear),
        ("linear", InterpolateMode::Trilinear),
        ("nearest", InterpolateMode::Nearest),
    ];
    let mode = a.choice("mode", &words, InterpolateMode::Trilinear)?;
    let align_corners = a.value("align_corners", false)?;
    one(&[&x.clone()], 14.0, move || interpolate3d(&x, size, mode, align_corners))
}

fn prepare_bspline_resample3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, size) = (i.tensor("x")?, a.required_list("size")?);
    one(&[&x.clone()], 128.0, move || bspline_resample3d(&x, size))
}

fn prepare_grid_sample3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, grid) = (i.tensor("x")?, i.grid("grid")?);
    let words = [("bilinear", SampleMode::Linear), ("linear", SampleMode::Linear), ("nearest", SampleMode::Nearest)];
    let mode = a.choice("mode", &words, SampleMode::Linear)?;
    let padding = padding(a, PaddingMode::Zeros)?;
    let align_corners = a.value("align_corners", false)?;
    one(&[&x.clone(), &grid.clone()], 16.0, move || grid_sample3d(&x, &grid, mode, padding, align_corners))
}

fn padding(a: &Attributes, default: PaddingMode) -> Result<PaddingMode> {
    a.choice("padding", &[("zeros", PaddingMode::Zeros), ("border", PaddingMode::Border)], default)
}

fn prepare_affine_grid3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (theta, size) = (i.thetas("theta")?, a.required_list::<5>("size")?);
    let align_corners = a.value("align_corners", false)?;
    let grid = affine_grid3d(&theta, size, align_corners)?;
    let (flops, bytes) = (6.0 * grid.len() as f64, grid.bytes() as f64);
    let run = move || Ok(vec![("grid", Output::Grid(affine_grid3d(&theta, size, align_corners)?))]);
    Ok(Call { run: Box::new(run), flops, bytes })
}

fn prepare_warp3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, flow) = (i.tensor("x")?, i.tensor("flow")?);
    let padding = padding(a, PaddingMode::Border)?;
    one(&[&x.clone(), &flow.clone()], 16.0, move || warp3d(&x, &flow, padding))
}

fn prepare_dice(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (p, g, smooth) = (i.tensor("p")?, i.tensor("g")?, a.value("smooth", 1e-5)?);
    let (flops, bytes) = (6.0 * p.len() as f64, 5.0 * p.bytes() as f64);
    let run = move || {
        let out = dice(&p, &g, smooth)?;
        Ok(vec![("loss", Output::Scalar(out.loss.into())), ("dp", Output::Tensor(out.dp))])
    };
    Ok(Call { run: Box::new(run), flops, bytes })
}

fn prepare_dice_ce(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (logits, labels, smooth) = (i.tensor("logits")?, i.labels("labels")?, a.value("smooth", 1e-5)?);
    loss_of_logits(&[&logits.clone(), &labels.clone()], move || dice_ce(&logits, &labels, smooth))
}

/// A call of a loss of logits and labels.
pub(super) fn loss_of_logits(
    [logits, labels]: &[&Tensor; 2],
    loss: impl Fn() -> nephron::error::Result<DiceCeOutput> + 'static,
) -> Result<Call> {
    let (flops, bytes) = (16.0 * logits.len() as f64, 3.0 * logits.bytes() as f64 + 2.0 * labels.bytes() as f64);
    let run = move || {
        let out = loss()?;
        Ok(vec![("loss", Output::Scalar(out.loss.into())), ("dlogits", Output::Tensor(out.dlogits))])
    };
    Ok(Call { run: Box::new(run), flops, bytes })
}

fn prepare_affine_dice(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (fixed, moving, theta) = (i.labels("fixed")?, i.labels("moving")?, i.theta("theta")?);
    let p = AffineDiceParams {
        align_corners: a.value("align_corners", true)?,
        smooth: a.value("smooth", 1.0)?,
        padding: padding(a, PaddingMode::Border)?,
        channels: a.channels("channels")?,
    };
    // About 30 operations for the coordinates and weights of a voxel, about 60 for each channel's value, gradient and sums.
    let operations = 30.0 + 60.0 * p.channels.count() as f64;
    let (flops, bytes) = (operations * fixed.len() as f64, (fixed.bytes() + moving.bytes()) as f64);
    let run = move || {
        let out = affine_dice(&fixed, &moving, &theta, &p)?;
        Ok(vec![("loss", Output::Scalar(out.loss)), ("dtheta", Output::Matrix(out.dtheta))])
    };
    Ok(Call { run: Box::new(run), flops, bytes })
}
