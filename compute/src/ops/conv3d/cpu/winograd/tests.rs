use std::array::from_fn;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::block::Layout;
use super::grid::Grid;
use super::{TransformedWeights, run};
use crate::ops::conv_problem::{Conv3dParams, Conv3dProblem};
use crate::ops::conv3d::reference;
use crate::ops::simd::Isa;
use crate::tensor::{Shape, from_channels_last, to_channels_last};

/// Operands in the layout [n, c, d, h, w].
struct Case {
    problem: Conv3dProblem,
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
}

impl Case {
    fn new(x: Shape, [co, depth]: [usize; 2], padding: [usize; 3], mut value: impl FnMut() -> f32) -> Self {
        let params = Conv3dParams { padding, ..Default::default() };
        let problem = Conv3dProblem::new(x, [co, x[1], depth, 3, 3], params).expect("a problem");
        let mut values = |len: usize| (0..len).map(|_| value()).collect::<Vec<f32>>();
        Self {
            problem,
            x: values(x.iter().product()),
            w: values(problem.weight_shape().iter().product()),
            b: values(co),
        }
    }

    fn want(&self) -> Vec<f64> {
        let f64s = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (xs, ws) = (self.problem.input_shape(), self.problem.weight_shape());
        reference::conv3d(&f64s(&self.x), xs, &f64s(&self.w), ws, Some(&f64s(&self.b)), &self.problem.params()).value
    }

    /// The result [n, co, d, h, w] and, of a single image, the sums.
    fn got(&self, isa: Isa, shared: bool) -> (Vec<f32>, Vec<[f64; 2]>) {
        let ([n, ci, ..], [co, _, depth, ..]) = (self.problem.input_shape(), self.problem.weight_shape());
        let w = to_channels_last(self.problem.weight_shape(), &self.w);
        let weights = TransformedWeights::of(isa, [ci, co], depth == 3, &w);
        let x = to_channels_last(self.problem.input_shape(), &self.x);
        let grid = Grid::of(&self.problem, n);
        // The smallest blocks, so that there are several of them.
        let layout = Layout::new(&weights, &grid, shared, 1);
        assert_eq!(layout.block, weights.rows());
        let mut y = vec![f32::NAN; self.problem.output_shape().iter().product()];
        let sums = run(grid, &layout, &[&x], &weights, Some(&self.b), &mut y, n == 1);
        (from_channels_last(self.problem.output_shape(), &y), sums)
    }

    /// |A|ᵀ((|G| |g|) ⊙ (|B|ᵀ |d|)) summed over the channels, plus |b|, for an output.
    fn terms(&self, co: usize, output: [usize; 3]) -> f64 {
        const G: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.0, 0.0, 1.0]];
        const B: [[f64; 4]; 4] =
            [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]];
        let ([_, ci, d, h, w], [_, _, depth, ..]) = (self.problem.input_shape(), self.problem.weight_shape());
        let padding = self.problem.params().padding;
        // Factors of a point on taps and inputs along each axis; along z with one tap there is one point.
        let axes: [Vec<(Vec<f64>, Vec<f64>)>; 3] = from_fn(|axis| {
            if axis == 0 && depth == 1 {
                return vec![(vec![1.0], vec![1.0])];
            }
            let first = output[axis] % 2;
            (first..first + 3).map(|point| (G[point].to_vec(), B[point].to_vec())).collect()
        });
        let start: [usize; 3] = from_fn(|axis| if axes[axis].len() == 1 { output[axis] } else { output[axis] / 2 * 2 });
        let at = |c: usize, p: [usize; 3]| {
            let size = [d, h, w];
            let inside = (0..3).all(|a| p[a] >= padding[a] && p[a] - padding[a] < size[a]);
            let [z, y, x] = from_fn(|a| p[a].wrapping_sub(padding[a]));
            if inside { f64::from(self.x[((c * d + z) * h + y) * w + x]).abs() } else { 0.0 }
        };
        let mut total = f64::from(self.b[co]).abs();
        for c in 0..ci {
            for (gz, bz) in &axes[0] {
                for (gy, by) in &axes[1] {
                    for (gx, bx) in &axes[2] {
                        let (mut u, mut v) = (0.0, 0.0);
                        for (i, gz) in gz.iter().enumerate() {
                            for (j, gy) in gy.iter().enumerate() {
                                for (k, gx) in gx.iter().enumerate() {
                                    let tap = ((co * ci + c) * depth + i) * 9 + j * 3 + k;
                                    u += gz * gy * gx * f64::from(self.w[tap]).abs();
                                }
                            }
                        }
                        for (i, bz) in bz.iter().enumerate() {
                            for (j, by) in by.iter().enumerate() {
                                for (k, bx) in bx.iter().enumerate() {
                                    v += bz * by * bx * at(c, [start[0] + i, start[1] + j, start[2] + k]);
                                }
                            }
                        }
                        total += u * v;
                    }
                }
            }
        }
        total
    }
}

fn whole_numbers() -> impl FnMut() -> f32 {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    move || f32::from(rng.random_range(-3i8..=3))
}

