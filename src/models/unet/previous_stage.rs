//! The second stage of a cascade: what it takes of the first one's mask.

use super::labels::values;
use super::plan_data::{Order, Resampling, SeparateAxis};
use crate::error::Result;
use crate::models::json::Node;

/// The stage before the network of a cascade. The network's input has a channel for each of its labels behind the image's own:
/// 1 where the stage's mask, resampled to the network's grid, has that label, else 0.
#[derive(Debug, Clone, PartialEq)]
pub struct PreviousStage {
    /// The name of its configuration in plans.json.
    pub configuration: String,
    /// The labels that have a channel: all of dataset.json but the background, ascending.
    pub labels: Vec<u8>,
    /// Resampling of its mask: the nearest voxel, or the label of the largest linear weight.
    pub resampling: Resampling,
}

/// The previous stage of a configuration; None where it has none.
///
/// # Errors
/// Labels with gaps, for which nnU-Net's masks do not hold dataset.json's values; a resampling of labels that is not supported.
pub(super) fn read(configuration: &Node<'_>, dataset: &Node<'_>) -> Result<Option<PreviousStage>> {
    let Some(name) = configuration.optional("previous_stage") else { return Ok(None) };
    let node = dataset.key("labels")?;
    let mut labels = Vec::new();
    for (name, value) in node.members()? {
        if name != "ignore" {
            labels.extend(values(&value)?);
        }
    }
    labels.retain(|label| *label != 0);
    labels.sort_unstable();
    labels.dedup();
    if !labels.iter().zip(1..).all(|(label, place)| *label == place) {
        return Err(node.mismatch("the labels 1, 2, 3, ... without gaps, for a model with a previous stage"));
    }
    let name = name.text()?;
    Ok(Some(PreviousStage { configuration: name.to_owned(), labels, resampling: resampling(configuration)? }))
}

/// nnU-Net's `resampling_fn_seg`.
fn resampling(configuration: &Node<'_>) -> Result<Resampling> {
    let Some(function) = configuration.optional("resampling_fn_seg") else {
        let stage = configuration.key("previous_stage")?;
        return Err(stage.mismatch("resampling_fn_seg beside it, for its labels"));
    };
    let kwargs = configuration.optional("resampling_fn_seg_kwargs");
    let setting = |name: &str| kwargs.as_ref().and_then(|kwargs| kwargs.optional(name));
    let mut resampling = Resampling { separate: SeparateAxis::Never, ..Resampling::of_order(Order::Linear) };
    match function.text()? {
        "no_resampling_hack" => Ok(Resampling { enabled: false, ..resampling }),
        "resample_data_or_seg_to_shape" => {
            let kwargs = configuration.key("resampling_fn_seg_kwargs")?;
            kwargs.expect_keys(&[
                "is_seg",
                "order",
                "order_z",
                "force_separate_z",
                "separate_z_anisotropy_threshold",
            ])?;
            if !kwargs.key("is_seg")?.boolean()? {
                return Err(kwargs.key("is_seg")?.mismatch(true));
            }
            let order = kwargs.key("order")?;
            resampling.order = match order.count()? {
                0 => Order::Nearest,
                1 => Order::Linear,
                _ => return Err(order.mismatch("order 0 or 1, for labels of a previous stage")),
            };
            if let Some(across) = setting("order_z")
                && across.count()? != 0
            {
                return Err(across.mismatch("order 0 across slices, for labels of a previous stage"));
            }
            // Without the argument the function's own default is never.
            resampling.separate = match setting("force_separate_z") {
                Some(node) if node.boolean()? => SeparateAxis::Always,
                None if kwargs.has("force_separate_z") => SeparateAxis::WhenAnisotropic,
                _ => SeparateAxis::Never,
            };
            if let Some(threshold) = setting("separate_z_anisotropy_threshold") {
                resampling.anisotropy = threshold.number()?;
            }
            Ok(resampling)
        }
        _ => Err(function.mismatch(
            "resample_data_or_seg_to_shape or no_resampling_hack, which are supported for labels of a previous stage",
        )),
    }
}
