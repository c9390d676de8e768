//! The U-Net on every device, against PyTorch's logits and against the f64 references of its ops; and its errors.

use std::path::{Path, PathBuf};

use nephron::io::weights::TrainingNotes;
use nephron::io::{npy, weights};
use nephron::models::{
    ImageReader, Normalization, Order, SeparateAxis, UNet, UNetArchitecture, UNetEncoder, UNetNorm, UNetPlan,
};
use nephron::ops::{Conv3dParams, ConvTranspose3dParams, activation, arithmetic, conv_transpose3d, conv3d, norm};
use nephron::{DType, Device, Error, Shape, Tensor, host_memory, reset_peak};
use serde_json::{Value, json};

use crate::support::{self, compiles_only, devices, f64s, float_types, rng, tensor, uniform};

fn golden() -> PathBuf {
    support::root().join("tests/golden/unet")
}

/// Two stages, one of them anisotropic: the smallest network with a skip connection.
fn tiny() -> UNetArchitecture {
    UNetArchitecture {
        features: vec![4, 6],
        kernels: vec![[1, 3, 3], [3, 3, 3]],
        strides: vec![[1, 1, 1], [1, 2, 2]],
        ..UNetArchitecture::plain(1, 3, vec![1, 2], vec![2])
    }
}

/// The golden plan.
fn golden_plan() -> UNetPlan {
    read_plan(&golden(), None).expect("plan")
}

fn read_plan(folder: &Path, configuration: Option<&str>) -> nephron::Result<UNetPlan> {
    UNetPlan::read(folder, configuration, &TrainingNotes::default())
}

fn range(values: &[f32]) -> f32 {
    values.iter().fold(f32::MIN, |a, &b| a.max(b)) - values.iter().fold(f32::MAX, |a, &b| a.min(b))
}

/// Largest difference relative to the range of `want`; NaN counts as infinite.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, |a: f32, d| if d <= a { a } else { d });
    if largest.is_nan() { f32::INFINITY } else { largest / range(want) }
}

#[test]
fn logits_are_pytorchs() {
    let plan = golden_plan();
    let (shape, data) = npy::read_f32(golden().join("input.npy")).expect("input");
    let (_, want) = npy::read_f32(golden().join("logits.npy")).expect("logits");
    let shape: [usize; 5] = shape.try_into().expect("five axes");
    for device in devices() {
        for dtype in float_types(device) {
            let net =
                UNet::load(&plan.architecture, &golden().join("weights.safetensors"), device, dtype).expect("net");
            let logits = net.forward(&tensor(device, shape, dtype, &data)).expect("forward");
            assert_eq!(logits.shape(), [1, 3, 4, 8, 12]);
            let got = logits.to_ncdhw().expect("logits");
            let bound = match dtype {
                DType::F16 => 2e-2,
                DType::BF16 => 1.5e-1,
                _ => 1e-5,
            };
            let difference = difference(&got, &want);
            assert!(compiles_only(device) || difference <= bound, "{} {dtype}: {difference}", device.name());
        }
    }
}

/// The network composed of the f64 references of its ops: values in PyTorch's order, and their shape.
struct Reference {
    weights: weights::Weights,
    plan: UNetPlan,
}

type Values = (Vec<f64>, Shape);

impl Reference {
    fn get(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let (shape, values) = self.weights.get(name).expect("a weight");
        (shape, f64s(&values))
    }

    fn conv(&self, name: &str, (x, shape): &Values, stride: [usize; 3]) -> Values {
        let (w_shape, w) = self.get(&format!("{name}.weight"));
        let w_shape: Shape = w_shape.try_into().expect("five axes");
        let b = self.get(&format!("{name}.bias")).1;
        let padding = [(w_shape[2] - 1) / 2, (w_shape[3] - 1) / 2, (w_shape[4] - 1) / 2];
        let params = Conv3dParams { stride, padding, ..Default::default() };
        let y = conv3d::reference::conv3d(x, *shape, &w, w_shape, Some(&b), &params);
        (y.value, y.shape)
    }

