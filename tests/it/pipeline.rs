//! Segmentation against a Python implementation of nnU-Net's inference, for all orientations of an image, and errors.

use std::ops::ControlFlow;
use std::path::PathBuf;

use nephron::io::npy;
use nephron::models::{
    ChannelNormalization, ImageReader, Normalization, Order, OrientationRule, Resampling, SeparateAxis, TargetLabels,
    UNet, UNetArchitecture, UNetPlan,
};
use nephron::pipeline::{
    Mirroring, ModelOptions, Output, Precision, SegmentOptions, Segmentation, Segmenter, Stage, gaussian, parse_bytes,
    positions, resampled_size, separate_axis,
};
use nephron::volume::{Affine, Orientation, Volume, Voxels};
use nephron::{DType, Device, Error};
use rand::Rng;

use crate::support::{self, compiles_only, devices, rng};
fn golden(file: &str) -> PathBuf {
    support::root().join("tests/golden").join(file)
}

/// Spacing in mm along (z, y, x); ITK's usual axes.
fn scan(shape: [usize; 3], values: Vec<i16>, [z, y, x]: [f64; 3]) -> Volume {
    let affine = Affine([[-x, 0.0, 0.0, 90.5], [0.0, -y, 0.0, 120.25], [0.0, 0.0, z, -700.0]]);
    Volume::new(shape, Voxels::I16(values.into()), affine).expect("a volume")
}

fn labels(segmentation: &Segmentation) -> &[u8] {
    segmentation.mask.labels()
}

fn quiet(segmenter: &Segmenter, image: &Volume, options: &SegmentOptions) -> nephron::Result<Segmentation> {
    segmenter.segment(image, options, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn tiles_lie_where_nnunet_puts_them() {
    #[derive(serde::Deserialize)]
    struct Case {
        size: usize,
        patch: usize,
        step: f64,
        positions: Vec<usize>,
    }
    let text = std::fs::read(golden("segment/positions.json")).expect("golden");
    let cases: Vec<Case> = serde_json::from_slice(&text).expect("json");
    assert!(cases.len() >= 10);
    for Case { size, patch, step, positions: want } in cases {
        assert_eq!(positions(size, patch, step).expect("positions"), want, "{size} {patch} {step}");
    }
    for (size, patch, step) in [(4, 5, 0.5), (4, 0, 0.5), (4, 4, 0.0), (4, 4, 1.5), (4, 4, f64::NAN)] {
        assert!(positions(size, patch, step).is_err(), "{size} {patch} {step}");
    }
}

#[test]
fn weights_of_a_tile_are_nnunets() {
    for patch in [[5, 8, 12], [1, 7, 16], [64, 2, 3]] {
        let [d, h, w] = patch;
        let (shape, want) = npy::read_f32(golden(&format!("segment/gaussian_{d}x{h}x{w}.npy"))).expect("golden");
        assert_eq!(shape, patch);
        let got = gaussian(patch).expect("it fits");
        // f16 values of two f64 that differ in their last bits differ by at most one unit in the last place.
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= w * 2f32.powi(-10) && *g > 0.0, "{patch:?} {i}: {g} {w}");
        }
        assert_eq!(got.iter().copied().fold(0.0, f32::max), 10.0);
    }
}

#[test]
fn sizes_round_half_to_even_and_thick_slices_are_told_apart() {
    assert_eq!(resampled_size([5, 3, 1], [1.0, 1.0, 0.1], [2.0, 2.0, 1.0]), [2, 2, 1]);
    assert_eq!(resampled_size([200, 512, 512], [5.0, 0.7, 0.7], [3.0, 1.5, 1.5]), [333, 239, 239]);
    let auto = SeparateAxis::WhenAnisotropic;
    assert_eq!(separate_axis(auto, 3.0, [5.0, 0.7, 0.7], [3.0, 1.5, 1.5]), Some(0));
    assert_eq!(separate_axis(auto, 3.0, [3.0, 1.5, 1.5], [0.7, 5.0, 0.7]), Some(1));
    assert_eq!(separate_axis(auto, 3.0, [3.0, 1.0, 1.0], [3.0, 1.5, 1.5]), None, "exactly three times is not more");
    assert_eq!(separate_axis(auto, 3.0, [5.0, 5.0, 0.7], [1.0, 1.0, 1.0]), None, "two coarse axes");
    assert_eq!(separate_axis(SeparateAxis::Always, 3.0, [1.5, 1.0, 1.0], [9.0, 1.0, 1.0]), Some(0));
    assert_eq!(separate_axis(SeparateAxis::Never, 3.0, [5.0, 0.7, 0.7], [1.0, 1.0, 1.0]), None);
}

