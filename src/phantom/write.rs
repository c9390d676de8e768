//! Writing a patient: NIfTI images and masks, and the ground truth as JSON.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Patient;
use crate::error::{Error, Result};
use crate::io::nifti::{self, Image};
use crate::io::{try_folder, write_atomic};
use crate::phase::Phase;
use crate::volume::{BACKGROUND, KIDNEY, TUMOUR};

impl Patient {
    /// Writes `<phase>.nii.gz` and `<phase>_mask.nii.gz` for every phase, and `truth.json`, to `dir`, which is created if needed, and
    /// returns their paths. The labels of the masks are 0 background, 1 kidney, 2 tumour.
    ///
    /// What an earlier patient left of these names, of any phase, is removed first, and `truth.json` is written last: a folder with
    /// it is complete and of one patient.
    ///
    /// # Errors
    /// [`Error::File`] where the folder cannot be created or a file cannot be removed or written.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let dir = dir.as_ref();
        try_folder(dir)?;
        clear(dir)?;
        let mut paths = Vec::new();
        for phase in &self.phases {
            let mask = phase.mask.to_volume();
            for (name, volume) in [(image_name(phase.phase), phase.image.clone()), (mask_name(phase.phase), mask)] {
                let path = dir.join(name);
                nifti::write(&path, &Image::new(volume))?;
                paths.push(path);
            }
        }
        let path = dir.join(TRUTH);
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
                    "image": image_name(p.phase),
                    "mask": mask_name(p.phase),
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
            "noise": self.noise,
            "tumours": self.tumours,
            "cysts": self.cysts,
            "phases": phases,
        })
    }
}

/// The file that is written last.
const TRUTH: &str = "truth.json";

/// Removes an earlier patient, its truth first.
fn clear(dir: &Path) -> Result<()> {
    let phases = Phase::ALL.into_iter().flat_map(|phase| [image_name(phase), mask_name(phase)]);
    for name in std::iter::once(TRUTH.to_owned()).chain(phases) {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(&path, "cannot be replaced", e)),
            _ => {}
        }
    }
    Ok(())
}

fn image_name(phase: Phase) -> String {
    format!("{phase}.nii.gz")
}

fn mask_name(phase: Phase) -> String {
    format!("{phase}_mask.nii.gz")
}
