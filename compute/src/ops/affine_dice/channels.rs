//! Which labels make up the channels whose Dice the loss averages.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The largest number of channels: with four, a unit of a GPU still has a register for every sum.
pub const MAX_CHANNELS: usize = 4;

/// One to [`MAX_CHANNELS`] sets of labels; a label may be in several. As text `2/1,2`: channels between slashes.
///
/// Label 0 is background and in no set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    count: usize,
    /// A byte per label: bit c says whether channel c has the label.
    members: [u8; 256],
}

impl Channels {
    /// A channel for each set.
    ///
    /// # Errors
    /// No set or more than [`MAX_CHANNELS`]; an empty set; label 0 in one.
    pub fn new(sets: &[&[u8]]) -> Result<Self> {
        if sets.is_empty() || sets.len() > MAX_CHANNELS {
            let found = format!("{} of them", sets.len());
            return Err(Error::argument("channels", format!("1 to {MAX_CHANNELS} sets of labels"), found));
        }
        let mut members = [0u8; 256];
        for (channel, set) in sets.iter().enumerate() {
            if set.is_empty() || set.contains(&0) {
                return Err(Error::argument("channels", "labels from 1 to 255 in each set", format!("{set:?}")));
            }
            for &label in *set {
                members[usize::from(label)] |= 1 << channel;
            }
        }
        Ok(Self { count: sets.len(), members })
    }

    /// The number of channels.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The labels of channel `channel`, ascending; none where there is no such channel.
    pub fn labels(&self, channel: usize) -> Vec<u8> {
        (1..=255)
            .filter(|&label| channel < self.count && self.members[usize::from(label)] >> channel & 1 == 1)
            .collect()
    }

    /// Bit c says whether channel c has the label.
    pub fn members(&self, label: u8) -> u8 {
        self.members[usize::from(label)]
    }

    /// Is it in any channel?
    pub fn contains(&self, label: u8) -> bool {
        self.members(label) != 0
    }

    /// [`Self::members`] of every label.
    pub(super) fn table(&self) -> &[u8; 256] {
        &self.members
    }

    /// The mean: every channel counts the same.
    pub fn mean(&self) -> Vec<f64> {
        vec![1.0 / self.count as f64; self.count]
    }
}

impl Default for Channels {
    /// The paper's: the tumour {2}, and kidney and tumour {1, 2}.
    fn default() -> Self {
        let mut members = [0; 256];
        (members[1], members[2]) = (0b10, 0b11);
        Self { count: 2, members }
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets: Vec<String> =
            (0..self.count).map(|c| self.labels(c).iter().map(u8::to_string).collect::<Vec<_>>().join(",")).collect();
        f.write_str(&sets.join("/"))
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channels({self})")
    }
}

impl FromStr for Channels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let labels = |set: &str| set.split(',').map(|label| label.trim().parse::<u8>()).collect::<Result<Vec<_>, _>>();
        let sets: Vec<Vec<u8>> = text
            .split('/')
            .map(labels)
            .collect::<Result<_, _>>()
            .map_err(|_| Error::argument("channels", "sets of labels such as 2/1,2", format!("'{text}'")))?;
        Self::new(&sets.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
}
