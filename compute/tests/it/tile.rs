//! Sliding-window tiles: crop, weighted accumulation, resampling to labels and probabilities.

use nephron_compute::ops::tile::{
    Accumulator, AxisSampling, AxisTaps, Heads, TilePlacement, crop, reference, resample_labels,
    resample_probabilities, select,
};
use nephron_compute::{DType, Device, Tensor};
use rand::Rng;

use crate::support::{
    assert_close, assert_exact, compiles_only, devices, f64s, float_types, gamma, integers, rng, tensor, uniform,
};

const MIRRORS: [[bool; 3]; 3] = [[false; 3], [true; 3], [true, false, true]];
/// Image, tile and start: inside, over every edge, larger than the image, missing it altogether.
const PLACES: [([usize; 3], [usize; 3], [isize; 3]); 6] = [
    ([1, 1, 1], [1, 1, 1], [0, 0, 0]),
    ([5, 7, 11], [3, 4, 5], [1, 2, 3]),
    ([5, 7, 11], [3, 4, 5], [-2, 5, 9]),
    ([2, 3, 4], [7, 5, 9], [-3, -1, -2]),
    ([2, 3, 4], [2, 2, 2], [5, -7, 0]),
    ([13, 1, 17], [4, 1, 8], [9, 0, 12]),
];

#[test]
fn crop_moves_values_unchanged() {
    let mut rng = rng();
    for (image, size, start) in PLACES {
        for (channels, mirrored) in [1, 3].into_iter().zip(MIRRORS) {
            let [d, h, w] = image;
            let data = uniform(&mut rng, channels * d * h * w);
            let want = reference::crop(&f64s(&data), channels, image, start, mirrored, size);
            for device in devices() {
                let x = tensor(device, [1, channels, d, h, w], DType::F32, &data);
                for dtype in float_types(device) {
                    let y = crop(&x, TilePlacement { start, mirrored }, size, dtype).expect("crop");
                    assert_eq!(y.shape(), [1, channels, size[0], size[1], size[2]]);
                    assert_exact("crop", &y, &want);
                }
            }
        }
    }
}

#[test]
fn crop_takes_every_image_of_a_batch() {
    let data: Vec<f32> = (0..2 * 3 * 4).map(|v| v as f32).collect();
    for device in devices() {
        let x = tensor(device, [2, 3, 1, 1, 4], DType::F32, &data);
        let y = crop(&x, TilePlacement { start: [0, 0, 2], mirrored: [false, false, true] }, [1, 1, 3], DType::F32)
            .expect("crop");
        let want: Vec<f64> =
            (0..6).flat_map(|row| [0.0, f64::from(row) * 4.0 + 3.0, f64::from(row) * 4.0 + 2.0]).collect();
        assert_exact("crop of a batch", &y, &want);
    }
}

#[test]
fn select_picks_images_any_number_of_times() {
    let mut rng = rng();
    let data = uniform(&mut rng, 3 * 2 * 15);
    let want: Vec<f64> = [2, 0, 0, 1].iter().flat_map(|&i: &usize| f64s(&data[i * 30..][..30])).collect();
    for device in devices() {
        let x = tensor(device, [3, 2, 1, 3, 5], DType::F32, &data);
        let y = select(&x, &[2, 0, 0, 1]).expect("select");
        assert_eq!(y.shape(), [4, 2, 1, 3, 5]);
        assert_exact("select", &y, &want);
        let message = select(&x, &[0, 3]).expect_err("past the end").to_string();
        assert!(message.contains("below 3") && message.contains("found 3"), "{message}");
        assert!(select(&x, &[]).is_err());
    }
}

/// Logits, weights, size, placement.
type Tile = (Vec<f32>, Vec<f32>, [usize; 3], TilePlacement);

/// What a device can store sums as.
fn sum_types(device: &Device) -> Vec<DType> {
    let has_f16 = *device == Device::Cpu || device.supports(DType::F16);
    [DType::F32, DType::F16].into_iter().filter(|dtype| *dtype == DType::F32 || has_f16).collect()
}