/// Whole numbers, so that every order of summation gives the reference's bits.
#[test]
fn whole_numbers_are_exact_on_every_instruction_set() {
    let cases = [
        // Odd and even sizes, several images, channels that fill no vector.
        ([2, 18, 5, 7, 9], [22, 3], [1, 1, 1]),
        ([1, 33, 4, 6, 8], [70, 3], [1, 1, 1]),
        ([1, 16, 3, 40, 6], [17, 1], [0, 1, 1]),
        ([3, 24, 1, 7, 5], [40, 1], [0, 1, 1]),
        // Other paddings, up to tiles that read zeros alone.
        ([1, 16, 6, 5, 7], [16, 3], [0, 0, 0]),
        ([1, 16, 2, 3, 4], [16, 3], [2, 3, 4]),
        ([1, 16, 2, 3, 3], [16, 1], [1, 0, 5]),
    ];
    for (x, w, padding) in cases {
        let case = Case::new(x, w, padding, whole_numbers());
        let want = case.want();
        for isa in Isa::available() {
            for shared in [false, true] {
                let (y, _) = case.got(isa, shared);
                assert!(
                    y.iter().map(|y| f64::from(*y)).eq(want.iter().copied()),
                    "{isa:?} {x:?} {w:?} shared {shared}"
                );
            }
        }
    }
}

#[test]
fn errors_stay_within_the_bound_of_the_module() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    // Values over many orders of magnitude.
    let mut value = || (rng.random_range(-1.0f32..1.0)) * 10.0f32.powi(rng.random_range(-3..=3));
    for (x, w) in [([1, 32, 4, 5, 6], [16, 3]), ([1, 20, 3, 6, 5], [18, 1])] {
        let case = Case::new(x, w, [w[1] / 2, 1, 1], &mut value);
        let (want, [_, co, d, h, w_out]) = (case.want(), case.problem.output_shape());
        let axes = if w[1] == 3 { 3 } else { 2 };
        let k = (x[1] + 3 * axes + 3) as f64 * f64::from(f32::EPSILON) / 2.0;
        let gamma = k / (1.0 - k);
        for isa in Isa::available() {
            let (y, _) = case.got(isa, false);
            for (i, (y, want)) in y.iter().zip(&want).enumerate() {
                let (c, at) = (i / (d * h * w_out) % co, [i / (h * w_out) % d, i / w_out % h, i % w_out]);
                let bound = gamma * case.terms(c, at);
                assert!((f64::from(*y) - want).abs() <= bound, "{isa:?} {x:?} at {c} {at:?}: {y}, {want}, {bound:e}");
            }
        }
    }
}

#[test]
fn sums_are_those_of_the_outputs() {
    let case = Case::new([1, 19, 6, 7, 8], [35, 3], [1, 1, 1], whole_numbers());
    for isa in Isa::available() {
        for shared in [false, true] {
            let (y, sums) = case.got(isa, shared);
            // Whole numbers: every order gives the same sum.
            for (channel, sums) in y.chunks_exact(y.len() / 35).zip(&sums) {
                let sum = |f: fn(f64) -> f64| channel.iter().map(|y| f(f64::from(*y))).sum::<f64>();
                assert_eq!(*sums, [sum(|y| y), sum(|y| y * y)], "{isa:?} shared {shared}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let case = Case::new([1, 17, 9, 10, 11], [18, 3], [1, 1, 1], move || rng.random_range(-1.0..1.0));
    for shared in [false, true] {
        let results: Vec<_> = [1, 2, 5]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| case.got(Isa::widest(), shared))
            })
            .collect();
        assert!(results.iter().all(|r| *r == results[0]), "shared {shared}");
    }
}

#[test]
fn a_voxel_that_is_not_finite_reaches_its_neighbours_alone() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut case = Case::new([1, 16, 6, 7, 8], [16, 3], [1, 1, 1], whole_numbers());
        // Every tap counts, so that no direct sum would hide the value behind a product with 0.
        case.w.iter_mut().filter(|w| **w == 0.0).for_each(|w| *w = 1.0);
        let at = [2, 3, 5];
        let voxel = (at[0] * 7 + at[1]) * 8 + at[2];
        case.x[voxel] = 0.0;
        let clean = case.want();
        case.x[voxel] = bad;
        for isa in Isa::available() {
            let (y, _) = case.got(isa, false);
            for (i, (y, clean)) in y.iter().zip(&clean).enumerate() {
                let p = [i / 56 % 6, i / 8 % 7, i % 8];
                let near = (0..3).all(|a| p[a].abs_diff(at[a]) <= 1);
                assert_eq!(y.is_finite(), !near, "{isa:?} {bad}: {p:?}");
                assert!(near || f64::from(*y) == *clean, "{isa:?} {bad}: {p:?}");
            }
        }
    }
}

#[test]
fn channels_of_two_inputs_are_read_as_if_joined() {
    let case = Case::new([1, 40, 5, 6, 7], [34, 3], [1, 1, 1], whole_numbers());
    let want = case.want();
    for isa in Isa::available() {
        let w = to_channels_last(case.problem.weight_shape(), &case.w);
        let weights = TransformedWeights::of(isa, [40, 34], true, &w);
        let half = case.x.len() / 2;
        let parts = [0, 1].map(|i| to_channels_last([1, 20, 5, 6, 7], &case.x[i * half..][..half]));
        let grid = Grid::of(&case.problem, 1);
        let layout = Layout::new(&weights, &grid, false, 1 << 20);
        let mut y = vec![f32::NAN; want.len()];
        run(grid, &layout, &[&parts[0], &parts[1]], &weights, Some(&case.b), &mut y, false);
        let y = from_channels_last(case.problem.output_shape(), &y);
        assert!(y.iter().map(|y| f64::from(*y)).eq(want.iter().copied()), "{isa:?}");
    }
}
