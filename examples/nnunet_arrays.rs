//! What a model sees and says, as NumPy arrays: the preprocessed image and the logits, for holding them against nnU-Net's.
//!
//!     nnunet_arrays MODEL OUT STEP plain|mirror IMAGE...
//!
//! Writes OUT/data.npy [1, channels, d, h, w] and OUT/logits.npy [1, outputs, d, h, w].

use std::path::Path;

use nephron::io::{nifti, npy, pictures};
use nephron::models::ImageReader;
use nephron::pipeline::Mirroring;
use nephron::{Device, Error, ModelOptions, Precision, Result, SegmentOptions, Segmenter, Tensor};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out, step, mirroring, images @ ..] = arguments.as_slice() else {
        return Err(Error::Inputs("usage: nnunet_arrays MODEL OUT STEP plain|mirror IMAGE...".into()));
    };
    let mirroring = if mirroring == "mirror" { Mirroring::AllAxes } else { Mirroring::Off };
    let step = step.parse().map_err(|_| Error::Inputs(format!("expected a step, found {step}")))?;
    let options = SegmentOptions { step, mirroring, ..SegmentOptions::default() };

    let segmenter = Segmenter::load(Path::new(model), &ModelOptions::default(), Precision::Single, &Device::Cpu)?;
    let (mut channels, mut spacing) = (Vec::new(), None);
    for image in images.iter().map(Path::new) {
        match segmenter.plan().reader {
            ImageReader::Pictures => {
                channels.extend(pictures::read(image)?);
                spacing.get_or_insert(pictures::SPACING);
            }
            ImageReader::TiffStacks => {
                let own = pictures::stack_spacing(image)?.unwrap_or([1.0; 3]);
                channels.push(pictures::read_stack(image, own)?);
                spacing.get_or_insert(own);
            }
            _ => {
                let (volumes, image) = nifti::read_channels(image)?;
                channels.extend(volumes);
                spacing.get_or_insert(image.header_spacing());
            }
        }
    }
    let data = segmenter.preprocess(&channels, spacing, &options)?;
    let logits = segmenter.logits(&data, &options)?;

    let out = Path::new(out);
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, "cannot be made", e))?;
    let write = |name: &str, tensor: &Tensor| npy::write_f32(out.join(name), &tensor.shape(), &tensor.to_ncdhw()?);
    write("data.npy", &data)?;
    write("logits.npy", &logits)
}
