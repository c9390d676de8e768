//! The model chooses what it should, and every tile that it may choose is one that the kernels can run.

use super::super::plan::plan;
use super::Conv3dAlgorithm as Algorithm;
use super::*;
use crate::ops::conv_problem::Conv3dParams;
use crate::tensor::DType;

const GPU: DeviceCaps = DeviceCaps {
    dtype: DType::F16,
    matrix: true,
    copy_async: true,
    software: false,
    shared_bytes: 163 << 10,
    max_units: 1024,
    multiprocessors: 132,
    max_width: 8,
};

fn problem(ci: usize, co: usize, size: usize, groups: usize) -> Conv3dProblem {
    let params = Conv3dParams { padding: [1; 3], groups, ..Conv3dParams::default() };
    Conv3dProblem::new([1, ci, size, size, size], [co, ci / groups, 3, 3, 3], params).expect("shapes that fit")
}

fn chosen(problem: &Conv3dProblem, caps: &DeviceCaps) -> Algorithm {
    plan(problem, caps, None).expect("a plan").algorithm()
}

#[test]
fn matrix_instructions_are_used_where_they_are() {
    let unet = problem(32, 32, 64, 1);
    assert_eq!(chosen(&unet, &GPU), Algorithm::Halo);
    let down = Conv3dParams { stride: [2; 3], padding: [1; 3], ..Conv3dParams::default() };
    let down = Conv3dProblem::new(unet.input_shape(), [64, 32, 3, 3, 3], down).expect("shapes that fit");
    assert_eq!(chosen(&down, &GPU), Algorithm::ImplicitGemm);
    let least = 32 << 10;
    let without =
        DeviceCaps { matrix: false, copy_async: false, shared_bytes: least, multiprocessors: 8, max_width: 4, ..GPU };
    assert_eq!(chosen(&unet, &without), Algorithm::RegisterBlocked);
    assert_eq!(chosen(&problem(32, 32, 64, 2), &GPU), Algorithm::Direct);
    assert_eq!(chosen(&problem(1, 1, 2, 1), &GPU), Algorithm::Direct);
}

/// 320 channels at 8^3 are 20 tiles for 132 multiprocessors: their sums are split until all of them have work, into pieces
/// that cover the sum and leave none empty.
#[test]
fn sums_are_split_where_tiles_are_few() {
    let by_gemm = |problem: Conv3dProblem| {
        let plan = plan(&problem, &GPU, Some(Algorithm::ImplicitGemm)).expect("a plan");
        let Conv3dKernel::ImplicitGemm(tile) = plan.kernel else { panic!("{plan}") };
        (tile, plan.grid.cubes)
    };
    let (tile, cubes) = by_gemm(problem(320, 320, 8, 1));
    assert!(tile.splits > 1 && cubes == 20 * tile.splits, "{tile} by {cubes} cubes");
    let (whole, _) = by_gemm(problem(64, 64, 64, 1));
    assert_eq!(whole.splits, 1, "{whole}");
    for (k, splits) in [(8640_usize, 3), (8640, 7), (100, 50), (33, 2), (32, 9)] {
        let tile = whole.split(k, splits);
        let steps = k.div_ceil(tile.tiles.k);
        let each = steps.div_ceil(tile.splits);
        assert!(tile.splits <= splits && (tile.splits - 1) * each < steps, "{k} in {splits}: {tile}");
        // Every piece has a step for each stage that is filled ahead.
        assert!(steps - (tile.splits - 1) * each + 1 >= tile.tiles.stages, "{k} in {splits}: {tile}");
    }
}

