use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::gradient::{Cut, cut_gradient, suits};
use super::grid::Grid;
use crate::ops::conv_problem::{Conv3dParams, Conv3dProblem};
use crate::ops::conv3d::reference;
use crate::ops::simd::Isa;
use crate::tensor::{Shape, from_channels_last, to_channels_last};

/// Operands in the layout [n, c, d, h, w].
struct Case {
    problem: Conv3dProblem,
    x: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn new(x: Shape, [co, depth]: [usize; 2], padding: [usize; 3], mut value: impl FnMut() -> f32) -> Self {
        let params = Conv3dParams { padding, ..Default::default() };
        let problem = Conv3dProblem::new(x, [co, x[1], depth, 3, 3], params).expect("a problem");
        let mut values = |shape: Shape| (0..shape.iter().product()).map(|_| value()).collect::<Vec<f32>>();
        Self { problem, x: values(x), dy: values(problem.output_shape()) }
    }

    /// The gradient [co, ci, kd, 3, 3] by the reference.
    fn want(&self) -> Vec<f64> {
        let f64s = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (xs, ws, params) = (self.problem.input_shape(), self.problem.weight_shape(), self.problem.params());
        // The value does not depend on the weights.
        let w = vec![0.0; ws.iter().product()];
        reference::conv3d_backward(&f64s(&self.x), xs, &w, ws, &f64s(&self.dy), &params).dw.value
    }

    fn tiles(&self) -> usize {
        Grid::of(&self.problem, self.problem.input_shape()[0]).tiles()
    }

    fn got(&self, isa: Isa, cut: Option<Cut>) -> Vec<f32> {
        let x = to_channels_last(self.problem.input_shape(), &self.x);
        let dy = to_channels_last(self.problem.output_shape(), &self.dy);
        from_channels_last(self.problem.weight_shape(), &cut_gradient(isa, &self.problem, &x, &dy, cut))
    }

    /// The cut that is chosen, and others: small blocks, several parts, and parts without a tile.
    fn cuts(&self) -> [Option<Cut>; 5] {
        let tiles = self.tiles();
        [
            None,
            Some(Cut { parts: 1, block: 3, shared: true }),
            Some(Cut { parts: 1, block: 5, shared: false }),
            Some(Cut { parts: 3, block: 2, shared: false }),
            Some(Cut { parts: tiles + 1, block: tiles, shared: false }),
        ]
    }

    /// |G|ᵀ of the sums of (|A| |dy|) ⊙ (|B|ᵀ |d|) over the tiles, [co, ci, kd, 3, 3].
    fn terms(&self) -> Vec<f64> {
        const A: [&[(usize, f64)]; 4] = [&[(0, 1.0)], &[(0, 1.0), (1, 1.0)], &[(0, 1.0), (1, 1.0)], &[(1, 1.0)]];
        const B: [[usize; 2]; 4] = [[0, 2], [1, 2], [1, 2], [1, 3]];
        const G: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.0, 0.0, 1.0]];
        let ([n, ci, d, h, w], [_, co, od, oh, ow]) = (self.problem.input_shape(), self.problem.output_shape());
        let (kd, padding) = (self.problem.weight_shape()[2], self.problem.params().padding);
        let deep = kd == 3;
        let read = |data: &[f32], size: [usize; 3], channel: usize, at: [isize; 3]| {
            let inside = (0..3).all(|a| (0..size[a] as isize).contains(&at[a]));
            let [z, y, x] = at.map(|a| a as usize);
            if inside { f64::from(data[((channel * size[0] + z) * size[1] + y) * size[2] + x]).abs() } else { 0.0 }
        };
        let mut terms = vec![0.0; co * ci * kd * 9];
        let z_step = if deep { 2 } else { 1 };
        let points: Vec<[usize; 3]> = (0..if deep { 64 } else { 16 }).map(|p| [p / 16, p / 4 % 4, p % 4]).collect();
        for image in 0..n {
            for (tz, ty, tx) in (0..od.div_ceil(z_step))
                .flat_map(|z| (0..oh.div_ceil(2)).flat_map(move |y| (0..ow.div_ceil(2)).map(move |x| (z, y, x))))
            {
                let first = [tz * z_step, ty * 2, tx * 2].map(|v| v as isize);
                for &[pz, py, px] in &points {
                    let along_z = if deep { A[pz] } else { &[(0, 1.0)] };
                    let m = |c: usize| {
                        let mut sum = 0.0;
                        for (z, _) in along_z {
                            for (y, _) in A[py] {
                                for (x, _) in A[px] {
                                    let at = [first[0] + *z as isize, first[1] + *y as isize, first[2] + *x as isize];
                                    sum += read(&self.dy, [od, oh, ow], image * co + c, at);
                                }
                            }
                        }
                        sum
                    };
                    let v = |c: usize| {
                        let mut sum = 0.0;
                        for z in if deep { B[pz].to_vec() } else { vec![0] } {
                            for y in B[py] {
                                for x in B[px] {
                                    let offset = [z, y, x];
                                    let at = [0, 1, 2].map(|a| first[a] + offset[a] as isize - padding[a] as isize);
                                    sum += read(&self.x, [d, h, w], image * ci + c, at);
                                }
                            }
                        }
                        sum
                    };
                    let (m, v): (Vec<f64>, Vec<f64>) = ((0..co).map(m).collect(), (0..ci).map(v).collect());
                    for (i, term) in terms.iter_mut().enumerate() {
                        let (tap, c, out) = (i % (kd * 9), i / (kd * 9) % ci, i / (kd * 9 * ci));
                        let gz = if deep { G[pz][tap / 9] } else { 1.0 };
                        *term += gz * G[py][tap / 3 % 3] * G[px][tap % 3] * m[out] * v[c];
                    }
                }
            }
        }
        terms
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
        // Odd and even sizes, several images, channels that fill no vector and several.
        ([2, 18, 5, 7, 9], [22, 3], [1, 1, 1]),
        ([1, 33, 4, 6, 8], [70, 3], [1, 1, 1]),
        ([2, 8, 4, 5, 6], [8, 3], [1, 1, 1]),
        ([1, 16, 3, 40, 6], [17, 1], [0, 1, 1]),
        ([3, 24, 1, 7, 5], [40, 1], [0, 1, 1]),
        // Other paddings, up to tiles that read zeros alone.
        ([1, 16, 6, 5, 7], [16, 3], [0, 0, 0]),
        ([1, 9, 2, 3, 4], [11, 3], [2, 3, 4]),
        ([1, 16, 2, 3, 3], [16, 1], [1, 0, 5]),
    ];
    for (x, w, padding) in cases {
        let case = Case::new(x, w, padding, whole_numbers());
        let want = case.want();
        for isa in Isa::available() {
            for cut in case.cuts() {
                let dw = case.got(isa, cut);
                assert!(dw.iter().map(|v| f64::from(*v)).eq(want.iter().copied()), "{isa:?} {x:?} {w:?} {cut:?}");
            }
        }
    }
}

