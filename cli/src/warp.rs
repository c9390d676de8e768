//! `nephron warp`: images and masks through found transforms onto a reference grid.

use std::path::{Path, PathBuf};

use super::Context;
use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::io::nifti;
use nephron::ops::Interpolation;
use nephron::registration::transform;
use nephron::volume::Affine;

/// Move images and masks by transforms that `register` or other programs have found.
///
/// A transform takes points of the reference to points of the image, as ITK's do: what `register` writes with its fixed
/// mask as the reference. Several are applied one after the other, the first to the reference's points. Outside an
/// image's field of view masks are 0 and images their own minimum.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images that lie where the last transform leads
    #[arg(required = true, value_name = "IMG")]
    images: Vec<PathBuf>,
    /// ITK text (.tfm, .txt, .mat as text) or nephron's .json
    #[arg(long = "transform", required = true, value_name = "FILE")]
    transforms: Vec<PathBuf>,
    /// Use the way back: points of the image to points of the reference
    #[arg(long)]
    inverse: bool,
    /// Whose grid the results are on
    #[arg(long, value_name = "REF")]
    like: PathBuf,
    /// How to sample: linear or cubic for images; nearest for masks, or soft: each label trilinearly, then the largest
    #[arg(long, value_name = "KIND", default_value = "linear", value_parser = parse_sampling)]
    interp: Sampling,
    /// Folder for the results, made where it is missing; they keep their names
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum Sampling {
    Values(Interpolation),
    Soft,
}

fn parse_sampling(text: &str) -> Result<Sampling, String> {
    match text {
        "linear" => Ok(Sampling::Values(Interpolation::Linear)),
        "cubic" => Ok(Sampling::Values(Interpolation::Cubic)),
        "nearest" => Ok(Sampling::Values(Interpolation::Nearest)),
        "soft" => Ok(Sampling::Soft),
        _ => Err("expected linear, cubic, nearest or soft".into()),
    }
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let mut chain = Affine::IDENTITY;
    for path in &args.transforms {
        chain = transform::read(path)?.after(&chain);
    }
    if args.inverse {
        chain = chain.inverse()?;
    }
    let outputs = args.images.iter().map(|image| output(image, args)).collect::<Result<Vec<_>>>()?;
    for (i, path) in outputs.iter().enumerate() {
        if let Some(other) = outputs[..i].iter().position(|o| o == path) {
            let [a, b] = [&args.images[other], &args.images[i]].map(|p| p.display());
            return Err(Error::Usage(format!("{a} and {b} would both be written to {}", path.display())));
        }
    }
    let reference = nifti::read(&args.like)?;
    let grid = reference.volume.grid();
    let device = context.device()?;
    std::fs::create_dir_all(&args.output).map_err(|e| LibraryError::io(&args.output, "cannot be made", e))?;
    let mut written = Ok(());
    for (path, output) in args.images.iter().zip(&outputs) {
        let image = nifti::read(path)?;
        for warning in &image.warnings {
            note!("warning: {}: {warning}", path.display());
        }
        let moved = match args.interp {
            Sampling::Values(interpolation) => transform::warp(&image.volume, &chain, &grid, interpolation, &device)?,
            Sampling::Soft => transform::warp_largest(&image.volume, &chain, &grid, &device)
                .map_err(|e| LibraryError::in_file(path, e))?,
        };
        nifti::write(output, &image.moved_to(&reference, moved))?;
        if !context.json {
            // A standard output that was closed does not cost the other images.
            written = written.and_then(|()| say!("{}", output.display()));
        }
    }
    if context.json {
        return context.print_json(&serde_json::json!({"transform": chain.0, "written": outputs}));
    }
    written
}

/// The image's own name in the folder; a pair of files becomes .nii.gz.
fn output(image: &Path, args: &Args) -> Result<PathBuf> {
    let name = image.file_name().ok_or_else(|| Error::Usage(format!("{}: expected a file", image.display())))?;
    let mut output = args.output.join(name);
    if nifti::expect_name(&output).is_err() {
        output.set_extension("nii.gz");
    }
    let place = output.canonicalize().ok();
    let inputs = args.images.iter().chain([&args.like]);
    if place.is_some() && inputs.map(|i| i.canonicalize().ok()).any(|input| input == place) {
        return Err(Error::Usage(format!("{} is an input, choose another folder", output.display())));
    }
    Ok(output)
}
