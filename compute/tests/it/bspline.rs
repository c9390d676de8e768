//! bspline_resample3d.

use nephron_compute::ops::bspline::reference;
use nephron_compute::ops::{bspline_resample3d, bspline_resample3d_slices, bspline_slices};
use nephron_compute::{DType, Tensor};

use crate::support::{assert_close, assert_exact, devices, f64s, float_types, rng, tensor, uniform};

/// Images [n, c, d, h, w] and the sizes they get.
const SHAPES: [([usize; 5], [usize; 3]); 6] = [
    ([1, 1, 1, 1, 1], [3, 1, 2]),
    ([2, 3, 5, 7, 11], [3, 9, 4]),
    ([1, 2, 1, 6, 5], [1, 12, 2]),
    ([3, 1, 4, 1, 9], [7, 3, 18]),
    ([1, 3, 2, 3, 1], [1, 1, 1]),
    ([1, 1, 2, 3, 67], [3, 2, 41]),
];

/// About 10 an axis in the prefilter, whose terms fade by the pole at each step, 6 an axis in the weights, and 26 in the
/// sum of 4 x 4 x 4.
const ROUNDINGS: usize = 80;

#[test]
fn resizing_agrees_with_the_reference() {
    let mut rng = rng();
    for (shape, size) in SHAPES {
        let data = uniform(&mut rng, shape.iter().product());
        let want = reference::resize(&f64s(&data), shape, size);
        for device in devices() {
            for dtype in float_types(device) {
                let y = bspline_resample3d(&tensor(device, shape, dtype, &data), size).expect("bspline");
                assert_close(&format!("{shape:?} to {size:?}"), &y, &want.value, &want.magnitude, ROUNDINGS);
            }
        }
    }
}

#[test]
fn a_constant_stays_itself_and_nothing_leaves_the_range_of_its_channel() {
    // A step overshoots, and each of the two channels has its own range; the third is constant.
    let (shape, size) = ([1, 3, 2, 3, 8], [3, 5, 31]);
    let step = |i: usize, low: f32, high: f32| if i % 8 < 4 { low } else { high };
    let data: Vec<f32> = (0..48)
        .map(|i| step(i, -1.0, 2.0))
        .chain((0..48).map(|i| step(i, 5.0, 5.5)))
        .chain((0..48).map(|_| 0.75))
        .collect();
    for device in devices() {
        for dtype in float_types(device) {
            let y = bspline_resample3d(&tensor(device, shape, dtype, &data), size).expect("bspline");
            let got = y.to_ncdhw().expect("read");
            if crate::support::compiles_only(device) {
                continue;
            }
            let range =
                |c: usize| got[c * 465..(c + 1) * 465].iter().fold((9.0f32, -9.0f32), |r, &v| (r.0.min(v), r.1.max(v)));
            assert_eq!((range(0), range(1), range(2)), ((-1.0, 2.0), (5.0, 5.5), (0.75, 0.75)), "{}", device.name());
        }
    }
}

#[test]
fn the_range_of_a_large_image_is_found() {
    // More voxels than one cube reads at once, their extremes in the last of them.
    let n = 300 * 300;
    let mut data = vec![0.0; n];
    (data[n - 1], data[n - 2]) = (1.0, -1.0);
    for device in devices() {
        let x = tensor(device, [1, 1, 1, 300, 300], DType::F32, &data);
        let y = bspline_resample3d(&x, [1, 1, 2]).expect("bspline");
        let want = reference::resize(&f64s(&data), [1, 1, 1, 300, 300], [1, 1, 2]);
        assert_close("large", &y, &want.value, &want.magnitude, ROUNDINGS);
        // The last voxels of the doubled image overshoot towards both.
        let y = bspline_resample3d(&x, [1, 300, 600]).expect("bspline").to_ncdhw().expect("read");
        if !crate::support::compiles_only(device) {
            let last = y.iter().skip(y.len() - 3).copied().fold(f32::MIN, f32::max);
            assert!(last > 0.9 && last <= 1.0, "{}: {last}", device.name());
        }
    }
}

