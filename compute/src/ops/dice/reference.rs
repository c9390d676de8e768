//! Dice and Dice with cross-entropy in f64 on PyTorch-ordered data, with the magnitudes that error bounds need.

/// A loss and its gradient. A magnitude m says that inputs and sums off by a relative e move the value by at most e m,
/// to first order.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The loss.
    pub loss: f64,
    /// Its magnitude.
    pub loss_magnitude: f64,
    /// d loss / d first argument, [n, c, voxels].
    pub gradient: Vec<f64>,
    /// Its magnitudes.
    pub gradient_magnitude: Vec<f64>,
}

/// Mean over n and c of 1 - (2I+s)/(P+G+s), p and g [n, c, voxels].
pub fn dice(shape: [usize; 5], p: &[f64], g: &[f64], smooth: f64) -> Reference {
    let [n, c, d, h, w] = shape;
    let (rows, voxels) = (n * c, d * h * w);
    let mut out = Reference { loss: 0.0, loss_magnitude: 0.0, gradient: vec![], gradient_magnitude: vec![] };
    for row in 0..rows {
        let (p, g) = (&p[row * voxels..][..voxels], &g[row * voxels..][..voxels]);
        let sum = |f: &dyn Fn(f64, f64) -> f64| p.iter().zip(g).map(|(p, g)| f(*p, *g)).sum::<f64>();
        let above = 2.0 * sum(&|p, g| p * g) + smooth;
        let below = sum(&|p, g| p + g) + smooth;
        let above_magnitude = 2.0 * sum(&|p, g| (p * g).abs()) + smooth;
        let below_magnitude = sum(&|p, g| p.abs() + g.abs()) + smooth;
        if below == 0.0 {
            out.gradient.extend(vec![0.0; voxels]);
            out.gradient_magnitude.extend(vec![0.0; voxels]);
            continue;
        }
        let dice = above / below;
        // Relative error of the denominator, in units of e.
        let spread = below_magnitude / below.abs();
        let dice_magnitude = above_magnitude / below.abs() + dice.abs() * spread;
        out.loss += (1.0 - dice) / rows as f64;
        out.loss_magnitude += (1.0 + dice_magnitude) / rows as f64;
        for g in g {
            let first = 2.0 * g / below / rows as f64;
            let second = dice / below / rows as f64;
            out.gradient.push(second - first);
            out.gradient_magnitude.push(
                first.abs() * (1.0 + spread) + (dice_magnitude / below.abs() / rows as f64) + second.abs() * spread,
            );
        }
    }
    out
}

/// Mean cross-entropy plus the Dice loss of the softmax, logits [n, c, voxels], labels [n, voxels].
pub fn dice_ce(shape: [usize; 5], logits: &[f64], labels: &[u8], smooth: f64) -> Reference {
    with_cross_entropy(shape, logits, labels, |p, g| dice(shape, p, g, smooth))
}

/// Mean cross-entropy, logits [n, c, voxels], labels [n, voxels].
pub fn cross_entropy(shape: [usize; 5], logits: &[f64], labels: &[u8]) -> Reference {
    with_cross_entropy(shape, logits, labels, |p, _| {
        let zeros = vec![0.0; p.len()];
        Reference { loss: 0.0, loss_magnitude: 0.0, gradient: zeros.clone(), gradient_magnitude: zeros }
    })
}

