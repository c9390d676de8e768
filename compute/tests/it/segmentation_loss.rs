//! segmentation_loss and cross_entropy.

use nephron_compute::ops::dice::reference::{self, Reference};
use nephron_compute::ops::{self, DiceCeOutput, SegmentationLoss};
use nephron_compute::{DType, Device, Shape, Tensor};

use crate::dice::{K_SOFTMAX, SHAPES, assert_loss, assert_refused, labels, logits};
use crate::support::{assert_close, compiles_only, devices, f64s, float_types, gamma, rng, tensor};

/// Every combination of options.
fn options() -> impl Iterator<Item = SegmentationLoss> {
    (0..8).map(|i| SegmentationLoss {
        batch: i % 2 == 1,
        background: i / 2 % 2 == 1,
        smooth: if i / 4 == 0 { 1e-5 } else { 1.0 },
    })
}

fn expected(shape: Shape, z: &[f64], labels: &[u8], loss: &SegmentationLoss) -> Reference {
    reference::segmentation_loss(shape, z, labels, [loss.batch, loss.background], loss.smooth.into())
}

fn assert_agrees(what: &str, device: &Device, got: &DiceCeOutput, want: &Reference) {
    assert_loss(what, device, got.loss, want, K_SOFTMAX);
    assert_close(what, &got.dlogits, &want.gradient, &want.gradient_magnitude, K_SOFTMAX);
}

#[test]
fn the_losses_agree_with_the_reference() {
    let mut rng = rng();
    for shape in SHAPES {
        let [n, c, d, h, w] = shape;
        let z = logits(&mut rng, shape.iter().product());
        let classes = labels(&mut rng, shape);
        for device in devices() {
            let labels = Tensor::from_u8(device, [n, 1, d, h, w], classes.clone()).expect("labels");
            for dtype in float_types(device) {
                let x = tensor(device, shape, dtype, &z);
                for loss in options().filter(|loss| c > 1 || loss.background) {
                    let want = expected(shape, &f64s(&z), &classes, &loss);
                    let got = ops::segmentation_loss(&x, &labels, &loss).expect("segmentation_loss");
                    assert_agrees(&format!("segmentation_loss {shape:?} {loss:?}"), device, &got, &want);
                }
                let want = reference::cross_entropy(shape, &f64s(&z), &classes);
                let got = ops::cross_entropy(&x, &labels).expect("cross_entropy");
                assert_agrees(&format!("cross_entropy {shape:?}"), device, &got, &want);
            }
        }
    }
}

/// nnU-Net's own loss with PyTorch's autograd; see tests/golden/segmentation_loss.py.
#[test]
fn the_losses_are_those_of_nnunet_and_pytorch() {
    let mut cases = 0;
    for line in include_str!("../../../tests/golden/segmentation_loss.txt").lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let shape: Shape = std::array::from_fn(|i| words[3 + i].parse().expect("a size"));
        let values: Vec<f64> = words[8..].iter().map(|w| w.parse().expect("a number")).collect();
        let [n, c, d, h, w] = shape;
        let z: Vec<f32> =
            (0..values.len() - 1).map(|i| ((i * 7919 + i / 5 * 101) % 1024) as f32 / 128.0 - 4.0).collect();
        let classes: Vec<u8> = (0..n * d * h * w).map(|i| ((i * 31 + i / 7) % c) as u8).collect();
        let loss = (words[0] != "cross_entropy").then(|| SegmentationLoss {
            batch: words[0] == "1",
            background: words[1] == "1",
            smooth: words[2].parse().expect("a number"),
        });
        let want = match &loss {
            Some(loss) => expected(shape, &f64s(&z), &classes, loss),
            None => reference::cross_entropy(shape, &f64s(&z), &classes),
        };
        // nnU-Net adds its sums up in f32: as many roundings as voxels, and a few in the quotient.
        let k = n * d * h * w + 16;
        assert!((values[0] - want.loss).abs() <= gamma(k) * want.loss_magnitude, "{line:.60}: {}", want.loss);
        for (i, (golden, (want, magnitude))) in
            values[1..].iter().zip(want.gradient.iter().zip(&want.gradient_magnitude)).enumerate()
        {
            assert!((golden - want).abs() <= gamma(k) * magnitude, "{line:.60}: element {i} {want}, golden {golden}");
        }
        for device in devices() {
            let labels = Tensor::from_u8(device, [n, 1, d, h, w], classes.clone()).expect("labels");
            let x = tensor(device, shape, DType::F32, &z);
            let got = match &loss {
                Some(loss) => ops::segmentation_loss(&x, &labels, loss),
                None => ops::cross_entropy(&x, &labels),
            };
            let golden = Reference { loss: values[0], gradient: values[1..].to_vec(), ..want.clone() };
            let got = got.expect("a loss");
            assert_loss("golden loss", device, got.loss, &golden, K_SOFTMAX + k);
            assert_close("golden", &got.dlogits, &golden.gradient, &golden.gradient_magnitude, K_SOFTMAX + k);
        }
        cases += 1;
    }
    assert_eq!(cases, 27);
}

