//! The product is chosen exactly where it is right, and its tiles are ones that the kernel can run.

use super::super::plan::plan;
use super::ConvTranspose3dAlgorithm as Algorithm;
use super::*;
use crate::ops::conv_problem::{Conv3dParams, Conv3dProblem, ConvTranspose3dParams};
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

fn chosen(problem: &ConvTranspose3dProblem) -> Algorithm {
    plan(problem, &GPU, None).expect("a plan").algorithm()
}

fn problem(kernel: [usize; 3], stride: [usize; 3], padding: [usize; 3]) -> ConvTranspose3dProblem {
    let [kd, kh, kw] = kernel;
    let params = ConvTranspose3dParams { stride, padding };
    ConvTranspose3dProblem::new([1, 64, 32, 32, 32], [64, 32, kd, kh, kw], params).expect("shapes that fit")
}

#[test]
fn the_product_is_for_kernels_that_are_their_stride() {
    assert_eq!(chosen(&problem([2; 3], [2; 3], [0; 3])), Algorithm::Gemm);
    assert_eq!(chosen(&problem([1, 2, 2], [1, 2, 2], [0; 3])), Algorithm::Gemm);
    let refused = [
        (problem([3; 3], [2; 3], [0; 3]), ["kernel: expected the stride [2, 2, 2]", "[3, 3, 3]"]),
        (problem([2; 3], [2; 3], [0, 1, 0]), ["padding: expected none", "[0, 1, 0]"]),
    ];
    for (problem, parts) in refused {
        assert_eq!(chosen(&problem), Algorithm::Direct);
        let message = plan(&problem, &GPU, Some(Algorithm::Gemm)).expect_err("refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    assert!("fast".parse::<Algorithm>().expect_err("no such").to_string().contains("found 'fast'"));
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.to_string().parse::<Algorithm>().expect("its name"), algorithm);
    }
}

/// 5 voxels in strides of 2 leave the last one out: its gradient is 0, and that has to be written too.
#[test]
fn gradients_with_voxels_left_out_are_not_for_the_product() {
    let gradient = |size: usize| {
        let params = Conv3dParams { stride: [2; 3], ..Conv3dParams::default() };
        let forward = Conv3dProblem::new([1, 4, size, 4, 4], [8, 4, 2, 2, 2], params).expect("shapes that fit");
        chosen(&ConvTranspose3dProblem::data_gradient(&forward))
    };
    assert_eq!(gradient(5), Algorithm::Direct);
    assert_eq!(gradient(4), Algorithm::Gemm);
}

#[test]
fn every_tile_divides_among_its_threads() {
    for (dtype, widths) in [(DType::F16, &[1, 2, 4, 8][..]), (DType::F32, &[1, 2, 4])] {
        for (&max_width, pair) in widths.iter().flat_map(|w| [(w, 1), (w, 2)]) {
            let caps = DeviceCaps { max_width, dtype, matrix: dtype == DType::F16, ..GPU };
            let least = DeviceCaps { matrix: false, copy_async: false, shared_bytes: 32 << 10, max_units: 256, ..caps };
            for caps in [caps, least, DeviceCaps { software: true, ..least }] {
                let all = tiles(&caps, [pair, 64 * max_width], 32);
                assert!(!all.is_empty(), "{caps:?}");
                for TransposedTile { tiles: t, width, pair: columns, .. } in all {
                    assert_eq!((width, columns), (max_width, pair));
                    assert_eq!(t.m % t.rows_at_once(width), 0, "{t:?} in vectors of {width}");
                    assert_eq!(t.k % (t.units / (t.n / pair)), 0, "{t:?} in vectors of {pair}");
                }
            }
        }
    }
}

/// The first tile keeps all multiprocessors busy twice over where one can; all others follow for the autotuner.
#[test]
fn the_first_tile_is_the_largest_that_keeps_the_device_busy() {
    let cubes = |size: usize| {
        let params = ConvTranspose3dParams { stride: [2; 3], padding: [0; 3] };
        let problem = ConvTranspose3dProblem::new([1, 64, size, size, size], [64, 32, 2, 2, 2], params);
        let all = problem.expect("shapes that fit").candidates(&GPU, None);
        assert_eq!(all.last().expect("a plan").algorithm(), Algorithm::Direct);
        all[..all.len() - 1].iter().map(|plan| plan.grid.cubes).collect::<Vec<_>>()
    };
    // 128 x 64, 64 x 64 and 64 x 32 outputs by a tile, for 2 x 132 cubes.
    assert_eq!(cubes(32), [1024, 2048, 4096]);
    assert_eq!(cubes(16), [512, 128, 256]);
    assert_eq!(cubes(4), [8, 4, 4]);
}
