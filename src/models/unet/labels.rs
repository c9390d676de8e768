//! What a network's outputs stand for: the labels of dataset.json.

use crate::error::Result;
use crate::models::json::{JsonFile, Node};
use crate::ops::tile::Heads;
use crate::{shown, shown_list};

/// A label or region that a network finds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// Its name in dataset.json.
    pub name: String,
    /// What the mask holds where nothing overrides it.
    pub value: u8,
    /// The mask's values that belong to it: its own, and for a region those of the regions inside it.
    pub members: Vec<u8>,
}

/// The labels of a segmentation model.
///
/// Labels exclude one another: the network has an output for each, background included. Regions may lie inside one another:
/// the network has an output for each, and where several are found the one that `regions_class_order` names last wins.
/// Source: nnU-Net v2, `LabelManager`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetLabels {
    targets: Vec<Target>,
    regions: bool,
    /// The values of the regions, in the order of the network's outputs; empty for labels.
    values: Vec<u8>,
    warning: Option<String>,
}

/// 255 marks a voxel that has no label.
const MAX_VALUE: usize = 254;

impl TargetLabels {
    /// Labels 0, 1, 2, ... with these names; the first is the background.
    pub fn exclusive(names: &[&str]) -> Self {
        let target = |(value, name): (usize, &&str)| {
            let value = value.min(MAX_VALUE) as u8;
            Target { name: (*name).to_owned(), value, members: vec![value] }
        };
        let targets = names.iter().enumerate().skip(1).map(target).collect();
        Self { targets, regions: false, values: Vec::new(), warning: None }
    }

    /// As a plan reads them from dataset.json.
    ///
    /// # Errors
    /// No background label 0, a label over 254, regions without an order or with one of another length.
    pub(crate) fn parse(dataset: &JsonFile) -> Result<Self> {
        Self::read(&dataset.root())
    }

    /// From dataset.json.
    ///
    /// # Errors
    /// No background label 0, a label over 254, regions without an order or with one of another length.
    pub(super) fn read(dataset: &Node<'_>) -> Result<Self> {
        let node = dataset.key("labels")?;
        let background = node.key("background")?;
        if background.count()? != 0 {
            return Err(background.mismatch(0));
        }
        let mut found = Vec::new();
        for (name, value) in node.members()? {
            // The ignore label marks voxels that training passes over: no network has an output for it.
            if name != "ignore" && name != "background" {
                found.push((name.to_owned(), values(&value)?));
            }
        }
        if found.iter().any(|(_, values)| values.len() > 1) { regions(dataset, found) } else { labels(&node, found) }
    }

    /// The labels or regions in the order of the network's outputs, the background left out.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Outputs of the network.
    pub fn outputs(&self) -> usize {
        self.targets.len() + usize::from(!self.regions)
    }

    /// Whether they are regions, which may overlap.
    pub fn are_regions(&self) -> bool {
        self.regions
    }

    /// What the user should know.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// How logits become labels.
    pub(crate) fn heads(&self) -> Heads<'_> {
        if self.regions { Heads::Sigmoid(&self.values) } else { Heads::Softmax }
    }
}

/// One label, or the labels of a region.
pub(super) fn values(node: &Node<'_>) -> Result<Vec<u8>> {
    let value = |node: &Node<'_>| match node.count()? {
        value @ 0..=MAX_VALUE => Ok(value as u8),
        _ => Err(node.mismatch(format!("a label of at most {MAX_VALUE}"))),
    };
    let mut values =
        if node.is_list() { node.list()?.iter().map(value).collect::<Result<_>>()? } else { vec![value(node)?] };
    values.sort_unstable();
    values.dedup();
    if values.is_empty() { Err(node.mismatch("at least one label")) } else { Ok(values) }
}

/// nnU-Net writes the number of the largest output: for labels with gaps that is the label's place among them.
fn labels(node: &Node<'_>, mut found: Vec<(String, Vec<u8>)>) -> Result<TargetLabels> {
    found.sort_by_key(|(_, values)| values[0]);
    if found.is_empty() || found.iter().any(|(_, values)| values[0] == 0) || found.windows(2).any(|w| w[0].1 == w[1].1)
    {
        return Err(node.mismatch("background 0 and at least one other label, each of its own value"));
    }
    let moved: Vec<String> = found
        .iter()
        .zip(1..)
        .filter(|((_, values), place)| values[0] != *place)
        .map(|((name, values), place)| format!("{} ({} in dataset.json) is written as {place}", shown(name), values[0]))
        .collect();
    let warning = (!moved.is_empty())
        .then(|| format!("dataset.json's labels have gaps; as nnU-Net does, {}", shown_list(&moved)));
    let target = |((name, _), value): ((String, Vec<u8>), u8)| Target { name, value, members: vec![value] };
    let targets = found.into_iter().zip(1..).map(target).collect();
    Ok(TargetLabels { targets, regions: false, values: Vec::new(), warning })
}

fn regions(dataset: &Node<'_>, found: Vec<(String, Vec<u8>)>) -> Result<TargetLabels> {
    let found: Vec<_> = found.into_iter().filter(|(_, members)| members != &[0]).collect();
    let order = dataset.key("regions_class_order")?;
    let list = order.list()?;
    if list.len() != found.len() {
        return Err(order.mismatch(format!("{} values, one for each region", found.len())));
    }
    let mut values = Vec::new();
    for node in &list {
        values.push(match node.count()? {
            value @ 1..=MAX_VALUE => value as u8,
            _ => return Err(node.mismatch(format!("a label from 1 to {MAX_VALUE}"))),
        });
    }
    // The mask holds the regions' values, so a region is its own value and those of the regions inside it.
    let inside = |outer: &[u8]| {
        let is_inside = |(_, inner): &(String, Vec<u8>)| inner.iter().all(|label| outer.contains(label));
        let values = found.iter().zip(&values).filter(|(region, _)| is_inside(region)).map(|(_, value)| *value);
        let mut values: Vec<u8> = values.collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let target = |((name, labels), value): (&(String, Vec<u8>), &u8)| Target {
        name: name.clone(),
        value: *value,
        members: inside(labels),
    };
    let targets = found.iter().zip(&values).map(target).collect();
    Ok(TargetLabels { targets, regions: true, values, warning: None })
}
