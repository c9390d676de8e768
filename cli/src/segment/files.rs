//! How the images of a model are read and their masks written: as its reader in nnU-Net does.

use std::path::{Path, PathBuf};

use crate::error::Result;
use nephron::error::Error as LibraryError;
use nephron::io::nifti::{self, Image};
use nephron::io::{images, pictures};
use nephron::models::ImageReader;
use nephron::volume::{LabelVolume, Volume};

/// The kind of files that a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Images of a patient; their masks are NIfTI.
    Volumes,
    /// Pictures whose colours are channels; a mask has the picture's format.
    Pictures,
    /// TIFFs of a page a slice, as their masks are, with the spacing in a JSON file beside them.
    TiffStacks,
}

/// A case's image.
pub(super) struct Images {
    pub(super) channels: Vec<Volume>,
    /// The spacing (d, h, w) that the first file gives.
    pub(super) spacing: [f64; 3],
    /// What NIfTI files that belong to the image take their header from.
    pub(super) image: Image,
    pub(super) warnings: Vec<String>,
}

impl Format {
    pub(super) fn of(reader: ImageReader) -> Self {
        match reader {
            ImageReader::Pictures => Self::Pictures,
            ImageReader::TiffStacks => Self::TiffStacks,
            _ => Self::Volumes,
        }
    }

    /// The endings of the names of images.
    pub(super) fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Volumes => &images::ENDINGS,
            Self::Pictures => &pictures::ENDINGS,
            Self::TiffStacks => &pictures::STACK_ENDINGS,
        }
    }

    /// A file's name without the ending of an image, and the ending of its mask.
    pub(super) fn split(self, file: &Path) -> (String, String) {
        let name = || file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Self::Volumes => (images::stem(file).unwrap_or_else(name), ".nii.gz".into()),
            // The reader refuses what is no picture.
            _ => match pictures::split(file, self.endings()) {
                Some((stem, ending)) => (stem.to_owned(), ending.to_owned()),
                None => (name(), self.endings()[0].to_owned()),
            },
        }
    }

    /// Reads the files of an image, each of one or several channels.
    pub(super) fn read(self, files: &[PathBuf]) -> Result<Images> {
        let Some(first) = files.first() else { return Err(LibraryError::Inputs("no image".into()).into()) };
        if self == Self::Volumes {
            return volumes(files);
        }
        let mut warnings = Vec::new();
        let (spacing, channels) = if self == Self::Pictures {
            let read: nephron::Result<Vec<_>> = files.iter().map(pictures::read).collect();
            (pictures::SPACING, read?.into_iter().flatten().collect::<Vec<_>>())
        } else {
            let spacing = pictures::stack_spacing(first)?;
            if spacing.is_none() {
                let file = pictures::spacing_file(first);
                warnings.push(format!("there is no {} with the spacing: taken to be 1 x 1 x 1", file.display()));
            }
            let spacing = spacing.unwrap_or([1.0; 3]);
            let read: nephron::Result<Vec<_>> = files.iter().map(|file| pictures::read_stack(file, spacing)).collect();
            (spacing, read?)
        };
        // A file that was read has at least one channel.
        let Some(volume) = channels.first() else { return Err(LibraryError::file(first, "no image").into()) };
        let image = Image::new(volume.clone());
        Ok(Images { channels, spacing, image, warnings })
    }

    /// Writes the mask of an image.
    pub(super) fn write_mask(self, path: &Path, image: &Image, spacing: [f64; 3], mask: &LabelVolume) -> Result<()> {
        match self {
            Self::Volumes => nifti::write(path, &image.with_volume(mask.clone())),
            Self::Pictures => pictures::write_labels(path, mask),
            Self::TiffStacks => pictures::write_stack(path, mask, spacing),
        }?;
        Ok(())
    }

    /// The file with the spacing of an image, which may be missing.
    pub(super) fn image_spacing_file(self, image: &Path) -> Option<PathBuf> {
        (self == Self::TiffStacks).then(|| pictures::spacing_file(image))
    }

    /// The file with the spacing that belongs to a mask.
    pub(super) fn mask_spacing_file(self, mask: &Path) -> Option<PathBuf> {
        (self == Self::TiffStacks).then(|| pictures::mask_spacing_file(mask))
    }
}

fn volumes(files: &[PathBuf]) -> Result<Images> {
    let (mut channels, mut warnings, mut first) = (Vec::new(), Vec::new(), None);
    for file in files {
        let (volumes, image) = images::read_channels(file)?;
        channels.extend(volumes);
        warnings.extend(image.warnings.iter().cloned());
        first.get_or_insert(image);
    }
    let Some(image) = first else { return Err(LibraryError::Inputs("no image".into()).into()) };
    Ok(Images { channels, spacing: image.header_spacing(), image, warnings })
}