#[test]
fn gradients_agree_with_finite_differences() {
    let mut rng = rng();
    let shape = [2, 3, 1, 2, 3];
    let z = f64s(&logits(&mut rng, 36));
    let labels = labels(&mut rng, shape);
    type Loss<'a> = Box<dyn Fn(&[f64]) -> Reference + 'a>;
    let labels = &labels;
    let mut losses: Vec<Loss> = vec![Box::new(|z| reference::cross_entropy(shape, z, labels))];
    for loss in options() {
        losses.push(Box::new(move |z| expected(shape, z, labels, &loss)));
    }
    for (which, f) in losses.iter().enumerate() {
        let gradient = f(&z).gradient;
        for i in 0..z.len() {
            let at = |step: f64| {
                let mut z = z.clone();
                z[i] += step;
                f(&z).loss
            };
            let want = (at(1e-4) - at(-1e-4)) / 2e-4;
            assert!((gradient[i] - want).abs() <= 1e-7, "loss {which}, {i}: {}, differences say {want}", gradient[i]);
        }
    }
}

/// A uniform softmax of four classes: every probability is 1 / 4, the cross-entropy log 4 and sums are exact.
#[test]
fn equal_logits_give_the_closed_form() {
    let shape = [2, 4, 1, 1, 4];
    let classes = vec![0, 1, 1, 0, 1, 3, 1, 1];
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let labels = Tensor::from_u8(device, [2, 1, 1, 1, 4], classes.clone()).expect("labels");
        let x = tensor(device, shape, DType::F32, &[0.0; 32]);
        let loss = |batch, background| {
            let got = ops::segmentation_loss(&x, &labels, &SegmentationLoss { batch, background, smooth: 0.0 });
            f64::from(got.expect("a loss").loss) - 4f64.ln()
        };
        // P is 1 for each class and sample. Class 1 has G = 2 and 3, I = 1/2 and 3/4; class 3 G = 0 and 1, I = 0 and 1/4; class 2 nothing.
        let per_sample = -(1.0 / 3.0 + 0.0 + 0.0 + 1.5 / 4.0 + 0.0 + 0.5 / 2.0) / 6.0;
        assert!((loss(false, false) - per_sample).abs() < 1e-6, "{}", device.name());
        // Over the batch P is 2; class 0 has G = 2 and I = 1/2.
        let batch = [1.0 / 4.0, 2.5 / 7.0, 0.0, 0.5 / 3.0];
        assert!((loss(true, true) + batch.iter().sum::<f64>() / 4.0).abs() < 1e-6, "{}", device.name());
        assert!((loss(true, false) + batch[1..].iter().sum::<f64>() / 3.0).abs() < 1e-6, "{}", device.name());
    }
}

#[test]
fn the_same_bits_every_time() {
    let mut rng = rng();
    let shape = [2, 3, 20, 30, 31];
    let z = logits(&mut rng, shape.iter().product());
    let classes = labels(&mut rng, shape);
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let labels = Tensor::from_u8(device, [2, 1, 20, 30, 31], classes.clone()).expect("labels");
        let run = || {
            let loss = SegmentationLoss { batch: true, ..SegmentationLoss::default() };
            let got = ops::segmentation_loss(&tensor(device, shape, DType::F32, &z), &labels, &loss).expect("a loss");
            (got.loss.to_bits(), got.dlogits.to_ndhwc().expect("dlogits"))
        };
        assert_eq!(run(), run(), "{}", device.name());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let cpu = Device::Cpu;
    let x = Tensor::zeros(&cpu, [1, 2, 1, 1, 3], DType::F32).expect("zeros");
    let one = Tensor::zeros(&cpu, [1, 1, 1, 1, 3], DType::F32).expect("zeros");
    let labels = |data: Vec<u8>| Tensor::from_u8(&cpu, [1, 1, 1, 1, 3], data).expect("labels");
    let loss = SegmentationLoss::default();
    assert_refused(ops::segmentation_loss(&one, &labels(vec![0; 3]), &loss), &["at least 2 channels", "1"]);
    assert_refused(ops::segmentation_loss(&x, &labels(vec![0, 2, 0]), &loss), &["segmentation_loss", "below 2", "2"]);
    assert_refused(ops::segmentation_loss(&x, &one, &loss), &["u8", "f32"]);
    let negative = SegmentationLoss { smooth: -1.0, ..loss };
    assert_refused(ops::segmentation_loss(&x, &labels(vec![0; 3]), &negative), &["smooth", "0 or more", "-1"]);
    assert_refused(ops::cross_entropy(&x, &labels(vec![9, 0, 0])), &["cross_entropy", "below 2", "9"]);
    assert_refused(ops::cross_entropy(&x, &x), &["[1, 1, 1, 1, 3]", "[1, 2, 1, 1, 3]"]);
}
