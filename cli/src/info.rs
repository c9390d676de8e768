//! `nephron info`: the properties of an image as nephron reads it.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Result;
use crate::options::{CpuArgs, JsonArgs};
use nephron::io::images::{self, Format};
use nephron::io::lossy;
use nephron::io::nifti::{Extension, GeometrySource, Image, Version};

const EXAMPLES: &str = "\
Examples:
  nephron info scan.nii.gz
  nephron info scan.mha --json";

/// Print shape, spacing, orientation, dtype and geometry source of an image.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("threads", |arg| arg.hide(true)))]
pub struct Args {
    /// An image: NIfTI (.nii, .nii.gz, .hdr, .img), MetaImage (.mha, .mhd) or NRRD (.nrrd, .nhdr)
    file: PathBuf,
    #[command(flatten)]
    pub(crate) cpu: CpuArgs,
}

/// The JSON of `info`. Axes are the file's own, (i, j, k).
#[derive(Serialize)]
struct Info {
    #[serde(serialize_with = "lossy")]
    file: PathBuf,
    format: &'static str,
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    orientation: String,
    dtype: String,
    loaded_as: String,
    geometry: &'static str,
    /// Those of a NIfTI header.
    sform_code: Option<i64>,
    qform_code: Option<i64>,
    slope: f64,
    inter: f64,
    minimum: Option<f32>,
    maximum: Option<f32>,
    not_finite: usize,
    extensions: Vec<ExtensionInfo>,
    affine: [[f64; 4]; 3],
    warnings: Vec<String>,
}

/// A header extension.
#[derive(Serialize)]
struct ExtensionInfo {
    /// The kind of the data, NIFTI_ECODE_*.
    code: i32,
    /// Number of bytes of its data.
    bytes: usize,
}

impl ExtensionInfo {
    fn of(extension: &Extension) -> Self {
        Self { code: extension.code, bytes: extension.data.len() }
    }
}

impl Info {
    fn of(file: PathBuf, image: Image) -> Self {
        let Image { volume, header, warnings } = image;
        let [d, h, w] = volume.shape();
        let range = volume.voxels().range();
        let (slope, inter) = header.scale.unwrap_or((1.0, 0.0));
        let format = Format::of(&file);
        let is_nifti = format == Format::Nifti;
        Self {
            file,
            format: match (format, header.version) {
                (Format::MetaImage, _) => "MetaImage",
                (Format::Nrrd, _) => "NRRD",
                (Format::Nifti, Version::One) => "NIfTI-1",
                (Format::Nifti, Version::Two) => "NIfTI-2",
            },
            shape: [w, h, d],
            spacing_mm: volume.affine().spacing(),
            orientation: volume.orientation().to_string(),
            dtype: header.stored.to_string(),
            loaded_as: volume.voxels().dtype().to_string(),
            geometry: match header.geometry.source {
                _ if !is_nifti => "header",
                GeometrySource::Sform => "sform",
                GeometrySource::Qform => "qform",
                GeometrySource::Pixdim => "pixdim",
            },
            sform_code: is_nifti.then_some(header.geometry.sform_code),
            qform_code: is_nifti.then(|| header.geometry.qform.map_or(0, |qform| qform.code)),
            slope,
            inter,
            minimum: range.map(|(low, _)| low),
            maximum: range.map(|(_, high)| high),
            not_finite: volume.not_finite(),
            extensions: header.extensions.iter().map(ExtensionInfo::of).collect(),
            affine: volume.affine().0,
            warnings,
        }
    }

    fn print(&self) -> Result<()> {
        let [i, j, k] = self.shape;
        let [x, y, z] = self.spacing_mm;
        say!("{}: {}", self.file.display(), self.format)?;
        say!("shape        {i} x {j} x {k} (i, j, k)")?;
        say!("spacing      {x:.4} x {y:.4} x {z:.4} mm")?;
        say!("orientation  {}", self.orientation)?;
        say!("dtype        {}, loaded as {}", self.dtype, self.loaded_as)?;
        match (self.sform_code, self.qform_code) {
            (Some(sform), Some(qform)) => {
                say!("geometry     {} (sform code {sform}, qform code {qform})", self.geometry)?;
            }
            _ => say!("geometry     {}", self.geometry)?,
        }
        say!("scaling      slope {}, inter {}", self.slope, self.inter)?;
        match (self.minimum, self.maximum) {
            (Some(low), Some(high)) => say!("values       {low} to {high}")?,
            _ => say!("values       all NaN")?,
        }
        if self.not_finite > 0 {
            say!("not finite   {} voxels", self.not_finite)?;
        }
        for ExtensionInfo { code, bytes } in &self.extensions {
            say!("extension    code {code}, {bytes} bytes")?;
        }
        say!("affine       index (i, j, k) to RAS+ mm")?;
        for [a, b, c, t] in self.affine {
            say!("             {a:12.6} {b:12.6} {c:12.6} {t:12.4}")?;
        }
        Ok(())
    }
}

/// Runs the verb.
pub fn run(args: &Args, output: &JsonArgs) -> Result<()> {
    let info = Info::of(args.file.clone(), images::read(&args.file)?);
    for warning in &info.warnings {
        note!("warning: {}: {warning}", args.file.display());
    }
    if output.json {
        return output.print_json(&info);
    }
    info.print()?;
    Ok(())
}
