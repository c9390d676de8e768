//! `segment` with models of pictures and of TIFF stacks: the same labels as of NIfTI images with the same values.

use std::path::{Path, PathBuf};

use image::RgbImage;
use nephron::io::{nifti, pictures};
use nephron::models::{UNet, UNetArchitecture};
use nephron::volume::{Affine, LabelVolume, Volume, Voxels};
use nephron::{DType, Device};
use serde_json::{Value, json};

use crate::support;
use crate::tiny_models::{self, Tiny};

/// Changes a model's plans.json and dataset.json.
fn edit(model: &Path, change: impl Fn(&mut Value, &mut Value)) {
    let read = |name: &str| serde_json::from_slice(&std::fs::read(model.join(name)).expect("a file")).expect("json");
    let (mut plans, mut dataset) = (read("plans.json"), read("dataset.json"));
    change(&mut plans, &mut dataset);
    std::fs::write(model.join("plans.json"), plans.to_string()).expect("written");
    std::fs::write(model.join("dataset.json"), dataset.to_string()).expect("written");
}

/// Which reader a model has, and how its images' names end.
fn set_reader(model: &Path, reader: &str, ending: &str) {
    edit(model, |plans, dataset| {
        plans["image_reader_writer"] = json!(reader);
        dataset["file_ending"] = json!(ending);
    });
}

/// A 2D model of three colours.
fn model_of_colours(folder: &Path) {
    tiny_models::write(folder, &Tiny::default());
    edit(folder, |plans, dataset| {
        let own = &mut plans["configurations"]["3d_fullres"];
        let kwargs = &mut own["architecture"]["arch_kwargs"];
        kwargs["conv_op"] = json!("torch.nn.modules.conv.Conv2d");
        kwargs["norm_op"] = json!("torch.nn.modules.instancenorm.InstanceNorm2d");
        own["patch_size"] = json!([8, 8]);
        own["spacing"] = json!([1.5, 1.25]);
        own["normalization_schemes"] = json!(["RGBTo01Normalization", "RGBTo01Normalization", "ZScoreNormalization"]);
        own["use_mask_for_norm"] = json!([false, false, false]);
        let intensities = plans["foreground_intensity_properties_per_channel"]["0"].clone();
        plans["foreground_intensity_properties_per_channel"] =
            json!({"0": intensities.clone(), "1": intensities.clone(), "2": intensities});
        dataset["channel_names"] = json!({"0": "R", "1": "G", "2": "B"});
    });
    let architecture = UNetArchitecture {
        kernels: vec![[1, 3, 3]; 2],
        strides: vec![[1; 3], [1, 2, 2]],
        planar: true,
        ..UNetArchitecture::plain(3, 3, vec![1, 1], vec![1])
    };
    let network = UNet::seeded(&architecture, 5, &Device::Cpu, DType::F32).expect("a network");
    network.save(&folder.join("fold_0.safetensors")).expect("saved");
}

