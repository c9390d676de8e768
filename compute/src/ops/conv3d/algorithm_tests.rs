//! The model chooses what it should, and every tiling it may choose is one that the kernels can run.

use super::*;
use crate::ops::Conv3dParams;
use crate::tensor::DType;

const GPU: Facts = Facts {
    matrix: true,
    copy_async: true,
    software: false,
    shared_bytes: 163 << 10,
    units: 1024,
    processors: 132,
    width: 8,
    dtype: DType::F16,
};

fn problem(ci: usize, co: usize, size: usize, groups: usize) -> Conv3dProblem {
    let params = Conv3dParams { padding: [1; 3], groups, ..Conv3dParams::default() };
    Conv3dProblem::new([1, ci, size, size, size], [co, ci / groups, 3, 3, 3], params).expect("shapes that fit")
}

fn chosen(problem: &Conv3dProblem, facts: &Facts) -> Algorithm {
    plan(problem, facts, None).expect("a plan").algorithm()
}

#[test]
fn matrix_instructions_are_used_where_they_are() {
    let unet = problem(32, 32, 64, 1);
    assert_eq!(chosen(&unet, &GPU), Algorithm::Halo);
    let down = Conv3dParams { stride: [2; 3], padding: [1; 3], ..Conv3dParams::default() };
    let down = Conv3dProblem::new(unet.input_shape(), [64, 32, 3, 3, 3], down).expect("shapes that fit");
    assert_eq!(chosen(&down, &GPU), Algorithm::ImplicitGemm);
    let without = Facts { matrix: false, copy_async: false, shared_bytes: 32 << 10, processors: 8, width: 4, ..GPU };
    assert_eq!(chosen(&unet, &without), Algorithm::RegisterBlocked);
    assert_eq!(chosen(&problem(32, 32, 64, 2), &GPU), Algorithm::Direct);
    assert_eq!(chosen(&problem(1, 1, 2, 1), &Facts { width: 1, ..GPU }), Algorithm::Direct);
}

/// 320 channels at 8^3 are 40 tiles for 132 multiprocessors: their sums are split until all of them have work, into pieces
/// that cover the sum and leave none empty.
#[test]
fn sums_are_split_where_tiles_are_few() {
    let Ok(Plan::ImplicitGemm(tiling)) = plan(&problem(320, 320, 8, 1), &GPU, Some(Algorithm::ImplicitGemm)) else {
        panic!("no plan");
    };
    assert!(tiling.splits > 1, "{tiling}");
    let Ok(Plan::ImplicitGemm(whole)) = plan(&problem(64, 64, 64, 1), &GPU, Some(Algorithm::ImplicitGemm)) else {
        panic!("no plan");
    };
    assert_eq!(whole.splits, 1, "{whole}");
    for (k, splits) in [(8640, 3), (8640, 7), (100, 50), (33, 2), (32, 9)] {
        let tiling = whole.split(k, splits);
        let steps = k.div_ceil(tiling.tiles.k);
        let each = steps.div_ceil(tiling.splits);
        assert!(tiling.splits <= splits && (tiling.splits - 1) * each < steps, "{k} in {splits}: {tiling}");
        // Every piece has a step for each stage that is filled ahead.
        assert!(steps - (tiling.splits - 1) * each + 1 >= tiling.tiles.stages, "{k} in {splits}: {tiling}");
    }
}

