//! Contrast phases and tumour subtypes, and the set of phases of a patient.

mod set;

pub use set::PhaseSet;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A contrast phase of an abdominal CT, in the order of acquisition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before contrast medium (N).
    NonContrast,
    /// 20-30 s after the injection: the renal cortex is bright, the medulla is not (A).
    Arterial,
    /// 60-70 s: the whole parenchyma is bright (P).
    Portal,
    /// Later than 180 s: contrast medium reaches the renal pelvis (D).
    Delayed,
}

impl Phase {
    /// All phases, in order; `phase as usize` is the index in this list.
    pub const ALL: [Self; 4] = [Self::NonContrast, Self::Arterial, Self::Portal, Self::Delayed];

    /// The name in file names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::NonContrast => "non-contrast",
            Self::Arterial => "arterial",
            Self::Portal => "portal",
            Self::Delayed => "delayed",
        }
    }

    /// Guesses the phase from the name of a file; None where the name indicates no phase. The name is split at everything but
    /// letters and digits. A part such as `arterial`, with digits around it ignored, indicates a phase anywhere in the name. The
    /// letters N, A, P and D do so only as a part of their own that is followed by nothing but numbers; `3D` indicates none.
    ///
    /// # Errors
    /// [`Error::Inputs`] for a name that indicates two phases.
    pub fn guess(name: &str) -> Result<Option<Self>, Error> {
        let lower = name.to_lowercase().replace(['-', '_', ' ', '.'], "-");
        let lower = lower.replace("non-contrast", "noncontrast").replace("pre-contrast", "precontrast");
        let lettered = |part: &&str| part.contains(char::is_alphabetic);
        let parts: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(lettered).collect();
        let mut found: Vec<Self> = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let phase = match part.trim_matches(|c: char| c.is_ascii_digit()) {
                "noncontrast" | "precontrast" | "unenhanced" | "native" | "plain" | "nc" | "ncct" => Self::NonContrast,
                "arterial" | "artery" | "art" | "corticomedullary" => Self::Arterial,
                "portal" | "portovenous" | "portalvenous" | "venous" | "ven" | "pv" | "pvp" => Self::Portal,
                "delayed" | "delay" | "del" | "late" | "excretory" | "urographic" => Self::Delayed,
                "n" | "a" | "p" | "d" if part.len() == 1 && i + 1 == parts.len() => part.parse()?,
                _ => continue,
            };
            found.push(phase);
        }
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [] => Ok(None),
            [phase] => Ok(Some(*phase)),
            several => {
                Err(Error::Inputs(format!("expected a name of one phase, found {} in {name:?}", names(several))))
            }
        }
    }

    /// The letter of the phase: N, A, P or D.
    pub fn letter(self) -> char {
        match self {
            Self::NonContrast => 'N',
            Self::Arterial => 'A',
            Self::Portal => 'P',
            Self::Delayed => 'D',
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Phase {
    type Err = Error;

    /// Parses the name or the letter, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|p| text.eq_ignore_ascii_case(p.name()) || text.eq_ignore_ascii_case(&p.letter().to_string()))
            .ok_or_else(|| Error::argument("phase", format!("one of {}", names(&Self::ALL)), format!("{text:?}")))
    }
}

/// A renal-tumour subtype. The order is that of the classifier's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subtype {
    /// Oncocytoma.
    #[serde(rename = "oncocytoma")]
    Oncocytoma,
    /// Angiomyolipoma.
    #[serde(rename = "AML")]
    Angiomyolipoma,
    /// Chromophobe renal-cell carcinoma.
    #[serde(rename = "chRCC")]
    Chromophobe,
    /// Papillary renal-cell carcinoma.
    #[serde(rename = "pRCC")]
    Papillary,
    /// Clear-cell renal-cell carcinoma.
    #[serde(rename = "ccRCC")]
    ClearCell,
}

impl Subtype {
    /// All subtypes, in class order; `subtype as usize` is the class.
    pub const ALL: [Self; 5] =
        [Self::Oncocytoma, Self::Angiomyolipoma, Self::Chromophobe, Self::Papillary, Self::ClearCell];

    /// The name in results and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Oncocytoma => "oncocytoma",
            Self::Angiomyolipoma => "AML",
            Self::Chromophobe => "chRCC",
            Self::Papillary => "pRCC",
            Self::ClearCell => "ccRCC",
        }
    }
}

impl fmt::Display for Subtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Subtype {
    type Err = Error;

    /// Parses the name, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|s| text.eq_ignore_ascii_case(s.name()))
            .ok_or_else(|| Error::argument("subtype", format!("one of {}", names(&Self::ALL)), format!("{text:?}")))
    }
}

fn names(all: &[impl ToString]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