    fn block(&self, name: &str, x: &Values, stride: [usize; 3]) -> Values {
        let (y, shape) = self.conv(&format!("{name}.conv"), x, stride);
        let [weight, bias] = ["weight", "bias"].map(|part| self.get(&format!("{name}.norm.{part}")).1);
        let y = norm::reference::instance_norm(&y, shape, Some(&weight), Some(&bias), 1e-5).value;
        (activation::reference::leaky_relu(&y, 0.01), shape)
    }

    fn forward(&self, x: Values) -> Values {
        let a = &self.plan.architecture;
        let mut x = x;
        let mut skips = Vec::new();
        let UNetEncoder::Plain(encoder_convs) = &a.encoder else { panic!("a plain network") };
        for (stage, &convs) in encoder_convs.iter().enumerate() {
            for i in 0..convs {
                let stride = if i == 0 { a.strides[stage] } else { [1; 3] };
                x = self.block(&format!("encoder.stages.{stage}.0.convs.{i}"), &x, stride);
            }
            skips.push(x.clone());
        }
        skips.pop();
        for (level, &convs) in a.decoder_convs.iter().enumerate() {
            let (skip, shape) = skips.pop().expect("a skip");
            let (w_shape, w) = self.get(&format!("decoder.transpconvs.{level}.weight"));
            let b = self.get(&format!("decoder.transpconvs.{level}.bias")).1;
            let params = ConvTranspose3dParams { stride: [w_shape[2], w_shape[3], w_shape[4]], padding: [0; 3] };
            let w_shape = w_shape.try_into().expect("five axes");
            let up = conv_transpose3d::reference::conv_transpose3d(&x.0, x.1, &w, w_shape, Some(&b), &params).value;
            let [n, c, d, h, w] = shape;
            x = (arithmetic::reference::concat(&[(&up, c), (&skip, c)], n, d * h * w), [n, 2 * c, d, h, w]);
            for i in 0..convs {
                x = self.block(&format!("decoder.stages.{level}.convs.{i}"), &x, [1; 3]);
            }
        }
        self.conv(&format!("decoder.seg_layers.{}", a.decoder_convs.len() - 1), &x, [1; 3])
    }
}

#[test]
fn logits_are_those_of_the_f64_references() {
    let path = golden().join("weights.safetensors");
    let plan = golden_plan();
    let shape = [2, 1, 6, 4, 16];
    let data = uniform(&mut rng(), shape.iter().product());
    let net = UNet::load(&plan.architecture, &path, &Device::Cpu, DType::F32).expect("net");
    let got = net.forward(&tensor(&Device::Cpu, shape, DType::F32, &data)).expect("logits").to_ncdhw().expect("f32");
    let reference = Reference { weights: weights::Weights::read(&path).expect("weights"), plan };
    let (want, _) = reference.forward((f64s(&data), shape));
    let want: Vec<f32> = want.iter().map(|&v| v as f32).collect();
    let difference = difference(&got, &want);
    assert!(difference <= 1e-5, "{difference}");
}

#[test]
fn a_plan_is_read_whole() {
    let plan = golden_plan();
    assert_eq!(plan.spacing, [3.0, 1.5, 1.5]);
    assert_eq!(plan.patch, [4, 8, 12]);
    let targets: Vec<_> = plan.labels.targets().iter().map(|t| (t.name.as_str(), t.value)).collect();
    assert_eq!(targets, [("kidney", 1), ("tumour", 2)]);
    assert_eq!((plan.reader, plan.configuration.as_str()), (ImageReader::Stored, "3d_fullres"));
    assert_eq!((plan.data.order, plan.data.separate), (Order::Cubic, SeparateAxis::WhenAnisotropic));
    assert_eq!((plan.logits.order, plan.logits.order_across), (Order::Linear, Order::Nearest));
    let ct = Normalization::Ct { clip: [-40.0, 347.0], mean: 112.75457, sd: 97.87436 };
    assert_eq!(plan.normalization.iter().map(|n| (n.scheme, n.inside_mask)).collect::<Vec<_>>(), [(ct, false)]);
    let a = &plan.architecture;
    assert_eq!((a.features.as_slice(), a.slope), (&[3, 4, 5][..], 0.01));
    assert_eq!(a.norm, UNetNorm::Instance { affine: true, eps: 1e-5 });
    assert_eq!((&a.encoder, a.decoder_convs.as_slice()), (&UNetEncoder::Plain(vec![2, 1, 2]), &[1, 2][..]));
    assert_eq!(a.multiple(), [2, 4, 4]);
}

