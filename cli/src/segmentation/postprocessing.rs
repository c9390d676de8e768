//! nnU-Net's postprocessing: which file is applied, and the note on one that is not.

use std::path::PathBuf;

use crate::error::{Error, Result};
use nephron::pipeline::{Ensemble, Postprocessing};

/// `--postprocessing`.
#[derive(Debug, Clone)]
pub enum Choice {
    /// Nothing is applied.
    None,
    /// What the model folder holds.
    Auto,
    /// A file.
    File(PathBuf),
}

/// Parses `none`, `auto` or a path.
pub fn parse(text: &str) -> Result<Choice, String> {
    Ok(match text {
        "none" => Choice::None,
        "auto" => Choice::Auto,
        "" => return Err("expected none, auto or a file".into()),
        file => Choice::File(file.into()),
    })
}

/// The postprocessing to apply. Says what was found and not applied, or asked for and not found.
pub fn load(choice: &Choice, ensemble: &Ensemble) -> Result<Option<Postprocessing>> {
    let members = ensemble.members();
    match choice {
        Choice::File(file) => Ok(Some(Postprocessing::read(file)?)),
        Choice::Auto if members.len() > 1 => {
            let reason = "expected one model: give the postprocessing.pkl of the ensemble, or none";
            Err(Error::Usage(format!("--postprocessing auto: {reason}, found {} models", members.len())))
        }
        Choice::Auto => {
            let found = Postprocessing::choose(members[0].postprocessing(), members[0].fold_names());
            let found = found.map_err(Error::wrong_argument)?;
            match &found {
                Some(found) => note!("postprocessing: {}", found.file.display()),
                None => note!("note: --postprocessing auto: the model has no postprocessing.pkl, none is applied"),
            }
            Ok(found)
        }
        Choice::None => {
            for found in members.iter().flat_map(|member| member.postprocessing()) {
                note!(
                    "note: {} was found and is not applied (--postprocessing auto, or its path)",
                    found.path.display()
                );
            }
            Ok(None)
        }
    }
}