#[test]
fn masks_are_those_of_nnunets_inference() {
    for (name, spacing, mirroring) in [
        ("thick", [5.0, 0.8, 0.8], Mirroring::Off),
        ("isotropic", [2.0, 1.1, 1.3], Mirroring::AllAxes),
        ("coronal", [1.2, 6.0, 1.5], Mirroring::Off),
    ] {
        let file = |what: &str| golden(&format!("segment/{name}_{what}.npy"));
        let (shape, values) = npy::read_f32(file("image")).expect("image");
        let shape: [usize; 3] = shape.try_into().expect("three axes");
        let image = scan(shape, values.iter().map(|&v| v as i16).collect(), spacing);
        let want = npy::read_u8(file("labels")).expect("labels").1;
        let shares = npy::read_f32(file("probabilities")).expect("probabilities").1;
        let voxels = want.len();
        // Only one case runs on GPUs, because a software Vulkan adapter needs seconds for each.
        let on = devices().iter().filter(|d| !compiles_only(d) && (name == "thick" || **d == Device::Cpu));
        for device in on {
            let segmenter =
                Segmenter::load(&golden("unet"), &ModelOptions::default(), Precision::Single, device).expect("model");
            let options = SegmentOptions { mirroring, output: Output::Probabilities, ..Default::default() };
            let result = quiet(&segmenter, &image, &options).expect("segmented");
            assert_eq!((result.mask.shape(), result.mask.affine()), (image.shape(), image.affine()));
            for (class, volume) in result.probabilities.iter().enumerate() {
                for (i, got) in volume.voxels().to_f32().iter().enumerate() {
                    let want = shares[class * voxels + i];
                    // The bound is half an ulp of the golden f16, plus f32 rounding in some twenty layers and a spline.
                    assert!(
                        (got - want).abs() <= 1e-3,
                        "{} {name} class {class} voxel {i}: {got} {want}",
                        device.name()
                    );
                }
            }
            let mut ties = 0;
            for (i, (&got, &want)) in labels(&result).iter().zip(&want).enumerate() {
                let share = |label: u8| match usize::from(label) {
                    0 => 1.0 - shares[i] - shares[voxels + i],
                    label => shares[(label - 1) * voxels + i],
                };
                ties += usize::from(got != want);
                assert!(got == want || (share(got) - share(want)).abs() <= 2e-3, "{} {name} {i}", device.name());
            }
            assert!(ties * 200 <= voxels, "{} {name}: {ties} of {voxels} voxels differ", device.name());
        }
    }
}

/// A plan of nephron's own, with the orientation RAS, and a seeded network. The tile is small so that there are several.
fn small_model(device: &Device, seeds: &[u64]) -> Segmenter {
    let architecture = UNetArchitecture {
        features: vec![4, 6],
        kernels: vec![[1, 3, 3], [3, 3, 3]],
        strides: vec![[1, 1, 1], [1, 2, 2]],
        ..UNetArchitecture::plain(1, 3, vec![1, 1], vec![1])
    };
    let networks = seeds.iter().map(|&s| UNet::seeded(&architecture, s, device, DType::F32).expect("net")).collect();
    let scheme = Normalization::Ct { clip: [-40.0, 347.0], mean: 112.75, sd: 97.87 };
    let plan = UNetPlan {
        configuration: "3d_fullres".into(),
        architecture,
        spacing: [3.0, 1.5, 1.5],
        patch: [4, 8, 8],
        channels: vec!["CT".into()],
        normalization: vec![ChannelNormalization { scheme, inside_mask: false }],
        data: Resampling::of_order(Order::Cubic),
        logits: Resampling::of_order(Order::Linear),
        transpose: [0, 1, 2],
        reader: ImageReader::Reoriented,
        previous: None,
        labels: TargetLabels::exclusive(&["background", "kidney", "tumour"]),
        file_ending: ".nii.gz".into(),
        warnings: vec![],
    };
    Segmenter::new(plan, networks).expect("a model")
}

fn noise(shape: [usize; 3], spacing: [f64; 3]) -> Volume {
    let mut rng = rng();
    let values = (0..shape.iter().product()).map(|_| rng.random_range(-100i32..400) as i16).collect();
    scan(shape, values, spacing)
}

