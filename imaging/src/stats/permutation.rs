//! Is the model as good as the reader? A test by swapping their answers.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Rounds a task.
const BLOCK: usize = 256;

/// The two-sided p value that two sets of answers to the same cases are equally often right: in each round every case's two
/// answers are swapped or not, at random, and p = (1 + rounds whose difference is at least as large as the observed one) /
/// (1 + rounds), which is never 0 (Phipson and Smyth 2010). 1 where no case tells the two apart.
pub fn permutation_test(one: &[bool], other: &[bool], rounds: usize, seed: u64) -> f64 {
    // Cases on which both are right or both are wrong change nothing. The others add or take 1.
    let telling = one.iter().zip(other).filter(|(a, b)| a != b);
    let (wins, all) = telling.fold((0i64, 0usize), |(w, n), (a, _)| (w + if *a { 1 } else { -1 }, n + 1));
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