#[test]
fn errors_stay_within_the_bound_of_the_module() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    // Values over many orders of magnitude.
    let mut value = || (rng.random_range(-1.0f32..1.0)) * 10.0f32.powi(rng.random_range(-3..=3));
    for (x, w) in [([1, 12, 4, 5, 6], [16, 3]), ([2, 8, 7, 9, 8], [9, 3]), ([1, 20, 3, 6, 5], [18, 1])] {
        let case = Case::new(x, w, [w[1] / 2, 1, 1], &mut value);
        let (want, terms, axes) = (case.want(), case.terms(), if w[1] == 3 { 3 } else { 2 });
        for isa in Isa::available() {
            for cut in case.cuts() {
                let parts = cut.map_or(1, |cut| cut.parts);
                let k = (case.tiles() + parts + 4 * axes) as f64 * f64::from(f32::EPSILON) / 2.0;
                let gamma = k / (1.0 - k);
                for (i, (dw, (want, terms))) in case.got(isa, cut).iter().zip(want.iter().zip(&terms)).enumerate() {
                    let bound = gamma * terms;
                    assert!(
                        (f64::from(*dw) - want).abs() <= bound,
                        "{isa:?} {x:?} {cut:?} at {i}: {dw}, {want}, {bound:e}"
                    );
                }
            }
        }
    }
}

/// Large enough for parts of their own, which is what the whole image gets.
#[test]
fn bits_do_not_depend_on_threads() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let case = Case::new([1, 8, 32, 32, 33], [9, 3], [1, 1, 1], move || rng.random_range(-1.0..1.0));
    assert!(suits(&case.problem) && case.tiles() > 8 * 512);
    for cut in [None, Some(Cut { parts: 1, block: 100, shared: true })] {
        let results: Vec<_> = [1, 2, 5]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| case.got(Isa::widest(), cut))
            })
            .collect();
        assert!(results.iter().all(|r| *r == results[0]), "{cut:?}");
    }
}

#[test]
fn strides_few_channels_and_few_tiles_are_left_to_the_direct_sum() {
    let stride_2 = Conv3dParams { stride: [2; 3], padding: [1; 3], ..Default::default() };
    let padded = Conv3dParams { padding: [1; 3], ..Default::default() };
    for (x, w, params, is_suited) in [
        ([1, 8, 16, 16, 16], [8, 8, 3, 3, 3], padded, true),
        ([1, 8, 16, 16, 16], [8, 8, 3, 3, 3], stride_2, false),
        ([1, 7, 16, 16, 16], [8, 7, 3, 3, 3], padded, false),
        ([1, 8, 16, 16, 16], [8, 8, 5, 3, 3], padded, false),
        ([1, 8, 6, 8, 8], [8, 8, 3, 3, 3], padded, false),
    ] {
        let problem = Conv3dProblem::new(x, w, params).expect("a problem");
        assert_eq!(suits(&problem), is_suited, "{x:?} {w:?}");
    }
}
