//! Tiny models of nnU-Net's layout with seeded weights.

use std::path::Path;

use nephron::models::{UNet, UNetArchitecture};
use nephron::volume::{Affine, Volume, Voxels};
use nephron::{DType, Device};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// A model; its plans have all configurations of [`plans`].
pub struct Tiny {
    pub configuration: &'static str,
    pub labels: Value,
    /// Values of regions; null for labels.
    pub order: Value,
    pub seed: u64,
}

impl Default for Tiny {
    fn default() -> Self {
        let labels = json!({"background": 0, "kidney": 1, "tumor": 2});
        Self { configuration: "3d_fullres", labels, order: Value::Null, seed: 1 }
    }
}

/// Plans with a low and a full resolution and a cascade of both.
pub fn plans() -> Value {
    let kwargs = json!({
        "n_stages": 2, "features_per_stage": [8, 8], "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [3, 3],
        "strides": [1, 2], "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1], "conv_bias": true,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": true},
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": true}
    });
    let network = json!({
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet", "arch_kwargs": kwargs
    });
    let resampling =
        |is_seg: bool, order: usize| json!({"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": null});
    json!({
        "image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel":
            {"0": {"mean": 60.0, "std": 80.0, "percentile_00_5": -100.0, "percentile_99_5": 300.0}},
        "configurations": {
            "3d_fullres": {
                "patch_size": [4, 8, 8], "spacing": [2.0, 1.5, 1.5], "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [false], "architecture": network,
                "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": resampling(false, 3),
                "resampling_fn_seg": "resample_data_or_seg_to_shape", "resampling_fn_seg_kwargs": resampling(true, 1),
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resampling(false, 1)
            },
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [4.0, 3.0, 3.0], "next_stage": "3d_cascade_fullres"},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
        }
    })
}

/// Writes a model to `folder`/fold_0.safetensors with its plans and labels.
pub fn write(folder: &Path, tiny: &Tiny) {
    std::fs::create_dir_all(folder).expect("a folder");
    let names = tiny.labels.as_object().expect("labels");
    let regions = !tiny.order.is_null();
    let outputs = names.len() - usize::from(regions);
    let inputs = if tiny.configuration == "3d_cascade_fullres" { 3 } else { 1 };
    let mut dataset = json!({"channel_names": {"0": "CT"}, "labels": tiny.labels, "file_ending": ".nii.gz"});
    if regions {
        dataset["regions_class_order"] = tiny.order.clone();
    }
    let mut plans = plans();
    let configurations = plans["configurations"].as_object_mut().expect("an object");
    // Without the others, a file of weights that says nothing of its training is for this one.
    let needed = ["3d_fullres", tiny.configuration];
    configurations.retain(|name, _| needed.contains(&name.as_str()));
    if tiny.configuration != "3d_fullres" {
        let parent = configurations.remove("3d_fullres").expect("the parent");
        let own =
            configurations.get_mut(tiny.configuration).expect("a configuration").as_object_mut().expect("an object");
        own.remove("inherits_from");
        for (key, value) in parent.as_object().expect("an object") {
            own.entry(key).or_insert_with(|| value.clone());
        }
    }
    let write = |name: &str, value: &Value| std::fs::write(folder.join(name), value.to_string()).expect("written");
    write("plans.json", &plans);
    write("dataset.json", &dataset);
    let architecture = UNetArchitecture::plain(inputs, outputs, vec![1, 1], vec![1]);
    let network = UNet::seeded(&architecture, tiny.seed, &Device::Cpu, DType::F32).expect("a network");
    network.save(&folder.join("fold_0.safetensors")).expect("saved");
}

/// A scan with structure over a few voxels and a frame of zeros.
pub fn scan(rng: &mut ChaCha8Rng) -> Volume {
    let shape = [9, 14, 16];
    let coarse: Vec<i16> = (0..3 * 4 * 4).map(|_| rng.random_range(-100i16..300)).collect();
    let value = |i: usize| {
        let (z, y, x) = (i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]);
        if z == 0 || y < 2 { 0 } else { coarse[(z / 3 * 4 + y / 4) * 4 + x / 4] + (i % 7) as i16 }
    };
    let values: Vec<i16> = (0..shape.iter().product()).map(value).collect();
    let affine = Affine([[-1.2, 0.0, 0.0, 90.5], [0.0, -1.2, 0.0, 120.25], [0.0, 0.0, 2.2, -700.0]]);
    Volume::new(shape, Voxels::I16(values.into()), affine).expect("a volume")
}
