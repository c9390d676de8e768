//! The classifier's images against NumPy and PyTorch (tests/golden/crop).

use nephron::ops::Intensity;
use nephron::pipeline::crop::{crop, tumour_box};
use nephron::volume::{Affine, LabelVolume, Volume, Voxels};
use serde_json::Value;

use crate::support::{self, compiles_only, devices};

#[test]
fn crops_are_those_of_numpy_and_pytorch() {
    let text = std::fs::read(support::root().join("tests/golden/crop/golden.json")).expect("golden values");
    let golden: Value = serde_json::from_slice(&text).expect("JSON");
    let number = |key: &str| golden[key].as_f64().expect("a number") as f32;
    let clip: [f32; 2] = serde_json::from_value(golden["clip"].clone()).expect("two numbers");
    let intensity = Intensity { clip, mean: number("mean"), sd: number("sd") };
    let size = golden["size"].as_u64().expect("a size") as usize;
    for case in golden["cases"].as_array().expect("cases") {
        let shape: [usize; 3] = serde_json::from_value(case["shape"].clone()).expect("a shape");
        let labels: Vec<u8> = serde_json::from_value(case["mask"].clone()).expect("labels");
        let values: Vec<i16> = serde_json::from_value(case["image"].clone()).expect("values");
        let image = Volume::new(shape, Voxels::I16(values.into()), Affine::IDENTITY).expect("an image");
        let margin = case["margin"].as_u64().expect("a margin") as usize;
        let mask = LabelVolume::new(shape, labels, Affine::IDENTITY).expect("a mask");
        let at = tumour_box(&mask, [margin; 2]).expect("a mask").expect("a tumour");
        let found = serde_json::to_value(at).expect("JSON");
        for key in ["slice", "rows", "columns", "area"] {
            assert_eq!(found[key], case[key], "{key}");
        }
        let want: Vec<f64> = serde_json::from_value(case["pixels"].clone()).expect("pixels");
        for device in devices().iter().filter(|d| !compiles_only(d)) {
            let got = crop(&image, &at, &intensity, size, device).expect("a crop");
            assert_eq!(got.len(), want.len());
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                // The value is a weighted sum of four normalised values of at most 2.4, with each step rounded to f32.
                let bound = 16.0 * 2.4 * f64::from(f32::EPSILON);
                assert!((f64::from(*got) - want).abs() <= bound, "{}: pixel {i} is {got}, not {want}", device.name());
            }
        }
    }
}