/// Adds the tiles to an accumulator and to the reference; returns the mean and what it should be.
fn accumulated(
    device: &Device,
    (dtype, sums): (DType, DType),
    channels: usize,
    image: [usize; 3],
    tiles: &[Tile],
) -> (Tensor, Vec<f64>) {
    let voxels = image.iter().product::<usize>();
    let mut accumulator = Accumulator::new(device, channels, image, sums).expect("accumulator");
    let (mut sum, mut total) = (vec![0.0; channels * voxels], vec![0.0; voxels]);
    for (tile, weight, [d, h, w], placement) in tiles {
        let weights = tensor(device, [1, 1, *d, *h, *w], DType::F32, weight);
        accumulator.add(&tensor(device, [1, channels, *d, *h, *w], dtype, tile), &weights, *placement).expect("add");
        reference::accumulate(
            (&mut sum, &mut total),
            image,
            (&f64s(tile), &f64s(weight)),
            [*d, *h, *w],
            placement.start,
            placement.mirrored,
        );
    }
    let mean = sum.iter().enumerate().map(|(i, s)| if total[i % voxels] > 0.0 { s / total[i % voxels] } else { 0.0 });
    (accumulator.mean(image[0]).expect("mean"), mean.collect())
}

#[test]
fn accumulation_of_whole_numbers_is_exact() {
    let mut rng = rng();
    for (image, size, start) in PLACES {
        let len = size.iter().product::<usize>();
        // Weights that are powers of two, the same at a voxel for every tile, keep the mean exact.
        let mirrors = MIRRORS.into_iter().chain([[false; 3]]);
        let tiles: Vec<_> = mirrors
            .map(|mirrored| (integers(&mut rng, 2 * len, 8), vec![0.5; len], size, TilePlacement { start, mirrored }))
            .collect();
        for device in devices() {
            for dtype in float_types(device) {
                for sums in sum_types(device) {
                    let (got, want) = accumulated(device, (dtype, sums), 2, image, &tiles);
                    assert_exact("accumulate", &got, &want);
                }
            }
        }
    }
}

#[test]
fn accumulation_is_a_weighted_mean() {
    let mut rng = rng();
    let (image, size) = ([6, 9, 10], [4, 5, 6]);
    let len = size.iter().product::<usize>();
    let tiles: Vec<_> = (0..6)
        .map(|i| {
            let start = [(-1i32, 4), (-2, 6), (-2, 7)].map(|(from, to)| rng.random_range(from..to) as isize);
            let weight = (0..len).map(|_| rng.random_range(0.1f32..1.0)).collect();
            (uniform(&mut rng, 3 * len), weight, size, TilePlacement { start, mirrored: MIRRORS[i % 3] })
        })
        .collect();
    // The mean's terms are at most 1 in size: two roundings a tile in the sums, one for the quotient.
    let magnitude = vec![1.0; 3 * image.iter().product::<usize>()];
    for device in devices() {
        for sums in sum_types(device) {
            let (got, want) = accumulated(device, (DType::F32, sums), 3, image, &tiles);
            // In f16 a sum, which no total weight is smaller than, is rounded to 11 bits after each tile.
            let stored = if sums == DType::F16 { tiles.len() << 13 } else { 0 };
            assert_close("weighted mean", &got, &want, &magnitude, 4 * tiles.len() + 1 + stored);
        }
    }
}