#[test]
fn every_halo_tile_divides_among_its_threads() {
    for (dtype, widths) in [(DType::F16, &[1, 2, 4, 8][..]), (DType::F32, &[1, 2, 4])] {
        for &max_width in widths {
            let gpu = DeviceCaps { max_width, dtype, ..GPU };
            let least = DeviceCaps { matrix: false, copy_async: false, shared_bytes: 32 << 10, max_units: 256, ..gpu };
            for problem in [problem(16, 32, 8, 1), problem(64, 64, 8, 1)] {
                for caps in [gpu, least] {
                    let tile = halo_tiling::tile(&problem, &caps).unwrap_or_else(|| panic!("{caps:?}"));
                    let HaloTile { bricks: t, planes, width, .. } = tile;
                    assert_eq!(width, max_width);
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

#[test]
fn first_and_last_layers_have_their_own_kernels() {
    let one = |w| Conv3dProblem::new([1, w, 64, 64, 64], [3, w, 1, 1, 1], Conv3dParams::default()).expect("it fits");
    let software = DeviceCaps {
        matrix: false,
        copy_async: false,
        software: true,
        shared_bytes: 32 << 10,
        multiprocessors: 2,
        ..GPU
    };
    for caps in [GPU, DeviceCaps { dtype: DType::F32, matrix: false, max_width: 4, ..GPU }, software] {
        assert_eq!(chosen(&problem(1, 32, 64, 1), &caps), Algorithm::Stem, "{caps:?}");
        assert_eq!(chosen(&one(32), &caps), Algorithm::Pointwise, "{caps:?}");
    }
    // Four channels are vectors of 8 bytes: matrix instructions win.
    assert_eq!(chosen(&problem(4, 32, 64, 1), &GPU), Algorithm::ImplicitGemm);
    let refused = |problem: &Conv3dProblem, by| plan(problem, &GPU, Some(by)).expect_err("refused").to_string();
    let message = refused(&problem(5, 32, 8, 1), Algorithm::Stem);
    assert!(message.contains("stem: input channels: expected at most 4, found 5"), "{message}");
    let message = refused(&problem(32, 32, 8, 1), Algorithm::Pointwise);
    assert!(message.contains("pointwise: output channels: expected at most 8, found 32"), "{message}");
    let message = refused(&problem(32, 3, 8, 1), Algorithm::Pointwise);
    assert!(message.contains("kernel: expected [1, 1, 1], found [3, 3, 3]"), "{message}");
}

#[test]
fn every_stem_tile_fits_the_device_and_fills_planes_of_large_outputs() {
    for (ci, co) in [(1, 32), (2, 7), (3, 64), (4, 320)] {
        for caps in [GPU, DeviceCaps { shared_bytes: 32 << 10, max_units: 128, ..GPU }] {
            let brick = stem_tiling::tile(&problem(ci, co, 40, 1), &caps).expect("a tile").brick;
            assert!(brick.shared_bytes() <= caps.shared_bytes && brick.units() <= caps.max_units, "{brick:?}");
            assert!(brick.units().is_multiple_of(32), "{brick:?}");
        }
    }
}

#[test]
fn an_algorithm_that_cannot_is_refused_with_both_values() {
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
fn every_tile_divides_among_its_threads() {
    for (dtype, widths) in [(DType::F16, &[1, 2, 4, 8][..]), (DType::F32, &[1, 2, 4])] {
        for &max_width in widths {
            let caps = DeviceCaps { max_width, dtype, ..GPU };
            let channels = [max_width, 32];
            // What the least of devices allows is enough for one tile of each.
            let least = DeviceCaps { copy_async: false, shared_bytes: 32 << 10, max_units: 256, ..caps };
            let software = DeviceCaps { software: true, ..least };
            assert!(!register_blocked_tiles(&least, channels).is_empty());
            assert!(!implicit_gemm_tiles(&least, channels).is_empty());
            let blocked = [caps, software].into_iter().flat_map(|caps| register_blocked_tiles(&caps, channels));
            let gemm = implicit_gemm_tiles(&caps, channels).into_iter().map(|t| (t.tiles, t.width));
            let all: Vec<_> = blocked.map(|t| (t.tiles, t.width)).chain(gemm).collect();
            assert!(all.len() >= 4, "{caps:?}");
            for (t, width) in all {
                let rows = t.rows_at_once(width);
                assert_eq!(width, max_width);
                assert!(t.units.is_multiple_of(t.k / width) && t.k >= t.piece(), "{t:?}");
                assert!(t.m.is_multiple_of(rows) && t.n.is_multiple_of(rows), "{t:?} in vectors of {width}");
            }
        }
    }
}

/// A plan of every algorithm exists exactly where `unsupported` has no objection, and its grid covers the output.
#[test]
fn what_is_not_unsupported_is_planned() {
    let tiny = DeviceCaps { shared_bytes: 3 << 10, max_units: 32, ..GPU };
    let plain = DeviceCaps { matrix: false, copy_async: false, ..GPU };
    for caps in [GPU, tiny, plain, DeviceCaps { dtype: DType::F32, max_width: 4, ..GPU }] {
        for problem in [problem(1, 32, 9, 1), problem(32, 6, 9, 1), problem(32, 64, 9, 1), problem(6, 6, 9, 3)] {
            for algorithm in Algorithm::ALL {
                let planned = plan(&problem, &caps, Some(algorithm));
                match algorithm.unsupported(&problem, &caps) {
                    Some(refused) => assert_eq!(planned.expect_err("refused").to_string(), refused.to_string()),
                    None => assert_eq!(planned.expect("a plan").algorithm(), algorithm),
                }
            }
            let all = problem.candidates(&caps, None);
            assert!(all.iter().all(|plan| plan.algorithm().unsupported(&problem, &caps).is_none()));
            assert!(all.iter().all(|plan| plan.grid.cubes > 0 && plan.grid.units > 0));
        }
    }
    let message = Algorithm::Halo.unsupported(&problem(32, 32, 9, 1), &tiny).expect("too large").to_string();
    assert!(message.contains("halo: what a cube may have") && message.contains("3072 bytes and 32 units"), "{message}");
}