#[test]
fn the_same_size_and_no_voxels_are_nothing_to_do() {
    for device in devices() {
        let x = tensor(device, [1, 2, 1, 1, 2], DType::F32, &[0.5, 1.0, -0.0, 2.0]);
        assert_exact("same", &bspline_resample3d(&x, [1, 1, 2]).expect("same"), &[0.5, 1.0, 0.0, 2.0]);
        let none = tensor(device, [1, 2, 0, 1, 2], DType::F32, &[]);
        assert_eq!(bspline_resample3d(&none, [0, 3, 3]).expect("empty").shape(), [1, 2, 0, 3, 3]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let none = tensor(device, [1, 1, 0, 1, 2], DType::F32, &[]);
        let message = bspline_resample3d(&none, [1, 1, 1]).expect_err("refused").to_string();
        assert!(message.contains("[1, 1, 0, 1, 2]") && message.contains("[1, 1, 1, 1, 1]"), "{message}");
        let labels = Tensor::from_u8(device, [1, 1, 1, 1, 2], vec![0; 2]).expect("labels");
        let message = bspline_resample3d(&labels, [1, 1, 1]).expect_err("refused").to_string();
        assert!(message.contains("f32") && message.contains("u8"), "{message}");
    }
}

/// An image of more slices than the filter reaches, resized slab by slab: each voxel as of the whole image, but for what the filter
/// carries from slices that a slab leaves out and what rounding makes of the order.
#[test]
fn slabs_are_parts_of_the_whole() {
    let mut rng = rng();
    let (shape, slice) = ([1, 1, 70, 3, 5], 15);
    let data = uniform(&mut rng, shape.iter().product());
    let (low, high) = data.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    for size in [[70, 4, 5], [23, 3, 4], [150, 5, 2]] {
        let want = reference::resize(&f64s(&data), shape, size);
        for device in devices() {
            for dtype in float_types(device) {
                let whole = bspline_resample3d(&tensor(device, shape, dtype, &data), size).expect("bspline");
                let (mut found, whole) = (Vec::new(), whole.to_ncdhw().expect("read"));
                for (start, end) in [(0, 9), (9, 10), (10, size[0] - 1), (size[0] - 1, size[0])] {
                    let slices = bspline_slices(70, size[0], start..end);
                    assert!(end - start > 8 || slices.len() <= 4 + 2 * 16, "{slices:?} for {start}..{end}");
                    let values = &data[slices.start * slice..slices.end * slice];
                    let x = tensor(device, [1, 1, slices.len(), 3, 5], dtype, values);
                    let y = bspline_resample3d_slices(&x, 70, size, start..end, [low, high]).expect("slices");
                    assert_eq!(y.shape(), [1, 1, end - start, size[1], size[2]]);
                    found.extend(y.to_ncdhw().expect("read"));
                }
                let found = tensor(device, [1, 1, size[0], size[1], size[2]], dtype, &found);
                assert_close(&format!("slabs of {size:?}"), &found, &want.value, &want.magnitude, ROUNDINGS);
                if *device == nephron_compute::Device::Cpu {
                    let values = found.to_ncdhw().expect("read");
                    let same = values.iter().zip(&whole).filter(|(a, b)| a == b).count();
                    assert!(same * 10 >= values.len() * 9, "{same} of {} voxels have the same bits", values.len());
                }
            }
        }
    }
}

#[test]
fn slabs_that_do_not_fit_are_refused() {
    let x = tensor(&nephron_compute::Device::Cpu, [1, 1, 4, 1, 1], DType::F32, &[0.0; 4]);
    let refused = |depth, outputs, range| {
        bspline_resample3d_slices(&x, depth, [8, 1, 1], outputs, range).expect_err("refused").to_string()
    };
    assert!(refused(4, 0..9, [0.0, 1.0]).contains("below 8"));
    assert!(refused(90, 0..8, [0.0, 1.0]).contains("found 4"));
    assert!(
        refused(4, 0..8, [1.0, 0.0]).contains("smaller one first") && refused(4, 0..8, [f32::NAN; 2]).contains("NaN")
    );
    assert_eq!(bspline_slices(100, 50, 20..20), 0..0);
}
