//! The product is chosen exactly where it is right, and its tiles are ones the kernel can run.

use super::*;
use crate::ops::{Conv3dParams, ConvTranspose3dParams, conv3d::Conv3dProblem};
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

fn problem(kernel: [usize; 3], stride: [usize; 3], padding: [usize; 3]) -> ConvTranspose3dProblem {
    let [kd, kh, kw] = kernel;
    let params = ConvTranspose3dParams { stride, padding };
    ConvTranspose3dProblem::new([1, 64, 32, 32, 32], [64, 32, kd, kh, kw], params).expect("shapes that fit")
}

#[test]
fn the_product_is_for_kernels_that_are_their_stride() {
    assert!(matches!(plan(&problem([2; 3], [2; 3], [0; 3]), &GPU, None), Ok(Plan::Gemm(_))));
    assert!(matches!(plan(&problem([1, 2, 2], [1, 2, 2], [0; 3]), &GPU, None), Ok(Plan::Gemm(_))));
    let refused = [
        (problem([3; 3], [2; 3], [0; 3]), ["kernel: expected the stride [2, 2, 2]", "[3, 3, 3]"]),
        (problem([2; 3], [2; 3], [0, 1, 0]), ["padding: expected none", "[0, 1, 0]"]),
    ];
    for (problem, parts) in refused {
        assert_eq!(plan(&problem, &GPU, None).expect("a plan"), Plan::Direct);
        let message = plan(&problem, &GPU, Some(Algorithm::Gemm)).expect_err("refused").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    assert!("fast".parse::<Algorithm>().expect_err("no such").to_string().contains("found 'fast'"));
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.to_string().parse::<Algorithm>().expect("its name"), algorithm);
    }
}

/// 5 voxels in strides of 2 leave the last one out: its gradient is 0 and somebody must write it.
#[test]
fn gradients_with_voxels_left_out_are_not_for_the_product() {
    let gradient = |size: usize| {
        let params = Conv3dParams { stride: [2; 3], ..Conv3dParams::default() };
        let forward = Conv3dProblem::new([1, 4, size, 4, 4], [8, 4, 2, 2, 2], params).expect("shapes that fit");
        plan(&ConvTranspose3dProblem::data_gradient(&forward), &GPU, None).expect("a plan")
    };
    assert_eq!(gradient(5), Plan::Direct);
    assert!(matches!(gradient(4), Plan::Gemm(_)));
}

#[test]
fn every_tiling_divides_among_its_units() {
    for (dtype, widths) in [(DType::F16, &[1, 2, 4, 8][..]), (DType::F32, &[1, 2, 4])] {
        for (&width, pair) in widths.iter().flat_map(|w| [(w, 1), (w, 2)]) {
            let facts = Facts { width, dtype, matrix: dtype == DType::F16, ..GPU };
            let least = Facts { matrix: false, copy_async: false, shared_bytes: 32 << 10, units: 256, ..facts };
            for facts in [facts, least, Facts { software: true, ..least }] {
                let all: Vec<_> = tilings(&facts, pair).collect();
                assert!(!all.is_empty(), "{facts:?}");
                for t in all.iter().map(|t| t.tiles) {
                    assert_eq!(t.m % t.rows_at_once(width), 0, "{t:?} in vectors of {width}");
                    assert_eq!(t.k % (t.units / (t.n / pair)), 0, "{t:?} in vectors of {pair}");
                }
            }
        }
    }
}
