//! The channels whose Dice the loss averages: sets of labels.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Largest number of channels: with four, a unit of a GPU still has a register for every sum.
pub const MAX_CHANNELS: usize = 4;

/// One to [`MAX_CHANNELS`] sets of labels; a label may be in several. The text form is `2/1,2`, with channels separated by slashes.
///
/// Label 0 is background and in no set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    count: usize,
    /// One byte for each label, in which bit c is set where channel c contains the label.
    members: [u8; 256],
}

impl Channels {
    /// One channel for each set of labels.
    ///
    /// # Errors
    /// No set or more than [`MAX_CHANNELS`]; an empty set; a set with label 0.
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

    /// The labels of channel `channel`, ascending; empty where there is no such channel.
    pub fn labels(&self, channel: usize) -> Vec<u8> {
        (1..=255)
            .filter(|&label| channel < self.count && self.members[usize::from(label)] >> channel & 1 == 1)
            .collect()
    }

    /// The channels that contain a label, as bits: bit c for channel c.
    pub fn members(&self, label: u8) -> u8 {
        self.members[usize::from(label)]
    }

    /// Whether any channel contains a label.
    pub fn contains(&self, label: u8) -> bool {
        self.members(label) != 0
    }

    /// [`Self::members`] of every label.
    pub(super) fn table(&self) -> &[u8; 256] {
        &self.members
    }

    /// The weights of a mean: the same for every channel.
    pub fn mean(&self) -> Vec<f64> {
        vec![1.0 / self.count as f64; self.count]
    }
}

impl Default for Channels {
    /// The channels of the paper: the tumour {2}, and kidney and tumour {1, 2}.
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