#[test]
fn the_window_moves_along_z() {
    for device in devices() {
        for sums in sum_types(device) {
            let mut accumulator = Accumulator::new(device, 1, [3, 1, 2], sums).expect("accumulator");
            let ones = tensor(device, [1, 1, 3, 1, 2], DType::F32, &[1.0; 6]);
            let tile = tensor(device, [1, 1, 3, 1, 2], DType::F32, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            accumulator.add(&tile, &ones, TilePlacement::at([0; 3])).expect("add");
            assert_exact("first slice", &accumulator.mean(1).expect("mean"), &[1.0, 2.0]);
            accumulator.advance(2).expect("advance");
            assert_exact("moved", &accumulator.mean(3).expect("mean"), &[5.0, 6.0, 0.0, 0.0, 0.0, 0.0]);
            accumulator.add(&tile, &ones, TilePlacement::at([1, 0, 0])).expect("add");
            assert_exact("added", &accumulator.mean(3).expect("mean"), &[5.0, 6.0, 1.0, 2.0, 3.0, 4.0]);
            accumulator.advance(9).expect("advance past the end");
            assert_exact("emptied", &accumulator.mean(3).expect("mean"), &[0.0; 6]);
        }
    }
}

#[test]
fn sums_that_overflow_f16_are_infinite_and_labels_of_none() {
    for device in devices().iter().filter(|device| !compiles_only(device)) {
        for sums in sum_types(device) {
            let mut accumulator = Accumulator::new(device, 2, [1, 1, 2], sums).expect("accumulator");
            let weight = tensor(device, [1, 1, 1, 1, 2], DType::F32, &[10.0; 2]);
            // The second voxel's first class reaches 70000.
            let tile = tensor(device, [1, 2, 1, 1, 2], DType::F32, &[1.0, 7000.0, 2.0, 5.0]);
            accumulator.add(&tile, &weight, TilePlacement::at([0; 3])).expect("add");
            let mean = accumulator.mean(1).expect("mean").to_ncdhw().expect("values");
            let large = if sums == DType::F16 { f32::INFINITY } else { 7000.0 };
            assert_eq!(mean, [1.0, large, 2.0, 5.0], "{} {sums}", device.name());
        }
    }
}

#[test]
fn taps_are_those_of_interpolate_and_of_map_coordinates() {
    let linear = AxisTaps::new(AxisSampling::Linear, 2, 4).expect("taps");
    assert_eq!(
        (linear.low(), linear.high(), linear.fraction()),
        (&[0, 0, 0, 1][..], &[0, 1, 1, 1][..], &[0.0, 0.25, 0.75, 0.0][..])
    );
    let nearest = AxisTaps::new(AxisSampling::Nearest, 2, 5).expect("taps");
    assert_eq!(nearest.low(), [0, 0, 1, 1, 1], "half way goes up, as SciPy's floor(x + 0.5)");
    let same = AxisTaps::new(AxisSampling::Linear, 7, 7).expect("taps");
    assert_eq!(same.low(), [0, 1, 2, 3, 4, 5, 6]);
    assert!(same.fraction().iter().all(|&t| t == 0.0));
    let window = linear.window(2..4, 0).expect("window");
    assert_eq!((window.low(), window.high()), (&[0, 1][..], &[1, 1][..]));
    assert_eq!((linear.outputs_before(1), linear.outputs_before(2), linear.outputs_before(0)), (1, 4, 0));
}

/// Drawn sizes: enlarging, shrinking, the same, single voxels.
const RESAMPLED: [([usize; 3], [usize; 3]); 5] = [
    ([1, 1, 1], [1, 1, 1]),
    ([3, 4, 5], [7, 9, 11]),
    ([7, 5, 13], [3, 5, 6]),
    ([1, 6, 2], [5, 1, 3]),
    ([4, 4, 4], [4, 4, 4]),
];
const NEAREST: [[bool; 3]; 3] = [[false; 3], [true, false, false], [false, true, true]];

fn taps(input: [usize; 3], output: [usize; 3], nearest: [bool; 3]) -> [AxisTaps; 3] {
    std::array::from_fn(|a| {
        let sampling = if nearest[a] { AxisSampling::Nearest } else { AxisSampling::Linear };
        AxisTaps::new(sampling, input[a], output[a]).expect("taps")
    })
}

#[test]
fn labels_are_the_argmax_of_the_resampled_logits() {
    let mut rng = rng();
    for (input, output) in RESAMPLED {
        for nearest in NEAREST {
            let channels = 3;
            let [d, h, w] = input;
            let data = uniform(&mut rng, channels * d * h * w);
            let want = reference::resample(&f64s(&data), channels, input, output, nearest);
            let [along_z, along_y, along_x] = &taps(input, output, nearest);
            let voxels = output.iter().product::<usize>();
            for device in devices() {
                let logits = tensor(device, [1, channels, d, h, w], DType::F32, &data);
                let labels = resample_labels(&logits, [along_z, along_y, along_x], Heads::Softmax).expect("labels");
                assert_eq!(labels.shape(), [1, 1, output[0], output[1], output[2]]);
                let labels = labels.to_u8().expect("u8");
                if compiles_only(device) {
                    continue;
                }
                for (v, &label) in labels.iter().enumerate() {
                    let value = |c: usize| want[c * voxels + v];
                    let best = (0..channels).map(value).fold(f64::MIN, f64::max);
                    // Three lerps of numbers up to 1, their weights rounded: only a near tie may go the other way.
                    assert!(best - value(label.into()) <= gamma(24), "{} voxel {v}: label {label}", device.name());
                }
            }
        }
    }
}

#[test]
fn ties_go_to_the_lowest_class_and_broken_logits_are_shown() {
    let infinity = f32::INFINITY;
    let data = [1.0, 0.0, f32::NAN, 2.0, 1.0, 3.0, -9.0, infinity, 0.0, 3.0, 4.0, 2.0];
    let same = AxisTaps::new(AxisSampling::Linear, 1, 1).expect("taps");
    let across = AxisTaps::new(AxisSampling::Linear, 4, 4).expect("taps");
    for device in devices() {
        let logits = tensor(device, [1, 3, 1, 1, 4], DType::F32, &data);
        let labels =
            resample_labels(&logits, [&same, &same, &across], Heads::Softmax).expect("labels").to_u8().expect("u8");
        if !compiles_only(device) {
            assert_eq!(labels, [0, 1, 255, 255], "{}", device.name());
        }
        let regions = Heads::Sigmoid(&[4, 5, 6]);
        let labels = resample_labels(&logits, [&same, &same, &across], regions).expect("labels").to_u8().expect("u8");
        if !compiles_only(device) {
            assert_eq!(labels, [5, 6, 255, 255], "{}", device.name());
        }
    }
}

#[test]
fn regions_take_the_value_of_the_last_one_above_a_half() {
    let mut rng = rng();
    let values = [7, 2, 9];
    for (input, output) in RESAMPLED {
        let [d, h, w] = input;
        let data = uniform(&mut rng, 3 * d * h * w);
        let logits = reference::resample(&f64s(&data), 3, input, output, [false; 3]);
        let want = reference::regions(&logits, &values);
        let sigmoids: Vec<f64> = logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect();
        let [along_z, along_y, along_x] = &taps(input, output, [false; 3]);
        for device in devices() {
            let x = tensor(device, [1, 3, d, h, w], DType::F32, &data);
            let (axes, heads) = ([along_z, along_y, along_x], Heads::Sigmoid(&values));
            let labels = resample_labels(&x, axes, heads).expect("labels").to_u8().expect("u8");
            let probabilities = resample_probabilities(&x, axes, heads).expect("probabilities");
            assert_close("sigmoids", &probabilities, &sigmoids, &sigmoids, 96);
            if compiles_only(device) {
                continue;
            }
            let voxels = want.len();
            for (v, (got, want)) in labels.iter().zip(&want).enumerate() {
                // A logit as close to 0 as its rounding may fall on either side.
                let close = (0..3).any(|r| logits[r * voxels + v].abs() <= gamma(24));
                assert!(got == want || close, "{} voxel {v}: {got}, expected {want}", device.name());
            }
        }
    }
    let x = tensor(&Device::Cpu, [1, 2, 1, 1, 1], DType::F32, &[0.0, 0.0]);
    let one = AxisTaps::new(AxisSampling::Linear, 1, 1).expect("taps");
    for (values, words) in [(&[1][..], ["2", "1"]), (&[1, 255], ["254", "255"])] {
        let error = resample_labels(&x, [&one, &one, &one], Heads::Sigmoid(values)).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn probabilities_are_the_softmax_of_the_resampled_logits() {
    let mut rng = rng();
    for (input, output) in RESAMPLED {
        let channels = 4;
        let [d, h, w] = input;
        let data = uniform(&mut rng, channels * d * h * w);
        let nearest = [false, true, false];
        let logits = reference::resample(&f64s(&data), channels, input, output, nearest);
        let voxels = output.iter().product::<usize>();
        let total = |v: usize| (0..channels).map(|c| logits[c * voxels + v].exp()).sum::<f64>();
        let want: Vec<f64> = (0..channels * voxels).map(|i| logits[i].exp() / total(i % voxels)).collect();
        let [along_z, along_y, along_x] = &taps(input, output, nearest);
        for device in devices() {
            let x = tensor(device, [1, channels, d, h, w], DType::F32, &data);
            let y = resample_probabilities(&x, [along_z, along_y, along_x], Heads::Softmax).expect("probabilities");
            // exp turns the logits' error (gamma_24) into the same relative one, twice; GPUs give exp to a few ulp.
            assert_close("probabilities", &y, &want, &want, 96);
        }
    }
}

#[test]
fn a_slab_is_the_same_as_the_whole() {
    let mut rng = rng();
    let (input, output) = ([6, 3, 4], [13, 5, 6]);
    let data = uniform(&mut rng, 2 * 6 * 3 * 4);
    let [along_z, along_y, along_x] = &taps(input, output, [false; 3]);
    for device in devices() {
        let logits = tensor(device, [1, 2, 6, 3, 4], DType::F32, &data);
        let whole =
            resample_labels(&logits, [along_z, along_y, along_x], Heads::Softmax).expect("labels").to_u8().expect("u8");
        let slab = crop(&logits, TilePlacement::at([2, 0, 0]), [4, 3, 4], DType::F32).expect("crop");
        let window = along_z.window(6..13, 2).expect("window");
        let part =
            resample_labels(&slab, [&window, along_y, along_x], Heads::Softmax).expect("labels").to_u8().expect("u8");
        if !compiles_only(device) {
            assert_eq!(part, whole[6 * 30..], "{}", device.name());
        }
    }
}

#[test]
fn sums_over_the_devices_limit_are_refused() {
    for device in devices() {
        let limit = device.max_buffer_bytes();
        // A device with enough memory would need more of it than the test may use.
        if limit < 1 << 31 {
            let slices = limit as usize / (3 * 4 * 64 * 64) + 1;
            let error = Accumulator::new(device, 3, [slices, 64, 64], DType::F32).expect_err("too large");
            assert!(matches!(error, nephron_compute::Error::BufferTooLarge { limit: l, .. } if l == limit), "{error}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = tensor(&Device::Cpu, [1, 2, 2, 2, 2], DType::F32, &[0.0; 16]);
    let labels = Tensor::from_u8(&Device::Cpu, [1, 1, 1, 1, 1], vec![0]).expect("labels");
    let origin = TilePlacement::at([0; 3]);
    let refused = |message: nephron_compute::Result<Tensor>, parts: [&str; 2]| {
        let message = message.expect_err("refused").to_string();
        assert!(parts.iter().all(|p| message.contains(p)), "{message}");
    };
    refused(crop(&labels, origin, [1; 3], DType::F32), ["f32", "u8"]);
    refused(crop(&x, origin, [0, 1, 1], DType::F32), ["size 0", "[1, 2, 0, 1, 1]"]);
    refused(crop(&x, origin, [1; 3], DType::F16), ["cpu", "f16"]);
    refused(
        crop(&x, TilePlacement::at([isize::MIN, 0, 0]), [1; 3], DType::F32),
        ["1073741824", "-9223372036854775808"],
    );
    let [two, four] = [2, 4].map(|n| AxisTaps::new(AxisSampling::Linear, n, 3).expect("taps"));
    refused(resample_labels(&x, [&two, &four, &two], Heads::Softmax), ["below 2", "3"]);
    refused(resample_labels(&labels, [&two, &two, &two], Heads::Softmax), ["f32", "u8"]);
    let message = two.window(0..4, 0).expect_err("past the end").to_string();
    assert!(message.contains("0..3") && message.contains("0..4"), "{message}");
    assert!(
        AxisTaps::new(AxisSampling::Linear, 0, 3).is_err()
            && two.window(1..2, 1).is_err()
            && two.window(1..1, 0).is_err()
    );
    let mut accumulator = Accumulator::new(&Device::Cpu, 3, [2; 3], DType::F32).expect("accumulator");
    let message = accumulator.add(&x, &x, origin).expect_err("two channels for three").to_string();
    assert!(message.contains("[1, 3,") && message.contains("[1, 2,"), "{message}");
    let weight = tensor(&Device::Cpu, [1, 1, 1, 2, 2], DType::F32, &[0.0; 4]);
    let mut accumulator = Accumulator::new(&Device::Cpu, 2, [2; 3], DType::F32).expect("accumulator");
    let message = accumulator.add(&x, &weight, origin).expect_err("another shape").to_string();
    assert!(message.contains("[1, 1, 2, 2, 2]") && message.contains("[1, 1, 1, 2, 2]"), "{message}");
    assert!(accumulator.mean(3).is_err() && accumulator.mean(0).is_err());
    assert!(Accumulator::new(&Device::Cpu, 2, [2, 0, 2], DType::F32).is_err());
    assert!(Accumulator::new(&Device::Cpu, 2, [2, 2, 2], DType::BF16).is_err());
}
