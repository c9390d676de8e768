//! Dice on the CPU: f64 sums over blocks of voxels, which run in parallel and are added in a fixed order, so that the result does not
//! depend on the number of threads.

use rayon::prelude::*;

use super::{DiceProblem, Entropy, Sums};
use crate::ops::simd::{F32Vector, F64_LANES, F64Vector, Isa, Kernel, Simd, repeat_to_fill_vectors};

/// Number of voxels of a task.
const BLOCK: usize = 1 << 14;
/// Smallest number of partial sums in one step of the inner loop: a few vectors.
const PARTS: usize = 16;

/// I, P and G of every (sample, channel).
pub(super) fn sums(problem: &DiceProblem, p: &[f32], g: &[f32]) -> Vec<Sums> {
    sums_with(Isa::widest(), problem, p, g)
}

fn sums_with(isa: Isa, problem: &DiceProblem, p: &[f32], g: &[f32]) -> Vec<Sums> {
    let c = problem.channels;
    // Channels repeated until they fill a few vectors: partial sum j is of channel j % c, so whole vectors are added
    // whatever c is. The same on every instruction set, and with it the order of the sums.
    let width = c * PARTS.div_ceil(c);
    per_sample(problem, |range| {
        let (p, g) = (&p[range.start * c..range.end * c], &g[range.start * c..range.end * c]);
        let mut parts = vec![0.0f64; 3 * width];
        isa.run(AddUp { p, g, width, parts: &mut parts });
        let mut out = vec![Sums::default(); c];
        for part in 0..width {
            let sums = &mut out[part % c];
            sums.intersection += parts[part];
            sums.p += parts[width + part];
            sums.g += parts[2 * width + part];
        }
        (out, Entropy::default())
    })
    .0
}

/// The partial sums of some voxels.
struct AddUp<'a> {
    p: &'a [f32],
    /// The target, of the same length as `p`.
    g: &'a [f32],
    width: usize,
    /// The partial sums of p g, p and g: three rows of `width` values, initially 0.
    parts: &'a mut [f64],
}

impl Kernel for AddUp<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.width;
        let (intersection, rest) = self.parts.split_at_mut(width);
        let (sum_p, sum_g) = rest.split_at_mut(width);
        // First the voxels that fill the width, in tiles whose sums stay in registers; then the rest, one by one.
        let whole = self.p.len() - self.p.len() % width;
        let (p, p_rest) = self.p.split_at(whole);
        let (g, g_rest) = self.g.split_at(whole);
        let mut first = 0;
        while first + PARTS <= width {
            let own = first..first + PARTS;
            let sums = [&mut intersection[own.clone()], &mut sum_p[own.clone()], &mut sum_g[own]];
            add_tile::<S, { PARTS / F64_LANES }>(simd, p, g, width, first, sums);
            first += PARTS;
        }
        while first + F64_LANES <= width {
            let own = first..first + F64_LANES;
            let sums = [&mut intersection[own.clone()], &mut sum_p[own.clone()], &mut sum_g[own]];
            add_tile::<S, 1>(simd, p, g, width, first, sums);
            first += F64_LANES;
        }
        if first < width {
            for (p, g) in p.chunks_exact(width).zip(g.chunks_exact(width)) {
                for part in first..width {
                    let (p, g) = (f64::from(p[part]), f64::from(g[part]));
                    intersection[part] += p * g;
                    sum_p[part] += p;
                    sum_g[part] += g;
                }
            }
        }
        for (part, (p, g)) in p_rest.iter().zip(g_rest).enumerate() {
            let (p, g) = (f64::from(*p), f64::from(*g));
            intersection[part] += p * g;
            sum_p[part] += p;
            sum_g[part] += g;
        }
    }
}

/// Writes `N` vectors of partial sums, from `first` on, of all rows of `width` values.
#[inline(always)]
fn add_tile<S: Simd, const N: usize>(simd: S, p: &[f32], g: &[f32], width: usize, first: usize, sums: [&mut [f64]; 3]) {
    let mut totals = [[simd.splat_f64(0.0); N]; 3];
    for (p, g) in p.chunks_exact(width).zip(g.chunks_exact(width)) {
        for i in 0..N {
            let at = first + i * F64_LANES;
            let (p, g) = (simd.widen(&p[at..]), simd.widen(&g[at..]));
            totals[0][i] = totals[0][i].add(p.mul(g));
            totals[1][i] = totals[1][i].add(p);
            totals[2][i] = totals[2][i].add(g);
        }
    }
    for (sums, totals) in sums.into_iter().zip(totals) {
        for (i, total) in totals.into_iter().enumerate() {
            total.store(&mut sums[i * F64_LANES..]);
        }
    }
}

