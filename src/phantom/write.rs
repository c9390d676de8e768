//! Writing a patient: NIfTI images and masks, and the ground truth as JSON.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Patient, PhasePhantom};
use crate::error::{Error, Result};
use crate::io::nifti::{self, Image};
use crate::io::write_atomic;
use crate::volume::{BACKGROUND, KIDNEY, TUMOUR};

impl Patient {
    /// Writes `<phase>.nii.gz` and `<phase>_mask.nii.gz` for every phase, and `truth.json`, to `dir`, which is created if needed, and
    /// returns their paths. The labels of the masks are 0 background, 1 kidney, 2 tumour.
    ///
    /// # Errors
    /// [`Error::File`] where the folder cannot be created or a file cannot be written.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, "the folder cannot be created", e))?;
        let mut paths = Vec::new();
        for phase in &self.phases {
            let mask = phase.mask.to_volume();
            for (name, volume) in [(image_name(phase), phase.image.clone()), (mask_name(phase), mask)] {
                let path = dir.join(name);
                nifti::write(&path, &Image::new(volume))?;
                paths.push(path);
            }
        }
        let path = dir.join("truth.json");
        let text = serde_json::to_string_pretty(&self.truth()).map_err(|e| Error::other("truth.json", e))?;
        write_atomic(&path, |file| writeln!(file, "{text}"))?;
        paths.push(path);
        Ok(paths)
    }

    /// The content of `truth.json`. All positions are RAS+ millimetres. A point p of the portal phase is the point affine (p + u(p)) of
    /// a phase, with u(p) = sum over modes of amplitude * sin(wave . p + phase) and wave in radians per mm.
    pub fn truth(&self) -> Value {
        let phases: Vec<Value> = self
            .phases
            .iter()
            .map(|p| {
                json!({
                    "phase": p.phase,
                    "image": image_name(p),
                    "mask": mask_name(p),
                    "affine": p.transform.0,
                    "deformation": p.deformation,
                })
            })
            .collect();
        json!({
            "space": "RAS+ mm; portal point p -> phase point affine (p + u(p)), u(p) = sum amplitude sin(wave . p + phase)",
            "labels": { "background": BACKGROUND, "kidney": KIDNEY, "tumour": TUMOUR },
            "seed": self.seed,
            "subtype": self.subtype,
            "tumour": self.tumour,
            "phases": phases,
        })
    }
}

fn image_name(phase: &PhasePhantom) -> String {
    format!("{}.nii.gz", phase.phase)
}

fn mask_name(phase: &PhasePhantom) -> String {
    format!("{}_mask.nii.gz", phase.phase)
}