#[test]
fn a_forward_pass_holds_what_the_plan_says() {
    let (a, size) = (UNetArchitecture::kidney(1, 3), [16, 64, 64]);
    let net = UNet::seeded(&a, 1, &Device::Cpu, DType::F32).expect("net");
    let x = tensor(&Device::Cpu, [1, 1, 16, 64, 64], DType::F32, &uniform(&mut rng(), 16 * 64 * 64));
    // The first pass packs the weights, which are then kept.
    drop(net.forward(&x).expect("logits"));
    let before = host_memory().used;
    reset_peak();
    drop(net.forward(&x).expect("logits"));
    let (peak, image) = ((host_memory().peak - before) as u64, x.bytes() as u64);
    assert_eq!(peak + image, a.activation_bytes(size, DType::F32, &Device::Cpu));
    // The upsampled tensor, the skip connection and the output of the last level, and the image.
    assert_eq!(peak, 3 * 32 * image);
    assert_eq!(host_memory().used, before);
}

#[test]
fn the_same_seed_gives_the_same_network() {
    let mut rng = rng();
    let data = uniform(&mut rng, 4 * 4 * 4);
    let logits = |seed| {
        let net = UNet::seeded(&tiny(), seed, &Device::Cpu, DType::F32).expect("net");
        net.forward(&tensor(&Device::Cpu, [1, 1, 4, 4, 4], DType::F32, &data)).expect("logits").to_ncdhw().expect("f32")
    };
    assert_eq!(logits(7), logits(7));
    assert_ne!(logits(7), logits(8));
}

#[test]
fn seeded_weights_are_he_normal() {
    let mut architecture = tiny();
    architecture.features = vec![16, 64];
    let net = UNet::seeded(&architecture, 3, &Device::Cpu, DType::F32).expect("net");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("weights.safetensors");
    net.save(&path).expect("saved");
    let saved = weights::Weights::read(&path).expect("read");
    let (shape, values) = saved.get("encoder.stages.1.0.convs.1.conv.weight").expect("the widest");
    assert_eq!(shape, [64, 64, 3, 3, 3]);
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n - mean * mean;
    let expected = 2.0 / (1.0001 * 64.0 * 27.0);
    assert!(mean.abs() < 5.0 * (expected / n).sqrt() && (variance / expected - 1.0).abs() < 0.03, "{mean} {variance}");
    assert!(saved.get("decoder.seg_layers.0.bias").expect("head").1.iter().all(|&b| b == 0.0));
    assert_eq!(saved.names().map(|n| saved.get(n).expect("a tensor").1.len()).sum::<usize>(), net.parameters());
}

#[test]
fn saving_and_loading_keeps_every_bit() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("weights.safetensors");
    let net = UNet::seeded(&tiny(), 11, &Device::Cpu, DType::F32).expect("net");
    net.save(&path).expect("saved");
    let x = tensor(&Device::Cpu, [1, 1, 2, 4, 2], DType::F32, &uniform(&mut rng(), 16));
    let again = UNet::load(&tiny(), &path, &Device::Cpu, DType::F32).expect("loaded");
    let logits = |net: &UNet| net.forward(&x).expect("logits").to_ncdhw().expect("f32");
    assert_eq!(logits(&net), logits(&again));
}