#[test]
fn every_brick_divides_among_its_units() {
    for (dtype, widths) in [(DType::F16, &[1, 2, 4, 8][..]), (DType::F32, &[1, 2, 4])] {
        for &width in widths {
            let gpu = Facts { width, dtype, ..GPU };
            let least = Facts { matrix: false, copy_async: false, shared_bytes: 32 << 10, units: 256, ..gpu };
            for problem in [problem(16, 32, 8, 1), problem(64, 64, 8, 1)] {
                for facts in [gpu, least] {
                    let all: Vec<_> = bricks::tiling(&facts, &problem).into_iter().collect();
                    assert!(!all.is_empty(), "{facts:?}");
                    for HaloTiling { bricks: t, planes, .. } in all {
                        assert_eq!(t.units, planes.m * planes.n * 32, "{t:?}");
                        assert!(t.m().is_multiple_of(16 * planes.m) && t.n.is_multiple_of(16 * planes.n), "{t:?}");
                        assert!(t.units.is_multiple_of(t.n) && (8 * planes.m).is_multiple_of(t.units / t.n), "{t:?}");
                        // Rows of the halo and of the weights begin in different banks, or in one of 64 bytes.
                        assert!(t.pitch() * t.bytes / 16 % 2 == 1 || t.pitch() * t.bytes == 64, "{t:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn first_and_last_layers_have_their_own_kernels() {
    let one = |w| Conv3dProblem::new([1, w, 64, 64, 64], [3, w, 1, 1, 1], Conv3dParams::default()).expect("it fits");
    let software =
        Facts { matrix: false, copy_async: false, software: true, shared_bytes: 32 << 10, processors: 2, ..GPU };
    for facts in [GPU, Facts { dtype: DType::F32, matrix: false, width: 4, ..GPU }, software] {
        assert_eq!(chosen(&problem(1, 32, 64, 1), &Facts { width: 1, ..facts }), Algorithm::Stem, "{facts:?}");
        assert_eq!(chosen(&one(32), &facts), Algorithm::Pointwise, "{facts:?}");
    }
    // Four channels are vectors of 8 bytes: matrix instructions win.
    assert_eq!(chosen(&problem(4, 32, 64, 1), &Facts { width: 4, ..GPU }), Algorithm::ImplicitGemm);
    let refused = |problem: &Conv3dProblem, by| plan(problem, &GPU, Some(by)).expect_err("refused").to_string();
    let message = refused(&problem(5, 32, 8, 1), Algorithm::Stem);
    assert!(message.contains("stem: input channels: expected at most 4, found 5"), "{message}");
    let message = refused(&problem(32, 32, 8, 1), Algorithm::Pointwise);
    assert!(message.contains("pointwise: output channels: expected at most 8, found 32"), "{message}");
    let message = refused(&problem(32, 3, 8, 1), Algorithm::Pointwise);
    assert!(message.contains("kernel: expected [1, 1, 1], found [3, 3, 3]"), "{message}");
}

#[test]
fn every_brick_fits_the_device_and_fills_planes_of_large_outputs() {
    for (ci, co) in [(1, 32), (2, 7), (3, 64), (4, 320)] {
        for facts in [GPU, Facts { shared_bytes: 32 << 10, units: 128, ..GPU }] {
            let brick = stem::brick(&problem(ci, co, 40, 1), &facts).expect("a brick");
            assert!(brick.shared_bytes() <= facts.shared_bytes && brick.units() <= facts.units, "{brick:?}");
            assert!(brick.units().is_multiple_of(32), "{brick:?}");
        }
    }
}

#[test]
fn a_wish_that_cannot_be_met_is_refused_with_both_values() {
    let message = plan(&problem(4, 4, 4, 2), &GPU, Some(Algorithm::ImplicitGemm)).expect_err("groups").to_string();
    assert!(message.contains("implicit_gemm: groups: expected 1, found 2"), "{message}");
    let params = Conv3dParams { padding: [15, 5, 5], ..Conv3dParams::default() };
    let wide = Conv3dProblem::new([1, 1, 9, 9, 9], [1, 1, 31, 1, 1], params).expect("shapes that fit");
    let message = plan(&wide, &GPU, Some(Algorithm::RegisterBlocked)).expect_err("taps").to_string();
    assert!(message.contains("at most 32") && message.contains("33"), "{message}");
    assert!("fast".parse::<Algorithm>().expect_err("no such").to_string().contains("found 'fast'"));
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.to_string().parse::<Algorithm>().expect("its name"), algorithm);
    }
}

#[test]
fn every_tiling_divides_among_its_units() {
    for (dtype, widths) in [(DType::F16, &[1, 2, 4, 8][..]), (DType::F32, &[1, 2, 4])] {
        for &width in widths {
            let facts = Facts { width, dtype, ..GPU };
            // What the least of devices allows is enough for one tiling of each.
            let least = Facts { copy_async: false, shared_bytes: 32 << 10, units: 256, ..facts };
            assert!(
                tiling::register_blocked(&least).next().is_some() && tiling::implicit_gemm(&least).next().is_some()
            );
            let (blocked, gemm) = (tiling::register_blocked(&facts), tiling::implicit_gemm(&facts));
            let all: Vec<_> = blocked.chain(gemm).collect();
            let all: Vec<_> =
                all.into_iter().chain(tiling::register_blocked(&Facts { software: true, ..least })).collect();
            assert!(all.len() >= 4, "{facts:?}");
            for t in all.iter().map(|t| t.tiles) {
                let rows = t.rows_at_once(width);
                assert!(t.units.is_multiple_of(t.k / width) && t.k >= t.piece(), "{t:?}");
                assert!(t.m.is_multiple_of(rows) && t.n.is_multiple_of(rows), "{t:?} in vectors of {width}");
            }
        }
    }
}