#[test]
fn the_way_an_image_is_stored_does_not_matter() {
    let segmenter = small_model(&Device::Cpu, &[1]);
    let image = noise([9, 15, 17], [4.0, 1.25, 1.75]);
    let options = SegmentOptions::default();
    let want = quiet(&segmenter, &image, &options).expect("segmented");
    assert_eq!((want.mask.shape(), want.mask.affine()), (image.shape(), image.affine()));
    assert!((1..3).all(|label| labels(&want).contains(&label)), "the network tells voxels apart");
    for code in ["RAS", "LAS", "IPL", "SAR", "PIR"] {
        let turned = image.reorient(code.parse().expect("a code")).expect("turned");
        let got = quiet(&segmenter, &turned, &options).expect("segmented");
        assert_eq!((got.mask.shape(), got.mask.affine()), (turned.shape(), turned.affine()), "{code}");
        let back = got.mask.reorient(image.orientation()).expect("turned back");
        assert!(back.labels() == want.mask.labels(), "{code}");
    }
}

#[test]
fn a_model_of_stored_images_sees_them_as_stored() {
    let image = noise([9, 15, 17], [4.0, 1.25, 1.75]);
    let segmenter = small_model(&Device::Cpu, &[1]);
    let stored = SegmentOptions { orientation: Some(OrientationRule::Stored), ..Default::default() };
    let turned = image.reorient(Orientation::RAS).expect("turned");
    let same = |a: &Segmentation, b: &Segmentation| {
        a.mask.reorient(Orientation::RAS).expect("turned").labels()
            == b.mask.reorient(Orientation::RAS).expect("turned").labels()
    };
    let [as_lps, as_ras] = [&image, &turned].map(|i| quiet(&segmenter, i, &stored).expect("segmented"));
    assert!(!same(&as_lps, &as_ras), "the network is not symmetric");
    // nnU-Net's readers turn nothing either, whichever axis the slices run along.
    let sagittal = quiet(&segmenter, &image.reorient("IPL".parse().expect("code")).expect("turned"), &stored);
    let sagittal = sagittal.expect("segmented");
    assert!(!same(&sagittal, &as_lps) && as_lps.warnings.is_empty() && sagittal.warnings.is_empty());
}

#[test]
fn options_change_what_they_say_and_nothing_else() {
    let image = noise([5, 9, 11], [5.0, 1.3, 1.2]);
    let one = small_model(&Device::Cpu, &[1]);
    let plain = quiet(&one, &image, &SegmentOptions::default()).expect("segmented");
    // Two folds with the same weights average to themselves.
    let twice = quiet(&small_model(&Device::Cpu, &[1, 1]), &image, &SegmentOptions::default()).expect("segmented");
    assert!(plain.mask.labels() == twice.mask.labels());
    let options = SegmentOptions { output: Output::Probabilities, ..Default::default() };
    let shares = quiet(&one, &image, &options).expect("segmented");
    assert!(plain.mask.labels() == shares.mask.labels());
    let probabilities: Vec<Vec<f32>> = shares.probabilities.iter().map(|p| p.voxels().to_f32()).collect();
    for (i, &label) in labels(&plain).iter().enumerate() {
        let [kidney, tumour] = [probabilities[0][i], probabilities[1][i]];
        let all = [1.0 - kidney - tumour, kidney, tumour];
        assert!(all.iter().all(|p| (-1e-6..=1.0).contains(p) && *p <= all[usize::from(label)] + 1e-5), "{all:?}");
    }
    let found = plain.volumes_ml();
    assert_eq!(found.len(), 2);
    for ((name, ml), (label, expected)) in found.iter().zip([(1, "kidney"), (2, "tumour")]) {
        let want = labels(&plain).iter().filter(|v| **v == label).count() as f64 * 5.0 * 1.3 * 1.2 / 1000.0;
        assert!(name == expected && (ml - want).abs() < 1e-9 * want.max(1.0), "{name}: {ml} ml of {want}");
    }
}

#[test]
fn the_same_image_gives_the_same_bits() {
    let image = noise([2, 9, 11], [5.0, 1.3, 1.2]);
    let options = SegmentOptions { output: Output::Probabilities, ..Default::default() };
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let segmenter = small_model(device, &[1]);
        let [first, second] = [(), ()].map(|()| quiet(&segmenter, &image, &options).expect("segmented"));
        assert!(first.mask.labels() == second.mask.labels(), "{}", device.name());
        assert!(first.probabilities[1].voxels() == second.probabilities[1].voxels(), "{}", device.name());
    }
}

