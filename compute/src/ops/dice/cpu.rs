//! Dice on the CPU: f64 sums, blocks of voxels in parallel and added in their own order, so that the number of threads
//! does not change a bit.

use rayon::prelude::*;

use super::{DiceProblem, Entropy, Sums};

/// Voxels a task.
const BLOCK: usize = 1 << 14;
/// Values that one step of the inner loop takes at least: a few vector registers.
const LANES: usize = 16;

/// Channels repeated until they fill a few vectors: lane j belongs to channel j % c, so loops over lanes vectorise
/// whatever c is.
fn lanes(channels: usize) -> usize {
    channels * LANES.div_ceil(channels)
}

/// I, P and G of every (sample, channel).
pub(super) fn sums(problem: &DiceProblem, p: &[f32], g: &[f32]) -> Vec<Sums> {
    let c = problem.channels;
    let width = lanes(c);
    per_sample(problem, |range| {
        let (p, g) = (&p[range.start * c..range.end * c], &g[range.start * c..range.end * c]);
        let mut lanes = vec![0.0f64; 3 * width];
        let (intersection, rest) = lanes.split_at_mut(width);
        let (sum_p, sum_g) = rest.split_at_mut(width);
        for (p, g) in p.chunks(width).zip(g.chunks(width)) {
            for ((((p, g), i), sp), sg) in
                p.iter().zip(g).zip(intersection.iter_mut()).zip(sum_p.iter_mut()).zip(sum_g.iter_mut())
            {
                let (p, g) = (f64::from(*p), f64::from(*g));
                *i += p * g;
                *sp += p;
                *sg += g;
            }
        }
        let mut out = vec![Sums::default(); c];
        for lane in 0..width {
            let sums = &mut out[lane % c];
            sums.intersection += intersection[lane];
            sums.p += sum_p[lane];
            sums.g += sum_g[lane];
        }
        (out, Entropy::default())
    })
    .0
}

/// dp = a g + b.
pub(super) fn gradient(problem: &DiceProblem, g: &[f32], coefficients: &[[f32; 2]]) -> Vec<f32> {
    let (c, width) = (problem.channels, lanes(problem.channels));
    let mut dp = vec![0.0f32; g.len()];
    for (sample, (dp, g)) in dp.chunks_mut(problem.voxels * c).zip(g.chunks(problem.voxels * c)).enumerate() {
        let own = &coefficients[sample * c..][..c];
        let a: Vec<f32> = (0..width).map(|lane| own[lane % c][0]).collect();
        let b: Vec<f32> = (0..width).map(|lane| own[lane % c][1]).collect();
        dp.par_chunks_mut(width * BLOCK / LANES).zip(g.par_chunks(width * BLOCK / LANES)).for_each(|(dp, g)| {
            for (dp, g) in dp.chunks_mut(width).zip(g.chunks(width)) {
                for (((dp, g), a), b) in dp.iter_mut().zip(g).zip(&a).zip(&b) {
                    *dp = a * g + b;
                }
            }
        });
    }
    dp
}

/// I, P and G of every (sample, channel) of the softmax against the labels, and the cross-entropy.
pub(super) fn cross_entropy_sums(problem: &DiceProblem, logits: &[f32], labels: &[u8]) -> (Vec<Sums>, Entropy) {
    let c = problem.channels;
    per_sample(problem, |range| {
        let mut out = vec![Sums::default(); c];
        let mut entropy = Entropy::default();
        let mut p = vec![0.0f32; c];
        for (z, &label) in logits[range.start * c..range.end * c].chunks(c).zip(&labels[range]) {
            let log_total = softmax(z, &mut p);
            for (sums, &p) in out.iter_mut().zip(&p) {
                sums.p += f64::from(p);
            }
            let label = usize::from(label);
            if label < c {
                out[label].intersection += f64::from(p[label]);
                out[label].g += 1.0;
                entropy.sum += f64::from(log_total - z[label]);
            } else {
                entropy.bad_labels += 1.0;
            }
        }
        (out, entropy)
    })
}

/// d loss / d logits; `ce_scale` is one over the number of voxels that the cross-entropy is the mean of.
pub(super) fn cross_entropy_gradient(
    problem: &DiceProblem,
    logits: &[f32],
    labels: &[u8],
    coefficients: &[[f32; 2]],
    ce_scale: f64,
) -> Vec<f32> {
    let c = problem.channels;
    let ce_scale = ce_scale as f32;
    let mut out = vec![0.0f32; logits.len()];
    out.par_chunks_mut(BLOCK * c).enumerate().for_each(|(block, out)| {
        let mut p = vec![0.0f32; c];
        for (v, dz) in (block * BLOCK..).zip(out.chunks_mut(c)) {
            softmax(&logits[v * c..][..c], &mut p);
            let own = &coefficients[v / problem.voxels * c..][..c];
            let label = usize::from(labels[v]);
            let mean = p.iter().zip(own).map(|(p, q)| p * q[1]).sum::<f32>() + p[label] * own[label][0];
            for ((dz, p), q) in dz.iter_mut().zip(&p).zip(own) {
                *dz = p * (q[1] - mean) + p * ce_scale;
            }
            dz[label] += p[label] * own[label][0] - ce_scale;
        }
    });
    out
}

/// p = softmax of z; returns log(sum exp z).
fn softmax(z: &[f32], p: &mut [f32]) -> f32 {
    let highest = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for (p, z) in p.iter_mut().zip(z) {
        *p = (z - highest).exp();
        total += *p;
    }
    let scale = 1.0 / total;
    for p in p.iter_mut() {
        *p *= scale;
    }
    highest + total.ln()
}

/// Adds up what `block` makes of each range of voxels (counted over all samples; a range stays within one).
fn per_sample(
    problem: &DiceProblem,
    block: impl Fn(std::ops::Range<usize>) -> (Vec<Sums>, Entropy) + Sync,
) -> (Vec<Sums>, Entropy) {
    let (v, c) = (problem.voxels, problem.channels);
    let blocks = v.div_ceil(BLOCK);
    let partials: Vec<_> = (0..problem.samples * blocks)
        .into_par_iter()
        .map(|i| {
            let (first, start) = (i / blocks * v, i % blocks * BLOCK);
            block(first + start..first + (start + BLOCK).min(v))
        })
        .collect();
    let mut sums = vec![Sums::default(); problem.samples * c];
    let mut entropy = Entropy::default();
    for (i, (part, part_entropy)) in partials.iter().enumerate() {
        for (sum, part) in sums[i / blocks * c..][..c].iter_mut().zip(part) {
            sum.intersection += part.intersection;
            sum.p += part.p;
            sum.g += part.g;
        }
        entropy.sum += part_entropy.sum;
        entropy.bad_labels += part_entropy.bad_labels;
    }
    (sums, entropy)
}