fn run(arguments: &[&Path], json: bool) -> (Option<i32>, String, String) {
    let mut command = support::nephron();
    command.args(["segment", "--device", "cpu"]).args(json.then_some("--json"));
    let output = command.args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Segments images and returns the mask's name in `out`.
fn segment(model: &Path, out: &Path, images: &[PathBuf]) {
    let [m, o] = ["--model", "-o"].map(Path::new);
    let arguments: Vec<&Path> = [m, model, o, out].into_iter().chain(images.iter().map(PathBuf::as_path)).collect();
    let (code, _, stderr) = run(&arguments, false);
    assert_eq!(code, Some(0), "{stderr}");
}

fn nifti_labels(path: PathBuf) -> LabelVolume {
    let labels = nifti::read_labels(path).expect("a mask").labels;
    assert!(labels.labels().iter().any(|label| *label != labels.labels()[0]), "the network tells voxels apart");
    labels
}

fn volume(shape: [usize; 3], voxels: Voxels, [d, h, w]: [f64; 3]) -> nifti::Image {
    let affine = Affine([[w, 0.0, 0.0, 0.0], [0.0, h, 0.0, 0.0], [0.0, 0.0, d, 0.0]]);
    nifti::Image::new(Volume::new(shape, voxels, affine).expect("a volume"))
}

#[test]
fn a_picture_gives_the_labels_of_its_channels() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let (model, out) = (at("model"), at("out"));
    model_of_colours(&model);
    let [h, w] = [19, 27];
    let colours: Vec<u8> = (0..h * w * 3).map(|i| ((i / 3 % w * 9) ^ (i / 3 / w * 13) ^ (i % 3 * 77)) as u8).collect();
    let channels: Vec<PathBuf> = (0..3)
        .map(|channel| {
            let values: Vec<u8> = colours.iter().skip(channel).step_by(3).copied().collect();
            let path = at(&format!("n_000{channel}.nii"));
            nifti::write(&path, &volume([1, h, w], Voxels::U8(values.into()), pictures::SPACING)).expect("written");
            path
        })
        .collect();
    segment(&model, &out, &channels);
    let want = nifti_labels(out.join("n_mask.nii.gz"));

    set_reader(&model, "NaturalImage2DIO", ".png");
    std::fs::create_dir(at("in")).expect("a folder");
    let picture = RgbImage::from_raw(w as u32, h as u32, colours).expect("a picture");
    for ending in ["png", "bmp"] {
        picture.save(at(&format!("in/p_0000.{ending}"))).expect("written");
    }
    let values = |path: PathBuf| pictures::read(path).expect("a mask")[0].voxels().to_f32();
    let labels: Vec<f32> = want.labels().iter().map(|label| f32::from(*label)).collect();
    segment(&model, &out, &[at("in/p_0000.png")]);
    assert_eq!(values(out.join("p_mask.png")), labels);
    segment(&model, &out, &[at("in/p_0000.bmp")]);
    assert_eq!(values(out.join("p_mask.bmp")), labels);
    // A folder, as nnU-Net takes it: p_0000.png becomes p.png. Probabilities lie on one slice.
    let arguments = ["--model", "model", "-o", "all", "-i", "in", "--save-probabilities"];
    let paths: Vec<PathBuf> =
        arguments.iter().map(|a| if a.starts_with('-') { PathBuf::from(a) } else { at(a) }).collect();
    let (code, stdout, stderr) = run(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>(), true);
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("json");
    assert_eq!(report["files"][0]["mask"].as_str(), at("all/p.png").to_str());
    assert_eq!(values(at("all/p.png")), labels);
    assert!(at("all/p.npz").is_file());

    // What is no picture, and a picture of another number of channels.
    let [m, o] = ["--model", "-o"].map(Path::new);
    let refused = |image: &Path, parts: &[&str]| {
        let (code, _, stderr) = run(&[m, &model, o, &out, image], false);
        assert!(code == Some(1) && parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    };
    refused(&channels[0], &["n_0000.nii", ".png, .bmp, .tif, .tiff"]);
    let grey = at("grey.png");
    image::GrayImage::from_raw(2, 1, vec![1, 2]).expect("a picture").save(&grey).expect("written");
    refused(&grey, &["grey.png", "expected 3", "1"]);
}

#[test]
fn a_stack_gives_the_labels_of_its_volume() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let (model, out) = (at("model"), at("out"));
    tiny_models::write(&model, &Tiny::default());
    let (shape, spacing) = ([9, 14, 16], [2.2, 1.25, 1.75]);
    let values: Vec<u8> =
        tiny_models::scan(&mut support::rng()).voxels().to_f32().iter().map(|v| v.abs() as u8).collect();
    nifti::write(at("n.nii"), &volume(shape, Voxels::U8(values.clone().into()), spacing)).expect("written");
    segment(&model, &out, &[at("n.nii")]);
    let want = nifti_labels(out.join("n_mask.nii.gz"));

    set_reader(&model, "Tiff3DIO", ".tif");
    std::fs::create_dir(at("in")).expect("a folder");
    // A mask's writer is also that of an image of bytes.
    let affine = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    let image = LabelVolume::new(shape, values, affine).expect("bytes");
    pictures::write_stack(at("in/s_0000.tif"), &image, spacing).expect("written");
    std::fs::rename(at("in/s_0000.json"), at("in/s.json")).expect("named as an image's");
    let [m, o, i] = ["--model", "-o", "-i"].map(Path::new);
    let (code, _, stderr) = run(&[m, &model, o, &out, i, &at("in")], false);
    assert_eq!(code, Some(0), "{stderr}");
    let found = pictures::read_stack(out.join("s.tif"), spacing).expect("a mask");
    assert_eq!(found.voxels(), &Voxels::U8(want.labels().to_vec().into()));
    assert_eq!(pictures::stack_spacing(&out.join("s.tif")).expect("beside it"), Some(spacing));
    // The mask's spacing would replace the image's.
    let (code, _, stderr) = run(&[m, &model, o, &at("in"), i, &at("in")], false);
    assert!(code == Some(2) && stderr.contains("s.json is an input"), "{stderr}");
    assert_eq!(pictures::stack_spacing(&at("in/s_0000.tif")).expect("the image's"), Some(spacing));
    // An image whose spacing was corrected is another image.
    std::fs::write(at("in/s.json"), r#"{"spacing": [4.4, 1.25, 1.75]}"#).expect("written");
    let (code, _, stderr) = run(&[m, &model, o, &out, i, &at("in"), Path::new("--continue")], false);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(pictures::stack_spacing(&out.join("s.tif")).expect("beside it"), Some([4.4, 1.25, 1.75]));
    // Without the file of the spacing it is 1, which the program says.
    std::fs::remove_file(at("in/s.json")).expect("removed");
    let (code, _, stderr) = run(&[m, &model, o, &out, &at("in/s_0000.tif")], false);
    assert!(code == Some(0) && stderr.contains("s.json") && stderr.contains("1 x 1 x 1"), "{stderr}");
    assert_eq!(pictures::stack_spacing(&out.join("s_0000_mask.tif")).expect("beside it"), Some([1.0; 3]));
}