/// dp = a g + b.
pub(super) fn gradient(problem: &DiceProblem, g: &[f32], coefficients: &[[f32; 2]]) -> Vec<f32> {
    gradient_with(Isa::widest(), problem, g, coefficients)
}

fn gradient_with(isa: Isa, problem: &DiceProblem, g: &[f32], coefficients: &[[f32; 2]]) -> Vec<f32> {
    let c = problem.channels;
    let mut dp = vec![0.0f32; g.len()];
    for (sample, (dp, g)) in dp.chunks_mut(problem.voxels * c).zip(g.chunks(problem.voxels * c)).enumerate() {
        let own = &coefficients[sample * c..][..c];
        let [a, b] = [0, 1].map(|i| repeat_to_fill_vectors(&own.iter().map(|q| q[i]).collect::<Vec<_>>()));
        let task = a.len() * BLOCK.div_ceil(a.len());
        dp.par_chunks_mut(task).zip(g.par_chunks(task)).for_each(|(dp, g)| isa.run(Linear { g, a: &a, b: &b, dp }));
    }
    dp
}

/// dp = a g + b of a block of voxels.
struct Linear<'a> {
    g: &'a [f32],
    /// The factor a for each channel, repeated to fill vectors.
    a: &'a [f32],
    /// The term b, in the same layout.
    b: &'a [f32],
    /// The output, of the same length as `g`.
    dp: &'a mut [f32],
}

impl Kernel for Linear<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let lanes = S::F32::LANES;
        for (dp, g) in self.dp.chunks_mut(self.a.len()).zip(self.g.chunks(self.a.len())) {
            // The last row may be shorter than the repeated channels.
            let [a, b] = [self.a, self.b].map(|values| &values[..g.len()]);
            let whole = g.len() - g.len() % lanes;
            for first in (0..whole).step_by(lanes) {
                let product = simd.load(&a[first..]).mul(simd.load(&g[first..]));
                product.add(simd.load(&b[first..])).store(&mut dp[first..]);
            }
            if whole < g.len() {
                let product = simd.load_partial(&a[whole..]).mul(simd.load_partial(&g[whole..]));
                product.add(simd.load_partial(&b[whole..])).store_partial(&mut dp[whole..]);
            }
        }
    }
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

/// Adds the results of `block` for each range of voxels (counted over all samples; a range is within one sample).
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers, so that every order of the sums is exact.
    #[test]
    fn every_instruction_set_sums_exactly() {
        let numbers = |len: usize, salt: usize| -> Vec<f32> {
            (0..len).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 11 & 7) as f32 - 3.0).collect()
        };
        for (samples, channels, voxels) in [(1, 1, 1), (2, 1, 1000), (1, 2, 37), (2, 3, 401), (1, 5, 77), (1, 13, 50)] {
            let shape = [samples, channels, 1, 1, voxels];
            let problem = DiceProblem { samples, channels, voxels, shape, smooth: 0.0 };
            let len = samples * channels * voxels;
            let (p, g) = (numbers(len, 1), numbers(len, 2));
            let mut want = vec![Sums::default(); samples * channels];
            for (i, (p, g)) in p.iter().zip(&g).enumerate() {
                let sums = &mut want[i / (voxels * channels) * channels + i % channels];
                let (p, g) = (f64::from(*p), f64::from(*g));
                *sums = Sums { intersection: sums.intersection + p * g, p: sums.p + p, g: sums.g + g };
            }
            let coefficients: Vec<_> = (0..samples * channels).map(|i| [i as f32 - 2.0, 3.0 - i as f32]).collect();
            for isa in Isa::available() {
                assert_eq!(sums_with(isa, &problem, &p, &g), want, "{isa:?} {shape:?}");
                for (i, dp) in gradient_with(isa, &problem, &g, &coefficients).iter().enumerate() {
                    let [a, b] = coefficients[i / (voxels * channels) * channels + i % channels];
                    assert_eq!(*dp, a * g[i] + b, "{isa:?} {shape:?}: {i}");
                }
            }
        }
    }
}