#[test]
fn devices_agree() {
    let mut rng = rng();
    let mut architecture = tiny();
    architecture.conv_bias = false;
    architecture.norm = UNetNorm::Instance { affine: false, eps: 1e-5 };
    let shape = [2, 1, 3, 6, 10];
    let data = uniform(&mut rng, shape.iter().product());
    let logits = |device: &Device, dtype| {
        let net = UNet::seeded(&architecture, 5, device, dtype).expect("net");
        net.forward(&tensor(device, shape, dtype, &data)).expect("logits").to_ncdhw().expect("values")
    };
    let want = logits(&Device::Cpu, DType::F32);
    for device in devices() {
        let got = logits(device, DType::F32);
        if !compiles_only(device) {
            assert!(difference(&got, &want) <= 1e-5, "{}", device.name());
            assert_eq!(got, logits(device, DType::F32), "{}: the same bits every time", device.name());
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let net = UNet::seeded(&tiny(), 1, &Device::Cpu, DType::F32).expect("net");
    let message = |shape: [usize; 5]| {
        let x = Tensor::zeros(&Device::Cpu, shape, DType::F32).expect("zeros");
        net.forward(&x).expect_err("refused").to_string()
    };
    let size = message([1, 1, 2, 5, 4]);
    assert!(size.contains("[1, 2, 2]") && size.contains("[2, 5, 4]"), "{size}");
    let channels = message([1, 2, 2, 4, 4]);
    assert!(channels.contains("expected 1") && channels.contains("found 2"), "{channels}");
    assert!(message([1, 1, 0, 4, 4]).contains("[0, 4, 4]"));
    let labels = Tensor::from_u8(&Device::Cpu, [1, 1, 1, 2, 2], vec![0; 4]).expect("labels");
    assert!(net.forward(&labels).expect_err("labels").to_string().contains("u8"));
    assert!(UNet::seeded(&tiny(), 1, &Device::Cpu, DType::F16).expect_err("no f16 there").to_string().contains("f16"));
    let mut broken = tiny();
    broken.kernels[0] = [2, 3, 3];
    assert!(UNet::seeded(&broken, 1, &Device::Cpu, DType::F32).expect_err("even").to_string().contains("odd"));
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let plan = golden_plan();
    let path = golden().join("weights.safetensors");
    let refused = |architecture: &UNetArchitecture| {
        let error = UNet::load(architecture, &path, &Device::Cpu, DType::F32).expect_err("refused");
        assert!(matches!(error, Error::File { .. }), "{error:?}");
        error.to_string()
    };
    let mut wider = plan.architecture.clone();
    wider.features[1] = 7;
    let message = refused(&wider);
    for part in ["weights.safetensors", "encoder.stages.1.0.convs.0.conv.weight", "[7, 3, 3, 3, 3]", "[4, 3, 3, 3, 3]"]
    {
        assert!(message.contains(part), "{message}");
    }
    let mut deeper = plan.architecture.clone();
    deeper.encoder = UNetEncoder::Plain(vec![2, 1, 3]);
    let message = refused(&deeper);
    assert!(message.contains("encoder.stages.2.0.convs.2.conv.weight"), "{message}");
}

/// The error of reading the golden plans and data set with one value changed or removed.
fn refusal(file: &str, key: &[&str], value: Option<Value>) -> String {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["plans.json", "dataset.json"] {
        let text = std::fs::read_to_string(golden().join(name)).expect("golden");
        let mut root: Value = serde_json::from_str(&text).expect("json");
        if name == file {
            let (last, path) = key.split_last().expect("a key");
            let parent = path.iter().fold(&mut root, |node, key| node.get_mut(key).expect("a key of the golden plan"));
            let parent = parent.as_object_mut().expect("an object");
            match &value {
                Some(value) => parent.insert((*last).to_owned(), value.clone()),
                None => parent.remove(*last),
            };
        }
        std::fs::write(folder.path().join(name), root.to_string()).expect("written");
    }
    let error = read_plan(folder.path(), None).expect_err("refused");
    assert!(matches!(error, Error::File { .. }), "{error:?}");
    error.to_string()
}

const FULLRES: [&str; 2] = ["configurations", "3d_fullres"];
const KWARGS: [&str; 4] = ["configurations", "3d_fullres", "architecture", "arch_kwargs"];

#[test]
fn plans_that_cannot_be_used_are_refused() {
    let plans = |path: &[&str], key: &str, value: Option<Value>, parts: &[&str]| {
        let path: Vec<&str> = path.iter().copied().chain([key]).collect();
        let message = refusal("plans.json", &path, value);
        for part in [&["plans.json", key], parts].concat() {
            assert!(message.contains(part), "{message} should name {part}");
        }
    };
    plans(&FULLRES, "spacing", None, &["configurations.3d_fullres.spacing is missing"]);
    plans(&FULLRES, "spacing", Some(json!([1.0, 0.0, 1.0])), &["above 0", "[1.0,0.0,1.0]"]);
    plans(&FULLRES, "patch_size", Some(json!([4, 8])), &["list of three", "[4,8]"]);
    plans(&FULLRES, "patch_size", Some(json!([4, 9, 12])), &["multiples of [2, 4, 4]", "[4,9,12]"]);
    plans(&FULLRES, "normalization_schemes", Some(json!(["PETNormalization"])), &["CTNormalization", "PET"]);
    plans(&FULLRES, "normalization_schemes", Some(json!([])), &["one scheme for each of 1", "[]"]);
    plans(&FULLRES, "resampling_fn_data", Some(json!("resample_torch")), &["resample_data_or_seg_to_shape", "torch"]);
    let order2 = json!({"is_seg": false, "order": 2, "order_z": 0, "force_separate_z": null});
    plans(&FULLRES, "resampling_fn_data_kwargs", Some(order2), &["order 0, 1 or 3", "2"]);
    plans(&FULLRES, "resampling_fn_data_kwargs", Some(json!({"sigma": 1})), &["sigma", "none of this key"]);
    plans(&FULLRES, "inherits_from", Some(json!("3d_fullres")), &["inherit from itself", "3d_fullres"]);
    plans(&FULLRES, "previous_stage", Some(json!("3d_lowres")), &["resampling_fn_seg beside it", "3d_lowres"]);
    plans(&FULLRES, "preprocessor_name", Some(json!("MyPreprocessor")), &["DefaultPreprocessor", "MyPreprocessor"]);
    plans(&["foreground_intensity_properties_per_channel"], "0", None, &["is missing"]);
    plans(&[], "transpose_forward", Some(json!([0, 1, 1])), &["0, 1 and 2", "[0,1,1]"]);
    plans(&[], "image_reader_writer", Some(json!("BloscIO")), &["SimpleITKIO", "BloscIO"]);
    plans(&KWARGS, "n_stages", Some(json!(4)), &[]);
    plans(&KWARGS, "n_stages", Some(json!(1e9 as u64)), &[]);
    plans(&KWARGS, "kernel_sizes", Some(json!([[1, 3, 3], [3, 3], [3, 3, 3]])), &["list of three", "[3,3]"]);
    plans(&KWARGS, "conv_op", Some(json!("torch.nn.modules.conv.Conv1d")), &["Conv3d", "Conv1d"]);
    plans(&KWARGS, "norm_op", Some(json!("torch.nn.GroupNorm")), &["InstanceNorm3d", "GroupNorm"]);
    plans(&KWARGS, "nonlin", Some(json!("torch.nn.GELU")), &["LeakyReLU", "GELU"]);
    plans(&KWARGS, "squeeze_excitation", Some(json!(true)), &["none of this key"]);
    plans(&KWARGS, "conv_bias", Some(json!("yes")), &["true or false", "yes"]);
    let architecture = ["configurations", "3d_fullres", "architecture"];
    plans(&architecture, "network_class_name", Some(json!("Primus")), &["PlainConvUNet", "Primus"]);
}

#[test]
fn data_sets_that_cannot_be_used_are_refused() {
    let dataset = |key: &str, value: Option<Value>, parts: &[&str]| {
        let message = refusal("dataset.json", &[key], value);
        for part in [&["dataset.json", key], parts].concat() {
            assert!(message.contains(part), "{message} should name {part}");
        }
    };
    dataset("labels", None, &["is missing"]);
    dataset("labels", Some(json!({"kidney": 1})), &["labels.background is missing"]);
    dataset("labels", Some(json!({"background": 0, "a": 1, "b": 1})), &["each of its own value"]);
    dataset("labels", Some(json!({"background": 0, "kidney": 300})), &["at most 254", "300"]);
    dataset("channel_names", Some(json!({})), &["1 to 64 channels"]);
    dataset("channel_names", Some(json!({"0": "T1", "2": "T2"})), &["channel_names.1 is missing"]);
}

#[test]
fn a_configuration_is_chosen_by_name() {
    let message = read_plan(&golden(), Some("3d_lowres")).expect_err("there is none").to_string();
    assert!(message.contains("2d, 3d_fullres") && message.contains("3d_lowres"), "{message}");
    let message = read_plan(&golden(), Some("2d")).expect_err("not 3D").to_string();
    assert!(message.contains("configurations.2d.architecture is missing"), "{message}");
    let message = read_plan(Path::new("/no/such/folder"), None).expect_err("no folder").to_string();
    assert!(message.contains("/no/such/folder"), "{message}");
}
