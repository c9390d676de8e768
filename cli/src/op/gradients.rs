//! Rows of the table of ops for gradients and losses of training.

use super::arrays::{Inputs, Output};
use super::attributes::Attributes;
use super::table::{Call, loss_of_logits, pool_params};
use crate::error::Result;
use nephron::ops::*;
use nephron::tensor::Tensor;

/// A call with the gradient by x as its result, which reads `inputs` and writes as many bytes as `dx_bytes`.
fn by_input(
    inputs: &[&Tensor],
    dx_bytes: usize,
    flops: f64,
    run: impl Fn() -> nephron::error::Result<Tensor> + 'static,
) -> Call {
    let bytes = inputs.iter().map(|t| t.bytes()).sum::<usize>() + dx_bytes;
    Call { run: Box::new(move || Ok(vec![("dx", Output::Tensor(run()?))])), flops, bytes: bytes as f64 }
}

pub(super) fn prepare_conv_transpose3d(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, w, dy) = (i.tensor("x")?, i.tensor("w")?, i.tensor("dy")?);
    let p = ConvTranspose3dParams { stride: a.list("stride", [1; 3])?, padding: a.list("padding", [0; 3])? };
    // Each of both gradients multiplies each input element once with every weight of its channel.
    let [_, co, kd, kh, kw] = w.shape();
    let flops = 4.0 * (co * kd * kh * kw) as f64 * x.len() as f64;
    let bytes = (2 * x.bytes() + 2 * w.bytes() + dy.bytes()) as f64;
    let run = move || {
        let g = conv_transpose3d_backward(&x, &w, &dy, &p)?;
        Ok(vec![("dx", Output::Tensor(g.dx)), ("dw", Output::Tensor(g.dw)), ("db", Output::Vector(g.db))])
    };
    Ok(Call { run: Box::new(run), flops, bytes })
}

/// The gradients of a norm and the leaky ReLU behind it.
type NormBackward =
    fn(&Tensor, Option<&Tensor>, Option<&Tensor>, f32, f32, &Tensor) -> nephron::error::Result<NormGradients>;

pub(super) fn prepare_norm(i: &Inputs<'_>, a: &Attributes, backward: NormBackward) -> Result<Call> {
    let (x, dy) = (i.tensor("x")?, i.tensor("dy")?);
    let (weight, bias) = (i.optional_vector("weight")?, i.optional_vector("bias")?);
    let (eps, slope) = (a.value("eps", 1e-5)?, a.value("slope", 1.0)?);
    let (flops, bytes) = (16.0 * x.len() as f64, (2 * x.bytes() + dy.bytes()) as f64);
    let run = move || {
        let g = backward(&x, weight.as_ref(), bias.as_ref(), eps, slope, &dy)?;
        Ok(vec![
            ("dx", Output::Tensor(g.dx)),
            ("dweight", Output::Vector(g.dweight)),
            ("dbias", Output::Vector(g.dbias)),
        ])
    };
    Ok(Call { run: Box::new(run), flops, bytes })
}

pub(super) fn prepare_leaky_relu(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, dy, slope) = (i.tensor("x")?, i.tensor("dy")?, a.value("slope", 0.01)?);
    let (inputs, flops) = ([x.clone(), dy.clone()], x.len() as f64);
    Ok(by_input(&inputs.each_ref(), x.bytes(), flops, move || leaky_relu_backward(&x, slope, &dy)))
}

pub(super) fn prepare_max_pool(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (x, dy, p) = (i.tensor("x")?, i.tensor("dy")?, pool_params(a)?);
    let flops = p.kernel.iter().product::<usize>() as f64 * dy.len() as f64;
    let inputs = [x.clone(), dy.clone()];
    Ok(by_input(&inputs.each_ref(), x.bytes(), flops, move || max_pool3d_backward(&x, &p, &dy)))
}

pub(super) fn prepare_avg_pool(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (dy, p) = (i.tensor("dy")?, pool_params(a)?);
    let size = a.required_list("size")?;
    let flops = p.kernel.iter().product::<usize>() as f64 * dy.len() as f64;
    let dx_bytes = size.iter().fold(dy.dtype().size(), |bytes, axis: &usize| bytes.saturating_mul(*axis));
    Ok(by_input(&[&dy.clone()], dx_bytes, flops, move || avg_pool3d_backward(size, &p, &dy)))
}

pub(super) fn prepare_segmentation_loss(i: &Inputs<'_>, a: &Attributes) -> Result<Call> {
    let (logits, labels) = (i.tensor("logits")?, i.labels("labels")?);
    let default = SegmentationLoss::default();
    let loss = SegmentationLoss {
        batch: a.value("batch", default.batch)?,
        background: a.value("background", default.background)?,
        smooth: a.value("smooth", default.smooth)?,
    };
    loss_of_logits(&[&logits.clone(), &labels.clone()], move || segmentation_loss(&logits, &labels, &loss))
}

pub(super) fn prepare_cross_entropy(i: &Inputs<'_>, _: &Attributes) -> Result<Call> {
    let (logits, labels) = (i.tensor("logits")?, i.labels("labels")?);
    loss_of_logits(&[&logits.clone(), &labels.clone()], move || cross_entropy(&logits, &labels))
}