/// Mean cross-entropy minus the mean Dice (2I+s) / max(P+G+s, 1e-8) of the softmax over classes, from channel 1 on unless `background`, and
/// over samples, or for sums over the batch if `batch`: nnU-Net's loss. logits [n, c, voxels], labels [n, voxels].
pub fn segmentation_loss(
    shape: [usize; 5],
    logits: &[f64],
    labels: &[u8],
    [batch, background]: [bool; 2],
    smooth: f64,
) -> Reference {
    with_cross_entropy(shape, logits, labels, |p, g| {
        let [n, c, d, h, w] = shape;
        let voxels = d * h * w;
        let zeros = vec![0.0; p.len()];
        let mut out = Reference { loss: 0.0, loss_magnitude: 0.0, gradient: zeros.clone(), gradient_magnitude: zeros };
        let (images, first) = (if batch { n } else { 1 }, usize::from(!background));
        let terms = (n / images * (c - first)) as f64;
        for image in (0..n).step_by(images) {
            for channel in first..c {
                let at: Vec<usize> = (image..image + images)
                    .flat_map(|i| (0..voxels).map(move |v| (i * c + channel) * voxels + v))
                    .collect();
                let above = 2.0 * at.iter().map(|&i| p[i] * g[i]).sum::<f64>() + smooth;
                let sum = at.iter().map(|&i| p[i] + g[i]).sum::<f64>() + smooth;
                let below = sum.max(1e-8);
                // Both sums have no negative terms, so each is its own magnitude; the quotient is off by both.
                out.loss -= above / below / terms;
                out.loss_magnitude += 2.0 * above / below / terms;
                for &i in &at {
                    let (first, second) = (2.0 * g[i] / below / terms, above / (below * below) / terms);
                    let second = if sum < 1e-8 { 0.0 } else { second };
                    out.gradient[i] = second - first;
                    out.gradient_magnitude[i] = 2.0 * first + 4.0 * second;
                }
            }
        }
        out
    })
}

/// The mean cross-entropy plus a loss of the softmax p and the one-hot labels g, whose gradient is by p.
fn with_cross_entropy(
    shape: [usize; 5],
    logits: &[f64],
    labels: &[u8],
    of_softmax: impl FnOnce(&[f64], &[f64]) -> Reference,
) -> Reference {
    let [n, c, d, h, w] = shape;
    let voxels = d * h * w;
    let (mut p, mut g) = (vec![0.0; logits.len()], vec![0.0; logits.len()]);
    let (mut entropy, mut entropy_magnitude) = (0.0, 0.0);
    for sample in 0..n {
        for v in 0..voxels {
            let at = |channel: usize| (sample * c + channel) * voxels + v;
            let highest = (0..c).map(|k| logits[at(k)]).fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = (0..c).map(|k| (logits[at(k)] - highest).exp()).sum();
            for k in 0..c {
                p[at(k)] = (logits[at(k)] - highest).exp() / total;
            }
            let label = usize::from(labels[sample * voxels + v]);
            g[at(label)] = 1.0;
            entropy -= p[at(label)].ln();
            // The logarithm of a total off by a relative e is off by e; the rest are the terms' own sizes.
            entropy_magnitude += 1.0 + total.ln() + highest.abs() + logits[at(label)].abs();
        }
    }
    let by_p = of_softmax(&p, &g);
    let count = (n * voxels) as f64;
    let mut out = Reference {
        loss: by_p.loss + entropy / count,
        loss_magnitude: by_p.loss_magnitude + entropy_magnitude / count,
        gradient: vec![0.0; logits.len()],
        gradient_magnitude: vec![0.0; logits.len()],
    };
    for sample in 0..n {
        for v in 0..voxels {
            let at = |channel: usize| (sample * c + channel) * voxels + v;
            let mean: f64 = (0..c).map(|k| by_p.gradient[at(k)] * p[at(k)]).sum();
            let mean_magnitude: f64 =
                (0..c).map(|k| (by_p.gradient[at(k)].abs() + by_p.gradient_magnitude[at(k)]) * p[at(k)]).sum();
            for k in 0..c {
                let (p, g, q) = (p[at(k)], g[at(k)], by_p.gradient[at(k)]);
                out.gradient[at(k)] = p * (q - mean) + (p - g) / count;
                out.gradient_magnitude[at(k)] =
                    p * (q.abs() + by_p.gradient_magnitude[at(k)] + mean_magnitude) + (p + g) / count;
            }
        }
    }
    out
}