#[test]
fn progress_counts_every_tile() {
    let mut stages = Vec::new();
    let image = noise([7, 14, 13], [3.0, 1.5, 1.5]);
    let result = small_model(&Device::Cpu, &[1])
        .segment(&image, &SegmentOptions::default(), &mut |stage| {
            stages.push(stage);
            ControlFlow::Continue(())
        })
        .expect("segmented");
    let want: Vec<Stage> =
        [Stage::Preparing].into_iter().chain((0..=result.tiles).map(|i| Stage::Tiles(i, result.tiles))).collect();
    assert_eq!(stages, want);
    assert_eq!(result.tiles, 3 * 3 * 3);
}

/// The progress callback can end the run before the work and after any tile.
#[test]
fn a_callback_cancels() {
    let image = noise([7, 14, 13], [3.0, 1.5, 1.5]);
    let segmenter = small_model(&Device::Cpu, &[1]);
    for last in [Stage::Preparing, Stage::Tiles(0, 27), Stage::Tiles(5, 27)] {
        let mut seen = Vec::new();
        let ended = segmenter.segment(&image, &SegmentOptions::default(), &mut |stage| {
            seen.push(stage);
            if stage == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(ended, Err(Error::Cancelled)) && seen.last() == Some(&last), "{seen:?}");
    }
}

#[test]
fn a_memory_budget_makes_slabs_smaller_or_is_refused() {
    let segmenter = small_model(&Device::Cpu, &[1]);
    let image = noise([11, 14, 13], [3.0, 1.5, 1.5]);
    let budget = |bytes| SegmentOptions { memory_budget: Some(bytes), ..Default::default() };
    let message = quiet(&segmenter, &image, &budget(1000)).expect_err("too little").to_string();
    assert!(message.contains("found 1000 bytes"), "{message}");
    let least = message.split("at least ").nth(1).and_then(|m| m.split(' ').next()).expect("a count");
    let least: u64 = least.parse().expect("a count");
    let free = quiet(&segmenter, &image, &SegmentOptions::default()).expect("segmented");
    let tight = quiet(&segmenter, &image, &budget(least)).expect("slice by slice");
    assert!(tight.mask.labels() == free.mask.labels());
    assert!(tight.working_set == least && free.working_set > least);
    assert!(quiet(&segmenter, &image, &budget(least - 1)).is_err());
}

#[test]
fn images_that_cannot_be_segmented_are_refused() {
    let segmenter = small_model(&Device::Cpu, &[1]);
    let message =
        |image: &Volume, options: &SegmentOptions| quiet(&segmenter, image, options).expect_err("refused").to_string();
    let options = SegmentOptions::default();
    let good = noise([3, 4, 5], [3.0, 1.5, 1.5]);
    let mut values = vec![1.0; 60];
    values[7] = f32::NAN;
    let nan = good.with_voxels(Voxels::F32(values.into())).expect("a volume");
    assert!(message(&nan, &options).contains("NaN"));
    let empty = good.with_voxels(Voxels::I16(vec![0; 60].into())).expect("a volume");
    assert!(message(&empty, &options).contains("every voxel is 0"));
    let step = message(&good, &SegmentOptions { step: 2.0, ..options });
    assert!(step.contains("0.05 to 1") && step.contains("found 2"), "{step}");
    let wide = Affine([[1e6, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    let huge = good.with_affine(wide).expect("a volume");
    assert!(message(&huge, &options).contains("65536"));
    // A single voxel is an image too.
    let one = scan([1, 1, 1], vec![40], [5.0, 0.8, 0.8]);
    assert_eq!(quiet(&segmenter, &one, &options).expect("segmented").mask.shape(), [1, 1, 1]);
}

#[test]
fn networks_that_do_not_fit_are_refused() {
    let segmenter = small_model(&Device::Cpu, &[1]);
    let mut other = segmenter.plan().architecture.clone();
    other.classes = 4;
    let network = UNet::seeded(&other, 1, &Device::Cpu, DType::F32).expect("net");
    let message = Segmenter::new(segmenter.plan().clone(), vec![network]).expect_err("four classes").to_string();
    assert!(message.contains("classes: 3") && message.contains("classes: 4"), "{message}");
    assert!(Segmenter::new(segmenter.plan().clone(), vec![]).is_err());
}

#[test]
fn bytes_are_read_as_people_write_them() {
    for (text, want) in
        [("1", 1), ("4000000", 4_000_000), ("4GB", 4_000_000_000), ("1.5 GiB", 3 << 29), ("2mib", 2 << 20)]
    {
        assert_eq!(parse_bytes(text).expect(text), want);
    }
    for text in ["", "GB", "-1GB", "4 apples", "NaN", "1e30", "0"] {
        let message = parse_bytes(text).expect_err(text).to_string();
        assert!(message.contains("GiB"), "{message}");
    }
}
