//! A permutation test of whether a model and a reader are correct equally often.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Number of rounds in one parallel task.
const BLOCK: usize = 256;

/// The two-sided p value of the hypothesis that two raters are correct equally often on the same cases; `one` and `other` say for
/// each case whether each was. In every round the two answers of each case are swapped with probability 1/2, and
/// p = (1 + rounds whose difference is at least as large as the observed one) / (1 + rounds), which is never 0 (Phipson and Smyth
/// 2010). It is 1 where the two never differ.
pub fn permutation_test(one: &[bool], other: &[bool], rounds: usize, seed: u64) -> f64 {
    // Cases on which both are correct or both are wrong change nothing. Each other case adds or subtracts 1.
    let differing = one.iter().zip(other).filter(|(a, b)| a != b);
    let (wins, all) = differing.fold((0i64, 0usize), |(w, n), (a, _)| (w + if *a { 1 } else { -1 }, n + 1));
    let at_least = |round: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(round as u64);
        let words = (0..all / 64).map(|_| rng.next_u64().count_ones()).sum::<u32>();
        let rest = rng.next_u64() & ((1u64 << (all % 64)) - 1);
        let heads = i64::from(words + rest.count_ones());
        (2 * heads - all as i64).abs() >= wins.abs()
    };
    let extreme: usize = (0..rounds.div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| (block * BLOCK..((block + 1) * BLOCK).min(rounds)).filter(|&round| at_least(round)).count())
        .sum();
    (1 + extreme) as f64 / (1 + rounds) as f64
}
